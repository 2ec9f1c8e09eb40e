"""Do cases speak of what is there? Budgets, providers, deployments, policies, routes, types and columns that exist.

Owns these findings, each at its place in the case file. A name that is nowhere would make a case hold for the wrong reason: a budget that
is not spent, a provider that does not fail. Runs no case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from proxy.core.audit.row import Row
from proxy.core.config.problem import Mark, Problem, error, in_order, lint
from proxy.core.config.schema import closest
from proxy.core.config.settings import Settings
from proxy.core.policy.cases import Case, Expected
from proxy.core.policy.model import Policy, RoutePlan
from proxy.core.policy.policy_set import PolicySet

_NOTHING = Expected()


def check_cases(
    cases: Sequence[Case], policies: PolicySet, settings: Settings, known_types: Iterable[str]
) -> list[Problem]:
    """Return what in the cases names nothing, or expects nothing.

    Args:
        cases: As they were read.
        policies: The set they are played on.
        settings: The config it refers to.
        known_types: Redaction types that exist, in upper case, without the policies' own.
    """
    budgets = {name for rule in policies.budgets for name in (rule.id, rule.id.rpartition("/")[2])}
    own = {one.name for policy in policies.policies for plan in _plans(policy) for one in plan.redaction.custom}
    there = {
        "spent": ("unknown-budget", "no policy has a budget", budgets),
        "providers": ("unknown-provider", "config.yaml has no provider", set(settings.providers)),
        "open_breakers": ("unknown-deployment", "no chain asks", _deployments(policies, settings)),
        "policy": ("unknown-policy", "there is no policy", {policy.name for policy in policies.policies}),
        "route": ("unknown-route", "no policy has a route", {p.name for one in policies.policies for p in _plans(one)}),
        "types": ("unknown-type", "there is no redaction type", {kind.lower() for kind in (*known_types, *own)}),
        "row": ("unknown-column", "rows have no column", set(Row._fields)),
    }
    problems: list[Problem] = []
    names = Counter(case.name for case in cases)
    seen: set[str] = set()
    for case in cases:
        for what, name, mark in _names_in(case):
            code, text, known = there[what]
            if name not in known:
                hint = closest(name, known) or "known: " + (", ".join(sorted(known)[:20]) or "none")
                problems.append(error(mark, code, f"{text} {name!r}", hint))
        if case.groups and settings.jwt is None:
            text = "`request.groups` never acts: only tokens have groups, and config.yaml has no `jwt`"
            problems.append(error(case.mark, "unreachable-setting", text, "delete it, or add `jwt`"))
        if case.expected == _NOTHING:
            text = "the case expects nothing: it holds whatever happens"
            problems.append(lint(case.mark, "no-effect", text, "say what `expect` is"))
        if names[case.name] > 1 and case.name in seen:
            problems.append(lint(case.mark, "duplicate-name", f"another case is called {case.name!r}", "rename one"))
        seen.add(case.name)
    return list(in_order(problems))


def _names_in(case: Case) -> Iterable[tuple[str, str, Mark]]:
    expected = case.expected
    kinds = {
        kind for counts in (expected.redactions, expected.findings, expected.answer_findings) for kind in counts or ()
    }
    named: dict[str, Iterable[str]] = {
        "spent": case.spent,
        "providers": case.replies,
        "open_breakers": case.open_breakers,
        "policy": [] if not expected.policy else [expected.policy],
        "route": [] if not expected.route else [expected.route],
        "types": kinds,
        "row": expected.row,
    }
    for what, names in named.items():
        for name in names:
            yield what, name, case.marks.get((what, name), case.mark)


def _plans(policy: Policy) -> list[RoutePlan]:
    return [*policy.routes, *([policy.pass_through] if policy.pass_through is not None else [])]


def _deployments(policies: PolicySet, settings: Settings) -> set[str]:
    """Return the names under which breakers know what chains ask: ``provider:model``, once per key."""
    found: set[str] = set()
    for policy in policies.policies:
        for plan in _plans(policy):
            for target in plan.chain:
                keys = settings.providers[target.provider].api_keys
                endpoints = [f"{target.provider}/{key}" for key in keys] or [target.provider]
                found |= {f"{endpoint}:{target.model or '*'}" for endpoint in endpoints}
    return found
