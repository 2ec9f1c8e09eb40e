"""Recent attempts and latencies: what is counted, and what is forgotten."""

from __future__ import annotations

from proxy.core.health.success import LatencyWindow, SuccessWindow


def test_attempts_failures_and_retries_are_tallied() -> None:
    """The three numbers behind ratio and retry budget."""
    window = SuccessWindow(30)
    window.count_success(1.0)
    window.count_failure(0.5, 2.0)
    window.count_retry(2.5)

    assert (2, 0.5, 1) == window.tally(3.0)


def test_each_second_is_forgotten_when_it_leaves_the_window() -> None:
    """Old seconds go one by one."""
    window = SuccessWindow(30)
    window.count_failure(1.0, 1.0)
    window.count_success(5.0)
    window.count_retry(5.0)

    assert (2, 1.0, 1) == window.tally(31.9)
    assert (1, 0.0, 1) == window.tally(32.0)
    assert (0, 0.0, 0) == window.tally(36.0)


def test_long_silence_forgets_everything() -> None:
    """A gap longer than the window needs no walk through it."""
    window = SuccessWindow(30)
    window.count_failure(1.0, 1.0)

    assert (0, 0.0, 0) == window.tally(1e6)


def test_clock_stepping_back_is_held() -> None:
    """An earlier second is filed under the latest one."""
    window = SuccessWindow(30)
    window.count_success(100.0)
    window.count_success(1.0)

    assert (2, 0.0, 0) == window.tally(2.0)
    assert (0, 0.0, 0) == window.tally(131.0)


def test_clear_forgets_and_counts_on() -> None:
    """After a breaker closes, the old failures are gone and new attempts count."""
    window = SuccessWindow(30)
    window.count_failure(1.0, 1.0)
    window.clear()
    window.count_success(1.0)

    assert (1, 0.0, 0) == window.tally(1.0)


def test_quantiles_of_nothing_are_unknown() -> None:
    """Not zero: nobody has measured."""
    assert (None, None) == LatencyWindow().quantiles(0.0, 0.5, 0.95)


def test_quantiles_are_those_of_the_last_answers() -> None:
    """Bounded in number: the 256 newest."""
    window = LatencyWindow(size=100)
    for i in range(300):
        window.add((0.0, float(i)))

    assert (250.0, 295.0) == window.quantiles(0.0, 0.5, 0.95)


def test_quantiles_leave_out_what_is_too_old() -> None:
    """Bounded in time: an idle night does not show yesterday's latency."""
    window = LatencyWindow(max_age_s=300.0)
    window.add((0.0, 1000.0))
    window.add((200.0, 10.0))

    assert (10.0,) == window.quantiles(301.0, 0.95)
    assert (None,) == window.quantiles(501.0, 0.95)
