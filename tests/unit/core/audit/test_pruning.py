"""What retention leaves behind: ages by policy, and records that join instead of piling up."""

from __future__ import annotations

from proxy.core.audit.chain import Chain
from proxy.core.audit.pruning import Ages, settle
from proxy.core.audit.records import Draft, Record, Skip, checkpoint, interrupted_body, read_body, skipped

WRITER = "11111111-2222-4333-8444-555555555555"


def signed(draft: Draft) -> Record:
    return draft.signed("a key", b"a signature")


def place(position: int) -> Skip:
    return Skip(WRITER, 1, position, position, 2 * position, bytes((position,)))


def run(first: int, last: int) -> Skip:
    return Skip(WRITER, 1, first, last, 2 * last, bytes((last,)))


def test_ages_of_no_policy_delete_nothing() -> None:
    """Before the first policy is in force nothing may go."""
    ages = Ages.of({})

    assert (None, False) == (ages.others, ages.delete_anything)


def test_longest_age_is_that_of_all_rows() -> None:
    """A month may be dropped when even the most patient policy has no use for it."""
    assert (60.0, 60.0) == ((ages := Ages.of({"a": 30.0, "b": 60.0})).others, ages.longest)
    assert (None, None) == ((ages := Ages.of({"a": 30.0, "b": None})).others, ages.longest)
    assert Ages.of({"a": 30.0, "b": None}).delete_anything


def test_run_grows_and_forgets_the_checkpoints_inside() -> None:
    """After years of it an old chain has one record and the checkpoints of what is left."""
    old = signed(skipped(run(1, 3), 1, "retention"))
    inside = signed(checkpoint(Chain(WRITER, 1, 8, 4, b"\x04"), 1, ""))
    behind = signed(checkpoint(Chain(WRITER, 1, 18, 9, b"\x09"), 1, ""))
    change = settle([place(4), place(5)], set(), [old, inside, behind], 99)

    assert [old, inside] == change.stale
    assert [skipped(run(1, 5), 99, "retention")] == change.fresh


def test_run_in_the_middle_keeps_its_checkpoints() -> None:
    """What lies before it still needs them."""
    before = signed(checkpoint(Chain(WRITER, 1, 4, 2, b"\x02"), 1, ""))
    change = settle([place(4)], set(), [before], 99)

    assert ([], [skipped(run(4, 4), 99, "retention")]) == (change.stale, change.fresh)


def test_record_that_stays_is_not_written_again() -> None:
    """An excused dead letter far from what goes is left as it is."""
    letter = signed(skipped(run(20, 20), 1, "dead_letter"))
    change = settle([place(4)], set(), [letter], 99)

    assert ([], 1) == (change.stale, len(change.fresh))


def test_list_of_lone_rows_loses_those_that_go() -> None:
    """A list that is empty goes itself; one that names none of them stays."""
    both = signed(interrupted_body(WRITER, 1, 6, 1, [["a", 4, "00"], ["b", 6, "00"]]))
    one = signed(interrupted_body(WRITER, 1, 9, 1, [["a", 9, "00"]]))
    other = signed(interrupted_body(WRITER, 1, 12, 1, [["c", 12, "00"]]))
    of_tomorrow = other._replace(kind="unheard-of")
    change = settle([], {"a"}, [both, one, other, of_tomorrow], 99)

    assert [both, one] == change.stale
    assert [[["b", 6, "00"]]] == [(read_body(signed(draft)) or {})["rows"] for draft in change.fresh]
