"""Why an exchange met these rules: every pattern that was looked at, in order, with its verdict.

Owns the telling, not the choice: ``policy_set`` chooses, with the same order and the same patterns, and a test holds
the two together. Knows no live state.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.core.policy.globs import compile_glob, is_glob, specificity
from proxy.core.policy.model import Policy, RouteMatch
from proxy.core.policy.policy_set import PolicySet


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that was looked at. ``inputs`` is what it was compared with, ``verdict`` what came of it."""

    rule: str
    inputs: str
    verdict: str
    is_taken: bool = False


def trail_of(policies: PolicySet, app: str, model: str | None, path: str) -> list[Step]:
    """Return the steps from an app, a model and a path (after ``/v1``) to a policy and a route."""
    steps: list[Step] = []
    chosen: Policy | None = None
    shown_app = f"app {app!r}" if app else "no app named"
    for pattern, policy in _apps_in_order(policies):
        is_match = app == pattern if not is_glob(pattern) else compile_glob(pattern).match(app) is not None
        steps.append(
            Step(f"policy {policy.name}: apps [{pattern}]", shown_app, "applies" if is_match else "no", is_match)
        )
        if is_match:
            chosen = policy
            break
    if chosen is None:
        return [*steps, Step("no policy", shown_app, "refused: permission_denied")]
    return steps + _route_steps(chosen, model, path)


def _apps_in_order(policies: PolicySet) -> list[tuple[str, Policy]]:
    """Exact names first, then globs from the most to the least specific: the order of ``PolicySet``."""
    pairs = [(app, policy) for policy in policies.policies for app in policy.apps]
    exact = [pair for pair in pairs if not is_glob(pair[0])]
    globs = sorted((pair for pair in pairs if is_glob(pair[0])), key=lambda pair: specificity(pair[0]), reverse=True)
    return exact + globs


def _route_steps(policy: Policy, model: str | None, path: str) -> list[Step]:
    steps: list[Step] = []
    inputs = f"model {model!r}, path {path}" if model is not None else f"no model, path {path}"
    exact = [match for match in policy.matches if match.model is not None and not is_glob(match.model)]
    rest = [match for match in policy.matches if match.model is None or is_glob(match.model)]
    for match in ([m for m in exact if m.model == model] if model is not None else []) + rest:
        reason = _why_not(match, model, path)
        said = "takes it" if reason is None else reason
        steps.append(Step(f"route {match.plan.name}: {_spelled(match)}", inputs, said, reason is None))
        if reason is None:
            return steps
    if policy.pass_through is not None:
        link = policy.pass_through.chain[0].provider
        return [*steps, Step(f"default provider {link}", inputs, "takes what no route takes", True)]
    return [*steps, Step("no route", inputs, "refused: model_not_found" if model is not None else "refused: not_found")]


def _why_not(match: RouteMatch, model: str | None, path: str) -> str | None:
    if match.path is not None and compile_glob(match.path).match(path) is None:
        return "no: another path"
    if model is None:
        return None if match.model in (None, "*") else "no: the request names no model"
    if match.model is not None and compile_glob(match.model).match(model) is None:
        return "no: another model"
    return None


def _spelled(match: RouteMatch) -> str:
    parts = [f"models [{match.model}]"] if match.model is not None else []
    parts += [f"paths [{match.path}]"] if match.path is not None else []
    return " ".join(parts) or "anything"
