"""Whose requests a policy decides: by caller, app, user, headers, model and path; the most specific wins, ties are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.config.load import parse_settings
from proxy.core.policy.applies import Applies, Subject, may_tie
from proxy.core.policy.load import PolicyResult, parse_policies
from proxy.core.policy.model import NoRoute

CONFIG = """version: 1
providers: {a: {base_url: "http://127.0.0.1:1/v1"}}
jwt: {issuer: x, audience: [gate], jwks: {file: keys.json}, claims: {app: azp, groups: groups}}
"""
ROUTE = 'routes: [{name: r, match: {models: ["*"]}, chain: [{provider: a}]}]\n'


def load(**applies: str) -> PolicyResult:
    settings = parse_settings(CONFIG, "config.yaml", Path("/")).settings
    assert settings is not None
    files = [(f"{n}.yaml", f"version: 1\npolicy: {n}\napplies_to: {text}\n{ROUTE}") for n, text in applies.items()]
    return parse_policies(files, settings, frozenset())


def chosen(result: PolicyResult, subject: Subject) -> str | None:
    assert result.policies is not None, [str(problem) for problem in result.problems]
    route = result.policies.select_for(subject, subject.model or None)
    again = result.policies.select_for(subject, subject.model or None)
    assert route is again or isinstance(route, NoRoute)
    return None if isinstance(route, NoRoute) else route.policy


@pytest.mark.parametrize(
    ("subject", "policy"),
    [
        (Subject("shop", model="m", path="/chat"), "app"),
        (Subject("shop", "prod-key", model="m", path="/chat"), "caller"),
        (Subject("other", "prod-key", model="m", path="/chat"), "caller"),
        (Subject("other", user="batch-7", model="m", path="/chat"), "user"),
        (Subject("other", model="gpt-4o", path="/chat"), "model"),
        (Subject("other", model="m", path="/embeddings"), "path"),
        (Subject("other", model="gpt-4o", path="/embeddings"), "model"),
        (Subject("other", model="m", path="/chat", fields={b"x-team": b"risk-eu"}), "header"),
        (Subject("other", model="m", path="/chat", fields={b"x-team": b"sales"}), "rest"),
        (Subject("", model="m", path="/chat"), "rest"),
    ],
)
def test_the_most_specific_policy_decides(subject: Subject, policy: str) -> None:
    """Caller before app before user before header before model before path."""
    result = load(
        rest="{}",
        app="{apps: [shop]}",
        caller="{callers: [prod-key]}",
        user='{users: ["batch-*"]}',
        header='{headers: {x-team: "risk-*"}}',
        model='{models: ["gpt-4*"]}',
        path='{paths: ["/embeddings"]}',
    )
    assert () == result.problems
    assert policy == chosen(result, subject)


def test_a_request_that_fits_no_policy_has_none() -> None:
    """Nothing is allowed that no policy speaks of."""
    result = load(only="{apps: [shop], users: [ana]}")

    assert "only" == chosen(result, Subject("shop", user="ana", model="m"))
    assert chosen(result, Subject("shop", user="eve", model="m")) is None
    assert chosen(result, Subject("shop", model="m")) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{users: [ana]}", "{users: [ana, eve]}"),
        ('{models: ["gpt-4*"]}', '{models: ["gpt-?*"], apps: ["*"]}'.replace("gpt-?*", "gpt-4*")),
        ('{headers: {x-team: "*"}}', '{headers: {x-unit: "*"}}'),
    ],
)
def test_a_tie_is_refused_when_it_is_loaded(one: str, other: str) -> None:
    """Which of two policies decides must not depend on a file's name."""
    assert ["policy-tie"] == [problem.code for problem in load(one=one, other=other).problems]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{headers: {authorization: x}}", "bad-name"),
        ("{headers: {'x y': x}}", "bad-name"),
        ("{users: []}", "out-of-range"),
        ("{userz: [a]}", "unknown-key"),
    ],
)
def test_a_condition_that_cannot_act_is_refused(text: str, code: str) -> None:
    """Secrets are no conditions, and an empty list fits nobody."""
    assert code in [problem.code for problem in load(one=text).problems]


WORDS = st.sampled_from(["*", "a", "b", "a*", "*b", "ab", "?"])
LISTS = st.none() | st.lists(WORDS, min_size=1, max_size=2, unique=True).map(tuple)
APPLIES = st.builds(
    Applies,
    apps=st.lists(WORDS, min_size=1, max_size=2, unique=True).map(tuple),
    callers=LISTS,
    users=LISTS,
    models=LISTS,
    paths=LISTS,
    headers=st.dictionaries(st.sampled_from(["x-a", "x-b"]), WORDS, max_size=2).map(lambda d: tuple(sorted(d.items()))),
)
VALUES = st.sampled_from(["", "a", "b", "ab", "abb"])
SUBJECTS = st.builds(
    Subject,
    *([VALUES] * 5),
    st.dictionaries(st.sampled_from([b"x-a", b"x-b"]), VALUES.map(str.encode), max_size=2),
)


@given(APPLIES, APPLIES, SUBJECTS)
def test_what_may_not_tie_never_does(one: Applies, other: Applies, subject: Subject) -> None:
    """Equal ranks for one request mean that the loader would have refused the pair."""
    ranks = one.rank(subject), other.rank(subject)

    if ranks[0] is not None and ranks[0] == ranks[1]:
        assert may_tie(one, other)


GROUPED = {"rest": "{}", "glob": '{groups: ["eng-*"]}', "exact": "{groups: [ops, eng-core]}", "user": "{users: [ana]}"}


@pytest.mark.parametrize(
    ("groups", "user", "policy"),
    [
        ((), "", "rest"),
        (("sales",), "", "rest"),
        (("eng-a",), "", "glob"),
        (("eng-core",), "", "exact"),
        (("eng-a", "ops"), "", "exact"),
        (("ops",), "ana", "user"),
    ],
)
def test_a_group_that_is_named_beats_a_pattern_and_a_user_beats_both(
    groups: tuple[str, ...], user: str, policy: str
) -> None:
    """Whoever reads the policies must be able to say which one acts."""
    subject = Subject("shop", user=user, model="m", path="/chat", groups=groups)

    assert policy == chosen(load(**GROUPED), subject)


@given(st.permutations(["a", "bb", "ccc"]))
def test_of_several_groups_the_first_decides(groups: list[str]) -> None:
    """Policies for different groups never tie, whoever is in all of them."""
    result = load(**{name: f"{{groups: [{name}]}}" for name in ("a", "bb", "ccc")})

    assert groups[0] == chosen(result, Subject("shop", model="m", path="/chat", groups=tuple(groups)))


def test_two_policies_for_one_group_tie() -> None:
    """Nothing tells them apart, so they are refused when they are loaded."""
    assert {"policy-tie"} == {p.code for p in load(one="{groups: [eng]}", two="{groups: [ops, eng]}").problems}
