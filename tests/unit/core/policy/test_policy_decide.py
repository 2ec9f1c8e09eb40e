"""What other policies would do with an exchange follows from its facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.core.config.load import parse_settings
from proxy.core.policy.changes import Changes
from proxy.core.policy.decide import Facts, What, decide, differences, is_partly_known
from proxy.core.policy.load import parse_policies
from proxy.core.policy.policy_set import PolicySet
from proxy.core.policy.replay import Replay
from proxy.core.redaction.detect import KNOWN_KINDS

CONFIG = """version: 1
providers: {one: {base_url: "http://127.0.0.1:1/v1"}, two: {base_url: "http://127.0.0.1:1/v1"}}
jwt: {issuer: x, audience: [gate], jwks: {file: keys.json}, claims: {app: azp, groups: groups}}
"""
SHOP = """version: 1
policy: shop
redaction: {request: {default: restore}}
routes: [{name: fast, match: {models: ["fast", "slow"]}, chain: [{provider: one}, {provider: two}]}]
"""


def policies(text: str) -> PolicySet:
    settings = parse_settings(CONFIG, "config.yaml", Path("/x")).settings
    assert settings is not None
    result = parse_policies([("a.yaml", text)], settings, KNOWN_KINDS)
    assert result.policies is not None, result.problems
    return result.policies


def changed(before: str, after: str, **facts: Any) -> list[tuple[str, str, str]]:
    known = Facts(**{"model": "fast", "path": "/chat/completions", **facts})
    found = differences(decide(policies(before), known), decide(policies(after), known))
    return [(one.what.value, one.before, one.after) for one in found]


@pytest.mark.parametrize(
    ("edit", "facts", "expected"),
    [
        (("default: restore", "default: restore"), {"findings": {"CPF": 1}}, []),
        (("default: restore", "default: block"), {}, []),
        (("default: restore", "default: block"), {"findings": {"CPF": 1}}, [("refused", "", "content_policy_violation")]),
        (("default: restore", "default: mask"), {"findings": {"CPF": 1}}, [("redaction", "restore", "mask")]),
        (("default: restore", "default: 'off'"), {"findings": {"CPF": 1}}, [("redaction", "restore", "left")]),
        (("version: 1", "version: 1\nmode: observe"), {"findings": {"CPF": 1}}, [("redaction", "restore", "left")]),
        (('"fast", "slow"', '"slow"'), {}, [("refused", "", "model_not_found")]),
        (('"fast", "slow"', '"fast", "new"'), {"model": "new"}, [("admitted", "model_not_found", "")]),
        (("{provider: one}, ", ""), {}, [("target", "one:fast > two:fast", "two:fast")]),
        (("name: fast", "name: quick"), {}, [("route", "shop/fast", "shop/quick")]),
        (("default: restore}", "default: restore}, unscanned: refuse"), {"has_unscanned": True}, [("refused", "", "unscanned_content")]),
        (("routes:", "access: {models: [slow]}\nroutes:"), {}, [("refused", "", "model_not_found")]),
        (("routes:", "access: {max_body: 1KiB}\nroutes:"), {"request_bytes": 2000}, [("refused", "", "body_too_large")]),
    ],
)  # fmt: skip
def test_what_would_change_follows_from_the_edit(
    edit: tuple[str, str], facts: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    """One edit, one exchange, the difference a person expects."""
    assert expected == changed(SHOP, SHOP.replace(*edit), **facts)


def test_an_observed_policy_can_be_decided_as_if_it_acted() -> None:
    """The report of `mode: observe` says what acting would do."""
    observed = policies(SHOP.replace("default: restore", "default: block").replace("policy:", "mode: observe\npolicy:"))
    facts = Facts(model="fast", path="/chat/completions", findings={"CPF": 1})

    assert "" == decide(observed, facts).refusal
    assert "content_policy_violation" == decide(observed, facts, enforce=True).refusal


def test_a_type_not_looked_for_before_makes_the_answer_partly_known() -> None:
    """Facts gathered by a policy that did not look say nothing about what it would have seen."""
    facts = Facts(model="fast", path="/chat/completions")
    before = decide(policies(SHOP.replace("default: restore", "rules: [{types: [cpf], action: restore}]")), facts)
    after = decide(policies(SHOP), facts)

    assert is_partly_known(before, after)
    assert not is_partly_known(after, before)


ROW: dict[str, Any] = {
    "id": "x", "app": "", "caller": "", "user_id": "", "model_asked": "fast", "path": "/v1/chat/completions",
    "policy": "shop", "route": "fast", "policy_revision": "gone", "error_code": "", "fault": "", "attempt_count": 1,
    "attempts": [{"provider": "one", "model": "fast"}], "findings": {"CPF": 2}, "sanitized": {"CPF": 2},
    "response_findings": {}, "unscanned_bytes": 0, "notes": [], "method": "POST", "request_bytes": 10, "caller_groups": [],
    "tokens_in": 5, "tokens_out": 5, "tokens_cached": 0, "tokens_reasoning": 0, "cost_usd": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "row", "expected"),
    [
        (("x", "x"), {}, []),
        (("default: restore", "default: mask"), {}, []),
        (("default: restore", "default: observe"), {}, [What.REDACTION]),
        (("default: restore", "default: block"), {}, [What.REFUSED]),
        (("{provider: one}, ", ""), {}, [What.TARGET]),
        (("{provider: one}, ", ""), {"attempts": [{"provider": "two", "model": "fast"}]}, []),
        (("x", "x"), {"error_code": "content_policy_violation", "attempt_count": 0, "attempts": []}, [What.ADMITTED]),
    ],
)
def test_a_row_whose_revision_is_gone_still_tells_its_outcome(
    edit: tuple[str, str], row: dict[str, Any], expected: list[What]
) -> None:
    """What was replaced and who was asked stands in the row; which placeholder was used does not."""
    replay = Replay(policies(SHOP.replace(*edit)), lambda revision: None)

    assert expected == [one.what for one in replay.take({**ROW, **row})]
    assert 1 == replay.by_row_alone


GROUPS = SHOP.replace("policy: shop", "policy: shop\napplies_to: {groups: ['eng-*']}")


@pytest.mark.parametrize(
    ("groups", "expected"),
    [(["x", "eng-a"], []), (["sales"], [What.REFUSED]), ([], [])],
)
def test_groups_of_a_row_choose_again(groups: list[str], expected: list[What]) -> None:
    """A row without groups, of before they were kept, is taken to have had what its policy asks for."""
    replay = Replay(policies(GROUPS), lambda revision: None)

    assert expected == [one.what for one in replay.take({**ROW, "caller_groups": groups})]


def test_exchanges_that_no_policy_decided_are_not_counted() -> None:
    """A wrong key is refused under any policy."""
    replay = Replay(policies(SHOP), lambda revision: None)

    replay.take({**ROW, "policy": "", "route": "", "error_code": "invalid_api_key", "attempt_count": 0})

    assert (0, 1) == (replay.changes.exchanges, replay.undecided)


def test_the_report_is_bounded_and_says_what_is_beyond() -> None:
    """Callers choose their app names; a report must not grow with them."""
    changes = Changes(max_groups=2)
    facts = Facts(model="none")
    found = differences(decide(policies(SHOP.replace('"slow"', '"none"')), facts), decide(policies(SHOP), facts))

    for number in range(5):
        changes.add(f"id-{number}", f"app-{number}", found)

    document = changes.document()
    assert (5, 5, 3, 2) == (
        document["exchanges"], document["changed"], document["changes_beyond_list"], len(document["changes"]),
    )  # fmt: skip


def test_a_row_of_a_policy_that_asks_for_groups_or_headers_stays_with_it() -> None:
    """Rows hold neither, but they name the policy, and that says what was there."""
    asks = SHOP.replace("policy: shop", "policy: shop\napplies_to: {groups: [eng], headers: {x-team: red}}")
    replay = Replay(policies(asks), lambda revision: policies(asks))

    assert [] == replay.take({**ROW, "findings": {}, "sanitized": {}})
    assert (0, 0) == (replay.by_row_alone, replay.undecided)
