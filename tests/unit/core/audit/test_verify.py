"""The walk that verifies: silent over a whole record, and naming the right row over any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from proxy.core.audit.chain import Chain, erase, position_of, seal_alone
from proxy.core.audit.payload import encode_begin, finish
from proxy.core.audit.records import Draft, Record, Skip, checkpoint, interrupted, skipped
from proxy.core.audit.row import Gap, Row, Stamp, merge
from proxy.core.audit.verify import MAX_FINDINGS, ROLL_OUT_MS, Finding, Report, Verifier
from tests.support.audit import TS_MS, typical_exchange

WRITER = "11111111-2222-4333-8444-555555555555"
SECRET = b"0123456789abcdef"
NEVER_MS = 0


def signed(draft: Draft, key: str = "ours", signature: bytes = b"good") -> Record:
    return draft.signed(key, signature)


def is_signed(record: Record) -> bool | None:
    return None if record.key != "ours" else record.signature == b"good"


class World:
    """Twenty rows, a gap in their middle, a checkpoint behind the tenth place and one at the end."""

    def __init__(self, rows: int = 20) -> None:
        chain = Chain.begin(WRITER, 1)
        self.rows: list[Row] = []
        self.gaps: list[Gap] = []
        self.records: list[Record] = []
        for number in range(1, rows + 1):
            payload, _ = finish(typical_exchange(number))
            row = merge(None, payload, Stamp(WRITER, 1, 10 * number))
            self.rows.append(chain.bind(row, SECRET))
            if number == 5:
                self.gaps.append(chain.bind_gap(Gap(WRITER, 1, 55, TS_MS, 3, "shed:x")))
            if number in {9, rows}:
                self.records.append(signed(checkpoint(chain, TS_MS, "")))
        self.chain = chain

    def report(self, trusting: bool = True, unsigned_before_ms: int = NEVER_MS) -> Report:
        verifier = Verifier(is_signed if trusting else None, unsigned_before_ms=unsigned_before_ms)
        verifier.learn(self.records, self.gaps)
        for row in sorted(self.rows, key=lambda row: (row.writer, row.epoch, row.seq)):
            verifier.feed(row)
        return verifier.finish()

    def found(self, **options: Any) -> list[tuple[str, int]]:
        return [(finding.what, finding.seq) for finding in self.report(**options).findings]


def test_whole_record_has_no_finding() -> None:
    """Counts say what was seen."""
    report = World().report()

    assert ([], 20, 1, 1, 3, 2, 0) == (
        report.findings, report.rows, report.chains, report.gaps, report.shed, report.checkpoints, report.uncovered,
    )  # fmt: skip


def test_erased_rows_are_counted_and_whole() -> None:
    """Erasing is lawful, and seen."""
    world = World()
    world.rows[3] = erase(world.rows[3])
    report = world.report()

    assert ([], 1) == (report.findings, report.erased)


Change = Callable[[World], None]


def edit(world: World) -> None:
    world.rows[7] = world.rows[7]._replace(tokens_out=9)


def delete(world: World) -> None:
    del world.rows[7]


def forge(world: World) -> None:
    world.rows.append(world.rows[7]._replace(seq=81, id="x"))


def forge_without_place(world: World) -> None:
    world.rows.append(world.rows[7]._replace(seq=81, id="x", hash=None, seal=None))


def swap(world: World) -> None:
    world.rows[7], world.rows[8] = world.rows[7]._replace(seq=90), world.rows[8]._replace(seq=80)


def cut_tail(world: World) -> None:
    del world.rows[15:]


def cut_all(world: World) -> None:
    world.rows.clear()
    world.gaps.clear()


def delete_gap(world: World) -> None:
    world.gaps.clear()


def edit_gap(world: World) -> None:
    world.gaps[0] = world.gaps[0]._replace(shed=1)


def edit_record(world: World) -> None:
    world.records[0] = world.records[0]._replace(signature=b"bad")


def edit_body(world: World) -> None:
    world.records[0] = world.records[0]._replace(body="{}")


def garble_record(world: World) -> None:
    draft = Draft(WRITER, 1, 1, "skipped", 1, f'{{"kind":"skipped","writer":"{WRITER}","epoch":1,"seq":1}}')
    world.records.append(signed(draft))


def swear_otherwise(world: World) -> None:
    chain = Chain(WRITER, 1, 90, 10, b"another hash")
    world.records[0] = signed(checkpoint(chain, TS_MS, ""))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (edit, [("edited", 80)]),
        (delete, [("deleted", 90)]),
        (forge, [("forged", 81)]),
        (forge_without_place, [("forged", 81)]),
        (swap, [("deleted", 80), ("moved", 90), ("rewritten", 80)]),
        (cut_tail, [("truncated", 200)]),
        (cut_all, [("truncated", 200)]),
        (delete_gap, [("deleted", 60)]),
        (edit_gap, [("edited", 55)]),
        (edit_record, [("bad_signature", 90)]),
        (edit_body, [("bad_signature", 90)]),
        (garble_record, [("bad_signature", 1)]),
        (swear_otherwise, [("rewritten", 90)]),
    ],
)
def test_change_is_named_where_it_is(change: Change, expected: list[tuple[str, int]]) -> None:
    """The first finding is what an auditor reads; it must point at the place (AU-15)."""
    world = World()
    change(world)

    assert expected[0] == world.found()[0]
    assert {what for what, _ in expected} >= {what for what, _ in world.found()}


def test_gap_slipped_in_twice_is_found() -> None:
    """A gap record may not excuse rows by taking their place."""
    world = World()
    world.gaps.append(world.gaps[0]._replace(seq=56))

    assert [("forged", 56)] == world.found()


def test_gap_behind_the_last_row_is_walked_too() -> None:
    """A sidecar may have shed before it died."""
    world = World()
    world.gaps.append(world.chain.bind_gap(Gap(WRITER, 1, 999, TS_MS, 1, "shed:x")))
    report = world.report()

    assert ([], 1) == (report.findings, report.uncovered)


def test_gap_of_an_older_release_has_no_place() -> None:
    """Before the chain gaps were kept as well."""
    world = World()
    world.gaps.append(Gap(WRITER, 1, 3, TS_MS, None, "shed:x"))

    assert [] == world.found()


def test_signed_skip_excuses_exactly_its_places() -> None:
    """What retention took is no finding; the row beside it is."""
    world = World()
    gone, *_ = [world.rows.pop(11) for _ in range(3)]
    last = world_row(13)
    first = position_of(gone) or 0
    world.records.append(signed(skipped(Skip(WRITER, 1, first, first + 2, last.seq, last.hash or b""), 1, "retention")))

    assert [] == world.found()
    world.rows.pop(11)
    assert [("deleted", 160)] == world.found()


def world_row(index: int) -> Row:
    return World().rows[index]


def test_chain_that_is_gone_altogether_is_excused_by_its_record() -> None:
    """The oldest chains end as one record and no row."""
    world = World()
    last = world.rows[-1]
    world.rows.clear()
    world.gaps.clear()
    world.records = [signed(skipped(Skip(WRITER, 1, 1, 21, last.seq, last.hash or b""), 1, "retention"))]
    report = world.report(unsigned_before_ms=TS_MS + 1)

    assert ([], 0, 1) == (report.findings, report.uncovered, report.chains)


def test_records_of_unknown_keys_prove_nothing_and_excuse_nothing() -> None:
    """Somebody with a key of their own must not be able to explain a deletion away."""
    world = World()
    row = world.rows.pop(10)
    position = position_of(row) or 0
    excuse = skipped(Skip(WRITER, 1, position, position, row.seq, row.hash or b""), 1, "retention")
    world.records.append(signed(excuse, key="theirs"))
    report = world.report()

    assert (["deleted"], 1) == ([finding.what for finding in report.findings], report.unknown_keys)


def test_without_trusted_keys_hashes_alone_are_compared() -> None:
    """Better than nothing, and said so: nothing counts as unsigned then."""
    world = World()
    world.records = [record._replace(key="theirs") for record in world.records]

    assert [] == world.found(trusting=False, unsigned_before_ms=TS_MS + 1)
    edit(world)
    assert [("edited", 80)] == world.found(trusting=False)


def test_old_chain_without_checkpoint_is_unsigned() -> None:
    """A chain invented whole has everything but a signature."""
    world = World()
    world.records.clear()

    assert [] == world.found(unsigned_before_ms=TS_MS)
    assert [("unsigned", 0)] == world.found(unsigned_before_ms=TS_MS + 1)


def test_rows_before_the_chain_are_counted_and_later_ones_forged() -> None:
    """An upgrade leaves rows without hashes; a day after the first checkpoint there is no excuse for more."""
    world = World()
    stranger = "99999999-2222-4333-8444-555555555555"
    bare = world.rows[0]._replace(writer=stranger, hash=None, seal=None, id="old")
    world.rows += [bare, bare._replace(seq=11, id="new", ts=TS_MS + ROLL_OUT_MS + 1)]
    report = world.report()

    assert (2, [("forged", "new")]) == (report.unchained, [(found.what, found.row) for found in report.findings])


def lone(number: int = 7) -> Row:
    return seal_alone(merge(encode_begin(typical_exchange(100 + number)), None, Stamp(WRITER, 1, number)), SECRET)


def test_lone_rows_are_proved_by_themselves_and_their_list() -> None:
    """An interrupted exchange can be neither edited nor deleted unseen, and its late END replaces it lawfully."""
    world = World()
    row = lone()
    world.records += [signed(draft) for draft in interrupted([row], TS_MS)]

    assert [("deleted", 7)] == world.found()
    world.rows.append(row)
    assert [] == world.found()
    world.rows[-1] = row._replace(app="x")
    assert [("edited", 7)] == world.found()
    world.rows[-1] = row._replace(seq=8)
    assert {("edited", 8), ("deleted", 7)} == set(world.found())


def test_late_end_replaces_a_lone_row() -> None:
    """The list names the exchange; the row has its place in a chain by now."""
    world = World()
    first = world.rows[0]
    early = seal_alone(merge(encode_begin(typical_exchange(1)), None, Stamp(WRITER, 1, 2)), SECRET)
    assert first.id == early.id
    world.records += [signed(draft) for draft in interrupted([early], TS_MS)]

    assert [] == world.found()


def test_several_chains_are_walked_one_after_the_other() -> None:
    """Every sidecar and every opening has its own."""
    one, two = World(), World()
    other = Chain.begin(WRITER, 2)
    two.rows = []
    for number in range(1, 4):
        payload, _ = finish(typical_exchange(50 + number))
        row = merge(None, payload, Stamp(WRITER, 2, number))
        two.rows.append(other.bind(row, SECRET))
    one.rows += two.rows
    report = one.report()

    assert ([], 2, 3) == (report.findings, report.chains, report.uncovered)


def test_findings_are_bounded() -> None:
    """A store full of nonsense must not fill the memory of whoever looks."""
    report = Report()
    for number in range(MAX_FINDINGS + 5):
        report.add(Finding("edited", WRITER, 1, number, "", ""))

    assert (MAX_FINDINGS, 5) == (len(report.findings), report.more_findings)


def pairs(items: Iterable[Finding]) -> list[tuple[str, int]]:
    return [(item.what, item.seq) for item in items]


def test_whole_epoch_deleted_is_found_by_its_checkpoint() -> None:
    """Nothing is left to walk, but somebody signed that there was."""
    world = World()
    cut_all(world)

    assert [("truncated", 200)] == pairs(world.report().findings)


def test_record_of_a_later_release_is_passed_over() -> None:
    """A newer sidecar of the same store may sign what this release does not know."""
    world = World()
    body = f'{{"kind":"of_tomorrow","writer":"{WRITER}","epoch":1,"seq":1}}'
    world.records.append(signed(Draft(WRITER, 1, 1, "of_tomorrow", 1, body)))

    assert [] == world.found()


def test_invented_interrupted_exchange_is_found() -> None:
    """A row that says it stands alone carries a hash that anybody can compute: only the signed list makes it true."""
    world, cut = World(), typical_exchange(77)
    row = seal_alone(merge(encode_begin(cut), None, Stamp(WRITER, 1, 333)), SECRET)
    world.rows.append(row)
    assert [("forged", 333)] == world.found()

    world.records += [signed(draft) for draft in interrupted([row], TS_MS)]
    assert [] == world.found()
    world.records[-1] = signed(interrupted([row], TS_MS)[0], key="another's")
    assert ([], 1) == (world.found(), world.report().uncovered)

    stranger = row._replace(writer=WRITER.replace("1", "9"))
    world.rows[-1] = seal_alone(stranger._replace(hash=None, seal=None), SECRET)
    assert [("unsigned", 333)] == world.found(unsigned_before_ms=TS_MS + 10**9)
    assert [] == world.found()


def test_invented_gap_record_is_found() -> None:
    """A gap without a hash is of a release before the chain, or of somebody who wants rows to seem lawfully missing."""
    world = World()
    world.gaps.append(Gap(WRITER, 1, 3, TS_MS + ROLL_OUT_MS + 1, 900, "shed:x"))

    assert [("forged", 3)] == world.found()
