"""The policies in force, made ready for exchanges: one reference that is swapped, never changed in place.

Owns the current ``Snapshot``. An exchange pins the snapshot it began with. Knows neither files nor HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from proxy.core.budget.dimensions import Unit
from proxy.core.config.settings import ProviderKind, ProviderSettings, StreamUsage
from proxy.core.policy.applies import Subject
from proxy.core.policy.model import (
    BudgetRule,
    ContentRule,
    NoRoute,
    PersonalData,
    Rescue,
    RoutePlan,
    Share,
    Target,
    Timeouts,
    WhenExhausted,
)
from proxy.core.policy.policy_set import PolicySet
from proxy.core.redaction import AnswerRedactor, RequestRedactor
from proxy.core.routing.overrides import rules_with
from proxy.core.routing.shares import Load
from proxy.core.routing.walk import Course
from proxy.flow.budget_lines import asks_who
from proxy.flow.sharing import StepShare
from proxy.terms.redaction import RedactionPlan

if TYPE_CHECKING:
    from proxy.flow.trial import Trial

_Built = TypeVar("_Built")
_APART = (Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS, Unit.COST)


@dataclass(frozen=True, slots=True)
class Deployment:
    """One link of a chain, ready to be dialled."""

    name: str
    """``provider:model``; the breaker's key. ``*`` stands for whatever model was asked for."""
    provider: str
    model: str | None
    target: Target
    lines: dict[str, bytes]
    """Model -> the answer's header lines that name policy, provider and model; filled as models are met."""
    endpoint: str
    """What is dialled: the provider, or ``provider/key`` where it has several keys."""
    weight: float = 1.0
    load: Load | None = None
    """What it is carrying; None: it shares no step, and nobody counts."""
    hasty: Timeouts | None = None
    """Deadlines of a stream whose first token is limited; None: it is not."""
    speaks_messages: bool = False
    """It takes chat requests as Anthropic's Messages API."""
    is_particular: bool = False
    """It asks for more than another model name: ``flow.shaping`` has to look at each request."""
    dialled: str = ""
    """``endpoint:model``: the name, but for a canary's deployments that have breakers of their own."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route with everything compiled."""

    plan: RoutePlan
    redactor: RequestRedactor | None
    deployments: tuple[Deployment, ...]
    budgets: tuple[BudgetRule, ...]
    course: Course
    """The chain as every walk along it sees it; its attempts are the policy's, and one more for every further key."""
    answers: AnswerRedactor | None = None
    """What policy does with the model's own words; None where it does not look at them."""
    knows_who: bool = False
    """Some budget depends on app, user, caller key, route or model."""
    counts_apart: bool = False
    """Some budget counts input tokens, output tokens or cost."""
    counts_cost: bool = False
    asks_usage: bool = False
    """A budget counts tokens or cost, and every provider of the chain may be asked to report them in streams."""
    may_wait: bool = False
    """Some budget has exchanges wait in line."""
    passes_caller_key: bool = False
    """No target takes a key of ours: the caller's own goes on, as if the sidecar were not there. A chain that mixes
    both kinds passes it to nobody, or one vendor's key would reach another."""
    content: ContentRule | None = None
    """What is kept of the words; None: nothing."""
    keep_values_s: float | None = None
    """For how long the values of a conversation outlive its turns; None: they do not."""
    shares: tuple[StepShare, ...] | None = None
    """Steps with several members; None: the chain is walked as it is."""
    is_transparent: bool = False
    """The chain has one link and no retries: what breaks is passed on as it broke."""

    def reads_documents(self, *, is_stream: bool) -> bool:
        """True when something besides redaction looks into the parsed request, or changes it."""
        is_fitted = self.plan.output_cap is not None or (is_stream and self.asks_usage)
        is_shaped = any(deployment.is_particular for deployment in self.deployments)
        return is_fitted or is_shaped or self.reads_more_than_fits(is_stream=is_stream)

    def reads_more_than_fits(self, *, is_stream: bool) -> bool:
        """True when something looks into the parsed request that does not do so for large ones in another process."""
        return (is_stream and self.plan.rescue is Rescue.RESUME) or any(share.is_sticky for share in self.shares or ())


class Snapshot:
    """Policies of one revision, with their routes compiled once and looked up per exchange."""

    def __init__(
        self,
        policies: PolicySet,
        providers: Mapping[str, ProviderSettings],
        redactor_for: Callable[[RedactionPlan], RequestRedactor | None],
        answers_for: Callable[[RedactionPlan], AnswerRedactor | None] = lambda _: None,
    ) -> None:
        self.policies = policies
        self._providers = providers
        self.revision = policies.revision
        self.asks_more = policies.asks_more
        # Routes without a redaction of their own share their policy's, and what it remembers of texts.
        self._redactor_for = _once_each(redactor_for)
        self._answers_for = _once_each(answers_for)
        self._routes: dict[int, Route] = {}
        for policy in policies.policies:
            plans = [*policy.routes, *([policy.pass_through] if policy.pass_through is not None else [])]
            for plan in plans:
                self._routes[id(plan)] = self._compile(plan)

    def _compile(self, plan: RoutePlan) -> Route:
        deployments: list[Deployment] = []
        shares: list[StepShare] = []
        for step in self._steps(plan):
            members = self._members(plan.chain[step.start : step.stop])
            if len(members) > 1:
                shares.append(StepShare(len(deployments), members, step.by, is_sticky=step.is_sticky))
            else:
                members = [replace(members[0], load=None)]
            deployments += members
        redactor = self._redactor_for(plan.redaction)
        answers = self._answers_for(plan.redaction)
        passes = all(self._providers[target.provider].api_key is None for target in plan.chain)
        rules = plan.budgets
        counts_apart = any(rule.counts(*_APART) for rule in rules)
        counts_cost = any(rule.counts(Unit.COST) for rule in rules)
        asks_usage = (
            not plan.observe_only
            and any(rule.counts(Unit.TOKENS, *_APART) for rule in rules)
            and all(self._providers[target.provider].stream_usage is StreamUsage.ASK for target in plan.chain)
        )
        return Route(
            plan,
            redactor,
            tuple(deployments),
            rules,
            course_of(plan, len(deployments)),
            answers,
            knows_who=any(map(asks_who, rules)),
            counts_apart=counts_apart,
            counts_cost=counts_cost,
            asks_usage=asks_usage,
            may_wait=not plan.observe_only and any(rule.when_exhausted is WhenExhausted.WAIT for rule in rules),
            passes_caller_key=passes,
            content=plan.audit.content,
            keep_values_s=None if redactor is None or plan.observe_only else plan.redaction.keep_values_s,
            shares=tuple(shares) or None,
            is_transparent=len(deployments) == 1 and not plan.retries.same_target,
        )

    @staticmethod
    def _steps(plan: RoutePlan) -> Iterator[Share]:
        """Yield every step of a chain as a share, also those of one target."""
        index, shares = 0, {share.start: share for share in plan.shares}
        while index < len(plan.chain):
            share = shares.get(index) or Share(index, index + 1)
            yield share
            index = share.stop

    def _members(self, targets: tuple[Target, ...]) -> list[Deployment]:
        """Return what a step dials: each of its targets, once per key of its provider."""
        return [
            Deployment(
                f"{endpoint}:{target.model or '*'}",
                target.provider,
                target.model,
                target,
                {},
                endpoint,
                target.weight / len(endpoints),
                Load(),
                _hasty(target.timeouts),
                self._speaks_messages(target),
                self._speaks_messages(target) or is_particular(target),
                f"{endpoint}:{target.model or '*'}",
            )
            for target in targets
            for endpoints in [self._endpoints(target.provider)]
            for endpoint in endpoints
        ]

    def _speaks_messages(self, target: Target) -> bool:
        return self._providers[target.provider].kind is ProviderKind.ANTHROPIC

    def _endpoints(self, provider: str) -> list[str]:
        keys = self._providers[provider].api_keys
        return [f"{provider}/{key}" for key in keys] or [provider]

    def apart_from(self, stable: Snapshot) -> Snapshot:
        """Return these policies as a canary beside others: with breakers of its own where it asks more of a deployment.

        A deployment that both use alike has one breaker, for what it says is about the provider. Where deadlines, parameters
        or injected faults differ, failures may be the canary's own making and must not shut the others out.
        """
        known: dict[str, list[tuple[object, ...]]] = {}
        for route in stable.all_routes():
            for one in route.deployments:
                known.setdefault(one.name, []).append(_asked_of(route, one))
        canary = copy(self)
        canary._routes = {
            key: replace(
                route,
                deployments=tuple(
                    one
                    if _asked_of(route, one) in known.get(one.name, [_asked_of(route, one)])
                    else replace(one, name=f"{one.endpoint}:{self.revision}~{one.model or '*'}")
                    for one in route.deployments
                ),
            )
            for key, route in self._routes.items()
        }
        return canary

    def route(self, app: str, model: str | None, path: str) -> Route | NoRoute:
        """Choose the route of an exchange; ``path`` is what follows ``/v1``."""
        chosen = self.policies.select(app, model, path)
        if isinstance(chosen, NoRoute):
            return chosen
        return self._routes[id(chosen)]

    def route_for(self, subject: Subject, model: str | None) -> Route | NoRoute:
        """Choose the route when policies look at more than the app."""
        chosen = self.policies.select_for(subject, model)
        return chosen if isinstance(chosen, NoRoute) else self._routes[id(chosen)]

    def route_of(self, plan: RoutePlan) -> Route:
        """Return the compiled route of a plan that these policies chose."""
        return self._routes[id(plan)]

    def route_named(self, policy: str, name: str) -> Route:
        """Return a route by its policy's and its own name; both were checked when the policy was loaded."""
        return next(r for r in self._routes.values() if r.plan.policy == policy and r.plan.name == name)

    def all_routes(self) -> tuple[Route, ...]:
        """Every route of every policy."""
        return tuple(self._routes.values())

    def providers(self) -> frozenset[str]:
        """Providers that some chain uses."""
        return frozenset(d.provider for route in self._routes.values() for d in route.deployments)

    def deployments(self) -> frozenset[str]:
        """Names of all deployments."""
        return frozenset(d.name for route in self._routes.values() for d in route.deployments)


def _once_each(build: Callable[[RedactionPlan], _Built]) -> Callable[[RedactionPlan], _Built]:
    """Return a function that builds once for each plan, whoever asks."""
    built: dict[int, tuple[RedactionPlan, _Built]] = {}

    def once(plan: RedactionPlan) -> _Built:
        if id(plan) not in built:
            built[id(plan)] = plan, build(plan)
        return built[id(plan)][1]

    return once


def _asked_of(route: Route, deployment: Deployment) -> tuple[object, ...]:
    """Return what a route asks of a deployment that may make it fail."""
    target = deployment.target
    return target.timeouts, target.drop_params, target.rename_params, route.plan.inject


def course_of(plan: RoutePlan, targets: int) -> Course:
    """Return how a plan's chain is walked once it has become so many targets."""
    # Keys of one provider are further chances that the policy's count of its chain does not know of.
    attempts = plan.max_attempts + targets - len(plan.chain)
    retries = plan.retries
    return Course(targets, attempts, retries.same_target, retries.statuses or None, rules_with(plan.on_failure))


def is_particular(target: Target) -> bool:
    """True when the target declares limits, or changes parameters."""
    is_open = target.context is None and target.modalities is None and target.personal_data is PersonalData.ANY
    return not is_open or bool(target.drop_params or target.rename_params)


def _hasty(timeouts: Timeouts) -> Timeouts | None:
    """Return the deadlines under which no answer at all is no better than one without content."""
    if timeouts.first_token_s is None:
        return None
    return replace(timeouts, first_byte_s=min(timeouts.first_byte_s, timeouts.first_token_s))


class Catalog:
    """Owner of the snapshot in force."""

    def __init__(self, providers: dict[str, ProviderSettings]) -> None:
        self.providers = providers
        self.generation = 0
        self.trial: Trial | None = None
        """A canary beside the snapshot in force; None: every exchange uses that."""
        self.snapshot: Snapshot | None = None
        """The snapshot in force, set by ``accept`` alone; None before the first good one."""

    def accept(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force for every exchange that begins from now on."""
        self.snapshot = snapshot
        self.generation += 1
