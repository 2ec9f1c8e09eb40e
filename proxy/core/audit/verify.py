"""Whether the record is whole: the chains walked row by row, and what was found wrong with them.

Owns the walk and the words of its findings. Does not know where rows come from: they are fed in the order of
writer, epoch and number, gaps and signed records beforehand. What a walk can prove: no row was edited,
deleted, moved or slipped in up to the last checkpoint signed with a trusted key; behind it (and where no key is
trusted) only what its author did not take the trouble to compute anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from proxy.core.audit.chain import Chain, gap_hash, hash_of, is_erased, position_of, stands_alone
from proxy.core.audit.records import CHECKPOINT, INTERRUPTED, SKIPPED, Record, read_body
from proxy.core.audit.row import Gap, Row

MAX_FINDINGS: Final = 1000
"""More are counted, not kept."""
ROLL_OUT_MS: Final = 86_400_000
"""So long after the first checkpoint a sidecar of a release before the chain may still write rows."""
IsSigned = Callable[[Record], bool | None]
"""True: a trusted key signed it; False: it claims to and did not; None: an unknown key."""


class Finding(NamedTuple):
    """One thing that is wrong: what, in which chain, from which number on."""

    what: str
    """``edited``, ``deleted``, ``moved``, ``forged``, ``truncated``, ``rewritten``, ``bad_signature``, ``unsigned``."""
    writer: str
    epoch: int
    seq: int
    row: str
    """Id of the row, empty where there is none."""
    detail: str


@dataclass(slots=True)
class Report:
    """What the walk saw."""

    rows: int = 0
    chains: int = 0
    erased: int = 0
    unchained: int = 0
    """Rows without a hash, written by a release before the chain."""
    gaps: int = 0
    shed: int = 0
    checkpoints: int = 0
    unknown_keys: int = 0
    """Records signed with keys that are not trusted here: neither proof nor fault."""
    uncovered: int = 0
    """Rows behind the last good checkpoint of their chain."""
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0

    def add(self, finding: Finding) -> None:
        """Keep a finding, or count it when there are many."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)
        else:
            self.more_findings += 1


@dataclass(slots=True)
class _Statements:
    """What was signed about one chain."""

    positions: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    """Position -> number and hash of a checkpoint."""
    skips: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)
    """First position -> last position, number and hash of a run that is lawfully gone."""
    highest: int = 0


_Key = tuple[str, int]


class Verifier:
    """Walks all chains of a store once."""

    def __init__(self, is_signed: IsSigned | None, *, unsigned_before_ms: int) -> None:
        """Chains whose newest row is older than ``unsigned_before_ms`` must have been signed.

        Without ``is_signed`` no key is trusted: records are believed, and nothing counts as signed.
        """
        self._is_signed = is_signed
        self._unsigned_before_ms = unsigned_before_ms if is_signed is not None else 0
        self._chained_since_ms: float = float("inf")
        self.report = Report()
        self._stated: dict[_Key, _Statements] = {}
        self._gaps: dict[_Key, list[Gap]] = {}
        self._alone: dict[str, tuple[_Key, int, bytes]] = {}
        self._unheard: set[_Key] = set()
        """Chains with records of keys that are not trusted here."""
        self._seen: set[_Key] = set()
        self._walk: _Walk | None = None

    def learn(self, records: Iterable[Record], gaps: Iterable[Gap]) -> None:
        """Take all signed records and gap records; before the first row."""
        for record in records:
            self._learn(record)
        for gap in gaps:
            self.report.gaps += 1
            self.report.shed += gap.shed or 0
            if gap.hash is None and gap.ts > self._chained_since_ms:
                self.report.add(Finding("forged", gap.writer, gap.epoch, gap.seq, "", "a gap record without a hash"))
            elif gap.hash is not None:
                self._gaps.setdefault((gap.writer, gap.epoch), []).append(gap)

    def feed(self, row: Row) -> None:
        """Take the next row, ordered by writer, epoch, number."""
        report = self.report
        report.rows += 1
        report.erased += is_erased(row)
        known = self._alone.get(row.id)
        if known is not None and (not stands_alone(row) or (row.seq, row.hash) == known[1:]):
            del self._alone[row.id]
        if stands_alone(row):
            if hash_of(row, Chain.begin(row.writer, row.epoch).hash) != row.hash:
                report.add(Finding("edited", row.writer, row.epoch, row.seq, row.id, "an interrupted exchange"))
            elif known is None:
                self._unlisted(row)
            return
        if row.hash is None and (row.writer, row.epoch) not in self._stated:
            report.unchained += 1
            if row.ts > self._chained_since_ms:
                report.add(Finding("forged", row.writer, row.epoch, row.seq, row.id, "has no place in any chain"))
            return
        self._walk_of((row.writer, row.epoch)).row(row)

    def _unlisted(self, row: Row) -> None:
        """Judge a row that says it stands alone and that no record lists: its hash anybody can compute."""
        key = (row.writer, row.epoch)
        if key in self._unheard:
            self.report.uncovered += 1
        elif key in self._stated:
            self.report.add(Finding("forged", *key, row.seq, row.id, "no record lists this interrupted exchange"))
        elif row.ts < self._unsigned_before_ms:
            self.report.add(Finding("unsigned", *key, row.seq, row.id, "an interrupted exchange"))
        else:
            self.report.uncovered += 1

    def finish(self) -> Report:
        """End the walk and return what it saw."""
        self._end_walk()
        for key in [*self._stated, *self._gaps]:
            if key not in self._seen:
                self._walk_of(key)
                self._end_walk()
        for row_id, ((writer, epoch), seq, _) in self._alone.items():
            self.report.add(Finding("deleted", writer, epoch, seq, row_id, "the row of an interrupted exchange"))
        return self.report

    def _learn(self, record: Record) -> None:
        verdict = True if self._is_signed is None else self._is_signed(record)
        said = read_body(record)
        if verdict is None:
            self.report.unknown_keys += 1
            self._unheard.add((record.writer, record.epoch))
            return
        if verdict is False or said is None:
            detail = f"a {record.kind} record of key {record.key[:40]}"
            self.report.add(Finding("bad_signature", record.writer, record.epoch, record.seq, "", detail))
            return
        try:
            self._note(record, said)
        except (KeyError, TypeError, ValueError):
            detail = f"a {record.kind} record that cannot be read"
            self.report.add(Finding("bad_signature", record.writer, record.epoch, record.seq, "", detail))

    def _note(self, record: Record, said: dict[str, Any]) -> None:
        key = (record.writer, record.epoch)
        stated = self._stated.setdefault(key, _Statements())
        if record.kind == CHECKPOINT:
            self.report.checkpoints += 1
            self._chained_since_ms = min(self._chained_since_ms, record.ts + ROLL_OUT_MS)
            stated.positions[int(said["position"])] = (record.seq, bytes.fromhex(said["hash"]))
            stated.highest = max(stated.highest, int(said["position"]))
        elif record.kind == SKIPPED:
            stated.skips[int(said["first_position"])] = (
                int(said["position"]),
                record.seq,
                bytes.fromhex(said["hash"]),
            )
        elif record.kind == INTERRUPTED:
            for row_id, seq, digest in said["rows"]:
                self._alone[str(row_id)] = (key, int(seq), bytes.fromhex(digest))

    def _walk_of(self, key: _Key) -> _Walk:
        if self._walk is not None and self._walk.key == key:
            return self._walk
        self._end_walk()
        self._seen.add(key)
        self.report.chains += 1
        gaps = sorted(self._gaps.get(key, ()), key=lambda gap: gap.seq)
        self._walk = _Walk(key, self._stated.get(key, _Statements()), gaps, self.report)
        return self._walk

    def _end_walk(self) -> None:
        if self._walk is not None:
            self._walk.end(self._unsigned_before_ms)
            self._walk = None


class _Walk:
    """One chain from its beginning to its end."""

    def __init__(self, key: _Key, stated: _Statements, gaps: list[Gap], report: Report) -> None:
        self.key = key
        self._stated = stated
        self._gaps = gaps
        self._report = report
        self._hash: bytes | None = Chain.begin(*key).hash
        """None behind a hole: the next hash is taken as it is."""
        self._position = 0
        self._covered = 0
        self._newest_ms = 0
        self._has_break = False

    def row(self, row: Row) -> None:
        """Take the next row of this chain."""
        while self._gaps and self._gaps[0].seq < row.seq:
            self._gap(self._gaps.pop(0))
        self._newest_ms = max(self._newest_ms, row.ts)
        position = position_of(row)
        if position is None or row.hash is None:
            self._find("forged", row.seq, row.id, "has no place in the chain")
            return
        if self._reaches(position, row.seq, row.id):
            if self._hash is not None and hash_of(row, self._hash) != row.hash:
                self._find("edited", row.seq, row.id, "does not match its hash")
            self._go_on(position, row.seq, row.id, row.hash)

    def end(self, unsigned_before_ms: int) -> None:
        """Say what is missing behind the last row."""
        for gap in self._gaps:
            self._gap(gap)
        self._skip()
        if self._stated.highest > self._position:
            seq, _ = self._stated.positions[self._stated.highest]
            missing = self._stated.highest - self._position
            self._find("truncated", seq, "", f"{missing} at its end are gone: a checkpoint names one that is not there")
        uncovered = max(0, self._position - self._covered)
        self._report.uncovered += uncovered
        if uncovered and not self._covered and self._newest_ms < unsigned_before_ms:
            self._find("unsigned", 0, "", f"{uncovered} rows and no checkpoint of a trusted key")

    def _gap(self, gap: Gap) -> None:
        position = gap.position or 0
        if self._reaches(position, gap.seq, ""):
            if self._hash is not None and gap.hash != gap_hash(self._hash, position, gap):
                self._find("edited", gap.seq, "", "a gap record does not match its hash")
            self._go_on(position, gap.seq, "", gap.hash or b"")

    def _reaches(self, position: int, seq: int, row_id: str) -> bool:
        """Say whether the walk stands right before this place; findings when it does not."""
        self._skip()
        if position == self._position + 1:
            return True
        if position <= self._position:
            self._find("moved" if self._has_break else "forged", seq, row_id, f"claims place {position} again")
            return False
        missing = position - self._position - 1
        self._find("deleted", seq, row_id, f"{missing} missing before this one")
        self._hash = None
        return True

    def _skip(self) -> None:
        while (run := self._stated.skips.get(self._position + 1)) is not None:
            position, seq, digest = run
            self._go_on(position, seq, "", digest)
            self._covered = position

    def _go_on(self, position: int, seq: int, row_id: str, digest: bytes) -> None:
        self._position, self._hash = position, digest
        self._check(position, seq, row_id, digest)

    def _check(self, position: int, seq: int, row_id: str, digest: bytes) -> None:
        """Compare with the checkpoint of this place, when there is one."""
        stated = self._stated.positions.get(position)
        if stated is None:
            return
        if stated != (seq, digest):
            self._find(
                "rewritten", seq, row_id, "a signed checkpoint has another hash; it changed since the one before"
            )
        else:
            self._covered = position

    def _find(self, what: str, seq: int, row_id: str, detail: str) -> None:
        self._has_break = True
        self._report.add(Finding(what, *self.key, seq, row_id, detail))
