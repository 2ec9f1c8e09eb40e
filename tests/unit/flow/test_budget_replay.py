"""Budgets played over past exchanges: in the order of time, with what was used given back when it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from proxy.core.config.load import parse_settings
from proxy.core.policy.load import parse_policies
from proxy.core.policy.policy_set import PolicySet
from proxy.core.policy.replay import Replay
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.flow.budget_replay import LONGEST_WARM_UP_S, BudgetPlay, warm_up_s

CONFIG = """version: 1
providers: {one: {base_url: "http://127.0.0.1:1/v1"}, two: {base_url: "http://127.0.0.1:1/v1"}}
"""
POLICY = """version: 2
policy: p
budgets: [BUDGET]
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: one}, {provider: two, model: m2}], retries: none}]
"""
BEGAN = datetime(2026, 11, 21, 12, tzinfo=UTC)


def policies(budget: str) -> PolicySet:
    settings = parse_settings(CONFIG, "config.yaml", Path("/x")).settings
    assert settings is not None
    result = parse_policies([("a.yaml", POLICY.replace("BUDGET", budget))], settings, KNOWN_KINDS)
    assert result.policies is not None, result.problems
    return result.policies


NONE = policies("{id: none, provider: one, requests_per_day: 1000000}")


def row(number: int, at_s: float, **changes: Any) -> dict[str, Any]:
    """An exchange that was served by `one` within a second."""
    took_ms = changes.pop("took_ms", 1000.0)
    attempt = {
        "provider": "one",
        "model": "m",
        "outcome": "ok",
        "http_status": 200,
        "started_ms": 0.0,
        "ended_ms": took_ms,
    }
    return {
        "id": f"x{number}", "ts": BEGAN + timedelta(seconds=at_s), "writer": "w", "epoch": 1, "app": "shop", "caller": "",
        "user_id": "", "route": "any", "policy": "p", "policy_revision": NONE.revision, "provider": "one",
        "model_asked": "m", "model_served": "m", "method": "POST", "path": "/v1/chat/completions", "error_code": "",
        "fault": "", "attempt_count": 1, "attempts": [attempt], "request_bytes": 90, "tokens_in": 50, "tokens_out": 50,
        "tokens_cached": 0, "tokens_reasoning": 0, "cost_usd": None, "latency_ms": took_ms, "findings": {},
        "sanitized": {}, "response_findings": {}, "unscanned_bytes": 0, "notes": [], "caller_groups": [], **changes,
    }  # fmt: skip


def replayed(
    budget: str, rows: list[dict[str, Any]], *, is_shared: bool = False, then: str = ""
) -> tuple[list[tuple[str, str, str, int]], BudgetPlay]:
    play = BudgetPlay(None, is_shared=is_shared)
    before = policies(then) if then else NONE
    replay = Replay(policies(budget), lambda _: before, play=play)
    for one in rows:
        replay.take(one)
    replay.finish()
    report = replay.changes.document()
    assert len(rows) == report["exchanges"]
    return [(one["what"], one["before"], one["after"], one["count"]) for one in report["changes"]], play


@pytest.mark.parametrize(
    ("budget", "gaps_s", "refused"),
    [
        ("requests_per_minute: 3", 1.0, 7),
        ("requests_per_minute: 3", 30.0, 0),
        ("requests_per_minute: 1", 31.0, 5),
        ("concurrent: 1", 0.5, 5),
        ("concurrent: 1", 1.5, 0),
        ("tokens_per_day: 1400", 2.0, 6),
    ],
)
def test_windows_slots_and_tokens_are_those_of_a_sidecar(budget: str, gaps_s: float, refused: int) -> None:
    """Ten exchanges of a second and a hundred tokens each: who is refused follows from when they began.

    A request without a body in hand is held at 1,061 tokens and corrected to the hundred it used.
    """
    found, _ = replayed(f"{{id: b, {budget}, when_exhausted: refuse}}", [row(n, n * gaps_s) for n in range(10)])

    assert refused == sum(count for what, _, _, count in found if what == "refused")
    assert {"refused"} >= {what for what, *_ in found}


def test_the_next_target_takes_what_a_budget_has_no_room_for() -> None:
    """Not asked then, it is taken to answer."""
    budget = "{id: b, provider: one, requests_per_minute: 2, when_exhausted: next}"
    found, play = replayed(budget, [row(n, n) for n in range(5)])

    assert [("target", "one:m", "two:m2", 3)] == found
    assert (5, 0) == (play.played, play.unsure)


@pytest.mark.parametrize(("wait", "refused"), [("5s", 0), ("500ms", 1)])
def test_waiting_for_a_slot_is_played(wait: str, refused: int) -> None:
    """The second comes while the first still runs, for another 900 ms."""
    budget = f"{{id: b, concurrent: 1, when_exhausted: {{wait: {wait}}}}}"
    found, _ = replayed(budget, [row(1, 0.0), row(2, 0.1)])

    assert refused == sum(count for *_, count in found)


def test_each_sidecar_counts_for_itself_unless_they_share() -> None:
    """A budget in memory is one per process, and begins anew with it."""
    budget = "{id: b, requests_per_day: 2, when_exhausted: refuse}"
    rows = [row(n, n, writer=f"w{n % 2}", epoch=n // 4) for n in range(8)]

    assert [] == replayed(budget, rows)[0]
    assert [("refused", "", "insufficient_quota", 6)] == replayed(budget, rows, is_shared=True)[0]


REFUSED = {
    "error_code": "rate_limit_exceeded", "fault": "policy", "attempt_count": 0, "attempts": [], "tokens_in": None,
    "tokens_out": None, "latency_ms": 1.0, "provider": "", "model_served": "", "notes": ["skipped:one:budget:requests_per_minute"],
}  # fmt: skip


def test_what_was_refused_then_is_admitted_under_a_larger_limit_and_the_same_limit_changes_nothing() -> None:
    """The play of the policies of then comes to what the rows say."""
    tight = "{id: b, requests_per_minute: 2, when_exhausted: refuse}"
    revision = policies(tight).revision
    rows = [row(n, n, policy_revision=revision, **(REFUSED if n > 1 else {})) for n in range(4)]

    assert [] == replayed(tight, rows, then=tight)[0]
    assert [("admitted", "rate_limit_exceeded", "", 2)] == replayed(tight.replace("2", "9"), rows, then=tight)[0]


def test_a_record_that_the_budgets_of_then_do_not_explain_is_no_change() -> None:
    """Announced limits, or others who shared a counter: the play knows nothing of them, and says so."""
    tight = "{id: b, requests_per_minute: 2, when_exhausted: refuse}"
    rows = [row(1, 0.0, policy_revision=policies(tight).revision, **REFUSED)]
    found, play = replayed(tight.replace("}", ", max_waiting: 7}").replace(", max_waiting: 7", ""), rows, then=tight)

    assert ([], 1) == (found, play.unsure)


def test_a_failed_attempt_gives_its_request_back() -> None:
    """What a provider never took is not counted, as in a sidecar."""
    failed = {
        "provider": "one",
        "model": "m",
        "outcome": "upstream_5xx",
        "http_status": 503,
        "started_ms": 0.0,
        "ended_ms": 10.0,
    }
    served = {
        "provider": "two",
        "model": "m2",
        "outcome": "ok",
        "http_status": 200,
        "started_ms": 10.0,
        "ended_ms": 20.0,
    }
    rows = [row(n, n, attempts=[failed, served], attempt_count=2, provider="two", model_served="m2") for n in range(5)]

    assert [] == replayed("{id: b, provider: one, requests_per_day: 1, when_exhausted: refuse}", rows)[0]


def test_the_time_before_is_as_long_as_the_longest_window() -> None:
    """Counters that begin empty would admit what was refused."""
    assert 86400.0 == warm_up_s(policies("{id: b, requests_per_minute: 1, requests_per_day: 9}").budgets)
    assert LONGEST_WARM_UP_S == warm_up_s(policies("{id: b, tokens_per_month: 1}").budgets)
    assert 0.0 == warm_up_s(())
