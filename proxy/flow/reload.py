"""One change of policy: text in, a new snapshot in force or the last good one kept.

Owns nothing; the catalog owns the result. Knows no files: ``sources`` brings the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.core.config.problem import Problem, has_errors
from proxy.core.config.settings import Settings
from proxy.core.policy.load import parse_policies
from proxy.core.redaction import AnswerRedactor, RequestRedactor
from proxy.flow.budgets import Budgets
from proxy.flow.catalog import Catalog, Snapshot
from proxy.flow.fleet import Fleet
from proxy.terms.redaction import RedactionPlan


def compile_snapshot(
    files: Sequence[tuple[str, str]],
    read_problems: Sequence[Problem],
    settings: Settings,
    known_kinds: frozenset[str],
    redactor_for: Callable[[RedactionPlan], RequestRedactor | None],
    answers_for: Callable[[RedactionPlan], AnswerRedactor | None] = lambda _: None,
) -> tuple[Snapshot | None, list[Problem]]:
    """Compile policy texts; a snapshot comes back exactly when no problem is an error. Safe in a worker thread."""
    result = parse_policies(files, settings, known_kinds)
    problems = [*read_problems, *result.problems]
    if result.policies is None or has_errors(problems):
        return None, problems
    return Snapshot(result.policies, settings.providers, redactor_for, answers_for), problems


def put_in_force(snapshot: Snapshot, catalog: Catalog, budgets: Budgets, fleet: Fleet) -> None:
    """Swap the snapshot in: exchanges that begin from now on see it, running ones keep theirs."""
    put_alone(snapshot, budgets, fleet)
    catalog.accept(snapshot)


def put_alone(stable: Snapshot, budgets: Budgets, fleet: Fleet) -> None:
    """Let the owners of live state know one revision's rules and deployments and no others."""
    budgets.apply(stable.policies.budgets)
    fleet.apply(sorted(stable.deployments()))


def put_beside(canary: Snapshot, stable: Snapshot, budgets: Budgets, fleet: Fleet) -> None:
    """Let the owners of live state know a canary's rules and deployments as well as those in force."""
    budgets.apply(stable.policies.budgets, canary.policies.budgets)
    fleet.apply(sorted(stable.deployments() | canary.deployments()))
