"""No interleaving of reserve, settle, cancel and clock steps passes a limit, in any window.

The oracle is the log of admissions, examined by brute force; it shares no code with the counters.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.budget.dimensions import Dimension
from proxy.core.budget.ledger import Account, Ledger, Meter, Reservation
from proxy.core.budget.window import HOUR, MINUTE, TEN_SECONDS, SlotCounter, WindowCounter, WindowShape
from proxy.flow.budgets import Budgets, Denied, Granted
from tests.support.budgets import budget_rule

STEPS_S = st.one_of(
    st.floats(0.0, 2.0),
    st.sampled_from([0.0, 0.001, 0.5, 0.999, 1.0, 9.0, 10.0, 11.0, 30.0, 59.0, 59.999, 60.0, 60.001, 61.0, 3600.0]),
)


@dataclass
class Admitted:
    """One admission as the log has it: true time, and what it is known to have cost so far."""

    at_s: float
    charge: int
    reservation: Reservation
    is_open: bool = True


Move = tuple[str, float, float, int, int]


def moves_of(steps_s: st.SearchStrategy[float], backs_s: list[float]) -> st.SearchStrategy[list[Move]]:
    """Return sequences of what may happen, so far apart: move, true step, step back, tokens, whom."""
    return st.lists(
        st.tuples(
            st.sampled_from(["acquire", "acquire", "acquire", "settle", "cancel"]),
            steps_s,
            st.sampled_from(backs_s),
            st.integers(0, 40),
            st.integers(0, 10**6),
        ),
        min_size=10,
        max_size=80,
    )


MOVES = moves_of(STEPS_S, [0.0] * 40 + [0.5, 1.0, 30.0, 5000.0])
DENSE_MOVES = moves_of(st.floats(0.0, 3.0), [0.0] * 60 + [0.5, 2.0])
"""Many admissions around every edge of a ten-second window."""


def worst_window(log: list[Admitted], window_s: float) -> int:
    """Return the largest charge of any closed interval of that length."""
    return max((sum(b.charge for b in log if a.at_s <= b.at_s <= a.at_s + window_s) for a in log), default=0)


def drive(moves: list[Move], ledger: Ledger, account: Account) -> list[Admitted]:
    """Play the moves in true time, seen through a clock that only ever steps back; no one overruns."""
    log: list[Admitted] = []
    true_s, offset_s = 6000.0, 0.0
    for number, (move, step_s, back_s, amount, pick) in enumerate(moves):
        true_s += step_s
        offset_s -= back_s
        now_s = max(0.0, true_s + offset_s)
        if move == "acquire":
            reservation = ledger.acquire(account, amount, now_s, str(number))
            if reservation is not None:
                log.append(Admitted(true_s, amount, reservation))
            continue
        running = [entry for entry in log if entry.is_open]
        if running:
            entry = running[pick % len(running)]
            entry.is_open = False
            entry.charge = 0 if move == "cancel" else min(entry.charge, pick % 41)
            if move == "cancel":
                ledger.cancel(entry.reservation, now_s)
            else:
                ledger.settle(entry.reservation, entry.charge, now_s)
    return log


@settings(max_examples=200, deadline=None)
@given(moves=MOVES, shape=st.sampled_from([TEN_SECONDS, MINUTE, HOUR]), limit=st.integers(40, 120))
def test_no_window_holds_more_tokens_than_the_limit(moves: list[Move], shape: WindowShape, limit: int) -> None:
    """The theorem: actual use admitted in any interval of length W stays within the limit."""
    account = Account([Meter("t", Dimension.TOKENS_PER_MINUTE, WindowCounter(shape, limit))])

    log = drive(moves, Ledger(), account)

    assert worst_window(log, shape.window_s) <= limit


@settings(max_examples=200, deadline=None)
@given(moves=DENSE_MOVES, limit=st.integers(40, 90))
def test_no_ten_seconds_hold_more_than_the_limit_under_steady_demand(moves: list[Move], limit: int) -> None:
    """Rounding inward by one bucket would show here: demand meets every edge."""
    account = Account([Meter("t", Dimension.TOKENS_PER_MINUTE, WindowCounter(TEN_SECONDS, limit))])

    log = drive(moves, Ledger(), account)

    assert worst_window(log, 10.0) <= limit


@settings(max_examples=200, deadline=None)
@given(moves=MOVES, rpm=st.integers(1, 6), tpm=st.integers(40, 120), slots=st.integers(1, 4))
def test_all_dimensions_hold_together(moves: list[Move], rpm: int, tpm: int, slots: int) -> None:
    """Requests, tokens and slots at once; what is over is free again, to the last slot."""
    held = SlotCounter(slots)
    account = Account(
        [
            Meter("b", Dimension.REQUESTS_PER_MINUTE, WindowCounter(MINUTE, rpm)),
            Meter("b", Dimension.TOKENS_PER_MINUTE, WindowCounter(MINUTE, tpm)),
            Meter("b", Dimension.CONCURRENT, held),
        ]
    )
    ledger = Ledger()

    log = drive(moves, ledger, account)
    running = sum(entry.is_open for entry in log)

    assert worst_window(log, 60.0) <= tpm
    assert running <= slots
    assert held.used == running == ledger.open_count
    for entry in log:
        ledger.settle(entry.reservation, 0, 1e7)
    assert held.used == ledger.open_count == 0


@settings(max_examples=200, deadline=None)
@given(moves=MOVES, rpm=st.integers(1, 6))
def test_no_minute_holds_more_requests_than_the_limit(moves: list[Move], rpm: int) -> None:
    """A cancelled attempt never reached the provider, so it is not counted; every other one is."""
    account = Account([Meter("r", Dimension.REQUESTS_PER_MINUTE, WindowCounter(MINUTE, rpm))])
    uncancelled = [move for move in moves if move[0] != "cancel"]
    log = [Admitted(entry.at_s, 1, entry.reservation) for entry in drive(uncancelled, Ledger(), account)]

    assert worst_window(log, 60.0) <= rpm


@settings(max_examples=150, deadline=None)
@given(
    arrivals=st.lists(st.tuples(STEPS_S, st.integers(1, 50)), min_size=1, max_size=60),
    rpm=st.integers(1, 5),
    tpm=st.integers(50, 100),
)
def test_every_wait_told_is_true(arrivals: list[tuple[float, int]], rpm: int, tpm: int) -> None:
    """Coming back after exactly that long is admitted; a hundredth of a second sooner is not."""
    rules = (budget_rule("p", "x", requests_per_minute=rpm, requests_per_hour=rpm * 20, tokens_per_minute=tpm),)
    budgets = Budgets()
    budgets.apply(rules)
    now_s = 1000.0
    for number, (step_s, tokens) in enumerate(arrivals):
        now_s += step_s
        verdict = budgets.reserve(rules, "x", tokens, now_s, str(number))
        if isinstance(verdict, Denied):
            assert verdict.retry_after_s > 0
            if verdict.retry_after_s > 0.02:
                now_s += verdict.retry_after_s - 0.01
                assert isinstance(budgets.reserve(rules, "x", tokens, now_s, f"early-{number}"), Denied)
                now_s += 0.01
            else:
                now_s += verdict.retry_after_s
            assert isinstance(budgets.reserve(rules, "x", tokens, now_s + 1e-9, f"again-{number}"), Granted)


@settings(max_examples=100, deadline=None)
@given(moves=MOVES, tpm=st.integers(40, 120), overrun=st.integers(1, 500))
def test_overruns_add_no_more_than_themselves(moves: list[Move], tpm: int, overrun: int) -> None:
    """The deviation for use beyond the reservation is bounded by exactly that use."""
    counter = WindowCounter(MINUTE, tpm)
    account, ledger = Account([Meter("t", Dimension.TOKENS_PER_MINUTE, counter)]), Ledger()
    reservation = ledger.acquire(account, 10, 6000.0, "over")
    assert reservation is not None
    ledger.settle(reservation, 10 + overrun, 6000.0)

    log = [Admitted(6000.0, 10 + overrun, reservation, is_open=False), *drive(moves, ledger, account)]

    assert worst_window(log, 60.0) <= tpm + overrun


@settings(max_examples=200, deadline=None)
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(["charge", "charge", "correct", "wait_s", "reset_s"]),
            st.sampled_from([0.0, 0.0, 0.5, 1.0, 4.0, 11.0]),
            st.sampled_from([0, 0, 3, 7]),
            st.integers(0, 5),
        ),
        min_size=8,
        max_size=60,
    )
)
def test_sum_is_that_of_the_charges_of_the_window_however_it_is_looked_at(
    moves: list[tuple[str, float, int, int]],
) -> None:
    """Against charges kept per second: the sum holds after every change, late corrections and looks at the future."""
    counter, charges, made = WindowCounter(TEN_SECONDS, 10**6), [0] * 700, list[tuple[float, int]]()
    now_s = 5.5
    for move, step_s, amount, pick in moves:
        now_s += step_s
        counter.advance(now_s)
        if move == "charge":
            counter.charge(amount)
            charges[int(now_s)] += amount
            made.append((now_s, amount))
        elif move == "correct" and made:
            at_s, charged = made.pop(pick % len(made))
            by = amount - charged
            counter.correct(at_s, by, now_s)
            if int(at_s) > int(now_s) - 11:
                charges[int(at_s)] += by
            else:
                charges[int(now_s)] += max(0, by)
        elif move == "wait_s":
            counter.wait_s(counter.limit - amount, now_s)
        else:
            counter.reset_s(now_s)
        assert sum(charges[max(0, int(now_s) - 10) : int(now_s) + 1]) == counter.used
