"""All or nothing over several meters, and reservations that end exactly once."""

from __future__ import annotations

import pytest

from proxy.core.budget.dimensions import Dimension
from proxy.core.budget.ledger import Account, Ledger, Meter, Reservation
from proxy.core.budget.window import MINUTE, SlotCounter, WindowCounter


class Rig:
    """One ledger with a request, a token and a slot meter."""

    def __init__(self, rpm: int = 10, tpm: int = 100, slots: int = 2) -> None:
        self.requests = WindowCounter(MINUTE, rpm)
        self.tokens = WindowCounter(MINUTE, tpm)
        self.slots = SlotCounter(slots)
        self.account = Account(
            [
                Meter("b", Dimension.REQUESTS_PER_MINUTE, self.requests),
                Meter("b", Dimension.TOKENS_PER_MINUTE, self.tokens),
                Meter("b", Dimension.CONCURRENT, self.slots),
            ]
        )
        self.ledger = Ledger()

    def acquire(self, rid: str, tokens: int = 10, now_s: float = 0.0) -> Reservation | None:
        return self.ledger.acquire(self.account, tokens, now_s, rid)

    def sums(self) -> tuple[int, int, int]:
        return self.requests.used, self.tokens.used, self.slots.used


def must(reservation: Reservation | None) -> Reservation:
    """Return it, or fail the test."""
    assert reservation is not None
    return reservation


def test_admission_charges_every_meter() -> None:
    """One attempt is one request, its tokens and one slot."""
    rig = Rig()

    must(rig.acquire("a", tokens=30))

    assert rig.sums() == (1, 30, 1)


@pytest.mark.parametrize(
    ("limits", "missing"),
    [
        ({"rpm": 1}, Dimension.REQUESTS_PER_MINUTE),
        ({"tpm": 15}, Dimension.TOKENS_PER_MINUTE),
        ({"slots": 1}, Dimension.CONCURRENT),
    ],
)
def test_denial_by_one_meter_charges_none(limits: dict[str, int], missing: Dimension) -> None:
    """A request turned away for slots must not use up the minute's requests (a known bug elsewhere)."""
    rig = Rig(**limits)
    must(rig.acquire("a"))
    before = rig.sums()

    denied = rig.acquire("b")

    assert denied is None
    assert rig.sums() == before
    assert [missing] == [s.dimension for s in rig.ledger.shortages(rig.account, 10, 0.0)]


def test_same_attempt_asked_twice_is_charged_once() -> None:
    """A repeated call after a lost reply gets the earlier verdict."""
    rig = Rig()

    first, second = rig.acquire("a"), rig.acquire("a")

    assert first is second
    assert rig.sums() == (1, 10, 1)


def test_settle_charges_the_actual_use_and_frees_the_slot() -> None:
    """The estimate is replaced by the truth; the request stays counted."""
    rig = Rig()
    rig.ledger.settle(must(rig.acquire("a", tokens=50)), 20, 1.0)

    assert rig.sums() == (1, 20, 0)


def test_settle_without_known_use_keeps_the_estimate() -> None:
    """Unknown is not zero."""
    rig = Rig()
    rig.ledger.settle(must(rig.acquire("a", tokens=50)), None, 1.0)

    assert rig.sums() == (1, 50, 0)


def test_cancel_takes_everything_back() -> None:
    """A provider that never accepted the request has used nothing."""
    rig = Rig()
    rig.ledger.cancel(must(rig.acquire("a", tokens=50)), 1.0)

    assert rig.sums() == (0, 0, 0)


def test_second_end_of_a_reservation_changes_nothing() -> None:
    """Settle and cancel may race in a finaliser; only the first counts."""
    rig = Rig()
    reservation = must(rig.acquire("a", tokens=50))

    ends = [
        rig.ledger.settle(reservation, 20, 1.0),
        rig.ledger.settle(reservation, 5, 1.0),
        rig.ledger.cancel(reservation, 1.0),
    ]

    assert [True, False, False] == ends
    assert rig.sums() == (1, 20, 0)


def test_late_end_of_an_earlier_attempt_leaves_a_later_one_of_the_same_name_alone() -> None:
    """After A was cancelled and B took its id, a straggling settle of A must not settle B."""
    rig = Rig()
    first = must(rig.acquire("x", tokens=50))
    rig.ledger.cancel(first, 0.0)
    must(rig.acquire("x", tokens=30))

    assert rig.ledger.settle(first, 1, 0.0) is False
    assert rig.sums() == (1, 30, 1)


def test_estimate_above_the_limit_is_charged_up_to_it_and_the_overrun_later() -> None:
    """Without this the first request without ``max_tokens`` would be refused for ever."""
    rig = Rig(tpm=100)
    reservation = must(rig.acquire("a", tokens=500, now_s=0.0))
    held = rig.tokens.used
    rig.ledger.settle(reservation, 150, 5.0)

    assert held == 100
    assert rig.tokens.used == 150
    assert rig.acquire("b", tokens=500, now_s=60.9) is None
    assert rig.acquire("b", tokens=500, now_s=61.0) is not None


def test_estimate_is_cut_per_limit_so_the_wider_one_holds_it_whole() -> None:
    """Two token budgets of different size: only the small one is cut."""
    small, large = WindowCounter(MINUTE, 100), WindowCounter(MINUTE, 1000)
    account = Account([Meter("s", Dimension.TOKENS_PER_MINUTE, small), Meter("l", Dimension.TOKENS_PER_MINUTE, large)])
    ledger = Ledger()

    reservation = must(ledger.acquire(account, 300, 0.0, "a"))
    held = (small.used, large.used)
    ledger.settle(reservation, 40, 1.0)

    assert held == (100, 300)
    assert (small.used, large.used) == (40, 40)


def test_negative_use_is_taken_as_none() -> None:
    """A provider that reports nonsense cannot mint tokens."""
    rig = Rig()
    rig.ledger.settle(must(rig.acquire("a", tokens=50)), -1000, 1.0)

    assert rig.tokens.used == 0


def test_clock_of_all_meters_never_runs_backwards() -> None:
    """An attempt admitted after a step back is filed under the latest second seen."""
    rig = Rig(rpm=1)
    must(rig.acquire("a", now_s=100.0))

    assert rig.acquire("b", now_s=1.0) is None
    assert rig.ledger.now_s == 100.0
    assert rig.acquire("b", now_s=160.9) is None
    assert rig.acquire("b", now_s=161.0) is not None


def test_settlement_with_an_old_time_does_not_rewind_the_clock() -> None:
    """The next admission is still filed under the latest second, so that its refund finds it."""
    rig = Rig(tpm=100)
    first = must(rig.acquire("a", tokens=50, now_s=100.0))
    rig.ledger.settle(first, 20, 40.0)
    second = must(rig.acquire("b", tokens=50, now_s=50.0))

    assert rig.ledger.now_s == second.admitted_s == 100.0


def test_open_count_returns_to_zero() -> None:
    """The leak oracle: nothing is held when nothing runs."""
    rig = Rig(slots=3)
    kept = [must(rig.acquire(name)) for name in "abc"]
    held = rig.ledger.open_count
    rig.ledger.settle(kept[0], 1, 0.0)
    rig.ledger.cancel(kept[1], 0.0)
    rig.ledger.settle(kept[2], None, 0.0)

    assert (held, rig.ledger.open_count) == (3, 0)
