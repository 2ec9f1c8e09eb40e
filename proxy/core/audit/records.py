"""Signed statements about chains: how far one stood, which rows are lawfully gone, which stand alone.

Owns their text. Does not sign: keys are a store's business. The text is what is signed, byte for byte, so a
record is checked before it is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson

from proxy.core.audit.chain import Chain
from proxy.core.audit.row import Row

CHECKPOINT: Final = "checkpoint"
SKIPPED: Final = "skipped"
INTERRUPTED: Final = "interrupted"


class Record(NamedTuple):
    """One signed statement; ``ts`` in Unix milliseconds."""

    writer: str
    epoch: int
    seq: int
    kind: str
    ts: int
    body: str
    key: str
    """Which key signed, see ``Signer``."""
    signature: bytes


class Draft(NamedTuple):
    """A record before it is signed."""

    writer: str
    epoch: int
    seq: int
    kind: str
    ts: int
    body: str

    def signed(self, key: str, signature: bytes) -> Record:
        """Return the record with its signature."""
        return Record(*self, key, signature)


class Skip(NamedTuple):
    """A run of a chain that is lawfully not in the store: places, the last number, the hash to go on from."""

    writer: str
    epoch: int
    first_position: int
    position: int
    seq: int
    hash: bytes


def checkpoint(chain: Chain, ts_ms: int, previous: str) -> Draft:
    """Say how a chain stands; ``previous`` is the signature (hex) of the checkpoint before it, or empty."""
    said = {"position": chain.position, "hash": chain.hash.hex(), "previous": previous}
    return _draft(CHECKPOINT, chain.writer, chain.epoch, chain.seq, ts_ms, said)


def skipped(skip: Skip, ts_ms: int, reason: str) -> Draft:
    """Say that a run of rows is gone, and why (``dead_letter``, ``retention``)."""
    said = {
        "first_position": skip.first_position,
        "position": skip.position,
        "hash": skip.hash.hex(),
        "reason": reason,
    }
    return _draft(SKIPPED, skip.writer, skip.epoch, skip.seq, ts_ms, said)


def interrupted(rows: Iterable[Row], ts_ms: int) -> list[Draft]:
    """Say which rows of interrupted exchanges were delivered, one draft for each writer and epoch."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.writer, row.epoch), []).append(row)
    return [
        interrupted_body(
            writer,
            epoch,
            max(row.seq for row in group),
            ts_ms,
            [[row.id, row.seq, (row.hash or b"").hex()] for row in group],
        )
        for (writer, epoch), group in groups.items()
    ]


def interrupted_body(writer: str, epoch: int, seq: int, ts_ms: int, rows: list[list[Any]]) -> Draft:
    """Return the draft of a list of lone rows: id, number and hash (hex) of each."""
    return _draft(INTERRUPTED, writer, epoch, seq, ts_ms, {"rows": rows})


def read_body(record: Record) -> dict[str, Any] | None:
    """Return what a record says when text and columns agree, else None."""
    try:
        said = orjson.loads(record.body)
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    named = (said.get("kind"), said.get("writer"), said.get("epoch"), said.get("seq"))
    return said if named == (record.kind, record.writer, record.epoch, record.seq) else None


def runs(skips: Iterable[Skip]) -> list[Skip]:
    """Join single places of the same chain, given in order, into runs."""
    joined: list[Skip] = []
    for skip in skips:
        last = joined[-1] if joined else None
        if last is not None and last[:2] == skip[:2] and last.position + 1 == skip.first_position:
            joined[-1] = skip._replace(first_position=last.first_position)
        else:
            joined.append(skip)
    return joined


def _draft(kind: str, writer: str, epoch: int, seq: int, ts_ms: int, said: dict[str, Any]) -> Draft:
    body = {"kind": kind, "writer": writer, "epoch": epoch, "seq": seq, "ts": ts_ms, **said}
    return Draft(writer, epoch, seq, kind, ts_ms, orjson.dumps(body).decode())
