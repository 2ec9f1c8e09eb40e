"""Bases and overlays: one policy out of several layers, every mistake at the line where it was made."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.config.load import parse_settings
from proxy.core.config.problem import Mark
from proxy.core.config.settings import Settings
from proxy.core.config.yaml_text import Entry, Map, Node, Scalar, canonical
from proxy.core.policy.layers import merge
from proxy.core.policy.load import PolicyResult, parse_policies
from proxy.terms.redaction import Action

CONFIG = 'version: 1\nproviders: {a: {base_url: "http://127.0.0.1:1/v1"}, b: {base_url: "http://127.0.0.1:1/v1"}}\n'
BASE = """version: 1
base: company
redaction: {request: {default: restore, rules: [{types: [cpf], action: block}]}}
routes: [{name: r, match: {models: ["*"]}, chain: [{provider: a}]}]
"""
SHOP = "version: 1\npolicy: shop\nextends: company\napplies_to: {apps: [shop]}\n"
REST = "version: 1\npolicy: rest\nextends: company\n"
TYPES = frozenset({"EMAIL", "CPF"})


def settings(environment: str | None = None) -> Settings:
    text = CONFIG + (f"environment: {environment}\n" if environment else "")
    found = parse_settings(text, "config.yaml", Path("/")).settings
    assert found is not None
    return found


def load(*texts: str, environment: str | None = None) -> PolicyResult:
    files = [(f"f{index}.yaml", text) for index, text in enumerate(texts)]
    return parse_policies(files, settings(environment), TYPES)


def told(result: PolicyResult) -> list[tuple[str, int, int, str]]:
    return [(p.file, p.line, p.column, p.code) for p in result.problems]


def test_policies_share_what_their_base_says() -> None:
    """One base, two policies, no line twice."""
    result = load(BASE, SHOP, REST)

    assert () == result.problems
    assert result.policies is not None
    assert ["shop", "rest"] == [policy.name for policy in result.policies.policies]
    for policy in result.policies.policies:
        assert Action.BLOCK is policy.routes[0].redaction.request.action_for("CPF")


def test_a_policy_overrides_single_keys_and_whole_lists() -> None:
    """Maps are merged, lists replaced: the default changes, the rules stay; a route list is the policy's own."""
    own = (
        SHOP
        + "redaction: {request: {default: mask}}\nroutes: [{name: s, match: {models: [x]}, chain: [{provider: b}]}]\n"
    )
    policies = load(BASE, own).policies

    assert policies is not None
    (policy,) = policies.policies
    request = policy.routes[0].redaction.request
    assert (Action.MASK, Action.BLOCK) == (request.default, request.action_for("CPF"))
    assert ["s"] == [route.name for route in policy.routes]


def test_a_base_may_extend_a_base() -> None:
    """Company, then team, then policy."""
    team = "version: 1\nbase: team\nextends: company\nmode: observe\n"
    policies = load(BASE, team, SHOP.replace("extends: company", "extends: team")).policies

    assert policies is not None
    assert policies.policies[0].routes[0].observe_only


def test_the_environment_chooses_the_overlay() -> None:
    """The same files everywhere; config.yaml says where one is."""
    text = SHOP + "overlays: {dev: {mode: observe}, prod: {redaction: {request: {default: mask}}}}\n"
    found = {}
    for environment in ("dev", "prod", "staging"):
        result = load(BASE, text, environment=environment)
        assert () == result.problems
        assert result.policies is not None
        route = result.policies.policies[0].routes[0]
        found[environment] = (route.observe_only, route.redaction.request.default, result.policies.revision)

    assert (True, Action.RESTORE) == found["dev"][:2]
    assert (False, Action.MASK) == found["prod"][:2]
    assert (False, Action.RESTORE) == found["staging"][:2]
    assert 3 == len({revision for *_, revision in found.values()})


@pytest.mark.parametrize(
    ("texts", "environment", "expected"),
    [
        ((BASE.replace("default: restore", "default: restor"), SHOP), None, ("f0.yaml", 3, 32, "unknown-value")),
        ((BASE, SHOP.replace("company", "compny")), None, ("f1.yaml", 3, 1, "unknown-base")),
        ((BASE, SHOP + "overlays: {dev: {mod: observe}}\n"), "prod", ("f1.yaml", 5, 18, "unknown-key")),
        ((BASE, SHOP + "overlays: {dev: {policy: x}}\n"), "dev", ("f1.yaml", 5, 18, "wrong-place")),
        ((BASE, SHOP + "overlays: [dev]\n"), "dev", ("f1.yaml", 5, 1, "wrong-type")),
        ((BASE, SHOP + "overlays: {dev: observe}\n"), "dev", ("f1.yaml", 5, 12, "wrong-type")),
        ((BASE, SHOP + "overlays: {dev: {mode: observe}}\n"), None, ("f1.yaml", 5, 1, "no-effect")),
        ((BASE, BASE, SHOP), None, ("f1.yaml", 2, 1, "duplicate-name")),
        ((BASE + "policy: p\n", SHOP), None, ("f0.yaml", 5, 1, "contradiction")),
        ((BASE + "extends: company\n", SHOP), None, ("f0.yaml", 5, 1, "base-loop")),
        ((BASE, SHOP.replace("extends: company", "extends: 7")), None, ("f1.yaml", 3, 10, "wrong-type")),
    ],
)
def test_a_mistake_is_told_where_it_stands(
    texts: tuple[str, ...], environment: str | None, expected: tuple[str, int, int, str]
) -> None:
    """In the base, in the policy, in an overlay of another environment: at the line that has to change."""
    assert expected in told(load(*texts, environment=environment))


def test_a_base_nobody_extends_is_told_and_still_read() -> None:
    """A misspelt key in it must not wait for its first use."""
    problems = told(load(BASE.replace("routes:", "rotes:"), SHOP.replace("extends: company\n", "") + "routes: []\n"))

    assert ("f0.yaml", 2, 1, "unused-base") in problems
    assert ("f0.yaml", 4, 1, "unknown-key") in problems


AT = Mark("f")
KEYS = st.sampled_from("abc")
TREES = st.recursive(
    st.integers(0, 9).map(lambda number: Scalar(AT, str(number), number, is_quoted=False)),
    lambda inner: st.dictionaries(KEYS, inner.map(lambda node: Entry(AT, node)), max_size=3).map(lambda e: Map(AT, e)),
    max_leaves=12,
)
MAPS = st.dictionaries(KEYS, TREES.map(lambda node: Entry(AT, node)), max_size=3).map(lambda entries: Map(AT, entries))


@given(MAPS, MAPS)
def test_merging_is_idempotent_and_the_later_layer_wins(one: Map, two: Map) -> None:
    """Applying a layer twice changes nothing, and every value of the later layer is in the result."""
    merged = merge(one, two)

    assert canonical(merged) == canonical(merge(merged, two))
    assert canonical(one) == canonical(merge(one, one))

    def holds(inner: Node, outer: Node) -> bool:
        if isinstance(inner, Map):
            return isinstance(outer, Map) and all(
                key in outer.entries and holds(entry.node, outer.entries[key].node)
                for key, entry in inner.entries.items()
            )
        return canonical(inner) == canonical(outer)

    assert holds(two, merged)
