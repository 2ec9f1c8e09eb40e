"""What retention leaves behind: which rows are too old, and the signed records that let chains go on.

Owns the arithmetic of ages and the joining of runs. Rows go by policy and age, so a chain loses places here and
there; each run of lost places becomes one record, joined with the runs beside it, so that an old chain
ends as a single one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from proxy.core.audit.records import (
    CHECKPOINT,
    INTERRUPTED,
    SKIPPED,
    Draft,
    Record,
    Skip,
    interrupted_body,
    read_body,
    runs,
    skipped,
)


@dataclass(frozen=True, slots=True)
class Ages:
    """How long rows stay, in seconds: by the policy they name, and of all other policies; None: for ever."""

    by_policy: Mapping[str, float | None]
    others: float | None

    @classmethod
    def of(cls, by_policy: Mapping[str, float | None]) -> Ages:
        """Rows of policies that are no longer in force stay as long as the longest of those that are."""
        kept = list(by_policy.values())
        longest = None if not kept or None in kept else max(age for age in kept if age is not None)
        return cls(dict(by_policy), longest)

    @property
    def delete_anything(self) -> bool:
        """False when every row stays for ever."""
        return self.others is not None or any(age is not None for age in self.by_policy.values())

    @property
    def longest(self) -> float | None:
        """Rows older than this are too old whatever their policy; None: there is no such age."""
        ages = [*self.by_policy.values(), self.others]
        return None if None in ages else max(age for age in ages if age is not None)


class Place(NamedTuple):
    """A row or gap that goes. ``position`` is None for one that stands alone or is in no chain."""

    writer: str
    epoch: int
    seq: int
    position: int | None
    hash: bytes | None
    row_id: str


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of the signed records."""

    stale: list[Record]
    fresh: list[Draft]


def settle(places: Iterable[Skip], alone: set[str], known: Iterable[Record], ts_ms: int) -> Change:
    """Say which records go and come when these places and lone rows are deleted.

    ``known`` are all records of the chains in question whose signature is ours; others are left alone.
    """
    stale: list[Record] = []
    fresh: list[Draft] = []
    records: dict[Skip, Record] = {}
    checkpoints: list[tuple[Record, int]] = []
    for record in known:
        said = read_body(record) or {}
        if record.kind == SKIPPED:
            skip = Skip(
                record.writer, record.epoch, said["first_position"], said["position"], record.seq,
                bytes.fromhex(said["hash"]),
            )  # fmt: skip
            records[skip] = record
        elif record.kind == CHECKPOINT:
            checkpoints.append((record, said["position"]))
        elif record.kind == INTERRUPTED:
            left = [entry for entry in said["rows"] if entry[0] not in alone]
            if len(left) < len(said["rows"]):
                stale.append(record)
                if left:
                    fresh.append(interrupted_body(record.writer, record.epoch, record.seq, ts_ms, left))
    joined = runs(sorted({*places, *records}))
    kept = set(joined)
    stale += [record for skip, record in records.items() if skip not in kept]
    fresh += [skipped(skip, ts_ms, "retention") for skip in joined if skip not in records]
    begun = {(skip.writer, skip.epoch): skip.position for skip in joined if skip.first_position == 1}
    stale += [record for record, at in checkpoints if at < begun.get((record.writer, record.epoch), 0)]
    return Change(stale, fresh)
