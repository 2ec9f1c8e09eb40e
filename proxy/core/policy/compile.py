"""One checked policy file -> plans: redaction, budgets, routes.

Owns what the words of a policy mean for the data path. Finds no problems of its own: ``checks`` does, before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy.core.budget.dimensions import NANO_USD, UNITS, Dimension, Unit
from proxy.core.config.schema import Section
from proxy.core.policy.access import AccessPlan
from proxy.core.policy.access_table import compile_access
from proxy.core.policy.applies import Applies
from proxy.core.policy.custom_types import compile_type
from proxy.core.policy.faults import InjectPlan
from proxy.core.policy.globs import compile_glob, specificity
from proxy.core.policy.model import (
    NO_RETRIES,
    AuditPlan,
    BrokenStream,
    BudgetRule,
    ContentRule,
    FirstTokenFor,
    PersonalData,
    Policy,
    Priority,
    ReadinessRule,
    Rescue,
    RetryPlan,
    RouteMatch,
    RoutePlan,
    RouteRequirement,
    Scope,
    Share,
    Target,
    Timeouts,
    UnknownPrice,
)
from proxy.core.policy.policy_table import COMPONENTS
from proxy.core.routing.overrides import OnFailure
from proxy.terms.outcomes import Outcome
from proxy.terms.redaction import Action, DirectionPlan, FileTypes, Placeholders, RedactionPlan, StreamMode, Unscanned

DEFAULT_ROUTE = "default"
"""Name of the route that takes what no route matches, when the config names a default provider."""
_PHASES = ("connect", "first_byte", "first_token", "idle", "total")


def compile_policy(
    top: Section, file: str, revision: str, default_provider: str | None, taken: Sequence[TakenRoute] = ()
) -> Policy:
    """Return the plans of one file that has no errors; ``taken`` are the routes of others that ``applies_to.routes`` names."""
    name: str = top["policy"]
    budgets = tuple(
        _budget(section, f"{name}/{budget_id}")
        for section, budget_id in zip(top["budgets"].values, budget_ids(top["budgets"].values), strict=True)
    )
    is_observing = top["mode"] == "observe"
    redaction = _redaction(top["redaction"], is_observing)
    access = compile_access(top["access"])
    common = _Common(name, revision, is_observing, redaction, budgets, access, _audit(top["audit"]))
    sections: list[Section] = top["routes"].values
    routes = tuple(common.plan(n, _chain(s), s) for n, s in zip(route_names(sections), sections, strict=True))
    matches = [m for route, section in zip(routes, sections, strict=True) for m in _matches(route, section)]
    pass_through = (Target(default_provider),) if default_provider else ()
    in_place = tuple(
        common.plan(one.name, pass_through if one.section is None else _chain(one.section), one.section, one.owner)
        for one in taken
    )
    applies = applies_of(top["applies_to"])
    return Policy(
        name=name,
        file=file,
        applies=applies,
        routes=routes + in_place,
        matches=tuple(sorted(matches, key=lambda m: match_rank(m.model, m.path), reverse=True)),
        pass_through=common.plan(DEFAULT_ROUTE, pass_through, None)
        if pass_through and applies.routes is None
        else None,
        budgets=budgets,
        readiness=_readiness(top["readiness"], name),
        access=access,
        is_observing=is_observing,
    )


@dataclass(frozen=True, slots=True)
class _Common:
    """What all routes of a policy have in common."""

    policy: str
    revision: str
    is_observing: bool
    redaction: RedactionPlan
    budgets: tuple[BudgetRule, ...]
    access: AccessPlan | None
    audit: AuditPlan

    def plan(self, route: str, chain: tuple[Target, ...], section: Section | None, owner: str = "") -> RoutePlan:
        """Return the plan of a route; None: of the default provider. ``owner`` has it, if another policy does."""
        retries = RetryPlan() if section is None or section["retries"] == "once" else NO_RETRIES
        tries = len(chain) * (2 if retries.same_target else 1)
        own_words = None if section is None or owner else section["redaction"]
        return RoutePlan(
            name=route,
            policy=self.policy,
            revision=self.revision,
            chain=chain,
            observe_only=self.is_observing,
            redaction=_redaction_of_route(self.redaction, own_words),
            budgets=tuple(rule for rule in self.budgets if _may_act(rule, route, chain)),
            priority=Priority.NORMAL if section is None else Priority(section["priority"]),
            output_cap=_output_cap(
                None if section is None else section["max_output_tokens"], self.access, self.is_observing
            ),
            access=self.access if self.access is not None and self.access.asks_requests else None,
            audit=self.audit,
            max_attempts=tries if section is None or section["max_attempts"] is None else section["max_attempts"],
            total_s=Timeouts().total_s if section is None else section["timeouts"]["total"],
            retries=retries,
            shares=() if section is None else _shares(section["chain"].values),
            broken_stream=BrokenStream.AUTO if section is None else BrokenStream(section["broken_stream"]),
            rescue=Rescue.NONE if section is None else Rescue(section["rescue"]),
            first_token_for=FirstTokenFor.OTHERS if section is None else FirstTokenFor(section["first_token_for"]),
            on_failure={} if section is None else _on_failure(section),
            inject=None if section is None else _inject(section["inject"]),
            owner=owner,
        )


def _output_cap(cap: int | None, access: AccessPlan | None, is_observing: bool) -> int | None:
    """Return the longest answer by a route and its policy's ``access``; one that only observes changes nothing."""
    limit = None if access is None or is_observing else access.max_tokens
    return limit if cap is None else cap if limit is None else min(cap, limit)


def _audit(section: Section) -> AuditPlan:
    """Return what the record holds; words never stay longer than the row they belong to."""
    retention_s: float | None = section["retention"]
    content = None
    if section["content"] != "none":
        kept_s: float = section["content_retention"]
        content = ContentRule(section["content"] == "full", kept_s if retention_s is None else min(kept_s, retention_s))
    return AuditPlan(section["required"], retention_s, content)


def applies_of(section: Section) -> Applies:
    """Return whose requests a policy decides."""

    def patterns(key: str) -> tuple[str, ...] | None:
        return None if section[key] is None else tuple(section[key].values)

    return Applies(
        tuple(section["apps"].values),
        patterns("callers"),
        patterns("users"),
        patterns("models"),
        patterns("paths"),
        tuple(sorted(section["headers"].values.items())),
        patterns("groups"),
        patterns("routes"),
    )


@dataclass(frozen=True, slots=True)
class TakenRoute:
    """A route of another policy for which this one decides."""

    owner: str
    """The policy that has it."""
    name: str
    section: Section | None
    """None: what goes to the default provider."""


def match_rank(model: str | None, path: str | None) -> tuple[object, ...]:
    """Order patterns of routes: the greater, the more specific; equal ones that overlap are a tie."""
    return (specificity(model), path is not None, specificity(path))


def patterns_of(route: Section) -> list[tuple[str | None, str | None]]:
    """Return every model and path pattern pair of a route."""
    match: Section = route["match"]
    models: Iterable[str | None] = match["models"].values if match["models"] is not None else [None]
    paths: list[str | None] = match["paths"].values if match["paths"] is not None else [None]
    return [(model, path) for model in models for path in paths]


def effective_timeouts(route: Section, target: Section) -> dict[str, Any]:
    """Return a link's deadlines in seconds by phase: its own words, else the route's; None is no deadline."""
    own, common = target["timeouts"], route["timeouts"]
    return {phase: common[phase] if own[phase] is None else own[phase] for phase in _PHASES}


def budget_ids(sections: list[Section]) -> list[str]:
    """Return the names of a policy's budgets; without ``id`` made from what they limit, numbered from the second on."""
    ids: list[str] = []
    bases: list[str] = []
    for section in sections:
        written: str | None = section["id"]
        if written is not None:
            ids.append(written)
            continue
        base = _budget_base(section)
        bases.append(base)
        count = bases.count(base)
        ids.append(base if count == 1 else f"{base}-{count}")
    return ids


def _budget_base(section: Section) -> str:
    """Return the provider's name, or the words of what else a budget is about."""
    words = [str(section[scope.value]) for scope in Scope if section[scope.value] is not None]
    words += [f"per-{scope}" for scope in section["per"].values]
    return _word(("-".join(words) or "all", None))


def route_names(sections: list[Section]) -> list[str]:
    """Return the names of a policy's routes; without ``name`` made from the first match, unique."""
    written = {section["name"] for section in sections}
    names: list[str] = []
    for section in sections:
        name = section["name"]
        if name is None:
            base = _word(next(iter(patterns_of(section)), (None, None)))
            name, number = base, 1
            while name in names or name in written or name == DEFAULT_ROUTE:
                number += 1
                name = f"{base}-{number}"
        names.append(name)
    return names


def _word(pattern: tuple[str | None, str | None]) -> str:
    text = pattern[0] or pattern[1] or "any"
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.")[:48] or "any"


def _redaction(section: Section, is_observing: bool) -> RedactionPlan:
    plan = RedactionPlan(
        files=FileTypes(section["files"]),
        unscanned=Unscanned(section["unscanned"]),
        observe_only=is_observing,
        custom=tuple(compile_type(row) for row in section["types"].values),
    )
    return _redaction_of_route(plan, section)


def _redaction_of_route(plan: RedactionPlan, section: Section | None) -> RedactionPlan:
    """Return the plan with the directions that the section names in place of its own."""
    request, response = (None, None) if section is None else (section["request"], section["response"])
    if request is not None:
        keep_s = request["keep_values"]
        form = Placeholders(request["placeholders"]) if keep_s is None else Placeholders.KEYED
        plan = replace(plan, request=_direction(request), placeholders=form, keep_values_s=keep_s)
    if response is not None:
        plan = replace(plan, response=_direction(response), stream_mode=StreamMode(response["stream"]))
    return plan


def _direction(section: Section) -> DirectionPlan:
    actions = {kind: Action(rule["action"]) for rule in section["rules"].values for kind in rule["types"].values}
    default = Action(section["default"])
    allow = section["allow"]
    scored = [(rule["min_score"], rule["types"].values) for rule in section["rules"].values]
    return DirectionPlan(
        default,
        actions,
        frozenset(allow["values"].values),
        tuple(allow["patterns"].values),
        section["min_score"],
        {kind: score for score, kinds in scored if score is not None for kind in kinds},
        tuple(allow["domains"].values),
        tuple(allow["networks"].values),
    )


def _budget(section: Section, budget_id: str) -> BudgetRule:
    limits = tuple((d, _units(d, section[d.value])) for d in Dimension if section[d.value] is not None)
    end, wait_s = section["when_exhausted"]
    return BudgetRule(
        budget_id,
        section["provider"],
        limits,
        end,
        wait_s,
        section["max_waiting"],
        section["model"],
        section["route"],
        section["app"],
        section["caller"],
        section["user"],
        tuple(Scope(word) for word in section["per"].values),
        section["time_zone"],
        UnknownPrice(section["unknown_price"]),
    )


def _units(dimension: Dimension, written: float) -> int:
    """Return a limit in whole units."""
    return max(1, round(written * NANO_USD)) if UNITS[dimension] is Unit.COST else int(written)


def _may_act(rule: BudgetRule, route: str, chain: tuple[Target, ...]) -> bool:
    """Say whether a budget can ever apply to a route."""
    if rule.route is not None and rule.route != route:
        return False
    return any(
        rule.provider in (None, target.provider)
        and (rule.model is None or target.model is None or compile_glob(rule.model).match(target.model) is not None)
        for target in chain
    )


def _chain(route: Section) -> tuple[Target, ...]:
    return tuple(
        Target(
            target["provider"],
            target["model"],
            Timeouts(**{f"{phase}_s": limit_s for phase, limit_s in effective_timeouts(route, target).items()}),
            target["prefill"],
            weight=target["weight"],
            context=target["context"],
            modalities=None if target["modalities"] is None else frozenset(target["modalities"].values) | {"text"},
            personal_data=PersonalData(target["personal_data"]),
            drop_params=tuple(target["drop_params"].values),
            rename_params=dict(target["rename_params"].values),
        )
        for target in route["chain"].values
    )


def _shares(targets: list[Section]) -> tuple[Share, ...]:
    """Return the steps of a flat chain that several targets share."""
    shares: list[Share] = []
    step_of_last = None
    for index, target in enumerate(targets):
        if target["share"] is None:
            step_of_last = None
            continue
        step, by, is_sticky = target["share"]
        if step == step_of_last:
            shares[-1] = replace(shares[-1], stop=index + 1)
        else:
            shares.append(Share(index, index + 1, by, is_sticky))
        step_of_last = step
    return tuple(shares)


def _inject(section: Section | None) -> InjectPlan | None:
    if section is None:
        return None
    fault = section["fault"]
    if fault is not None:
        fault = replace(fault, share=section["share"])
    return InjectPlan(fault, section["header"]) if fault is not None or section["header"] else None


def _on_failure(route: Section) -> dict[Outcome, OnFailure]:
    return {Outcome(name): OnFailure(what) for name, what in route["on_failure"].values.items()}


def _matches(plan: RoutePlan, section: Section) -> list[RouteMatch]:
    return [RouteMatch(plan, model, path) for model, path in patterns_of(section)]


def _readiness(section: Section, policy: str) -> ReadinessRule:
    values = section["require"].values
    required = frozenset(value for value in values if isinstance(value, str))
    components = required & frozenset(COMPONENTS)
    routes = tuple(replace(value, policy=policy) for value in values if isinstance(value, RouteRequirement))
    return ReadinessRule(components, required - components, section["settle"], routes)
