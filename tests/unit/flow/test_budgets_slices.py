"""What a sidecar admits from its own slice: after a start, in an outage, after a denial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from proxy.core.budget.central import CentralVerdict, Charge
from proxy.core.budget.shares import OnOutage, Shares
from proxy.flow.budget_lines import whose_text
from proxy.flow.budgets import Ask, Budgets, Denied, Granted
from proxy.flow.verdicts import Verdict
from tests.support.budgets import budget_rule

RULES = (budget_rule("p", "x", requests_per_minute=100, tokens_per_minute=10_000),)


class Store:
    """A shared counter that answers as it is told to."""

    def __init__(self, answer: CentralVerdict | None = None) -> None:
        self.is_open = False
        self.answer = answer
        self.asked = 0
        self.cancelled: list[str] = []
        self.settled: list[tuple[str, Sequence[int]]] = []
        self.paused: dict[str, float] = {}

    def outage_s(self, now_s: float) -> float:
        return now_s - 95.0 if self.is_open else 0.0

    async def acquire(self, rid: str, charges: Sequence[Charge], pauses: Sequence[str]) -> CentralVerdict | None:
        self.asked += 1
        return self.answer

    def settle(self, rid: str, charges: Sequence[Charge], spent: Sequence[int]) -> None:
        self.settled.append((rid, spent))

    def cancel(self, rid: str, charges: Sequence[Charge]) -> None:
        self.cancelled.append(rid)

    def pause(self, whom: str, for_s: float) -> None:
        self.paused[whom] = for_s

    async def look(self, counters: Sequence[Any]) -> Sequence[tuple[int, float]] | None:
        return None


def budgets_with(store: Store, on_outage: OnOutage = OnOutage.STRICT, started_s: float = 0.0) -> Budgets:
    """Ten sidecars, a quarter of each limit private: slices of 2 requests and 250 tokens."""
    budgets = Budgets(central=store, shares=Shares(10, 0.25, on_outage), started_s=started_s, boost_after_s=30.0)
    budgets.apply(RULES)
    return budgets


async def ask(budgets: Budgets, rid: str, now_s: float, tokens: int = 10, **more: Any) -> Verdict:
    verdict = budgets.reserve(RULES, "x", tokens, now_s, rid, **more)
    return await budgets.decide(verdict, now_s) if isinstance(verdict, Ask) else verdict


async def granted(budgets: Budgets, now_s: float, count: int = 20) -> int:
    return sum([isinstance(await ask(budgets, f"{now_s}-{i}", now_s), Granted) for i in range(count)])


async def test_slice_serves_without_asking_while_the_store_is_away() -> None:
    """The breaker is open: no caller waits for a store that does not answer."""
    store = Store()
    store.is_open = True
    budgets = budgets_with(store)

    assert 2 == await granted(budgets, 100.0)
    assert 0 == store.asked


async def test_slice_is_closed_until_a_predecessors_use_has_left_the_window() -> None:
    """A crash loop must not mint a slice with every start."""
    store = Store()
    store.is_open = True
    budgets = budgets_with(store, started_s=1000.0)

    assert 0 == await granted(budgets, 1001.0)
    assert 0 == await granted(budgets, 1059.0)
    assert 2 == await granted(budgets, 1062.0)


@pytest.mark.parametrize(
    ("on_outage", "at_once", "later"),
    [(OnOutage.STRICT, 2, 2), (OnOutage.BOOST, 2, 10), (OnOutage.DENY, 0, 0), (OnOutage.ALLOW, 20, 20)],
)
async def test_outage_modes_admit_what_they_say(on_outage: OnOutage, at_once: int, later: int) -> None:
    """A slice; a slice that grows to a tenth of all; nothing; everything."""
    store = Store()
    store.is_open = True
    budgets = budgets_with(store, on_outage)

    assert at_once == await granted(budgets, 100.0)
    assert later == await granted(budgets, 1000.0)


async def test_boost_ends_with_the_outage() -> None:
    """A slice that has grown must not stay so."""
    store = Store()
    store.is_open = True
    budgets = budgets_with(store, OnOutage.BOOST)
    await granted(budgets, 1000.0, 1)
    store.is_open = False
    store.answer = CentralVerdict(False, 30.0, 0, "", (0, 0))
    budgets.store_is_back()

    assert 2 == await granted(budgets, 2000.0)


async def test_unknown_outcome_is_decided_by_the_slice() -> None:
    """No answer in time: the store cancels by itself, the slice serves, and what it cannot serve asks once more."""
    store = Store(None)
    budgets = budgets_with(store)

    assert 2 == await granted(budgets, 100.0, 5)
    assert 2 + 2 * 3 == store.asked


async def test_one_late_command_after_a_start_refuses_nobody() -> None:
    """Slices are closed for a window then, so a single slow answer used to be a 429 although there was room."""

    class LateOnce(Store):
        async def acquire(self, rid: str, charges: Sequence[Charge], pauses: Sequence[str]) -> CentralVerdict | None:
            self.asked += 1
            return None if self.asked == 1 else CentralVerdict(True, left=(74, 7490))

    store = LateOnce()
    budgets = budgets_with(store, started_s=100.0)
    verdict = await ask(budgets, "a", 101.0)

    assert isinstance(verdict, Granted)
    assert 2 == store.asked
    budgets.settle(verdict.reservation, 7, 102.0)
    assert [("a:2", [1, 7])] == [(rid, list(spent)) for rid, spent in store.settled], (
        "the first id stays to be cancelled"
    )


async def test_denial_of_a_large_request_does_not_speak_for_a_small_one() -> None:
    """What is remembered for a tenth of a second is that so much has no room, not that nothing has."""
    store = Store(CentralVerdict(False, 30.0, 1, "", (75, 90)))
    budgets = budgets_with(store)
    assert isinstance(await ask(budgets, "large", 100.0, tokens=2000), Denied)
    store.answer = CentralVerdict(True, left=(74, 40))

    assert isinstance(await ask(budgets, "as-large", 100.01, tokens=2000), Denied)
    assert 1 == store.asked
    assert isinstance(await ask(budgets, "small", 100.01, tokens=50), Granted)
    assert 2 == store.asked


async def test_denied_counter_is_not_asked_again_at_once() -> None:
    """Denials cost more than admissions: the slice serves, and for a tenth of a second nobody asks."""
    store = Store(CentralVerdict(False, 30.0, 0, "", (0, 0)))
    budgets = budgets_with(store)

    verdicts = [await ask(budgets, str(i), 100.0) for i in range(10)]
    await ask(budgets, "later", 100.2)

    assert 2 == sum(isinstance(v, Granted) for v in verdicts)
    assert 2 == store.asked
    last = verdicts[-1]
    assert isinstance(last, Denied)
    assert 29.0 < last.retry_after_s <= 61.1
    assert 100 == last.limit


async def test_what_no_slice_can_hold_waits_for_the_store() -> None:
    """The wait that is told is a number, also when the slice alone would never do."""
    store = Store()
    store.is_open = True
    denied = await ask(budgets_with(store), "a", 100.0, tokens=5000)

    assert isinstance(denied, Denied)
    assert math.isfinite(denied.retry_after_s)
    assert "store_away" == denied.why


async def test_provider_paused_elsewhere_is_not_asked_from_the_slice_either() -> None:
    """Another sidecar's 429 counts here, too."""
    store = Store(CentralVerdict(False, 7.0, -1, "paused", (75, 7500)))
    budgets = budgets_with(store)

    first = await ask(budgets, "a", 100.0, target="x:m")
    second = await ask(budgets, "b", 101.0, target="x:m")

    assert isinstance(first, Denied)
    assert isinstance(second, Denied)
    assert ("paused", pytest.approx(7.0)) == (first.why, first.retry_after_s)
    assert ("paused", pytest.approx(6.0)) == (second.why, second.retry_after_s)
    assert 1 == store.asked


async def test_shared_reservation_ends_once_with_what_was_used() -> None:
    """Settling twice, or cancelling after, sends nothing."""
    store = Store(CentralVerdict(True, left=(74, 7490)))
    budgets = budgets_with(store)
    verdict = await ask(budgets, "a", 100.0)
    assert isinstance(verdict, Granted)
    budgets.settle(verdict.reservation, 7, 101.0)
    budgets.settle(verdict.reservation, 7, 101.0)
    budgets.cancel(verdict.reservation, 101.0)

    assert [("a", [1, 7])] == store.settled
    assert [] == store.cancelled
    assert 0 == budgets.open_reservations


def test_names_that_callers_choose_never_meet_in_one_shared_counter() -> None:
    """Model and user come from the request: an ampersand in one of them must not spend somebody else's budget."""
    names = ["a", "a&user=b", "b", "b&user=b", "%26", "&", "a%26user=b"]
    texts = [whose_text((("model", model), ("user", user))) for model in names for user in names]

    assert len(names) ** 2 == len(set(texts))
