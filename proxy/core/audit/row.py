"""One audit row: its columns, in the orders they are needed in, and how it comes back from the bytes the spool keeps.

Owns the columns of a row and the layouts of BEGIN, END and GAP payloads as they are read (``payload`` writes them),
and what an exchange that never ended looks like. Does not know files, databases or clocks. A payload is the
exchange id (36 ASCII bytes) followed by a JSON array whose first element is the layout version: arrays, because
names would double the bytes written on the request path. An END repeats everything its BEGIN said, so a row never
depends on two frames having survived.

A row holds ids, counts, names, numbers and times: no prompt text, no answer text, no credential.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

import orjson

from proxy.core.audit.sanitise import NO_GROUPS, flag_names
from proxy.terms.outcomes import Status

ID_BYTES: Final = 36
"""Length of the exchange id that opens a BEGIN or END payload."""
RESERVED_BYTES: Final = 2048
"""Room kept on disk for the END of every open exchange; a payload up to this size is stored as it is."""
MAX_ROW_BYTES: Final = 8192
"""Largest payload written; a larger row is cut to it and flagged."""

LAYOUT: Final = 4
"""The layout that is written: an END says a list of the personal columns, then the others in the order of the store,
all of them as the chain binds them."""
PERSONAL_AT: Final = ID_BYTES + len(f"[{LAYOUT},1795300000000,")
"""Where that list begins, in this century and the next."""
END_OF_PERSONAL: Final = (b'}"]', b']"]')
"""How the list of personal columns ends without groups and with them, and nothing else in a payload: a quote behind a
bracket ends a text, and only a text at the end of a list is followed by another bracket."""
_IN_ONE_LIST: Final = 3
"""A layout of before: an END had its columns in one list, personal ones in their places."""
_WITHOUT_GROUPS: Final = 2
"""The layout before that one. Spools of earlier releases may still hold frames of both."""
_KNOWN: Final = frozenset({LAYOUT, _IN_ONE_LIST, _WITHOUT_GROUPS})
_NO_USAGE: Final = (None, None, None, None, 0)
_SORTED: Final = orjson.OPT_SORT_KEYS


class Row(NamedTuple):
    """One audit row as plain values: first what each row has of its own, then what rows of one kind share.

    Times are milliseconds. JSON columns are JSON text. Claims are 0 or 1. ``None`` is "not known": an
    interrupted exchange has no latency. People meet the columns in the order of ``COLUMNS``.
    """

    id: str
    ts: int
    """Unix time, from the UUIDv7 when the id is one, so a replayed row always meets its first copy."""
    seq: int
    """Number of the frame within the spool; a later frame of the same exchange wins."""
    user_id: str
    conversation: str
    attempts: str
    request_bytes: int
    response_bytes: int | None
    tokens_in: int | None
    tokens_out: int | None
    tokens_cached: int | None
    tokens_reasoning: int | None
    latency_ms: float | None
    upstream_ms: float | None
    budget: str
    cost_usd: float | None
    first_token_ms: float | None
    hash: bytes | None
    """The row's place in the chain of its writer, see ``chain.py``."""
    seal: bytes | None
    """What ``hash`` was made with; see ``chain.py``."""
    writer: str
    """The spool that kept the row (a UUID)."""
    epoch: int
    """How many times that spool had been opened."""
    app: str
    caller: str
    route: str
    policy: str
    policy_revision: str
    provider: str
    model_asked: str
    model_served: str
    method: str
    path: str
    stream: int
    status: str
    http_status: int
    outcome: str
    fault: str
    error_code: str
    error_message: str
    attempt_count: int
    tokens_estimated: int
    pii_detected: int
    pii_sanitized: int
    findings: str
    sanitized: str
    response_findings: str
    unscanned_bytes: int
    notes: str
    flags: str
    caller_groups: str
    """Of a verified token, in its order: what ``applies_to.groups`` of a policy looked at."""
    subject: str | None
    metadata: str


OWN_COLUMNS: Final = Row._fields.index("writer")
"""How many columns a row has of its own; those behind them rows share."""
COLUMNS: Final = (
    "id", "ts", "writer", "epoch", "seq", "app", "user_id", "conversation", "caller", "route", "policy",
    "policy_revision", "provider", "model_asked", "model_served", "method", "path", "stream", "status",
    "http_status", "outcome", "fault", "error_code", "error_message", "attempt_count", "attempts", "request_bytes",
    "response_bytes", "tokens_in", "tokens_out", "tokens_cached", "tokens_reasoning", "tokens_estimated", "cost_usd",
    "latency_ms", "first_token_ms", "upstream_ms", "pii_detected", "pii_sanitized", "findings", "sanitized",
    "response_findings", "unscanned_bytes", "budget", "notes", "flags", "caller_groups", "subject", "hash",
    "metadata", "seal",
)  # fmt: skip
"""The columns in the order of the store, which exports and chains keep to."""
CLAIMS: Final = frozenset({"stream", "tokens_estimated", "pii_detected", "pii_sanitized"})
JSON_COLUMNS: Final = frozenset(
    {"attempts", "findings", "sanitized", "response_findings", "budget", "notes", "metadata", "caller_groups"}
)
_WRITTEN: Final = COLUMNS[COLUMNS.index("app") : COLUMNS.index("subject")]
"""What an END says, in the order of the store."""
_ERROR: Final = COLUMNS.index("error_message") - COLUMNS.index("conversation")
"""Where the message stood among the columns that are not personal."""
_in_the_order_of_the_store = itemgetter(*map(Row._fields.index, COLUMNS))
_own_of = itemgetter(*(_WRITTEN.index(name) for name in Row._fields[:OWN_COLUMNS] if name in _WRITTEN))
_shared_of = itemgetter(*(_WRITTEN.index(name) for name in Row._fields[OWN_COLUMNS:] if name in _WRITTEN))
_AS_BOUND: Final = f"[{LAYOUT},".encode()

Columns = tuple[int, tuple[Any, ...], tuple[Any, ...]]
"""What an END says in the order of ``Row``: ``ts``, ``user_id`` to ``first_token_ms``, ``app`` to ``caller_groups``."""
Written = tuple[str, int, bytes, Columns]
"""An END as it was written: exchange id, number of the frame, payload, columns."""
Bound = tuple[bytes, bytes]
"""The hash and the seal of a row that has its place in the chain."""
_UNBOUND: Final = (None, None)


class Gap(NamedTuple):
    """Rows that were not kept because the spool had no room: when, how many, why.

    ``shed`` is ``None`` in the record that opens a gap; the record that closes it carries the count.
    """

    writer: str
    epoch: int
    seq: int
    ts: int
    shed: int | None
    reason: str
    position: int | None = None
    hash: bytes | None = None


class Stamp(NamedTuple):
    """Where a frame was kept: spool, opening, number."""

    writer: str
    epoch: int
    seq: int


def row_of(exchange_id: str, columns: Columns, stamp: tuple[str, int, int], bound: Bound | None = None) -> Row:
    """Return the row of an exchange that ended, from what ``finish`` returned and where it was kept.

    Args:
        exchange_id: A UUIDv7.
        columns: As ``finish`` returned them.
        stamp: Writer, epoch and number.
        bound: The row's place in the chain.
    """
    ts, own, shared = columns
    writer, epoch, seq = stamp
    placed = _UNBOUND if bound is None else bound
    return tuple.__new__(Row, (exchange_id, ts, seq, *own, *placed, writer, epoch, *shared, None, "{}"))


def named(row: Row) -> dict[str, Any]:
    """Return the columns by name, in the order people meet them in."""
    return dict(zip(COLUMNS, _in_the_order_of_the_store(row), strict=True))


def said_as_bound(payload: bytes) -> bool:
    """Say whether the payload of an END says its columns as the chain binds them, where they are looked for."""
    return payload.startswith(_AS_BOUND, ID_BYTES) and payload[PERSONAL_AT : PERSONAL_AT + 1] == b"["


def read_end(payload: bytes) -> tuple[str, Columns]:
    """Return the id of an exchange that ended and its columns.

    Raises:
        ValueError: An unknown layout version, or not what we write.
    """
    return _read(payload, _ended)


def merge(begin: bytes | None, end: bytes | None, stamp: Stamp) -> Row:
    """Return the row of an exchange from its frames; without an END it was interrupted.

    ``stamp`` belongs to the END, or to the BEGIN when there is no END.

    Raises:
        ValueError: Neither payload can be read: an unknown layout version, or not what we write.
    """
    if end is not None:
        return row_of(*read_end(end), stamp)
    if begin is None:
        raise ValueError("a row needs a BEGIN or an END")
    return row_of(*_read(begin, _interrupted), stamp)


def _read(payload: bytes, columns_in: Callable[[list[Any]], Sequence[Any]]) -> tuple[str, Columns]:
    exchange_id = str(payload[:ID_BYTES], "ascii")
    values = orjson.loads(payload[ID_BYTES:])
    try:
        if values[0] not in _KNOWN:
            raise ValueError(f"audit payload layout {values[0]!r} is not known to this release")
        columns = columns_in(values)
        if len(columns) != len(_WRITTEN):
            raise ValueError("audit payload does not have the columns of its layout")
        return exchange_id, (_row_time(exchange_id, values[1]), _own_of(columns), _shared_of(columns))
    except (IndexError, TypeError, KeyError, AttributeError) as exc:
        raise ValueError("audit payload does not have the layout it names") from exc


def read_gap(payload: bytes, stamp: Stamp) -> Gap:
    """Return the gap record a GAP payload holds.

    Raises:
        ValueError: Not what ``encode_gap`` writes.
    """
    values = orjson.loads(payload)
    if not isinstance(values, list) or len(values) < 4 or values[0] not in _KNOWN:
        raise ValueError("audit gap payload does not have a known layout")
    return Gap(stamp.writer, stamp.epoch, stamp.seq, int(values[1]), values[2], values[3])


def _ended(values: list[Any]) -> Sequence[Any]:
    """Return what an END says, in the order of the store."""
    if values[0] != LAYOUT:
        columns: list[Any] = values[2]
        return columns if values[0] != _WITHOUT_GROUPS else [*columns, NO_GROUPS]
    personal, opened = values[2], values[3:]
    user, conversation, message, _ = personal[:4]
    groups = personal[4] if len(personal) > 4 else NO_GROUPS
    return opened[0], user, conversation, *opened[1:_ERROR], message, *opened[_ERROR:], groups


def _interrupted(v: list[Any]) -> Sequence[Any]:
    """Return the columns of an exchange of which only its BEGIN is known, in the order of the store."""
    return (
        *v[2:11], "", v[11], v[12], 1 if v[13] else 0,
        Status.INTERRUPTED.value, 0, "", "", "", "", 0, "[]", v[14], None, *_NO_USAGE, None, None, None, None,
        1 if v[16] else 0, 1 if v[17] else 0, json_text(v[16]), json_text(v[17]), "{}", v[15], "{}", "[]", flag_names(v[18]),
        NO_GROUPS if v[0] == _WITHOUT_GROUPS else v[19],
    )  # fmt: skip


def json_text(value: object) -> str:
    """Return stored JSON: keys in order, so that what a database gives back can be compared byte for byte."""
    return orjson.dumps(value, None, _SORTED).decode()


def _row_time(exchange_id: str, ts_ms: int) -> int:
    """Take the time from a UUIDv7, else the time that was written beside it."""
    if exchange_id[14:15] == "7":
        return int(exchange_id[:8] + exchange_id[9:13], 16)
    return int(ts_ms)
