"""When a breaker opens, how it finds out, and to whom it gives way."""

from __future__ import annotations

import pytest

from proxy.core.health.breaker import (
    ADMIT,
    PROBE,
    Admission,
    Breaker,
    BreakerSettings,
    BreakerState,
    Reason,
    Verdict,
)

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def opened(at_s: float = 0.0, settings: BreakerSettings | None = None) -> Breaker:
    """Return a breaker that five failures opened, with the shortest back-off."""
    breaker = Breaker(settings or BreakerSettings())
    for _ in range(5):
        breaker.fail(1.0, at_s, 0.0)
    return breaker


def failed_probes(breaker: Breaker, count: int) -> list[float]:
    """Let that many probes fail at once and return the back-off that followed each."""
    waits: list[float] = []
    for _ in range(count):
        at_s = breaker.retry_at_s(0.0) or 0.0
        assert breaker.admit(at_s) is PROBE
        breaker.fail(1.0, at_s, 0.0, is_probe=True)
        waits.append((breaker.retry_at_s(at_s) or 0.0) - at_s)
    return waits


def test_four_failures_in_a_row_keep_it_closed_and_the_fifth_opens_it() -> None:
    """A short burst of errors is not an outage."""
    breaker = Breaker()
    states = []
    for _ in range(5):
        breaker.fail(1.0, 10.0, 0.0)
        states.append(breaker.state)

    assert [CLOSED, CLOSED, CLOSED, CLOSED, OPEN] == states


def test_a_success_in_between_starts_the_count_again() -> None:
    """In a row means in a row."""
    breaker = Breaker()
    for _ in range(3):
        for _ in range(4):
            breaker.fail(1.0, 10.0, 0.0)
        for _ in range(6):
            breaker.succeed(10.0)

    assert breaker.state is CLOSED
    assert breaker.consecutive_failures == 0


def test_half_failures_need_twice_as_many() -> None:
    """An overloaded provider is given more patience than a broken one."""
    breaker = Breaker()
    for _ in range(9):
        breaker.fail(0.5, 10.0, 0.0)
    before = breaker.state
    breaker.fail(0.5, 10.0, 0.0)

    assert (before, breaker.state) == (CLOSED, OPEN)


def test_more_than_half_of_twenty_opens_it_without_five_in_a_row() -> None:
    """A provider that fails every other request is as good as down."""
    breaker = Breaker()
    for i in range(9):
        breaker.succeed(float(i))
        breaker.fail(1.0, float(i), 0.0)
    breaker.fail(1.0, 9.0, 0.0)
    before = breaker.state
    breaker.fail(1.0, 9.0, 0.0)

    assert (before, breaker.state) == (CLOSED, OPEN)


def test_exactly_half_keeps_it_closed() -> None:
    """The ratio has to be passed, not met."""
    breaker = Breaker()
    for i in range(40):
        breaker.succeed(i * 0.1)
        breaker.fail(1.0, i * 0.1, 0.0)

    assert breaker.state is CLOSED


def test_failures_older_than_the_window_do_not_count_towards_the_ratio() -> None:
    """What was half a minute ago is not evidence about now."""
    breaker = Breaker()
    for _ in range(10):
        breaker.succeed(0.0)
        breaker.fail(1.0, 0.0, 0.0)
    breaker.succeed(31.5)
    for _ in range(4):
        breaker.fail(1.0, 32.0, 0.0)

    assert breaker.state is CLOSED


def test_open_refuses_until_the_back_off_then_lets_one_probe_out() -> None:
    """BR-01 and BR-02: fifty who ask at once get one probe between them."""
    breaker = opened(at_s=100.0)

    early = breaker.admit(100.9)
    answers = [breaker.admit(101.0) for _ in range(50)]

    assert early == Admission(Verdict.REFUSED, 101.0, Reason.OPEN)
    assert answers[0] is PROBE
    assert {a.reason for a in answers[1:]} == {Reason.PROBING}


def test_probe_success_closes_it_with_a_clean_slate() -> None:
    """One good probe lets ordinary traffic back in, and old failures do not open it at once."""
    breaker = opened()
    breaker.admit(1.0)
    breaker.succeed(1.2, is_probe=True)
    for _ in range(4):
        breaker.fail(1.0, 1.3, 0.0)

    assert breaker.state is CLOSED
    assert breaker.admit(1.3) is ADMIT


def test_probe_failure_doubles_the_back_off_up_to_a_minute() -> None:
    """1, then 2, 4 … seconds; never more than sixty."""
    assert [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] == failed_probes(opened(), 7)


def test_jitter_only_lengthens_the_back_off() -> None:
    """Many sidecars must not probe in step, and none sooner than promised."""
    breaker = Breaker()
    for _ in range(5):
        breaker.fail(1.0, 0.0, 1.0)

    assert breaker.retry_at_s(0.0) == pytest.approx(1.25)


def test_long_health_forgives_earlier_openings() -> None:
    """A provider that flaps once a day starts from the short back-off again."""
    breaker = opened()
    failed_probes(breaker, 3)
    at_s = breaker.retry_at_s(0.0) or 0.0
    breaker.admit(at_s)
    breaker.succeed(at_s, is_probe=True)
    for _ in range(5):
        breaker.fail(1.0, at_s + 5.0, 0.0)

    assert breaker.retry_at_s(at_s + 5.0) == pytest.approx(at_s + 5.0 + 2.0)


def test_good_probe_forgives_half_the_openings() -> None:
    """A provider that flaps is back soon after each fall, yet not asked every second."""
    breaker = opened()
    failed_probes(breaker, 3)
    at_s = breaker.retry_at_s(0.0) or 0.0
    breaker.admit(at_s)
    breaker.succeed(at_s, is_probe=True)
    for _ in range(5):
        breaker.fail(1.0, at_s + 1.0, 0.0)

    assert breaker.retry_at_s(at_s + 1.0) == pytest.approx(at_s + 1.0 + 4.0)


def test_probe_past_its_deadline_counts_as_failed() -> None:
    """A probe that hangs must not hold the door for ever, nor be repeated without pause."""
    breaker = opened()
    breaker.admit(1.0)

    held = breaker.admit(10.9)
    lost = breaker.admit(11.0)
    again = breaker.admit(13.0)

    assert held == Admission(Verdict.REFUSED, 11.0, Reason.PROBING)
    assert lost == Admission(Verdict.REFUSED, 13.0, Reason.OPEN)
    assert again is PROBE


def test_late_success_of_a_lost_probe_still_closes() -> None:
    """A target slower than the probe's deadline is slow, not dead."""
    breaker = opened()
    breaker.admit(1.0)
    breaker.admit(11.0)
    breaker.succeed(11.5, is_probe=True)

    assert breaker.state is CLOSED


def test_answers_to_requests_from_before_the_opening_change_nothing() -> None:
    """Only the probe speaks while the breaker is not closed."""
    breaker = opened()
    breaker.succeed(0.5)
    breaker.fail(1.0, 0.6, 0.0)
    state_while_open, until_s = breaker.state, breaker.retry_at_s(0.6)
    breaker.admit(1.0)
    breaker.succeed(1.1)
    breaker.fail(1.0, 1.2, 0.0)

    assert (state_while_open, until_s) == (OPEN, 1.0)
    assert breaker.state is HALF_OPEN


def test_probe_that_is_answered_with_a_refusal_closes() -> None:
    """A 400 for the caller's own mistake proves that the provider is there."""
    breaker = opened()
    breaker.admit(1.0)
    breaker.answer(1.2, is_probe=True)

    assert breaker.state is CLOSED


def test_cancelled_probe_frees_the_place_at_once() -> None:
    """A caller who leaves must not cost the others a back-off."""
    breaker = opened()
    breaker.admit(1.0)
    breaker.cancel_probe(1.5)

    assert breaker.admit(1.5) is PROBE


def test_neutral_answers_do_not_open_and_do_not_reset() -> None:
    """BR-03: the callers' own errors say nothing about health, in either direction."""
    breaker = Breaker()
    for _ in range(4):
        breaker.fail(1.0, 0.0, 0.0)
    for _ in range(200):
        breaker.answer(0.0)
    before = breaker.state
    breaker.fail(1.0, 0.0, 0.0)

    assert (before, breaker.state) == (CLOSED, OPEN)


def test_cooling_refuses_until_its_time_and_leaves_the_state() -> None:
    """UF-05: a 429 with two seconds keeps us away two seconds."""
    breaker = Breaker()
    breaker.cool(12.0, 10.0)

    assert breaker.admit(11.9) == Admission(Verdict.REFUSED, 12.0, Reason.COOLING)
    assert breaker.state is CLOSED
    assert breaker.admit(12.0) is ADMIT


def test_cooling_is_bounded_and_never_shortened() -> None:
    """A provider cannot send us away for a day, and a later mild answer does not undo a strict one."""
    breaker = Breaker()
    breaker.cool(10.0 + 86400.0, 10.0)
    breaker.cool(11.0, 10.0)

    assert breaker.cooling_until_s == 310.0


def test_only_target_is_not_refused_for_cooling() -> None:
    """With no one else to ask, the provider's own 429 is the honest answer."""
    breaker = Breaker()
    breaker.cool(12.0, 10.0)

    assert breaker.admit(10.5, is_only_target=True) is ADMIT


def test_only_target_is_paced_rather_than_shut() -> None:
    """However long the back-off has grown, one a second may go and see."""
    breaker = opened()
    failed_probes(breaker, 6)
    opened_s = breaker.since_s

    verdicts = [breaker.admit(opened_s + wait_s, is_only_target=True).verdict for wait_s in (0.5, 1.0, 1.5)]

    assert [Verdict.REFUSED, Verdict.PROBE, Verdict.REFUSED] == verdicts


def test_last_resort_is_probed_within_ten_seconds() -> None:
    """A chain whose targets are all open must find out soon that one has healed."""
    breaker = opened()
    failed_probes(breaker, 6)
    opened_s = breaker.since_s

    assert breaker.admit(opened_s + 10.0).is_refused is True
    assert breaker.admit(opened_s + 9.9, is_last_resort=True).is_refused is True
    assert breaker.admit(opened_s + 10.0, is_last_resort=True) is PROBE


def test_disabled_breaker_admits_everything() -> None:
    """An operator may switch it off; failures are still counted."""
    breaker = opened(settings=BreakerSettings(is_enabled=False))
    breaker.cool(100.0, 0.0)

    assert breaker.admit(0.1) is ADMIT
    assert breaker.consecutive_failures == 5


def test_reset_closes_and_forgets() -> None:
    """``breakers reset`` is a fresh start, short back-off included."""
    breaker = opened()
    failed_probes(breaker, 4)
    breaker.cool(1e6, breaker.since_s)
    breaker.reset(50.0)
    is_admitted = breaker.admit(50.0) is ADMIT
    for _ in range(5):
        breaker.fail(1.0, 50.0, 0.0)

    assert is_admitted is True
    assert breaker.retry_at_s(50.0) == 51.0


def test_retry_at_is_told_only_while_someone_waits() -> None:
    """Shown in ``/providers`` and used for the soonest time of a chain."""
    fresh, cooling, open_, probing = Breaker(), Breaker(), opened(), opened()
    cooling.cool(7.0, 5.0)
    probing.admit(1.0)

    assert [None, 7.0, 1.0, 11.0] == [b.retry_at_s(0.5) for b in (fresh, cooling, open_, probing)]
    assert cooling.retry_at_s(7.0) is None
