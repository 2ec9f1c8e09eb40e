"""What a set of policies would do with an exchange of which only facts are known, and how that differs from another answer.

Owns the decision from facts: route, chain, refusals, the action for each type that was found. Shared by ``replay`` (facts from
audit rows) and the shadow (facts of live exchanges). Does not know texts: what was not looked for cannot be found here, budgets
and the health of providers are the moment's, not the policy's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from proxy.core.policy.access import AccessPlan, Asked, Over, judge
from proxy.core.policy.applies import Applies, Subject
from proxy.core.policy.model import NoRoute, NoRouteReason, RoutePlan
from proxy.core.policy.policy_set import PolicySet
from proxy.core.routing.problems import Code
from proxy.terms.outcomes import Fault
from proxy.terms.redaction import Action, DirectionPlan, Unscanned

REPLACED: Final = "replaced"
LEFT: Final = "left"
_EFFECTS: Final = {
    **dict.fromkeys((Action.RESTORE, Action.REDACT, Action.MASK, Action.HASH), REPLACED),
    **dict.fromkeys((Action.OBSERVE, Action.OFF), LEFT),
    Action.BLOCK: "block",
}
_NO_ROUTE: Final = {
    NoRouteReason.NO_POLICY: Code.PERMISSION_DENIED.value,
    NoRouteReason.UNKNOWN_PATH: Code.NOT_FOUND.value,
    NoRouteReason.UNKNOWN_MODEL: Code.MODEL_NOT_FOUND.value,
}
DECIDED_CODES: Final = frozenset(
    {*_NO_ROUTE.values(), Code.CONTENT_POLICY_VIOLATION, Code.UNSCANNED_CONTENT, Code.BODY_TOO_LARGE}
)
"""Refusals that follow from policy and facts alone."""


_NOTED: Final = ("access:", "would_refuse:access:")


class Facts(NamedTuple):
    """What is known of one exchange. Types are in upper case, as findings name them."""

    app: str = ""
    caller: str = ""
    user: str = ""
    model: str | None = None
    """None: the request named none."""
    path: str = ""
    """What follows ``/v1``."""
    findings: Mapping[str, int] = {}
    """Type -> values that were seen in the request."""
    answer_findings: Mapping[str, int] = {}
    has_unscanned: bool = False
    fields: Mapping[bytes, bytes] = {}
    """Headers; rows do not hold them."""
    method: str = "POST"
    request_bytes: int = 0
    noted: str = ""
    """The rule of ``access`` that the row says refused it, or would have: parameters are known by this alone."""
    groups: tuple[str, ...] = ()
    """Of a verified token."""
    document: Any = None
    """The parsed body, where somebody still has it; then parameters are known without ``noted``."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with one exchange. ``actions`` and ``answers`` hold an action or, from a row, an effect for each type found."""

    policy: str = ""
    route: str = ""
    refusal: str = ""
    """Code, or empty."""
    chain: tuple[str, ...] = ()
    """``provider:model`` in order."""
    actions: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    is_exact: bool = True
    """False: told by a row, which knows the targets that were asked and what was replaced, not how."""
    plan: RoutePlan | None = field(default=None, compare=False, repr=False)
    """What decided; None where nothing did, or nobody knows."""
    because: str = field(default="", compare=False)
    """Which rule refuses, where one of the policy's does."""


class What(StrEnum):
    """In what two decisions differ."""

    REFUSED = "refused"
    ADMITTED = "admitted"
    REFUSAL = "refusal"
    """Refused either way, for another reason."""
    ROUTE = "route"
    TARGET = "target"
    REDACTION = "redaction"
    ANSWER = "answer"


class Difference(NamedTuple):
    """One thing that would be otherwise; ``rule`` says what made it so."""

    what: What
    rule: str
    before: str
    after: str


def decide(policies: PolicySet, facts: Facts, *, enforce: bool = False) -> Decision:
    """Decide an exchange; ``enforce`` takes policies of ``mode: observe`` as if they acted."""
    return decide_plan(plan_for(policies, facts), facts, enforce=enforce)


def plan_for(policies: PolicySet, facts: Facts) -> RoutePlan | NoRoute:
    """Return the route that takes an exchange."""
    if not policies.asks_more:
        return policies.select(facts.app, facts.model, facts.path)
    subject = Subject(facts.app, facts.caller, facts.user, facts.model or "", facts.path, facts.fields, facts.groups)
    return policies.select_for(subject, facts.model)


def decide_plan(plan: RoutePlan | NoRoute, facts: Facts, *, enforce: bool = False) -> Decision:
    """Decide an exchange that this route takes, or none."""
    if isinstance(plan, NoRoute):
        return Decision(refusal=_NO_ROUTE[plan.reason])
    return decide_route(plan, facts, enforce=enforce)


def decide_route(plan: RoutePlan, facts: Facts, *, enforce: bool = False) -> Decision:
    """Decide an exchange that this route takes."""
    chain = tuple(f"{target.provider}:{target.model or facts.model or '*'}" for target in plan.chain)
    observes = plan.redaction.observe_only and not enforce
    actions = _actions(plan.redaction.request, facts.findings, observes=observes)
    answers = _actions(plan.redaction.response, facts.answer_findings, observes=observes)
    refusal, because = "", ""
    if plan.access is not None and not observes:
        refusal, because = _denied(plan.access, facts)
    if refusal:
        pass
    elif Action.BLOCK in actions.values():
        refusal = Code.CONTENT_POLICY_VIOLATION.value
        because = ", ".join(sorted(kind.lower() for kind, action in actions.items() if action == Action.BLOCK))
    elif facts.has_unscanned and not observes and _refuses_unscanned(plan):
        refusal, because = Code.UNSCANNED_CONTENT.value, "unscanned"
    return Decision(plan.policy, plan.name, refusal, chain, actions, answers, plan=plan, because=because)


def _denied(access: AccessPlan, facts: Facts) -> tuple[str, str]:
    """Return code and rule of the refusal that ``access`` comes to, by what is known."""
    document = facts.document
    asked = Asked(facts.method, facts.path, facts.model, body_bytes=facts.request_bytes, document=document)
    denied = judge(access, asked)
    if denied is not None and denied.refusal is not None:
        return denied.refusal.code, f"access {denied.key}"
    if document is not None:
        return "", ""
    limits = access.max_tokens is not None and access.over_max_tokens is Over.REFUSE
    rules = {
        "params": access.params is not None,
        "forbidden_params": bool(access.forbidden_params),
        "max_tokens": limits,
    }
    if rules.get(facts.noted):
        return Code.PERMISSION_DENIED.value, f"access {facts.noted}"
    return "", ""


def recorded(row: Mapping[str, Any]) -> Decision:
    """Return what was done with an exchange, as far as its audit row (JSON columns parsed) tells."""
    code = str(row["error_code"])
    is_ours = not row["attempt_count"] and (code != Code.BODY_TOO_LARGE or row["fault"] == Fault.POLICY)
    refusal = code if code in DECIDED_CODES and is_ours else ""
    sanitized, found = row["sanitized"], row["findings"]
    told = {kind: REPLACED if kind in sanitized else LEFT for kind in found}
    if refusal == Code.CONTENT_POLICY_VIOLATION:
        told = dict.fromkeys(found, "block")
    chain = tuple(dict.fromkeys(f"{one['provider']}:{one['model']}" for one in row["attempts"]))
    return Decision(row["policy"], row["route"], refusal, chain, told, is_exact=False)


def facts_of_row(row: Mapping[str, Any], policies: PolicySet) -> Facts:
    """Return the facts that an audit row (JSON columns parsed) holds.

    Headers are not in rows; they are taken to be such that the row's policy applies, as it does in ``policies``. So are the
    groups of a row without any: one of before rows held them, or of an erased person.
    """
    applies = next((one.applies for one in policies.policies if one.name == row["policy"]), Applies())
    return Facts(
        row["app"],
        row["caller"],
        row["user_id"],
        row["model_asked"] or None,
        str(row["path"]).removeprefix("/v1"),
        row["findings"],
        row["response_findings"],
        bool(row["unscanned_bytes"]),
        {name.encode(): value.encode() for name, value in applies.headers},
        row["method"],
        row["request_bytes"],
        noted_rule(row["notes"]),
        tuple(row["caller_groups"]) or applies.groups or (),
    )


def noted_rule(notes: Iterable[str]) -> str:
    """Return the rule of ``access`` that the notes of an exchange name, if any."""
    return next((note.rpartition(":")[2] for note in notes if note.startswith(_NOTED)), "")


def looks_for_more(before: DirectionPlan, after: DirectionPlan) -> bool:
    """True when ``after`` may find what ``before`` did not look for, so that facts gathered under it say too little."""
    kinds = before.actions.keys() | after.actions.keys()
    if any(before.action_for(k) is Action.OFF and after.action_for(k) is not Action.OFF for k in kinds):
        return True
    if before.default is Action.OFF and after.default is not Action.OFF:
        return True
    lower = after.min_score < before.min_score or any(
        after.scores.get(k, after.min_score) < before.scores.get(k, before.min_score)
        for k in before.scores.keys() | after.scores.keys()
    )
    return lower or _allowed(before) != _allowed(after)


def is_partly_known(before: Decision, after: Decision) -> bool:
    """True when the second decision might find more than the facts tell that were gathered under the first."""
    if after.plan is None or not (after.plan.redaction.request.is_active or after.plan.access is not None):
        return False
    if before.plan is None or before.refusal:  # who refuses may look no further
        return before.refusal == "" or before.refusal != after.refusal
    access = after.plan.access
    if access is not None and access.reads_params and access != before.plan.access:
        return True
    return looks_for_more(before.plan.redaction.request, after.plan.redaction.request)


def differences(before: Decision, after: Decision) -> list[Difference]:
    """Return in what the second decision differs from the first."""
    rule = f"{after.policy}/{after.route}" if after.route else "no policy"
    if after.refusal or before.refusal:
        if after.refusal == before.refusal:
            return []
        what = What.REFUSAL if before.refusal and after.refusal else What.REFUSED if after.refusal else What.ADMITTED
        if after.because:
            rule = f"{rule}: {after.because}"
        return [Difference(what, rule, before.refusal, after.refusal)]
    found = []
    if (before.policy, before.route) != (after.policy, after.route):
        found.append(Difference(What.ROUTE, rule, f"{before.policy}/{before.route}", rule))
    if not _same_chain(before, after):
        found.append(Difference(What.TARGET, rule, " > ".join(before.chain), " > ".join(after.chain)))
    found += _treated(What.REDACTION, rule, before, after, before.actions, after.actions)
    if before.is_exact and after.is_exact:
        found += _treated(What.ANSWER, rule, before, after, before.answers, after.answers)
    return found


def _same_chain(before: Decision, after: Decision) -> bool:
    if before.is_exact and after.is_exact:
        return before.chain == after.chain
    rest = iter(after.chain)  # a row knows those that were asked, in their order
    return all(asked in rest for asked in before.chain)


def _treated(
    what: What, rule: str, before: Decision, after: Decision, old: Mapping[str, str], new: Mapping[str, str]
) -> list[Difference]:
    shows = str if before.is_exact and after.is_exact else effect_of
    return [
        Difference(what, f"{rule}: {kind.lower()}", shows(old.get(kind, LEFT)), shows(new.get(kind, LEFT)))
        for kind in sorted(old.keys() | new.keys())
        if shows(old.get(kind, LEFT)) != shows(new.get(kind, LEFT))
    ]


def effect_of(action: str) -> str:
    """Return ``block``, ``replaced`` or ``left`` for an action (or for one of these words)."""
    return action if action in (REPLACED, LEFT) else _EFFECTS[Action(action)]


def _actions(direction: DirectionPlan, findings: Mapping[str, int], *, observes: bool) -> dict[str, str]:
    if not findings:
        return {}
    found = {kind: direction.action_for(kind).value for kind in findings}
    return {kind: LEFT if effect_of(action) == LEFT or observes else action for kind, action in found.items()}


def _refuses_unscanned(plan: RoutePlan) -> bool:
    return plan.redaction.unscanned is Unscanned.REFUSE and plan.redaction.request.default is not Action.OBSERVE


def _allowed(direction: DirectionPlan) -> tuple[object, ...]:
    return direction.allow_values, direction.allow_patterns, direction.allow_domains, direction.allow_networks
