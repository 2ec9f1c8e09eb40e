"""Which rules of the policies the cases touched: every route, link, budget and redaction rule has to earn its place.

Owns what counts as a rule and as touching it. Knows how neither policies nor cases are run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from proxy.core.config.problem import Mark
from proxy.core.config.schema import Section
from proxy.core.policy.applies import Applies
from proxy.core.policy.cases import Case
from proxy.core.policy.compile import applies_of, budget_ids, route_names
from proxy.core.policy.expectations import Happened
from proxy.core.policy.layers import layered
from proxy.core.policy.policy_table import POLICY
from proxy.core.policy.taking import is_for_routes
from proxy.terms.redaction import Action

_ASKED = ("methods", "paths", "models", "max_body", "max_tokens", "params", "forbidden_params")
"""Access rules that act on requests; the others are held by the check of chains."""


class Part(StrEnum):
    """What kind of rule it is."""

    ROUTE = "route"
    LINK = "link"
    BUDGET = "budget"
    REDACTION = "redaction rule"
    DEFAULT = "redaction default"
    ANSWER_RULE = "answer redaction rule"
    ANSWER_DEFAULT = "answer redaction default"
    ACCESS = "access rule"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy file that can act."""

    part: Part
    policy: str
    name: str
    """What the rule is called in a report."""
    keys: frozenset[str]
    """By what touching it is recognised: a route's name, a deployment, a budget's id, types of findings."""
    mark: Mark
    route: str = ""
    instead: frozenset[str] = frozenset()
    """Policies for routes that may decide in this one's place; the route and its chain still act."""

    def __str__(self) -> str:
        return f"{self.mark.file}:{self.mark.line}:{self.mark.column}: {self.part} {self.name} of policy {self.policy}"


def rules_of(files: Sequence[tuple[str, str]], environment: str | None = None) -> list[Rule]:
    """Return every rule of policy files that have no errors, in the order of the files."""
    nodes = [node for _, node in layered(files, environment).policies]
    tops = [top for top in (POLICY.read(node, "", []) for node in nodes) if isinstance(top, Section)]
    for_routes = [(top["policy"], applies_of(top["applies_to"])) for top in tops if is_for_routes(top)]
    rules: list[Rule] = []
    for top in tops:
        rules += [*_routes(top, for_routes), *_budgets(top), *_access(top), *_redaction(top)]
    return rules


def _routes(top: Section, for_routes: Sequence[tuple[str, Applies]]) -> Iterable[Rule]:
    policy: str = top["policy"]
    routes = top["routes"]
    for route, (section, mark) in zip(route_names(routes.values), routes, strict=True):
        instead = frozenset(name for name, applies in for_routes if applies.takes_route(f"{policy}/{route}"))
        yield Rule(Part.ROUTE, policy, route, frozenset({route}), mark, route, instead)
        for number, (link, at) in enumerate(section["chain"], 1):
            deployment = f"{link['provider']}:{link['model'] or '*'}"
            yield Rule(
                Part.LINK, policy, f"{route}[{number}] {deployment}", frozenset({deployment}), at, route, instead
            )


def _budgets(top: Section) -> Iterable[Rule]:
    policy: str = top["policy"]
    for budget, (_, mark) in zip(budget_ids(top["budgets"].values), top["budgets"], strict=True):
        yield Rule(Part.BUDGET, policy, budget, frozenset({budget, f"{policy}/{budget}"}), mark)


def _access(top: Section) -> Iterable[Rule]:
    section: Section | None = top["access"]
    for key in _ASKED if section is not None else ():
        if section is not None and section.is_written(key):
            yield Rule(Part.ACCESS, top["policy"], key, frozenset({key}), section.at(key))


def _redaction(top: Section) -> Iterable[Rule]:
    redaction = top["redaction"]
    yield from _direction(top["policy"], redaction["request"], Part.REDACTION, Part.DEFAULT)
    yield from _direction(top["policy"], redaction["response"], Part.ANSWER_RULE, Part.ANSWER_DEFAULT)


def _direction(policy: str, section: Section, rule: Part, default: Part) -> Iterable[Rule]:
    named: set[str] = set()
    for row, mark in section["rules"]:
        types = frozenset(kind.lower() for kind in row["types"].values)
        named |= types
        if row["action"] != Action.OFF.value:
            yield Rule(rule, policy, f"[{', '.join(sorted(types))}] {row['action']}", types, mark)
    if section["default"] != Action.OFF.value:
        yield Rule(default, policy, section["default"], frozenset(named), section.at("default"))


def touches(rule: Rule, case: Case, happened: Happened) -> bool:
    """Say whether a case made a rule act (or made it count, for ``observe``)."""
    if happened.policy != rule.policy and happened.policy not in rule.instead:
        return False
    match rule.part:
        case Part.ROUTE:
            return happened.route in rule.keys
        case Part.LINK:
            wanted = next(iter(rule.keys))
            asked = any(wanted == target or wanted == f"{target.partition(':')[0]}:*" for target in happened.targets)
            return happened.route == rule.route and asked
        case Part.BUDGET:
            denied = any(":budget:" in f":{note}:" for note in happened.skipped)
            return denied and any(name in rule.keys for name in case.spent)
        case Part.ACCESS:
            return any(rule_name in rule.keys for rule_name in happened.access)
        case Part.REDACTION:
            return any(kind in rule.keys for kind in happened.findings)
        case Part.DEFAULT:
            return any(kind not in rule.keys for kind in happened.findings)
        case Part.ANSWER_RULE:
            return any(kind in rule.keys for kind in happened.answer_findings)
        case Part.ANSWER_DEFAULT:
            return any(kind not in rule.keys for kind in happened.answer_findings)
