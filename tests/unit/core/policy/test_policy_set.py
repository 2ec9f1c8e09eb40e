"""Which route takes an exchange."""

from __future__ import annotations

import fnmatch
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.policy.applies import Applies
from proxy.core.policy.compile import match_rank
from proxy.core.policy.globs import compile_glob, may_overlap
from proxy.core.policy.model import (
    ModelList,
    NoRoute,
    NoRouteReason,
    Policy,
    ReadinessRule,
    RouteMatch,
    RoutePlan,
    Target,
)
from proxy.core.policy.policy_set import PolicySet


def plan(name: str) -> RoutePlan:
    return RoutePlan(name=name, policy="p", revision="r", chain=(Target("openai"),))


def policy(
    *rows: tuple[str, str | None, str | None], apps: tuple[str, ...] = ("*",), default: str = "", name: str = "p"
) -> Policy:
    matches = [RouteMatch(plan(route), model, path) for route, model, path in rows]
    ordered = sorted(matches, key=lambda m: match_rank(m.model, m.path), reverse=True)
    return Policy(
        name,
        f"{name}.yaml",
        Applies(apps),
        tuple(m.plan for m in matches),
        tuple(ordered),
        plan(default) if default else None,
    )


def chosen(policies: PolicySet, app: str, model: str | None, path: str) -> str:
    found = policies.select(app, model, path)
    return found.name if isinstance(found, RoutePlan) else f"none: {found.reason.value}"


ROWS = (
    ("exact", "gpt-4o-mini", None),
    ("exact-path", "gpt-4o-mini", "/embeddings"),
    ("glob", "gpt-*", None),
    ("longer-glob", "gpt-4o-*", None),
    ("files", None, "/files*"),
    ("any", "*", None),
)
CHOICES = [
    ("exact", "gpt-4o-mini", "/chat/completions"),
    ("exact-path", "gpt-4o-mini", "/embeddings"),
    ("longer-glob", "gpt-4o-2024", "/chat/completions"),
    ("glob", "gpt-3", "/files"),
    ("files", "llama", "/files"),
    ("files", None, "/files/abc/content"),
    ("any", "llama", "/chat/completions"),
    ("any", None, "/batches"),
]


@pytest.mark.parametrize(("route", "model", "path"), CHOICES, ids=[f"{m}-{p}" for _, m, p in CHOICES])
def test_most_specific_route_takes_the_exchange(route: str, model: str | None, path: str) -> None:
    """Order in the file does not matter; the closest match does."""
    for rows in (ROWS, ROWS[::-1]):
        policies = PolicySet((policy(*rows),), "r")

        assert route == chosen(policies, "shop", model, path)
        assert route == chosen(policies, "shop", model, path), "the remembered answer differs"


def test_request_without_model_does_not_match_a_model_route() -> None:
    """`GET /files` has nothing to do with the route of one model."""
    policies = PolicySet((policy(("exact", "gpt-4o-mini", None)),), "r")

    assert "none: unknown_path" == chosen(policies, "shop", None, "/files")


def test_unmatched_model_names_what_would_have_matched() -> None:
    """The 404 tells a caller which models exist for it."""
    policies = PolicySet((policy(("one", "b", None), ("two", "a", None), ("glob", "x-*", None)),), "r")

    assert NoRoute(NoRouteReason.UNKNOWN_MODEL, ("a", "b")) == policies.select("shop", "c", "/chat/completions")


def test_default_provider_takes_what_no_route_matches() -> None:
    """The pass-through comes last."""
    policies = PolicySet((policy(("exact", "a", None), default="default"),), "r")

    assert ["exact", "default", "default"] == [chosen(policies, "shop", m, "/x") for m in ("a", "b", None)]


def test_most_specific_app_pattern_decides_the_policy() -> None:
    """A team's own policy beats the one for everybody."""
    everyone = policy(("everyone", "*", None))
    shops = policy(("shops", "*", None), apps=("shop-*",), name="shops")
    shop = policy(("shop", "*", None), apps=("shop-eu", "till"), name="shop")
    for order in ((everyone, shops, shop), (shop, shops, everyone)):
        policies = PolicySet(order, "r")

        apps = ("shop-eu", "shop-us", "till", "other", "")
        assert ["shop", "shops", "shop", "everyone", "everyone"] == [chosen(policies, app, "m", "/x") for app in apps]


def test_app_without_policy_gets_nothing() -> None:
    """No policy is a refusal, never a pass."""
    policies = PolicySet((policy(("any", "*", None), apps=("shop",)),), "r")

    assert NoRoute(NoRouteReason.NO_POLICY) == policies.select("other", "m", "/x")
    assert ModelList() == policies.models("other")


def test_model_list_holds_exact_names_and_says_whether_there_are_more() -> None:
    """A glob cannot be listed, but the caller of /v1/models is told that it exists."""
    listed = PolicySet((policy(("a", "b", None), ("b", "a", None), ("f", None, "/files*")),), "r")
    open_ended = PolicySet((policy(("a", "b", None), ("b", "gpt-*", None)),), "r")

    assert ModelList(("a", "b"), has_wildcard=False) == listed.models("shop")
    assert ModelList(("b",), has_wildcard=True) == open_ended.models("shop")


def test_readiness_of_several_policies_adds_up() -> None:
    """What one policy requires, the sidecar requires."""
    one = Policy(
        "a", "a", Applies(("a",)), (), (), None, (), ReadinessRule(frozenset({"policy"}), frozenset({"groq"}), 5.0)
    )
    two = Policy("b", "b", Applies(("b",)), (), (), None, (), ReadinessRule(frozenset({"spool"}), frozenset(), 9.0))

    assert (
        ReadinessRule(frozenset({"policy", "spool"}), frozenset({"groq"}), 9.0) == PolicySet((one, two), "r").readiness
    )


def test_many_invented_models_do_not_grow_the_memory() -> None:
    """Callers choose model names; the cache of choices is bounded in number and in length."""
    policies = PolicySet((policy(("any", "*", None)),), "r")
    for number in range(10_000):
        policies.select("shop", f"model-{number}", "/chat/completions")
    policies.select("shop", "x" * 100_000, "/chat/completions")

    assert len(policies._cache) <= 4096
    assert all(len(model or "") <= 512 for _, model, _ in policies._cache)


def test_repeated_choice_is_cheap() -> None:
    """The choice is on the path of every request: 1 µs is allowed, with room for a busy machine."""
    policies = PolicySet((policy(*ROWS),), "r")
    count = 20_000
    best_s = min(
        timeit.repeat(lambda: policies.select("shop", "gpt-4o-mini", "/chat/completions"), number=count, repeat=5)
    )

    assert best_s / count <= 2e-6


PATTERNS = st.text(alphabet="ab*?", max_size=6)


@given(PATTERNS, st.text(alphabet="ab", max_size=8))
def test_glob_matches_as_fnmatch_does(pattern: str, text: str) -> None:
    """Without brackets our globs are the shell's."""
    assert fnmatch.fnmatchcase(text, pattern) == (compile_glob(pattern).match(text) is not None)


@given(PATTERNS, PATTERNS, st.text(alphabet="ab", max_size=8))
def test_patterns_that_share_a_text_overlap(one: str, other: str, text: str) -> None:
    """A tie that is not seen at load would be decided by chance later."""
    if compile_glob(one).match(text) and compile_glob(other).match(text):
        assert may_overlap(one, other)


def test_patterns_without_common_text_do_not_overlap() -> None:
    """Refusing what cannot clash would be as bad."""
    assert not may_overlap("a*", "b*")
    assert not may_overlap("*a", "*b")
    assert not may_overlap("a?", "a")
    assert may_overlap("a*", "*b")
    assert may_overlap(None, "x")


def test_brackets_are_plain_text() -> None:
    """Model names may hold anything."""
    assert compile_glob("a[b]*").match("a[b]c") is not None
    assert compile_glob("a[b]*").match("ab") is None
