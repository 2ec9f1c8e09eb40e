"""What every budget store promises, whatever it keeps its sums in.

Add a store by adding a factory to ``STORES``: a callable that takes the rules in force and returns an
object with the methods of ``Budgets``. The shared store meets a real Valkey on a clock of the test's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import redis

from proxy.core.policy.model import BudgetRule
from proxy.flow.budgets import Budgets, Denied, Granted
from tests.support.budgets import budget_rule
from tests.support.shared_budgets import SharedStore

Rules = tuple[BudgetRule, ...]
Store = Budgets | SharedStore
Open = Callable[[Rules], Store]


def memory(rules: Rules) -> Budgets:
    """The store of one process."""
    budgets = Budgets()
    budgets.apply(rules)
    return budgets


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Open stores, and close them after the test."""
    if request.param == "memory":
        yield memory
        return
    url: str = request.getfixturevalue("redis_url")
    redis.Redis.from_url(url).flushall()
    loop = asyncio.new_event_loop()
    opened: list[SharedStore] = []

    def shared(rules: Rules) -> SharedStore:
        opened.append(SharedStore(url, rules, loop=loop))
        return opened[-1]

    yield shared
    for one in opened:
        one.close()
    loop.close()


def test_denied_by_slots_keeps_the_minute(store: Open) -> None:
    """RL-03: rpm 2, one slot. A runs, B is denied by slots, A ends, C is admitted."""
    rules = (budget_rule("p", "x", requests_per_minute=2, concurrent=1),)
    budgets = store(rules)
    a = budgets.reserve(rules, "x", 0, 0.0, "a")
    b = budgets.reserve(rules, "x", 0, 0.1, "b")
    assert isinstance(a, Granted)
    budgets.settle(a.reservation, 0, 0.2)

    assert isinstance(b, Denied)
    assert isinstance(budgets.reserve(rules, "x", 0, 0.3, "c"), Granted)


def test_exactly_the_limit_is_admitted_of_a_burst(store: Open) -> None:
    """RL-04: a budget for exactly k and fifty at once."""
    rules = (budget_rule("p", "x", requests_per_minute=17),)
    budgets = store(rules)

    granted = [isinstance(budgets.reserve(rules, "x", 0, 5.0, f"r{i}"), Granted) for i in range(50)]

    assert sum(granted) == 17


def test_no_edge_of_a_clock_minute_lets_double_through(store: Open) -> None:
    """RL-02: a flood at once, again at second 59 and at 61."""
    rules = (budget_rule("p", "x", requests_per_minute=10),)
    budgets = store(rules)
    admitted: list[float] = []
    for burst_s in (0.0, 59.0, 59.9, 60.0, 61.0, 119.0, 121.0):
        verdicts = [budgets.reserve(rules, "x", 0, burst_s, f"{burst_s}-{i}") for i in range(20)]
        admitted += [burst_s] * sum(isinstance(verdict, Granted) for verdict in verdicts)

    assert max(sum(1 for t in admitted if start <= t <= start + 60.0) for start in admitted) == 10


def test_refund_is_visible_at_once_and_the_budget_gets_used(store: Open) -> None:
    """RL-05: reserve 100, use 10; the minute's thousand must not stay blocked by reservations."""
    rules = (budget_rule("p", "x", tokens_per_minute=1000),)
    budgets = store(rules)
    served = 0
    for i in range(200):
        verdict = budgets.reserve(rules, "x", 100, i * 0.1, f"r{i}")
        if isinstance(verdict, Granted):
            served += 10
            budgets.settle(verdict.reservation, 10, i * 0.1 + 0.05)

    assert 900 <= served <= 1000


def test_failed_first_target_gives_back_what_it_held(store: Open) -> None:
    """RL-12: the chain walks from A to B; A is whole again and B is charged once."""
    rules = (budget_rule("a", "a", requests_per_minute=1), budget_rule("b", "b", requests_per_minute=1))
    budgets = store(rules)
    first = budgets.reserve(rules, "a", 0, 0.0, "exchange-1")
    assert isinstance(first, Granted)
    budgets.cancel(first.reservation, 0.1)
    second = budgets.reserve(rules, "b", 0, 0.1, "exchange-1")
    assert isinstance(second, Granted)
    budgets.settle(second.reservation, 5, 0.2)

    assert {"a": 0, "b": 1} == {v.budget_id: v.dimensions[0].used for v in budgets.snapshot(0.3)}
    assert budgets.open_reservations == 0


def test_repeated_calls_with_one_id_are_one(store: Open) -> None:
    """A reply may be lost on the way from any store; the repetition must not charge again."""
    rules = (budget_rule("p", "x", requests_per_minute=5, tokens_per_minute=100, concurrent=5),)
    budgets = store(rules)
    verdicts = [budgets.reserve(rules, "x", 20, 0.0, "same") for _ in range(3)]
    for verdict in verdicts:
        assert isinstance(verdict, Granted)
        budgets.settle(verdict.reservation, 7, 1.0)

    assert [1, 7, 0] == [d.used for d in budgets.snapshot(1.0)[0].dimensions]
