"""The hash chain of a writer: every row and gap it kept, in order, each bound to the one before.

Owns the arithmetic: which columns are bound, how, and what stays provable when a person is erased. Does not
know files, stores or keys. A chain belongs to one opening (epoch) of one spool (writer) and begins with a hash
that anybody can compute::

    hash = SHA-256(hash before | position | commitment | other columns as JSON)
    commitment = SHA-256(salt | personal columns as JSON)

A caller's groups are the last of the personal columns, where there are any: rows of before there was that column
keep their hashes. An END says both texts as they are bound, so a row that was just written is bound from its bytes;
what comes back from a disk or a store is written down again from its columns, with the same result.

The personal columns are bound through a salted commitment: erasing them and the salt, and keeping the
commitment, leaves the chain as it was and tells nothing, because without the salt no guess can be tried. The
salt comes from a secret that lives in the segment's header and goes with it; so a replayed segment makes the
same hashes, and after it has gone the store has the only copy.

A row carries its ``seal``, what it takes to compute its hash again: kind (1 byte), position in the chain
(8 bytes, big-endian), then the salt (16 bytes), or the commitment (32 bytes) once erased. Rows of
interrupted exchanges stand alone (kind 2): only an END has a place in the order of the spool.

A hash proves nothing by itself, since whoever can write the store can compute it: checkpoints, signed, do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256, shake_256
from operator import itemgetter
from typing import Any, Final

import orjson

from proxy.core.audit.row import COLUMNS, END_OF_PERSONAL, PERSONAL_AT, Bound, Gap, Row, Written, row_of
from proxy.core.audit.sanitise import NO_GROUPS

ALONE: Final = 2
"""The first byte of the seal of a row outside of every chain; a row within one has 1 there."""
SALT_BYTES: Final = 16
_SALTS_AT_ONCE: Final = 32
_SALTED_SEAL: Final = 9 + SALT_BYTES
_ERASED_SEAL: Final = 9 + 32

PERSONAL: Final = ("user_id", "conversation", "error_message", "metadata", "caller_groups")
"""Columns that may name a person: bound through the commitment, emptied when the person is erased."""
ERASED: Final[dict[str, Any]] = {
    "user_id": "",
    "conversation": "",
    "error_message": "",
    "metadata": "{}",
    "caller_groups": NO_GROUPS,
    "subject": None,
}
"""What the columns of an erased row hold."""

_OPEN: Final = [name for name in COLUMNS if name not in {*ERASED, "hash", "seal"}]
"""The columns that are bound as they are, in their order."""
_open_columns = itemgetter(*map(Row._fields.index, _OPEN))
_COST: Final = _OPEN.index("cost_usd")
_TIMES_END: Final = _OPEN.index("upstream_ms") + 1
_dumps = orjson.dumps


@dataclass(slots=True)
class Chain:
    """Where a chain stands: the last thing bound to it."""

    writer: str
    epoch: int
    seq: int
    position: int
    hash: bytes
    _salts: bytes = field(default=b"", repr=False, compare=False)
    """The salts at hand, the number of their block, and the secret they come from."""
    _block: int = field(default=-1, repr=False, compare=False)
    _secret: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def begin(cls, writer: str, epoch: int) -> Chain:
        """Return the chain of an opening before its first row."""
        return cls(writer, epoch, 0, 0, sha256(_dumps(("readygate-audit-1", writer, epoch))).digest())

    def copy(self) -> Chain:
        """Return where the chain stands now."""
        return Chain(self.writer, self.epoch, self.seq, self.position, self.hash)

    def bind(self, row: Row, secret: bytes) -> Row:
        """Bind the row of an ended exchange by its columns and return it with its place.

        Unchanged when the chain is past its number already: the frame is a second copy of one that was bound.
        """
        if row.seq <= self.seq:
            return row
        bound = self._bind(row.seq, _personal_text(row), (_open_text(row),), secret)
        return row._replace(hash=bound[0], seal=bound[1])

    def bind_written(self, ended: Sequence[Written], secret: bytes) -> list[Row]:
        """Return the rows of exchanges that ended, each with its place, by the payloads of their ENDs.

        Those must be ``said_as_bound``. A second copy of a frame has no place, as for ``bind``. One loop, because
        every row comes this way.
        """
        writer, epoch = self.writer, self.epoch
        rows = []
        for exchange_id, seq, payload, columns in ended:
            bound = None
            if seq > self.seq:
                end = payload.index(END_OF_PERSONAL[columns[2][-1] != NO_GROUPS], PERSONAL_AT) + 3
                place = _dumps((exchange_id, columns[0], writer, epoch, seq))[:-1]
                bound = self._bind(seq, payload[PERSONAL_AT:end], (place, payload[end:]), secret)
            rows.append(row_of(exchange_id, columns, (writer, epoch, seq), bound))
        return rows

    def _bind(self, seq: int, personal: bytes, others: tuple[bytes, ...], secret: bytes) -> Bound:
        """Bind the next row by its two texts, the second in pieces."""
        block, place = seq // _SALTS_AT_ONCE, seq % _SALTS_AT_ONCE * SALT_BYTES
        if block != self._block or secret is not self._secret:
            self._salts = shake_256(secret + block.to_bytes(8, "big")).digest(SALT_BYTES * _SALTS_AT_ONCE)
            self._block, self._secret = block, secret
        salt = self._salts[place : place + SALT_BYTES]
        self.seq = seq
        self.position = number = self.position + 1
        position = number.to_bytes(8, "big")
        kept = sha256(salt + personal).digest()
        self.hash = bound = sha256(b"".join((self.hash, position, kept, *others))).digest()
        return bound, b"\x01" + position + salt

    def bind_gap(self, gap: Gap) -> Gap:
        """Bind a gap record and return it with its place."""
        if gap.seq <= self.seq:
            return gap
        self.position += 1
        self.hash = gap_hash(self.hash, self.position, gap)
        self.seq = gap.seq
        return gap._replace(position=self.position, hash=self.hash)


def seal_alone(row: Row, secret: bytes) -> Row:
    """Return the row of an interrupted exchange with a hash that stands alone."""
    salt = sha256(secret + row.id.encode()).digest()[:SALT_BYTES]
    sealed = row._replace(seal=bytes((ALONE,)) + bytes(8) + salt)
    return sealed._replace(hash=hash_of(sealed, Chain.begin(row.writer, row.epoch).hash))


def commitment(row: Row) -> bytes | None:
    """Return what binds the personal columns of a row; None when seal or columns are none of ours."""
    sealed = erased_seal(row.seal, row.user_id, row.conversation, row.error_message, row.metadata, row.caller_groups)
    return None if sealed is None else sealed[9:]


def erased_seal(
    seal: bytes | None,
    user_id: str,
    conversation: str,
    error_message: str,
    metadata: str,
    caller_groups: str = NO_GROUPS,
) -> bytes | None:
    """Return the seal that is left when these columns are erased; None when ``seal`` is none of ours."""
    if seal is None or len(seal) == _ERASED_SEAL:
        return seal
    if len(seal) != _SALTED_SEAL:
        return None
    personal = _personal(user_id, conversation, error_message, metadata, caller_groups)
    return seal[:9] + sha256(seal[9:] + personal).digest()


def hash_of(row: Row, before: bytes) -> bytes | None:
    """Return the hash a row must have behind ``before``; None when its seal is none of ours."""
    try:
        bound = commitment(row)
        if bound is None or row.seal is None:
            return None
        return sha256(before + row.seal[1:9] + bound + _open_text(row)).digest()
    except TypeError:  # a column of another type than was ever bound
        return None


def gap_hash(before: bytes, position: int, gap: Gap) -> bytes:
    """Return the hash of a gap record behind ``before``."""
    return sha256(before + position.to_bytes(8, "big") + _dumps(("gap", *gap[:6]))).digest()


def erase(row: Row) -> Row:
    """Return the row without what may name a person; its hash stays provable."""
    seal = erased_seal(row.seal, row.user_id, row.conversation, row.error_message, row.metadata, row.caller_groups)
    return row._replace(**ERASED, seal=seal)


def is_erased(row: Row) -> bool:
    """Say whether the personal columns of this row were erased."""
    return row.seal is not None and len(row.seal) == _ERASED_SEAL


def position_of(row: Row) -> int | None:
    """Return the place a row claims in its chain; None when it stands alone or in no chain."""
    seal = row.seal
    return int.from_bytes(seal[1:9], "big") if seal is not None and seal[:1] == b"\x01" else None


def stands_alone(row: Row) -> bool:
    """Say whether this is the row of an interrupted exchange, outside the order of the chain."""
    return row.seal is not None and row.seal[:1] == b"\x02"


def standing_alone(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of interrupted exchanges among these; cheap where there are none."""
    return [row for row in rows if (seal := row.seal) is not None and seal[:1] == b"\x02"]


def _personal_text(row: Row) -> bytes:
    return _personal(row.user_id, row.conversation, row.error_message, row.metadata, row.caller_groups)


def _personal(user_id: str, conversation: str, error_message: str, metadata: str, caller_groups: str) -> bytes:
    """Return the personal columns as JSON."""
    personal: tuple[str, ...] = (user_id, conversation, error_message, metadata)
    return _dumps(personal if caller_groups == NO_GROUPS else (*personal, caller_groups))


def _open_text(row: Row) -> bytes:
    """Return everything but the personal columns as JSON. Sums and times are floats in every store."""
    columns = _open_columns(row)
    cost, latency, first_token, upstream = columns[_COST:_TIMES_END]
    return _dumps(
        (
            *columns[:_COST],
            None if cost is None else cost + 0.0, None if latency is None else latency + 0.0,
            None if first_token is None else first_token + 0.0, None if upstream is None else upstream + 0.0,
            *columns[_TIMES_END:],
        )
    )  # fmt: skip
