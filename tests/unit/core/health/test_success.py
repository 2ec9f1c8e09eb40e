"""Recent attempts and latencies: what is counted, and what is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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


@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(["success", "failure", "retry", "tally"]), st.sampled_from([0.0, 0.4, 1.0, 7.0, 31.0])
        ),
        max_size=60,
    )
)
def test_tally_is_that_of_the_seconds_of_the_window(moves: list[tuple[str, float]]) -> None:
    """Against everything that was counted, with its second."""
    window, now_s = SuccessWindow(30), 0.5
    counted: list[tuple[int, int, int, int]] = []
    for move, step_s in moves:
        now_s += step_s
        if move == "success":
            window.count_success(now_s)
        elif move == "failure":
            window.count_failure(1.0, now_s)
        elif move == "retry":
            window.count_retry(now_s)
        counted.append((int(now_s), move in ("success", "failure"), move == "failure", move == "retry"))
        recent = [one for one in counted if one[0] >= int(now_s) - 30]
        assert tuple(sum(one[place] for one in recent) for place in (1, 2, 3)) == window.tally(now_s)
