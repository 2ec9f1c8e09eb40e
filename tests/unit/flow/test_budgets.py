"""The owner of live budgets: binding by rule id, reloads, refusals, views."""

from __future__ import annotations

import pytest

from proxy.core.budget.dimensions import Dimension
from proxy.core.policy.model import BudgetRule, WhenExhausted
from proxy.flow.budgets import Budgets, Denied, Granted, TooLarge
from tests.support.budgets import budget_rule

REFUSE, NEXT = WhenExhausted.REFUSE, WhenExhausted.NEXT


def in_force(*rules: BudgetRule) -> Budgets:
    """Return budgets with these rules applied."""
    budgets = Budgets()
    budgets.apply(rules)
    return budgets


def used(budgets: Budgets, now_s: float = 0.0) -> dict[str, int]:
    """Return ``budget dimension`` -> charge."""
    return {f"{view.budget_id} {d.dimension}": d.used for view in budgets.snapshot(now_s) for d in view.dimensions}


def test_provider_without_rules_is_granted_for_nothing() -> None:
    """No budget, no bookkeeping."""
    rules = (budget_rule("p/groq", "groq", requests_per_minute=1),)
    budgets = in_force(*rules)

    verdicts = [budgets.reserve(rules, "openai", 10, 0.0, f"a{i}") for i in range(3)]

    assert all(isinstance(v, Granted) and v.limit_requests == -1 and v.limit_tokens == -1 for v in verdicts)
    assert budgets.open_reservations == 0
    assert used(budgets) == {"p/groq requests_per_minute": 0}


def test_ending_a_free_reservation_is_harmless() -> None:
    """The relay settles whatever it was granted, without asking whether it cost anything."""
    budgets = Budgets()
    verdict = budgets.reserve((), "openai", 10, 0.0, "a")

    assert isinstance(verdict, Granted)
    budgets.settle(verdict.reservation, 10, 1.0)
    budgets.cancel(verdict.reservation, 1.0)
    assert budgets.open_reservations == 0


def test_grant_tells_the_tightest_limits() -> None:
    """``x-ratelimit-*`` shows the limit that will bite first."""
    rules = (
        budget_rule("wide", "groq", requests_per_minute=100, tokens_per_minute=50),
        budget_rule("tight", "groq", requests_per_day=7, tokens_per_minute=5000),
    )
    granted = in_force(*rules).reserve(rules, "groq", 20, 10.25, "a")

    assert isinstance(granted, Granted)
    assert (granted.limit_requests, granted.remaining_requests) == (7, 6)
    assert (granted.limit_tokens, granted.remaining_tokens) == (50, 30)
    assert granted.reset_tokens_s == pytest.approx(60.75)
    assert granted.reset_requests_s == pytest.approx(86400 + 300 - 10.25)


def test_denial_names_budget_dimension_and_true_wait() -> None:
    """The caller learns when to come back, and the operator which line of which policy said no."""
    rules = (budget_rule("p/groq", "groq", requests_per_minute=1),)
    budgets = in_force(*rules)
    budgets.reserve(rules, "groq", 0, 10.0, "a")

    denied = budgets.reserve(rules, "groq", 0, 25.0, "b")

    assert isinstance(denied, Denied)
    assert (denied.budget_id, denied.dimension, denied.limit) == ("p/groq", Dimension.REQUESTS_PER_MINUTE, 1)
    assert denied.retry_after_s == pytest.approx(46.0, abs=1e-4)
    assert denied.is_quota is False
    assert isinstance(budgets.reserve(rules, "groq", 0, 25.0 + denied.retry_after_s, "b"), Granted)


def test_spent_day_is_told_apart_from_a_busy_minute() -> None:
    """A day's budget is a quota: the SDK must not retry."""
    rules = (budget_rule("p/groq", "groq", requests_per_minute=1, requests_per_day=1),)
    budgets = in_force(*rules)
    budgets.reserve(rules, "groq", 0, 0.0, "a")

    denied = budgets.reserve(rules, "groq", 0, 1.0, "b")

    assert isinstance(denied, Denied)
    assert denied.dimension is Dimension.REQUESTS_PER_DAY
    assert denied.is_quota is True
    assert denied.retry_after_s > 86000


def test_refusing_budget_speaks_for_all_that_are_exhausted() -> None:
    """Walking on past a budget that says refuse would go round policy."""
    rules = (
        budget_rule("soft", "groq", requests_per_hour=1, when_exhausted=NEXT),
        budget_rule("hard", "groq", requests_per_minute=1, when_exhausted=REFUSE),
    )
    budgets = in_force(*rules)
    budgets.reserve(rules, "groq", 0, 0.0, "a")

    denied = budgets.reserve(rules, "groq", 0, 0.0, "b")

    assert isinstance(denied, Denied)
    assert (denied.budget_id, denied.when_exhausted) == ("hard", "refuse")
    assert denied.retry_after_s > 3000


def test_missing_slot_hints_at_a_second() -> None:
    """Nobody knows when a running exchange ends; the hint keeps the caller from spinning."""
    rules = (budget_rule("p", "groq", concurrent=1),)
    budgets = in_force(*rules)
    budgets.reserve(rules, "groq", 0, 0.0, "a")

    denied = budgets.reserve(rules, "groq", 0, 0.0, "b")

    assert isinstance(denied, Denied)
    assert (denied.dimension, denied.retry_after_s) == (Dimension.CONCURRENT, 1.0)


def test_named_length_beyond_the_limit_is_too_large_and_charges_nothing() -> None:
    """RL-07: a 400, never a loop of 429s."""
    rules = (budget_rule("p", "groq", requests_per_minute=5, tokens_per_minute=100),)
    budgets = in_force(*rules)

    verdict = budgets.reserve(rules, "groq", 101, 0.0, "a", is_explicit=True)

    assert verdict == TooLarge("p", 100, Dimension.TOKENS_PER_MINUTE, "next")
    assert used(budgets) == {"p requests_per_minute": 0, "p tokens_per_minute": 0}


def test_assumed_length_beyond_the_limit_is_admitted_and_its_overrun_charged() -> None:
    """RL-06: limit 100, no ``max_tokens``, actual 150; the second one goes after the window."""
    rules = (budget_rule("p", "groq", tokens_per_minute=100),)
    budgets = in_force(*rules)

    first = budgets.reserve(rules, "groq", 400, 0.0, "a", is_explicit=False)
    assert isinstance(first, Granted)
    budgets.settle(first.reservation, 150, 2.0)
    second = budgets.reserve(rules, "groq", 400, 3.0, "b", is_explicit=False)

    assert isinstance(second, Denied)
    assert second.retry_after_s == pytest.approx(58.0, abs=1e-4)
    assert isinstance(budgets.reserve(rules, "groq", 400, 61.0, "b", is_explicit=False), Granted)


def test_limit_of_zero_can_never_be_met() -> None:
    """A budget of nothing is a closed door, not a wait without end."""
    rules = (budget_rule("p", "groq", requests_per_minute=0, when_exhausted=REFUSE),)

    verdict = in_force(*rules).reserve(rules, "groq", 0, 0.0, "a")

    assert verdict == TooLarge("p", 0, Dimension.REQUESTS_PER_MINUTE, "refuse")


def test_reload_changes_limits_at_the_next_call_and_keeps_sums() -> None:
    """RL-23: raising admits at once; lowering never refills."""
    old = (budget_rule("p", "groq", requests_per_minute=2),)
    raised = (budget_rule("p", "groq", requests_per_minute=4),)
    lowered = (budget_rule("p", "groq", requests_per_minute=3),)
    budgets = in_force(*old)

    verdicts = [isinstance(budgets.reserve(old, "groq", 0, 0.0, f"o{i}"), Granted) for i in range(3)]
    budgets.apply(raised)
    verdicts += [isinstance(budgets.reserve(raised, "groq", 0, 1.0, f"r{i}"), Granted) for i in range(3)]
    budgets.apply(lowered)
    after = budgets.reserve(lowered, "groq", 0, 2.0, "l")

    assert [True, True, False, True, True, False] == verdicts
    assert isinstance(after, Denied)
    assert used(budgets, 2.0) == {"p requests_per_minute": 4}


def test_exchange_pinned_to_an_old_snapshot_meets_the_new_limit() -> None:
    """The rule's id is what counts; an exchange that started before the reload cannot outspend it."""
    old = (budget_rule("p", "groq", requests_per_minute=100),)
    budgets = in_force(*old)
    budgets.apply((budget_rule("p", "groq", requests_per_minute=1),))

    verdicts = [isinstance(budgets.reserve(old, "groq", 0, 0.0, f"o{i}"), Granted) for i in range(2)]

    assert [True, False] == verdicts


def test_reservation_made_before_a_reload_settles_into_the_same_sums() -> None:
    """A reload in mid-stream must not lose the slot."""
    old = (budget_rule("p", "groq", tokens_per_minute=100, concurrent=1),)
    budgets = in_force(*old)
    granted = budgets.reserve(old, "groq", 60, 0.0, "a")
    assert isinstance(granted, Granted)

    budgets.apply((budget_rule("p", "groq", tokens_per_minute=200, concurrent=2),))
    budgets.settle(granted.reservation, 40, 1.0)

    assert used(budgets, 1.0) == {"p tokens_per_minute": 40, "p concurrent": 0}


def test_budget_removed_and_added_again_is_not_refilled() -> None:
    """Editing a policy twice must not be a way to a second budget."""
    rules = (budget_rule("p", "groq", requests_per_minute=1),)
    budgets = in_force(*rules)
    budgets.reserve(rules, "groq", 0, 0.0, "a")
    budgets.apply(())
    hidden = budgets.snapshot(1.0)
    budgets.apply(rules)

    assert hidden == ()
    assert isinstance(budgets.reserve(rules, "groq", 0, 2.0, "b"), Denied)


def test_removed_budget_is_forgotten_once_it_has_drained() -> None:
    """A year of policy edits leaves no residue."""
    rules = (budget_rule("p", "groq", requests_per_minute=1), budget_rule("q", "openai", requests_per_minute=5))
    budgets = in_force(*rules)
    budgets.reserve(rules, "groq", 0, 0.0, "a")
    budgets.reserve(rules, "openai", 0, 100.0, "b")
    budgets.apply(rules[1:])
    budgets.apply(rules)

    assert used(budgets, 100.0) == {"p requests_per_minute": 0, "q requests_per_minute": 1}


def test_rules_that_were_never_applied_are_adopted_with_their_newest_limits() -> None:
    """Without a catalog (in small tests and tools) the rules handed in are the rules in force."""
    budgets = Budgets()
    first, second = (
        (budget_rule("p", "groq", requests_per_minute=1),),
        (budget_rule("p", "groq", requests_per_minute=2),),
    )

    verdicts = [
        isinstance(budgets.reserve(rules, "groq", 0, 0.0, rid), Granted)
        for rules, rid in [(first, "a"), (first, "b"), (second, "c"), (second, "d")]
    ]

    assert [True, False, True, False] == verdicts


def test_snapshot_shows_use_remainder_and_reset() -> None:
    """What ``/providers`` prints."""
    rules = (budget_rule("p/groq", "groq", requests_per_minute=30, concurrent=8),)
    budgets = in_force(*rules)
    budgets.reserve(rules, "groq", 0, 100.5, "a")

    (view,) = budgets.snapshot(110.0)
    requests, slots = view.dimensions

    assert (view.budget_id, view.provider, view.when_exhausted) == ("p/groq", "groq", "next")
    assert requests[:4] == (Dimension.REQUESTS_PER_MINUTE, 30, 1, 29)
    assert requests.reset_s == pytest.approx(51.0)
    assert slots[:] == (Dimension.CONCURRENT, 8, 1, 7, 0.0)


def test_two_routes_with_their_own_tuples_share_one_budget() -> None:
    """The id is the budget, whichever route's tuple names it."""
    rule = budget_rule("p", "groq", requests_per_minute=1)
    chat, embeddings = (rule,), (rule, budget_rule("other", "openai", requests_per_minute=9))
    budgets = in_force(rule)
    budgets.reserve(chat, "groq", 0, 0.0, "a")

    assert isinstance(budgets.reserve(embeddings, "groq", 0, 0.0, "b"), Denied)


def test_many_generations_of_routes_do_not_pile_up_and_keep_their_sums() -> None:
    """A policy reloaded every minute for a month: bound rule sets are bounded, and spend is not forgotten."""
    rules = (budget_rule("p", "groq", requests_per_minute=2),)
    budgets = in_force(*rules)
    budgets.reserve(rules, "groq", 0, 0.0, "first")
    for _ in range(5000):
        budgets.reserve((*rules,), "openai", 0, 0.0, "x")
        budgets.reserve([*rules], "openai", 0, 0.0, "x")

    assert isinstance(budgets.reserve(rules, "groq", 0, 0.0, "second"), Granted)
    assert isinstance(budgets.reserve(rules, "groq", 0, 0.0, "third"), Denied)


# --- a canary beside the rules in force


def beside(
    limit: int, canary_limit: int, **words: object
) -> tuple[Budgets, tuple[BudgetRule, ...], tuple[BudgetRule, ...]]:
    """Return budgets with a rule in force and a canary's rule of the same id."""
    rules = (budget_rule("p/x", None, requests_per_day=limit, concurrent=limit, **words),)
    canary = (budget_rule("p/x", None, requests_per_day=canary_limit, concurrent=canary_limit, **words),)
    budgets = Budgets()
    budgets.apply(rules)
    budgets.reserve(rules, "groq", 1, 0.0, "before")
    budgets.apply(rules, canary)
    return budgets, rules, canary


def test_two_revisions_hold_one_sum_against_their_own_limits() -> None:
    """What one of them admits is used for the other as well; neither begins anew."""
    budgets, rules, canary = beside(5, 3)

    assert isinstance(budgets.reserve(canary, "groq", 1, 1.0, "a"), Granted)
    assert isinstance(budgets.reserve(rules, "groq", 1, 1.0, "b"), Granted)
    denied = budgets.reserve(canary, "groq", 1, 1.0, "c")
    assert isinstance(denied, Denied)
    assert (3, "p/x") == (denied.limit, denied.budget_id)
    assert isinstance(budgets.reserve(rules, "groq", 1, 1.0, "d"), Granted)
    assert {"p/x requests_per_day": 4, "p/x concurrent": 4} == used(budgets, 1.0)
    assert {("p/x", (), Dimension.REQUESTS_PER_DAY): 4, ("p/x", (), Dimension.CONCURRENT): 4} == budgets.held()


@pytest.mark.parametrize("promote", [True, False])
def test_what_a_canary_holds_is_settled_after_its_end(promote: bool) -> None:
    """Exchanges outlive the rollout; what they hand back goes to the same sum."""
    budgets, rules, canary = beside(5, 9)
    held = [budgets.reserve(canary, "groq", 1, 1.0, name) for name in "ab"]
    budgets.apply(canary if promote else rules)
    for verdict in held:
        assert isinstance(verdict, Granted)
        budgets.cancel(verdict.reservation, 2.0)

    assert {"p/x requests_per_day": 1, "p/x concurrent": 1} == used(budgets, 2.0)
    granted = budgets.reserve(rules, "groq", 1, 2.0, "after")
    assert isinstance(granted, Granted)
    assert (9 if promote else 5) == granted.limit_requests


def test_wait_of_a_canary_is_by_its_own_limit() -> None:
    """The counter in force keeps its limit while it is asked for another."""
    rules = (budget_rule("p/x", None, requests_per_minute=100),)
    canary = (budget_rule("p/x", None, requests_per_minute=1),)
    budgets = Budgets()
    budgets.apply(rules, canary)
    budgets.reserve(canary, "groq", 1, 0.5, "a")
    denied = budgets.reserve(canary, "groq", 1, 1.5, "b")

    assert isinstance(denied, Denied)
    assert 59.0 < denied.retry_after_s <= 61.0
    granted = budgets.reserve(rules, "groq", 1, 1.5, "c")
    assert isinstance(granted, Granted)
    assert (100, 98) == (granted.limit_requests, granted.remaining_requests)


def test_a_limit_that_only_the_canary_has_begins_with_it() -> None:
    """And one counted apart has counters of its own."""
    rules = (budget_rule("p/x", None, requests_per_day=9),)
    canary = (budget_rule("p/x", None, requests_per_day=9, concurrent=1), budget_rule("p/y", None, requests_per_day=1))
    budgets = Budgets()
    budgets.apply(rules, canary)
    budgets.reserve(rules, "groq", 1, 0.0, "a")

    assert isinstance(budgets.reserve(canary, "groq", 1, 0.0, "b"), Granted)
    denied = budgets.reserve(canary, "groq", 1, 0.0, "c")
    assert isinstance(denied, Denied)
    assert isinstance(budgets.reserve(rules, "groq", 1, 0.0, "d"), Granted)
    budgets.apply(canary)
    assert 3 == used(budgets)["p/x requests_per_day"]
    assert 1 == used(budgets)["p/y requests_per_day"]
