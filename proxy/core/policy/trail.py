"""Why an exchange met these rules: every pattern that was looked at, in order, with its verdict.

Owns the telling, not the choice: ``policy_set`` chooses, with the same order and the same patterns, and a test holds
the two together. Knows no live state.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.core.policy.access import AccessPlan, Asked, verdicts
from proxy.core.policy.applies import Subject
from proxy.core.policy.globs import compile_glob, is_glob
from proxy.core.policy.model import Policy, RouteMatch, RoutePlan
from proxy.core.policy.policy_set import PolicySet


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that was looked at. ``inputs`` is what it was compared with, ``verdict`` what came of it."""

    rule: str
    inputs: str
    verdict: str
    is_taken: bool = False


def trail_of(
    policies: PolicySet, subject: Subject, model: str | None, asked: Asked | None = None, *, knows_body: bool = False
) -> list[Step]:
    """Return the steps from a request to a policy, a route and what ``access`` says.

    Args:
        policies: Those in force.
        subject: The request as policies see it.
        model: None when the request names none.
        asked: The request as access rules see it; None: they are not told.
        knows_body: False: ``asked`` comes from a row, which has no body; rules about that are not told.
    """
    chosen = policies.policy_for(subject)
    told = _told(subject)
    ranked = [(policy.applies.rank(subject), policy) for policy in policies.policies if policy.applies.routes is None]
    fitting = sorted((pair for pair in ranked if pair[0] is not None), key=lambda pair: pair[0] or (), reverse=True)
    steps = [Step(_whose(policy), told, "no") for rank, policy in ranked if rank is None]
    for _, policy in fitting:
        is_taken = policy.name == chosen
        steps.append(Step(_whose(policy), told, "applies" if is_taken else "fits, but less specifically", is_taken))
        if is_taken:
            rest = [
                Step(_whose(other), told, "fits, but less specifically") for _, other in fitting if other is not policy
            ]
            routed = _route_steps(policy, model, subject.path)
            decides = policy
            plan = policies.select_for(subject, model)
            if isinstance(plan, RoutePlan):
                routed += _instead_steps(policies, plan, subject)
                decides = next(one for one in policies.policies if one.name == plan.policy)
            if decides.access is not None and asked is not None and isinstance(plan, RoutePlan):
                routed += _access_steps(decides.access, asked, is_observing=decides.is_observing, knows_body=knows_body)
            return [*steps[:-1], *rest, steps[-1], *routed]
    return [*steps, Step("no policy", told, "refused: permission_denied")]


def _told(subject: Subject) -> str:
    parts = [f"app {subject.app!r}" if subject.app else "no app named"]
    parts += [f"{what} {value!r}" for what, value in (("caller", subject.caller), ("user", subject.user)) if value]
    parts += [f"groups [{', '.join(subject.groups)}]"] if subject.groups else []
    return ", ".join(parts)


def _whose(policy: Policy) -> str:
    applies = policy.applies
    parts = [f"apps [{', '.join(applies.apps)}]"]
    for what in ("callers", "users", "groups", "models", "paths", "routes"):
        patterns = getattr(applies, what)
        if patterns is not None:
            parts.append(f"{what} [{', '.join(patterns)}]")
    parts += [f"header {name}: {pattern}" for name, pattern in applies.headers]
    return f"policy {policy.name}: {' '.join(parts)}"


def _instead_steps(policies: PolicySet, plan: RoutePlan, subject: Subject) -> list[Step]:
    """Tell which policies for routes were looked at once the route was known, the one that decides last."""
    route = f"{plan.owner or plan.policy}/{plan.name}"
    at_route = subject._replace(route=route)
    others: list[Step] = []
    taken: list[Step] = []
    for policy in policies.policies:
        if policy.applies.routes is None:
            continue
        if policy.name == plan.policy:
            taken.append(Step(_whose(policy), f"route {route}", "decides in its place", True))
        else:
            fits = policy.applies.rank(at_route) is not None
            others.append(Step(_whose(policy), f"route {route}", "fits, but less specifically" if fits else "no"))
    return [*others, *taken]


def _access_steps(access: AccessPlan, asked: Asked, *, is_observing: bool, knows_body: bool) -> list[Step]:
    steps: list[Step] = []
    for verdict in verdicts(access, asked, knows_body=knows_body):
        rule, refusal = f"access.{verdict.key}", verdict.refusal
        if refusal is None:
            steps.append(Step(rule, verdict.inputs, "allowed"))
            continue
        said = f"would be refused (mode: observe): {refusal.code}" if is_observing else f"refused: {refusal.code}"
        return [*steps, Step(rule, verdict.inputs, said, True)]
    return steps


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
