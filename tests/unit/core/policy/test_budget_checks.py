"""Budgets that could never act, or not as written, are named at their line before anybody relies on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.core.config.budget_store import parse_budget_store
from proxy.core.config.load import parse_settings
from proxy.core.policy.load import PolicyResult, parse_policies

CONFIG = """version: 1
providers:
  openai: {base_url: "http://127.0.0.1:1/v1"}
  groq: {base_url: "http://127.0.0.1:1/v1"}
callers: [{name: shop-key, app: shop, sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}]
prices: prices.yaml
"""
POLICY = """version: 1
policy: p
applies_to: {apps: ["shop*"]}
routes: [{name: fast, match: {models: ["*"]}, chain: [{provider: openai, model: gpt-4o}, {provider: groq, model: llama}]}]
budgets:
  - {BUDGET}
"""


def load(budget: str, config: str = "") -> PolicyResult:
    settings = parse_settings(CONFIG + config, "config.yaml", Path("/etc/readygate")).settings
    assert settings is not None
    return parse_policies([("p.yaml", POLICY.replace("BUDGET", budget))], settings, frozenset())


@pytest.mark.parametrize(
    ("budget", "code"),
    [
        ('provider: groq, model: "gpt-*", concurrent: 1', "unused-budget"),
        ("route: slow, concurrent: 1", "unknown-route"),
        ("app: bank, concurrent: 1", "unused-budget"),
        ("caller: shop-kee, concurrent: 1", "unknown-caller"),
        ("per: [user]", "empty-budget"),
        ("per: [user, user], concurrent: 1", "duplicate-value"),
        ("per: [city], concurrent: 1", "unknown-value"),
        ("time_zone: Mars/Olympus, requests_per_month: 9", "bad-value"),
        ("concurrent: 1, when_exhausted: {wait: 5}", "no-unit"),
        ("cost_per_day_usd: 0", "out-of-range"),
    ],
)
def test_budget_that_cannot_act_is_refused_at_its_line(budget: str, code: str) -> None:
    """What is written and never counts is worse than what is missing."""
    result = load(budget)
    problems = [p for p in result.problems if p.is_error]

    assert result.policies is None
    assert [6] == sorted({p.line for p in problems})
    if code != "no-unit":
        assert code in {p.code for p in problems}


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("provider: groq, per: [provider], concurrent: 1", "`per: provider` changes nothing"),
        ("requests_per_minute: 5, time_zone: Europe/Berlin", "`time_zone` acts only"),
        ("requests_per_minute: 5, unknown_price: refuse", "`unknown_price` acts only"),
        ("requests_per_minute: 5, max_waiting: 5", "`max_waiting` acts only"),
        ("tokens_per_10s: 100, tokens_per_minute: 600", "`tokens_per_minute` of 600 never acts"),
        ("input_tokens_per_minute: 100, input_tokens_per_hour: 50", "`input_tokens_per_minute` of 100 never acts"),
        ("cost_per_hour_usd: 3, cost_per_day_usd: 2", "`cost_per_hour_usd` of 3 never acts"),
    ],
)
def test_word_without_effect_is_told(budget: str, words: str) -> None:
    """It does no harm, and its author believes that it does something."""
    result = load(budget)

    assert result.policies is not None
    assert any(words in p.message for p in result.problems), [str(p) for p in result.problems]


@pytest.mark.parametrize(
    ("budget", "is_small"),
    [
        ("tokens_per_minute: 6000", True),
        ("tokens_per_minute: 60000", False),
        ("requests_per_minute: 30", True),
        ("requests_per_minute: 400", False),
        ("concurrent: 8", True),
    ],
)
def test_slice_that_admits_nothing_in_an_outage_is_told(budget: str, is_small: bool) -> None:
    """A quarter of the limit over ten sidecars: is one ordinary request in it?"""
    result = load(budget, 'budgets: {store: "redis://r:6379"}\n')

    assert is_small is any(p.code == "small-slice" for p in result.problems)


@pytest.mark.parametrize(
    ("written", "understood"),
    [
        ("memory", "memory"),
        ("redis://r:6379/0", "redis://r:6379/0"),
        ("valkey://r:6379", "redis://r:6379"),
        ("valkeys://r:6379", "rediss://r:6379"),
        ("redis+cluster://r:6379", "redis+cluster://r:6379"),
        ("valkey+sentinel://a:1,b:2/main", "redis+sentinel://a:1,b:2/main"),
    ],
)
def test_store_urls_are_understood(written: str, understood: str) -> None:
    """Two names for one protocol, three ways to run it."""
    assert understood == parse_budget_store(written)


@pytest.mark.parametrize("written", ["redis", "http://r", "redis://", "redis+sentinel://a:1", "Memory"])
def test_other_store_urls_are_refused_without_repeating_them(written: str) -> None:
    """A URL may hold what nobody should read in a message."""
    with pytest.raises(ValueError, match=r"redis|service|host") as refused:
        parse_budget_store(f"{written}")

    assert written == "redis" or written not in str(refused.value).split()


def test_password_in_the_url_is_refused() -> None:
    """Secrets live in the environment or in files."""
    result = parse_settings(CONFIG + 'budgets: {store: "redis://:hunter2@r:6379"}\n', "config.yaml", Path("/etc"))

    assert ["inline-secret"] == [p.code for p in result.problems]
    assert "hunter2" not in str(result.problems)
