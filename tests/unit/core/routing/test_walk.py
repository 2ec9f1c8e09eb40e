"""The way along a chain: how far, how often, and what is shown at its end."""

from __future__ import annotations

import timeit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.routing.problems import Code, Retry
from proxy.core.routing.table import RULES
from proxy.core.routing.walk import COMMIT, TRY_NEXT, Commit, Course, GiveUp, Try, TryNext, Walk, problem_of
from proxy.terms.outcomes import Fault, Outcome

STATUSES = {
    Outcome.UPSTREAM_5XX: 500,
    Outcome.RATE_LIMITED: 429,
    Outcome.OVERLOADED: 529,
    Outcome.UPSTREAM_4XX: 400,
    Outcome.UPSTREAM_CONFLICT: 409,
    Outcome.OWN_KEY_REFUSED: 401,
}


def walk(targets: int = 1, max_attempts: int = 3, deadline_s: float = 100.0, may_retry: bool = True) -> Walk:
    return Walk(Course(targets, max_attempts, may_retry), deadline_s)


def play(machine: Walk, *outcomes: Outcome, now_s: float = 0.0) -> tuple[list[int], GiveUp | Commit | None]:
    """Record these one after the other; return the targets tried and how it ended, if it has."""
    tried: list[int] = []
    for outcome in outcomes:
        step = machine.next(now_s)
        assert isinstance(step, Try)
        tried.append(step.target_index)
        end = machine.record(outcome, now_s, http_status=STATUSES.get(outcome, 0))
        if not isinstance(end, TryNext):
            return tried, end
    return tried, None


def gave_up(machine: Walk, *outcomes: Outcome) -> GiveUp:
    _, end = play(machine, *outcomes)
    assert isinstance(end, GiveUp)
    return end


def test_good_answer_is_handed_on() -> None:
    """The common case."""
    machine = walk(targets=3)

    assert machine.next(0.0) == Try(0, False, 0.0, False, False)
    assert machine.record(Outcome.OK, 1.0) is COMMIT
    assert machine.attempts == 1


def test_refused_connection_goes_straight_to_the_next_target() -> None:
    """UF-01: two attempts, not three; another provider is the better bet than the same closed port."""
    assert ([0, 1], COMMIT) == play(walk(targets=2), Outcome.CONNECT_ERROR, Outcome.OK)


def test_refused_connection_of_the_only_target_is_tried_once_more() -> None:
    """Alone, a second try is all there is."""
    assert ([0, 0], COMMIT) == play(walk(targets=1), Outcome.CONNECT_ERROR, Outcome.OK)


def test_server_error_is_repeated_then_walks() -> None:
    """With attempts to spare: once more here, then on."""
    assert ([0, 0, 1], COMMIT) == play(walk(2, 3), Outcome.UPSTREAM_5XX, Outcome.UPSTREAM_5XX, Outcome.OK)


def test_repeating_never_takes_the_attempt_of_a_target_not_yet_tried() -> None:
    """Two attempts over two targets are one each."""
    assert ([0, 1], COMMIT) == play(walk(2, 2), Outcome.UPSTREAM_5XX, Outcome.OK)


def test_policy_without_retries_tries_each_target_once() -> None:
    """No hidden retry."""
    assert [0, 1] == play(walk(2, 9, may_retry=False), Outcome.UPSTREAM_5XX, Outcome.UPSTREAM_5XX)[0]


def test_status_that_policy_does_not_retry_is_not_repeated() -> None:
    """``retries: [503]`` says nothing about 500."""
    machine = Walk(Course(1, 3, True, frozenset({503})), 100.0)
    machine.next(0.0)

    assert isinstance(machine.record(Outcome.UPSTREAM_5XX, 0.0, http_status=500), GiveUp)


def test_empty_retry_budget_stops_repeating_but_not_walking() -> None:
    """BR-04: repetition is rationed, the way to a healthy provider is not."""
    machine = walk(2, 5)
    machine.next(0.0)
    machine.record(Outcome.UPSTREAM_5XX, 0.0, http_status=500, may_spend_retry=False)
    step = machine.next(0.0)

    assert isinstance(step, Try)
    assert step.target_index == 1


@pytest.mark.parametrize(
    "outcome", [Outcome.UPSTREAM_4XX, Outcome.CLIENT_CANCELLED, Outcome.GATEWAY_FAULT, Outcome.SHUTTING_DOWN]
)
def test_what_is_not_the_providers_failure_never_walks(outcome: Outcome) -> None:
    """A content refusal at one provider must not be shopped around."""
    tried, end = play(walk(3, 9), outcome)

    assert [0] == tried
    assert isinstance(end, GiveUp)
    assert end.outcome is outcome


def test_stale_pooled_connection_is_repeated_fresh_even_without_retries() -> None:
    """UF-19: the provider never saw that request, so the caller need not know."""
    machine = walk(1, 1, may_retry=False)
    machine.next(0.0)
    again = machine.record(Outcome.STALE_CONNECTION, 0.0)
    second = machine.next(0.0)
    end = machine.record(Outcome.OK, 0.1)

    assert again is TRY_NEXT
    assert second == Try(0, False, 0.0, True, True)
    assert (end, machine.attempts) == (COMMIT, 2)


def test_fresh_connection_that_dies_too_is_no_response() -> None:
    """It may have been billed now: not a third time."""
    end = gave_up(walk(1, 3), Outcome.STALE_CONNECTION, Outcome.STALE_CONNECTION)

    assert (end.outcome, end.attempts) == (Outcome.NO_RESPONSE, 2)


@pytest.mark.parametrize(("retry_after_s", "attempts"), [(0.8, 2), (1.0, 2), (1.1, 1), (None, 1)])
def test_rate_limit_of_the_only_target_is_waited_for_only_if_short(retry_after_s: float | None, attempts: int) -> None:
    """UF-05: up to a second within the exchange; more is the caller's to wait."""
    machine = walk(1, 3)
    machine.next(0.0)
    machine.record(Outcome.RATE_LIMITED, 0.0, http_status=429, retry_after_s=retry_after_s)
    step = machine.next(0.0)
    if attempts == 2:
        assert step == Try(0, True, max(retry_after_s or 0.0, 0.125), False, True)
    else:
        assert machine.attempts == 1


def test_rate_limit_walks_on_at_once_when_there_is_another_target() -> None:
    """No one waits for a second while another provider is idle."""
    machine = walk(2, 9)
    machine.next(0.0)
    machine.record(Outcome.RATE_LIMITED, 0.0, http_status=429, retry_after_s=0.5)

    assert machine.next(0.0) == Try(1, False, 0.0, False, False)


def test_wait_before_a_second_try_is_the_jitters_share() -> None:
    """Full jitter, so that many callers do not come back in step."""
    waits = []
    for jitter in (0.0, 0.5, 1.0):
        machine = walk(1, 2)
        machine.next(0.0)
        machine.record(Outcome.UPSTREAM_5XX, 0.0, http_status=500, jitter=jitter)
        step = machine.next(0.0)
        assert isinstance(step, Try)
        waits.append(step.wait_s)

    assert [0.0, 0.125, 0.25] == waits


def test_nothing_is_repeated_that_could_not_end_before_the_deadline() -> None:
    """The deadline covers the waiting, too."""
    machine = walk(1, 3, deadline_s=10.1)
    machine.next(10.0)

    assert isinstance(machine.record(Outcome.UPSTREAM_5XX, 10.0, http_status=500, jitter=1.0), GiveUp)


def test_nothing_new_is_tried_after_the_deadline() -> None:
    """BR-08: three hanging targets end with the chain's time, and the error is the first's."""
    machine = walk(3, 9, deadline_s=10.0)
    machine.next(0.0)
    machine.record(Outcome.TTFB_TIMEOUT, 9.9)
    end = machine.next(10.0)

    assert isinstance(end, GiveUp)
    assert (end.outcome, end.target_index, end.attempts) == (Outcome.TTFB_TIMEOUT, 0, 1)


def test_deadline_before_the_first_try_is_a_timeout() -> None:
    """Also a walk that never began has an answer."""
    end = walk(deadline_s=1.0).next(1.0)

    assert isinstance(end, GiveUp)
    assert (end.outcome, end.code, end.attempts) == (Outcome.TOTAL_TIMEOUT, Code.UPSTREAM_TIMEOUT, 0)


def test_walk_that_meets_no_failure_costs_next_to_nothing() -> None:
    """A chain is free until it is needed: at most 5 µs of CPU for an exchange whose first target answers."""
    course = Course(3, 6)

    def first_answers() -> None:
        machine = Walk(course, 100.0)
        machine.next(0.0)
        if not machine.is_last:
            machine.record(Outcome.OK, 0.1)

    assert min(timeit.repeat(first_answers, number=2000, repeat=7)) / 2000 < 5e-6


def test_begun_answer_goes_on_at_the_next_target_and_shows_its_first_break() -> None:
    """The caller has half an answer: whoever fails to go on with it, the error tells what it broke with."""
    machine = walk(3, 9)
    machine.next(0.0)
    assert isinstance(machine.record(Outcome.STALLED, 5.0, is_begun=True), TryNext)
    step = machine.next(5.0)
    assert isinstance(step, Try)
    assert (1, False) == (step.target_index, step.is_retry)
    assert isinstance(machine.record(Outcome.UPSTREAM_4XX, 6.0, http_status=400), TryNext)
    end = machine.record(Outcome.CONNECT_TIMEOUT, 7.0)

    assert isinstance(end, GiveUp)
    assert (True, Code.UPSTREAM_STALLED, Outcome.STALLED) == (end.is_committed, end.code, end.outcome)


def test_begun_answer_of_the_only_target_is_asked_for_once_more() -> None:
    """Without another target, the same one may mend it, once, and only where retries are allowed."""
    machine = walk(1, 9)
    machine.next(0.0)
    assert isinstance(machine.record(Outcome.RESET, 5.0, is_begun=True), TryNext)
    step = machine.next(5.0)
    assert isinstance(step, Try)
    assert (0, True, True) == (step.target_index, step.is_retry, step.must_be_fresh)
    assert isinstance(machine.record(Outcome.RESET, 6.0, is_begun=True), GiveUp)


def test_request_that_only_we_had_spoiled_is_asked_again_at_no_cost() -> None:
    """A refused prefill uses up none of the attempts."""
    machine = walk(2, 2)
    machine.next(0.0)
    machine.record(Outcome.RESET, 1.0, is_begun=True)
    machine.next(1.0)
    machine.ask_again()
    step = machine.next(1.1)

    assert isinstance(step, Try)
    assert (1, 2) == (step.target_index, machine.attempts)


@pytest.mark.parametrize(
    ("first", "second", "shown", "index"),
    [
        (Outcome.UPSTREAM_5XX, Outcome.CONNECT_ERROR, Outcome.UPSTREAM_5XX, 0),
        (Outcome.CONNECT_ERROR, Outcome.UPSTREAM_5XX, Outcome.UPSTREAM_5XX, 1),
        (Outcome.RATE_LIMITED, Outcome.TTFB_TIMEOUT, Outcome.RATE_LIMITED, 0),
        (Outcome.OWN_KEY_REFUSED, Outcome.UPSTREAM_5XX, Outcome.UPSTREAM_5XX, 1),
        (Outcome.UPSTREAM_5XX, Outcome.UPSTREAM_5XX, Outcome.UPSTREAM_5XX, 0),
        (Outcome.UPSTREAM_5XX, Outcome.BREAKER_OPEN, Outcome.UPSTREAM_5XX, 0),
        (Outcome.BUDGET_DENIED, Outcome.DNS_ERROR, Outcome.DNS_ERROR, 1),
        (Outcome.UPSTREAM_5XX, Outcome.UPSTREAM_4XX, Outcome.UPSTREAM_4XX, 1),
    ],
)
def test_shown_error_is_the_most_useful_not_the_last(
    first: Outcome, second: Outcome, shown: Outcome, index: int
) -> None:
    """Of all that went wrong, the caller gets what helps."""
    end = gave_up(walk(2, 2), first, second)

    assert (shown, index) == (end.outcome, end.target_index)


@pytest.mark.parametrize("outcome", [Outcome.UPSTREAM_5XX, Outcome.RATE_LIMITED, Outcome.OVERLOADED,
                                     Outcome.UPSTREAM_4XX, Outcome.UPSTREAM_CONFLICT, Outcome.OWN_KEY_REFUSED])  # fmt: skip
def test_single_target_without_retries_passes_the_providers_own_error(outcome: Outcome) -> None:
    """Transparent: status, headers and body as the provider sent them."""
    end = gave_up(walk(1, 1, may_retry=False), outcome)

    assert (end.pass_through, end.http_status, end.attempts) == (True, STATUSES[outcome], 1)


@pytest.mark.parametrize("outcome", [Outcome.ERROR_IN_200, Outcome.BAD_CONTENT_TYPE, Outcome.CONNECT_ERROR])
def test_what_has_no_error_status_cannot_pass_through(outcome: Outcome) -> None:
    """An error under 200 would be taken for an answer."""
    machine = walk(1, 1, may_retry=False)
    machine.next(0.0)
    end = machine.record(outcome, 0.0, http_status=200)

    assert isinstance(end, GiveUp)
    assert end.pass_through is False


def test_errors_of_an_exhausted_chain_are_ours_to_word() -> None:
    """Two providers failed; one of their bodies would tell half the story. A caller's own error stays."""
    assert gave_up(walk(2, 2), Outcome.UPSTREAM_5XX, Outcome.UPSTREAM_5XX).pass_through is False
    assert gave_up(walk(2, 2), Outcome.UPSTREAM_5XX, Outcome.UPSTREAM_4XX).pass_through is True


def test_repeat_refused_by_the_breaker_still_passes_the_only_answer() -> None:
    """One target, one answer: it is shown even when a second try was wanted."""
    assert gave_up(walk(1, 2), Outcome.UPSTREAM_5XX, Outcome.BREAKER_OPEN).pass_through is True


def test_all_breakers_open_tells_the_soonest_time() -> None:
    """503 with a wait that is true for one of them."""
    machine = walk(3)
    end: object = None
    for wait_s in (20.0, 4.0, 9.0):
        machine.next(0.0)
        end = machine.record(Outcome.BREAKER_OPEN, 1.0, retry_after_s=wait_s)
    assert isinstance(end, GiveUp)
    shown = problem_of(end)

    assert (shown.status, shown.code, shown.retry, shown.retry_after_s) == (
        503, "all_targets_unavailable", Retry.YES, 4.0,
    )  # fmt: skip
    assert end.attempts == 0


def test_last_resort_is_marked_when_everything_before_was_passed_over() -> None:
    """So that the fleet probes it within ten seconds."""
    machine = walk(2)
    machine.next(0.0)
    machine.record(Outcome.BREAKER_OPEN, 0.0, retry_after_s=60.0)

    assert machine.next(0.0) == Try(1, False, 0.0, False, False, True)


def test_all_budgets_exhausted_is_a_rate_limit_of_ours() -> None:
    """429 with the soonest wait, the fault of policy."""
    machine = walk(2)
    machine.next(0.0)
    machine.record(Outcome.BUDGET_DENIED, 0.0, retry_after_s=30.0)
    machine.next(0.0)
    end = machine.record(Outcome.BUDGET_DENIED, 0.0, retry_after_s=12.0)
    assert isinstance(end, GiveUp)
    shown = problem_of(end)

    assert (shown.status, shown.code, shown.fault, shown.retry_after_s) == (
        429, "rate_limit_exceeded", Fault.POLICY, 12.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("codes", "shown", "retry"),
    [
        ((Code.INSUFFICIENT_QUOTA, Code.INSUFFICIENT_QUOTA), "insufficient_quota", Retry.NO),
        ((Code.INSUFFICIENT_QUOTA, None), "rate_limit_exceeded", Retry.YES),
        ((Code.BUDGET_REQUEST_TOO_LARGE, Code.BUDGET_REQUEST_TOO_LARGE), "budget_request_too_large", Retry.NO),
        ((Code.INSUFFICIENT_QUOTA, Code.BUDGET_REQUEST_TOO_LARGE), "insufficient_quota", Retry.NO),
    ],
)
def test_of_several_budgets_the_one_that_opens_soonest_is_told(
    codes: tuple[Code | None, Code | None], shown: str, retry: Retry
) -> None:
    """A spent day at one provider and a busy minute at the other: come back in a minute."""
    machine = walk(2)
    end: object = None
    for code in codes:
        machine.next(0.0)
        end = machine.record(Outcome.BUDGET_DENIED, 0.0, code=code)
    assert isinstance(end, GiveUp)

    assert (shown, retry) == (problem_of(end).code, problem_of(end).retry)


def test_budget_and_breaker_together_mean_no_capacity() -> None:
    """Neither alone is the reason."""
    machine = walk(2)
    machine.next(0.0)
    machine.record(Outcome.BUDGET_DENIED, 0.0, retry_after_s=30.0)
    machine.next(0.0)
    end = machine.record(Outcome.BREAKER_OPEN, 0.0, retry_after_s=3.0)

    assert isinstance(end, GiveUp)
    assert (end.code, end.retry_after_s) == (Code.ALL_TARGETS_UNAVAILABLE, 3.0)


def test_rate_limits_of_all_targets_tell_the_least_wait() -> None:
    """429 with the minimum Retry-After, the provider's fault, and a retry that helps."""
    machine = walk(2, 2)
    machine.next(0.0)
    machine.record(Outcome.RATE_LIMITED, 0.0, http_status=429, retry_after_s=7.0)
    machine.next(1.0)
    end = machine.record(Outcome.RATE_LIMITED, 1.0, http_status=429, retry_after_s=30.0)
    assert isinstance(end, GiveUp)
    shown = problem_of(end)

    assert (shown.status, shown.fault, shown.retry, shown.retry_after_s) == (429, Fault.PROVIDER, Retry.YES, 6.0)


def test_caller_is_told_not_to_repeat_what_we_have_repeated() -> None:
    """Three attempts here times three in the SDK would be nine."""
    once = problem_of(gave_up(walk(1, 1), Outcome.TTFB_TIMEOUT))
    twice = problem_of(gave_up(walk(2, 2), Outcome.TTFB_TIMEOUT, Outcome.TTFB_TIMEOUT))

    assert (once.status, once.code, once.retry) == (504, "upstream_timeout", Retry.YES)
    assert (twice.retry, twice.retry_after_s) == (Retry.NO, None)
    assert "2 attempts" in twice.message


@pytest.mark.parametrize(("status", "expected"), [(500, 502), (502, 502), (503, 503), (504, 502)])
def test_providers_503_stays_one(status: int, expected: int) -> None:
    """Busy and broken are different things to a load balancer in front of the caller."""
    machine = walk(2, 2)
    machine.next(0.0)
    machine.record(Outcome.UPSTREAM_5XX, 0.0, http_status=status)
    machine.next(0.0)
    end = machine.record(Outcome.CONNECT_ERROR, 0.0)
    assert isinstance(end, GiveUp)

    assert expected == problem_of(end).status


def test_conflict_that_stays_is_unavailable() -> None:
    """409 from a chain is not the caller's conflict."""
    shown = problem_of(gave_up(walk(1, 2), Outcome.UPSTREAM_CONFLICT, Outcome.UPSTREAM_CONFLICT))

    assert (shown.status, shown.retry) == (503, Retry.NO)


@settings(max_examples=300, deadline=None)
@given(
    targets=st.integers(1, 5),
    max_attempts=st.integers(1, 6),
    may_retry=st.booleans(),
    deadline_s=st.floats(0.0, 20.0),
    story=st.lists(
        st.tuples(
            st.sampled_from([o for o in Outcome if o is not Outcome.OK]),
            st.floats(0.0, 3.0),
            st.none() | st.floats(0.0, 300.0),
            st.floats(0.0, 1.0),
            st.booleans(),
        ),
        min_size=40,
        max_size=40,
    ),
)
def test_walk_ends_within_its_attempts_and_its_deadline(
    targets: int,
    max_attempts: int,
    may_retry: bool,
    deadline_s: float,
    story: list[tuple[Outcome, float, float | None, float, bool]],
) -> None:
    """Whatever goes wrong: bounded attempts, nothing begun late, targets only ever forward."""
    machine = Walk(Course(targets, max_attempts, may_retry), deadline_s)
    now_s, sent, stale, visited = 0.0, 0, 0, [0]
    end: object = None
    for outcome, took_s, retry_after_s, jitter, may_spend in story:
        step = machine.next(now_s)
        if isinstance(step, GiveUp):
            end = step
            break
        now_s += step.wait_s
        assert now_s < deadline_s
        assert visited[-1] <= step.target_index < targets
        assert may_retry or not step.is_retry
        visited.append(step.target_index)
        if RULES[outcome].is_attempt:
            sent += 1
            stale += outcome is Outcome.STALE_CONNECTION
        now_s += took_s
        status = STATUSES.get(outcome, 0)
        end = machine.record(
            outcome, now_s, http_status=status, retry_after_s=retry_after_s, jitter=jitter, may_spend_retry=may_spend
        )
        if isinstance(end, GiveUp):
            break

    assert isinstance(end, GiveUp), "the walk did not end"
    assert end.attempts == machine.attempts == sent
    assert sent - stale <= max_attempts
    assert stale <= 2 * targets
    assert max(visited.count(i) for i in set(visited)) <= 4
    assert 400 <= problem_of(end).status < 600
