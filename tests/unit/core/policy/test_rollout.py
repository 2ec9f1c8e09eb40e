"""Who is in a rollout, when it is worse, and what follows: for all inputs, and at the edges that matter."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.policy.rollout import (
    AfterWatch,
    Cohort,
    Counts,
    Ended,
    Move,
    Remembered,
    RolloutBy,
    RolloutPlan,
    Start,
    decide_start,
    ended_as,
    find_worse,
    is_in,
    is_worse,
    least_difference,
    next_move,
    remembered_from,
)
from proxy.terms.exchange import ExchangeFacts
from proxy.terms.outcomes import Fault, Status

PLAN = RolloutPlan((0.1, 0.5), watch_s=60.0, min_exchanges=20)
shares = st.floats(0.001, 0.99)
counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def cohort(well: int = 0, errors: int = 0, refused: int = 0, at_s: float = 0.0) -> Cohort:
    """Return the counts of so many exchanges."""
    found = Cohort()
    for ended, number in ((Ended.WELL, well), (Ended.ERROR, errors), (Ended.REFUSED, refused)):
        for _ in range(number):
            found.count(ended, at_s)
    return found


# --- who is among them


@given(st.text("0123456789abcdef", min_size=12, max_size=12), st.binary(min_size=1), shares, shares)
def test_whoever_is_in_stays_in_as_the_share_grows(revision: str, key: bytes, one: float, other: float) -> None:
    """A step forward takes nobody back."""
    small, large = sorted((one, other))

    assert is_in(revision, key, large) or not is_in(revision, key, small)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_share_is_what_it_says(share: float) -> None:
    """Over many conversations, to within four standard deviations."""
    chosen = sum(is_in("0123456789ab", f"c{n}".encode(), share) for n in range(20_000))

    assert abs(chosen - 20_000 * share) <= 4 * (20_000 * share * (1 - share)) ** 0.5


def test_another_revision_draws_another_lot() -> None:
    """The same few must not be the first to meet every change."""
    first, second = ({n for n in range(2000) if is_in(rev, str(n).encode(), 0.2)} for rev in ("a" * 12, "b" * 12))

    assert 40 <= len(first & second) <= 130


def test_nobody_is_never_in() -> None:
    """A share of one nameless crowd would be all of it."""
    assert not is_in("a" * 12, b"", 0.99)


# --- how it does


@given(counts, counts, st.floats(0.0, 0.5))
def test_what_is_no_worse_is_never_taken_back(new: tuple[int, int], old: tuple[int, int], threshold: float) -> None:
    """Whatever the sample: a rate at or below that of the revision before is no reason."""
    if new[0] * old[1] <= old[0] * new[1]:
        assert not is_worse(*new, *old, threshold)


@given(counts, counts)
def test_certainty_is_below_the_difference_that_was_seen(new: tuple[int, int], old: tuple[int, int]) -> None:
    """The lower end of an interval lies below what it is about, and above the worst there can be."""
    seen = new[0] / new[1] - old[0] / old[1]

    assert -1.0 - 1e-9 <= least_difference(*new, *old) <= seen + 1e-9


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ((20, 20), (0, 400), True),
        ((12, 50), (1, 450), True),
        ((4, 50), (1, 450), False),  # 8 % are more than allowed, but four of fifty may be chance
        ((34, 500), (1, 450), False),
        ((50, 500), (1, 450), True),
        ((20, 500), (0, 4500), False),  # 4 % are allowed, and surely so
        ((4, 50), (30, 450), False),  # the others fail as often
        ((6, 60), (0, 6), False),  # six exchanges of the others say nothing
        ((60, 60), (0, 6), True),
        ((30, 60), (30, 60), False),  # the provider is down for everybody
        ((15, 50), (0, 0), True),  # nobody to compare with: held against zero
        ((2, 50), (0, 0), False),
    ],
)
def test_worse_is_more_than_the_threshold_and_more_than_chance(
    new: tuple[int, int], old: tuple[int, int], expected: bool
) -> None:
    """The cases that somebody on call would decide the same way; 5 points are allowed."""
    assert expected is is_worse(*new, *old, 0.05)


def test_chance_alone_seldom_takes_back() -> None:
    """Two revisions that are equally bad (4 %), looked at after every exchange of 500: at most 1 of 100 is mistaken."""
    dice = random.Random(7)
    mistaken = 0
    for _ in range(200):
        bad = bad_before = 0
        for number in range(1, 501):
            bad += dice.random() < 0.04
            bad_before += sum(dice.random() < 0.04 for _ in range(9))
            if number >= 50 and is_worse(bad, number, bad_before, 9 * number, 0.05):
                mistaken += 1
                break

    assert mistaken <= 2


def test_nothing_is_said_below_the_sample() -> None:
    """Nineteen failures in nineteen are still too few when twenty were asked for."""
    assert find_worse(PLAN, cohort(errors=19), cohort(well=100), 1.0) is None
    found = find_worse(PLAN, cohort(errors=20), cohort(well=100), 1.0)

    assert found is not None
    assert ("errors", "in this step", 20, 20, 0, 100) == found[:6]
    assert "errors in this step: 20 of 20 (100.0%), revision before: 0 of 100 (0.0%), allowed above that: 5.0%" == str(
        found
    )


def test_refusals_and_errors_are_held_apart() -> None:
    """A policy that refuses more makes fewer errors: one sum of both would hide it."""
    new, old = cohort(well=70, refused=30), cohort(well=70, errors=30)
    found = find_worse(PLAN, new, old, 1.0)

    assert found is not None
    assert "refusals" == found.what


def test_trouble_that_comes_late_is_seen_in_the_last_minute() -> None:
    """An hour that went well must not thin it out."""
    new, old = cohort(well=5000), cohort(well=5000)
    for _ in range(30):
        new.count(Ended.ERROR, 3600.0)
        old.count(Ended.WELL, 3600.0)
    found = find_worse(PLAN, new, old, 3600.0)

    assert found is not None
    assert "in the last minute" == found.span
    assert find_worse(PLAN, new, old, 3670.0) is None


@given(st.lists(st.tuples(st.sampled_from(list(Ended)), st.floats(0, 500)), max_size=200), st.floats(0, 600))
def test_the_last_minute_is_part_of_the_whole(ends: list[tuple[Ended, float]], later_s: float) -> None:
    """Against a count by hand: everything of the last 60 s, nothing older than 65 s."""
    found, now_s = Cohort(), 0.0
    times: list[float] = []
    for ended, at_s in sorted(ends, key=lambda one: one[1]):
        found.count(ended, at_s)
        times.append(at_s)
        now_s = at_s
    now_s = max(now_s, later_s)
    recent = found.recent(now_s)

    assert len(ends) == found.total().exchanges
    assert sum(t > now_s - 60 for t in times) <= recent.exchanges <= sum(t >= now_s - 70 for t in times)
    assert recent.errors + recent.refusals <= recent.exchanges


# --- what counts


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"status": Status.SUCCESS}, Ended.WELL),
        ({"status": Status.FALLBACK}, Ended.WELL),
        ({"status": Status.ERROR, "fault": Fault.PROVIDER}, Ended.ERROR),
        ({"status": Status.ERROR, "fault": Fault.GATEWAY}, Ended.ERROR),
        ({"status": Status.RATE_LIMITED, "fault": Fault.PROVIDER}, Ended.ERROR),
        ({"status": Status.RATE_LIMITED, "fault": Fault.POLICY}, Ended.REFUSED),
        ({"status": Status.BLOCKED, "fault": Fault.POLICY}, Ended.REFUSED),
        (
            {"status": Status.BLOCKED, "fault": Fault.POLICY, "policy": "", "error_code": "model_not_found"},
            Ended.REFUSED,
        ),
        ({"status": Status.ERROR, "fault": Fault.CLIENT, "policy": "", "error_code": "not_found"}, Ended.REFUSED),
        ({"status": Status.ERROR, "fault": Fault.CLIENT, "policy": "", "error_code": "body_unreadable"}, None),
        ({"status": Status.ERROR, "fault": Fault.CLIENT}, None),
        ({"status": Status.SUCCESS, "policy": ""}, None),
        ({"status": Status.CANCELLED}, Ended.ERROR),
        ({"status": Status.CANCELLED, "http_status": 200}, None),
    ],
)
def test_what_an_exchange_says_of_its_policy(facts: dict[str, object], expected: Ended | None) -> None:
    """Errors, refusals, and what the caller did: the wrong basket would blame the wrong revision."""
    told = ExchangeFacts("id", 0)
    for name, value in {"policy": "p", **facts}.items():
        setattr(told, name, value)

    assert expected is ended_as(told)


# --- what follows


@pytest.mark.parametrize(
    ("step", "watched_s", "exchanges", "then", "expected"),
    [
        (0, 59.9, 999, AfterWatch.PROMOTE, Move.WATCH),
        (0, 60.0, 19, AfterWatch.PROMOTE, Move.SAMPLE),
        (0, 60.0, 20, AfterWatch.PROMOTE, Move.STEP),
        (1, 60.0, 20, AfterWatch.PROMOTE, Move.PROMOTE),
        (1, 60.0, 20, AfterWatch.WAIT, Move.WORD),
        (1, 99999.0, 0, AfterWatch.PROMOTE, Move.SAMPLE),
    ],
)
def test_a_rollout_goes_on_when_time_and_sample_are_there(
    step: int, watched_s: float, exchanges: int, then: AfterWatch, expected: Move
) -> None:
    """Time alone promotes nothing that nobody has used."""
    plan = RolloutPlan(PLAN.shares, watch_s=60.0, min_exchanges=20, then=then)

    assert expected is next_move(plan, step, watched_s, exchanges)


NEW, OLD = "b" * 12, "a" * 12
RUNNING = Remembered(NEW, OLD, PLAN.as_text())
BACK = RUNNING._replace(is_taken_back=True, reason="errors")


@pytest.mark.parametrize(
    ("expected", "plan", "stable", "remembered", "is_running", "was_whole"),
    [
        (Start.WHOLE, None, OLD, None, False, False),
        (Start.WHOLE, PLAN, None, None, False, False),
        (Start.WHOLE, PLAN, NEW, None, False, False),
        (Start.WHOLE, PLAN, OLD, None, False, True),
        (Start.WHOLE, None, OLD, BACK, False, False),
        (Start.CANARY, PLAN, OLD, None, False, False),
        (Start.CANARY, PLAN, OLD, RUNNING, False, False),
        (Start.KEEP, PLAN, OLD, RUNNING, True, False),
        (Start.CANARY, RolloutPlan((0.2,)), OLD, RUNNING, True, False),
        (Start.REFUSED, PLAN, OLD, BACK, False, False),
        (Start.CANARY, RolloutPlan((0.2,)), OLD, BACK, False, False),
        (Start.CANARY, PLAN, OLD, BACK._replace(canary="c" * 12), False, False),
    ],
)
def test_how_texts_come_into_force(
    expected: Start,
    plan: RolloutPlan | None,
    stable: str | None,
    remembered: Remembered | None,
    is_running: bool,
    was_whole: bool,
) -> None:
    """New texts with a rollout are a canary, unless there is nothing to compare with or they were in force before."""
    found = decide_start(NEW, plan, stable=stable, remembered=remembered, is_running=is_running, was_whole=was_whole)

    assert expected is found


@pytest.mark.parametrize("memory", [RUNNING, BACK, BACK._replace(step=1)])
def test_memory_of_a_rollout_survives_being_written(memory: Remembered) -> None:
    """A restart reads what was written, and nothing else passes for it."""
    assert memory == remembered_from(memory.document())
    assert remembered_from({}) is None
    assert remembered_from({**memory.document(), "step": "1"}) is None
    assert remembered_from({**memory.document(), "is_taken_back": 0}) is None


def test_a_plan_is_known_by_everything_it_says() -> None:
    """An edit of any part of it is a new try."""
    plans = [
        PLAN,
        RolloutPlan((0.1,), watch_s=60.0, min_exchanges=20),
        RolloutPlan(PLAN.shares, RolloutBy.APP, 60.0, min_exchanges=20),
        RolloutPlan(PLAN.shares, watch_s=61.0, min_exchanges=20),
        RolloutPlan(PLAN.shares, watch_s=60.0, min_exchanges=21),
        RolloutPlan(PLAN.shares, watch_s=60.0, min_exchanges=20, then=AfterWatch.WAIT),
        RolloutPlan(PLAN.shares, watch_s=60.0, min_exchanges=20, errors=0.01),
        RolloutPlan(PLAN.shares, watch_s=60.0, min_exchanges=20, refusals=0.01),
    ]

    assert len(plans) == len({plan.as_text() for plan in plans})
    assert Counts() == Cohort().total()
