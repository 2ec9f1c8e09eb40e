"""A policy for routes that others have: whose it is, what it changes, what cannot act, and how it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.config.load import parse_settings
from proxy.core.policy.applies import Applies, Subject, may_tie, may_win
from proxy.core.policy.coverage import Part, rules_of
from proxy.core.policy.load import PolicyResult, parse_policies
from proxy.core.policy.model import NoRoute, RoutePlan
from proxy.core.policy.trail import trail_of
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.terms.redaction import Action

CONFIG = """version: 1
providers: {a: {base_url: "http://127.0.0.1:1/v1"}, b: {base_url: "http://127.0.0.1:1/v1"}}
"""
REST = """version: 1
policy: rest
redaction: {request: {default: restore}}
audit: {retention: 90d}
routes:
  - {name: fast, match: {models: ["fast"]}, chain: [{provider: a}, {provider: b, model: m}], retries: none, output_cap: 500}
  - {name: slow, match: {models: ["slow"]}, chain: [{provider: a}]}
"""
SHOP = """version: 1
policy: shop
applies_to: {apps: [shop]}
routes: [{name: fast, match: {models: ["*"]}, chain: [{provider: b}]}]
"""
FOR_FAST = """version: 1
policy: careful
applies_to: {routes: [fast]}
redaction: {request: {default: block}}
"""


def load(*texts: str, config: str = CONFIG) -> PolicyResult:
    settings = parse_settings(config, "config.yaml", Path("/")).settings
    assert settings is not None
    return parse_policies([(f"{n}.yaml", text) for n, text in enumerate(texts)], settings, KNOWN_KINDS)


def plan(result: PolicyResult, subject: Subject) -> RoutePlan:
    assert result.policies is not None, [str(problem) for problem in result.problems]
    found = result.policies.select_for(subject, subject.model)
    assert not isinstance(found, NoRoute)
    assert found is result.policies.select_for(subject, subject.model)
    return found


def asked(model: str, app: str = "", **more: str) -> Subject:
    return Subject(app, model=model, path="/chat/completions", **more)


def test_a_policy_for_a_route_decides_there_and_the_route_stays_what_it_is() -> None:
    """Chain, retries and the route's own limits stay; what is done with the words is the deciding policy's."""
    result = load(REST, FOR_FAST + "access: {max_tokens: 100}\n")
    fast, slow = plan(result, asked("fast")), plan(result, asked("slow"))

    assert ("careful", "fast", "rest", Action.BLOCK) == (
        fast.policy,
        fast.name,
        fast.owner,
        fast.redaction.request.default,
    )
    assert (["a", "b"], False, 100, None) == (
        [target.provider for target in fast.chain], fast.retries.same_target, fast.output_cap, fast.audit.retention_s,
    )  # fmt: skip
    assert ("rest", "slow", "", Action.RESTORE) == (slow.policy, slow.name, slow.owner, slow.redaction.request.default)


@pytest.mark.parametrize(
    ("applies", "shop", "other"),
    [
        ("{routes: [fast]}", "shop", "careful"),  # an app that is named is more specific than any route
        ("{apps: [shop], routes: [fast]}", "careful", "rest"),
        ("{apps: [shop], routes: ['shop/*']}", "careful", "rest"),
        ("{apps: ['sho*', '*'], routes: ['rest/fast']}", "shop", "careful"),
        ("{routes: ['*']}", "shop", "careful"),
    ],
)
def test_the_most_specific_decides_by_everything_else_first(applies: str, shop: str, other: str) -> None:
    """A route comes last in the order of precedence, as the model and the path that choose it do."""
    result = load(REST, SHOP, FOR_FAST.replace("{routes: [fast]}", applies))

    assert (shop, other) == (plan(result, asked("fast", "shop")).policy, plan(result, asked("fast", "till")).policy)


def test_among_policies_for_routes_a_name_beats_a_pattern_and_more_letters_beat_fewer() -> None:
    """The same rule as everywhere."""
    texts = [FOR_FAST.replace("careful", f"p{n}").replace("[fast]", f"['{one}']") for n, one in enumerate(("*", "f*", "fast", "rest/fast"))]  # fmt: skip
    result = load(REST, SHOP.replace("[shop]", "['s*']"), *texts)

    assert ("p3", "p0") == (plan(result, asked("fast")).policy, plan(result, asked("slow")).policy)


def test_what_goes_to_the_default_provider_is_a_route_too() -> None:
    """Its name is `default`, in rows as here."""
    config = CONFIG + "default_provider: a\n"
    result = load(REST, FOR_FAST.replace("[fast]", "[default]"), config=config)

    found = plan(result, asked("anything"))
    assert ("careful", "default", ["a"]) == (found.policy, found.name, [target.provider for target in found.chain])


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        (FOR_FAST.replace("[fast]", "[fats]"), "unknown-route", 3),
        (FOR_FAST.replace("[fast]", '["other/fast"]'), "unknown-route", 3),
        (FOR_FAST.replace("[fast]", '["shop/*"]'), "unreachable-setting", 3),
        (FOR_FAST.replace("[fast]", "[]"), "out-of-range", 3),
        (FOR_FAST.replace("[fast]", "fast"), "wrong-type", 3),
        (FOR_FAST.replace("[fast]", '["a/b/c"]'), "bad-value", 3),
        (FOR_FAST + "routes: [{match: {models: [x]}, chain: [{provider: a}]}]\n", "contradiction", 5),
        (FOR_FAST + "access: {providers: [a]}\n", "link-not-allowed", 5),
        (FOR_FAST + "budgets: [{provider: c, requests_per_minute: 1}]\n", "unknown-provider", 5),
        (FOR_FAST + "budgets: [{route: slow, requests_per_minute: 1}]\n", "unknown-route", 5),
        (FOR_FAST + "readiness: {require: [{route: slow}]}\n", "unknown-route", 5),
    ],
)
def test_what_cannot_act_is_refused_at_its_line(text: str, code: str, line: int) -> None:
    """A policy for a route that does not exist would protect nobody, and nobody would know."""
    found = [(p.code, p.line) for p in load(REST, SHOP, text).problems if p.file == "2.yaml"]

    assert (code, line) in found


def test_budgets_and_readiness_of_the_route_may_be_named() -> None:
    """They are looked for among the routes it decides for, not among its own, of which there are none."""
    more = "budgets: [{provider: b, route: fast, requests_per_minute: 5}]\nreadiness: {require: [{route: fast, healthy: 2}]}\n"
    result = load(REST, FOR_FAST + more)

    assert () == result.problems
    assert ["careful/b-fast"] == [rule.id for rule in plan(result, asked("fast")).budgets]


def test_a_region_of_the_route_may_be_named() -> None:
    """A link may declare a region that no provider has."""
    rest = REST.replace("{provider: b, model: m}", "{provider: b, model: m, region: eu}").replace(
        "chain: [{provider: a},", "chain: [{provider: a, region: eu},"
    )

    assert () == load(rest, FOR_FAST + "access: {regions: [eu]}\n").problems


def test_two_policies_for_one_route_tie() -> None:
    """Nothing tells them apart; a policy with routes and one for routes never tie."""
    twin = FOR_FAST.replace("careful", "twin")

    assert ["policy-tie"] == [p.code for p in load(REST, FOR_FAST, twin).problems]
    assert () == load(REST, FOR_FAST, twin.replace("[fast]", "[slow]")).problems


def test_words_of_the_route_on_redaction_do_not_count_and_that_is_told() -> None:
    """Otherwise a route could undo what a policy written for it says."""
    own = REST.replace("output_cap: 500", "redaction: {request: {default: 'off'}}")
    result = load(own, FOR_FAST)

    assert [("no-effect", "1.yaml", 3)] == [(p.code, p.file, p.line) for p in result.problems]
    assert Action.BLOCK == plan(result, asked("fast")).redaction.request.default


def test_the_listing_of_models_leaves_out_what_a_policy_for_a_route_refuses() -> None:
    """A caller must not be told of a model that will be refused."""
    result = load(REST, FOR_FAST + "access: {models: [slow]}\n")
    assert result.policies is not None

    assert ("slow",) == result.policies.models_for(asked("")).names


def test_the_trail_tells_who_decides_in_whose_place() -> None:
    """`explain` shows the same order that decides."""
    result = load(REST, SHOP, FOR_FAST, FOR_FAST.replace("careful", "other").replace("[fast]", "[slow]"))
    assert result.policies is not None
    told = [(step.rule, step.verdict) for step in trail_of(result.policies, asked("fast"), "fast")]

    assert [
        ("policy rest: apps [*]", "applies"),
        ("route fast: models [fast]", "takes it"),
        ("policy other: apps [*] routes [slow]", "no"),
        ("policy careful: apps [*] routes [fast]", "decides in its place"),
    ] == told[-4:]


def test_a_route_that_another_policy_decides_for_can_still_be_covered() -> None:
    """Its chain acts, whoever decides; a case that goes there has touched it."""
    rules = {str(rule.part): rule for rule in rules_of([("0", REST), ("1", FOR_FAST)]) if rule.route == "fast"}

    assert {Part.ROUTE: {"careful"}, Part.LINK: {"careful"}} == {Part(p): set(r.instead) for p, r in rules.items()}


WORDS = st.sampled_from(["*", "a", "b", "a*", "*b", "ab"])
LISTS = st.none() | st.lists(WORDS, min_size=1, max_size=2, unique=True).map(tuple)
ROUTES = st.lists(WORDS | st.sampled_from(["p/a", "p/*", "*/b", "a*/b"]), min_size=1, max_size=2, unique=True).map(
    tuple
)
VALUES = st.sampled_from(["", "a", "b", "ab"])
GROUPS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=2, unique=True).map(tuple)
OWNERS = st.builds(
    Applies,
    apps=st.lists(WORDS, min_size=1, max_size=2, unique=True).map(tuple),
    callers=LISTS, users=LISTS, models=LISTS, paths=LISTS, groups=LISTS,
)  # fmt: skip
TAKERS = st.builds(
    Applies,
    apps=st.lists(WORDS, min_size=1, max_size=2, unique=True).map(tuple),
    callers=LISTS, users=LISTS, models=LISTS, paths=LISTS, groups=LISTS, routes=ROUTES,
)  # fmt: skip
SUBJECTS = st.builds(Subject, *([VALUES] * 5), st.just({}), GROUPS, st.sampled_from(["", "p/a", "p/ab", "q/b", "ab/b"]))


@given(TAKERS, OWNERS, SUBJECTS)
def test_what_is_said_never_to_win_never_does(taker: Applies, owner: Applies, subject: Subject) -> None:
    """A policy that `check` calls unreachable must really never decide."""
    mine, theirs = taker.rank(subject), owner.rank(subject)
    if mine is not None and theirs is not None:
        assert mine != theirs
        if mine > theirs:
            assert may_win(taker, owner)


@given(TAKERS, TAKERS, SUBJECTS)
def test_two_for_routes_that_may_not_tie_never_do(one: Applies, other: Applies, subject: Subject) -> None:
    """Equal ranks for one request mean that the loader would have refused the pair."""
    ranks = one.rank(subject), other.rank(subject)

    if ranks[0] is not None and ranks[0] == ranks[1]:
        assert may_tie(one, other)
