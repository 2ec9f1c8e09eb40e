"""All policies in force, as tables: which route takes an exchange.

Owns the choice (most specific app pattern, then most specific route, then the policy that decides in its place) and a
cache of choices made, so that a repeated question costs one dictionary look-up. Knows no YAML and no live state; belongs to
one event loop.

Order within a policy, by design: an exact model, a model glob by its letters, a path alone, ``*``, and last
the config's default provider.
"""

from __future__ import annotations

import re
from dataclasses import replace

from proxy.core.policy.access import AccessPlan, Asked, judge
from proxy.core.policy.applies import Rank, Subject
from proxy.core.policy.globs import compile_glob, is_glob, specificity
from proxy.core.policy.model import (
    BudgetRule,
    ModelList,
    NoRoute,
    NoRouteReason,
    Policy,
    ReadinessRule,
    RouteMatch,
    RoutePlan,
)
from proxy.core.policy.rollout import RolloutPlan

_MAX_CACHED = 4096
_MAX_CACHED_CHARS = 512
"""Longer questions are answered anew: callers choose these strings, and a cache must not hold megabytes of them."""


class _Rule:
    """One row of a policy's table."""

    __slots__ = ("model", "model_glob", "path_glob", "plan")

    def __init__(self, match: RouteMatch) -> None:
        self.plan = match.plan
        self.model = match.model
        self.model_glob = compile_glob(match.model) if match.model is not None else None
        self.path_glob = compile_glob(match.path) if match.path is not None else None

    def takes(self, model: str | None, path: str) -> bool:
        if self.path_glob is not None and self.path_glob.match(path) is None:
            return False
        if model is None:
            return self.model is None or self.model == "*"
        return self.model_glob is None or self.model_glob.match(model) is not None


class _Table:
    """One policy's rules, exact models apart."""

    __slots__ = ("exact", "models", "pass_through", "rest")

    def __init__(self, policy: Policy) -> None:
        self.exact: dict[str, list[_Rule]] = {}
        self.rest: list[_Rule] = []
        self.pass_through = policy.pass_through
        names: set[str] = set()
        has_wildcard = policy.pass_through is not None
        for match in policy.matches:
            rule = _Rule(match)
            if match.model is None:
                self.rest.append(rule)
            elif is_glob(match.model):
                self.rest.append(rule)
                has_wildcard = True
            else:
                self.exact.setdefault(match.model, []).append(rule)
                names.add(match.model)
        self.models = ModelList(tuple(sorted(names)), has_wildcard)
        if policy.access is not None and not policy.is_observing:
            self.models = self._allowed_models(policy.access)

    def _allowed_models(self, access: AccessPlan) -> ModelList:
        """Return the list that ``access`` leaves: nobody but us can tell it, a provider's own would show the rest."""
        is_hidden = judge(access, Asked("GET", "/models", None)) is not None
        if access.models is None:
            return replace(self.models, is_hidden=is_hidden)
        known = {name for name in self.models.names if access.models.allow(name)}
        known |= {name for name in access.models.names if self._takes_somewhere(name)}
        return ModelList(tuple(sorted(known)), is_hidden=is_hidden)

    def _takes_somewhere(self, model: str) -> bool:
        globs = (rule.model_glob for rule in self.rest if rule.model_glob is not None)
        return self.pass_through is not None or any(glob.match(model) is not None for glob in globs)

    def choose(self, model: str | None, path: str) -> RoutePlan | NoRoute:
        if model is not None:
            for rule in self.exact.get(model, ()):
                if rule.takes(model, path):
                    return rule.plan
        for rule in self.rest:
            if rule.takes(model, path):
                return rule.plan
        if self.pass_through is not None:
            return self.pass_through
        reason = NoRouteReason.UNKNOWN_PATH if model is None else NoRouteReason.UNKNOWN_MODEL
        return NoRoute(reason, self.models.names)


class PolicySet:
    """The compiled policies of one revision."""

    __slots__ = (
        "_apps",
        "_asks_groups",
        "_asks_users",
        "_by_app",
        "_cache",
        "_exact_apps",
        "_has_paths",
        "_header_names",
        "_instead",
        "_narrow_cache",
        "_tables",
        "asks_more",
        "budgets",
        "policies",
        "readiness",
        "revision",
        "rollout",
    )

    def __init__(self, policies: tuple[Policy, ...], revision: str, rollout: RolloutPlan | None = None) -> None:
        """Compile the tables. ``policies`` are ordered: the most specific app pattern first."""
        self.policies = policies
        self.rollout = rollout
        """How they come into force; None: for everybody at once."""
        self.revision = revision
        """12 hex digits: SHA-256 over what the policies mean, so that comments, layout and `rollout` do not change it."""
        self.budgets: tuple[BudgetRule, ...] = tuple(rule for policy in policies for rule in policy.budgets)
        self.readiness = _joined([policy.readiness for policy in policies])
        """What all policies together ask for; the longest settle time."""
        self._has_paths = any(match.path is not None for policy in policies for match in policy.matches)
        self._tables = {policy.name: _Table(policy) for policy in policies}
        self._exact_apps: dict[str, str] = {}
        globs: list[tuple[str, str]] = []
        for policy in policies:
            for app in policy.applies.apps:
                if is_glob(app):
                    globs.append((app, policy.name))
                else:
                    self._exact_apps.setdefault(app, policy.name)
        self._apps = _most_specific_first(globs)
        self._cache: dict[tuple[str, str | None, str], RoutePlan] = {}
        self.asks_more = any(policy.applies.asks_more for policy in policies)
        """True when more than the app decides whose policy it is; then ask ``select_for``."""
        self._asks_users = any(policy.applies.users is not None for policy in policies)
        self._asks_groups = any(policy.applies.groups is not None for policy in policies)
        names = {name for policy in policies for name, _ in policy.applies.headers}
        self._header_names = tuple(sorted(name.encode("ascii") for name in names))
        taken = [(policy, plan) for policy in policies if policy.applies.routes is not None for plan in policy.routes]
        self._instead = {(policy.name, plan.owner, plan.name): plan for policy, plan in taken}
        """Routes as policies for routes treat them, by policy, owner and name."""
        self._by_app: dict[str, tuple[Policy, ...]] = {}
        self._narrow_cache: dict[tuple[object, ...], RoutePlan] = {}

    def select(self, app: str, model: str | None, path: str) -> RoutePlan | NoRoute:
        """Choose the route of an exchange.

        Args:
            app: The caller's app name; empty when unknown.
            model: The model asked for; None when the request names none.
            path: The path after ``/v1``, such as ``/chat/completions``, without query.
        """
        key = (app, model, path)
        found = self._cache.get(key)
        if found is not None:
            return found
        table = self._table(app)
        if table is None:
            return NoRoute(NoRouteReason.NO_POLICY)
        chosen = table.choose(model, path)
        if isinstance(chosen, RoutePlan):
            self._remember(key, chosen)
        return chosen

    def select_for(self, subject: Subject, model: str | None) -> RoutePlan | NoRoute:
        """Choose the route when policies look at more than the app; ``model`` as for ``select``."""
        key = (
            subject.app, subject.caller, subject.user if self._asks_users else "", model, subject.path,
            tuple([subject.fields.get(name) for name in self._header_names]),
            subject.groups if self._asks_groups else (),
        )  # fmt: skip
        found = self._narrow_cache.get(key)
        if found is not None:
            return found
        name = self.policy_for(subject)
        if name is None:
            return NoRoute(NoRouteReason.NO_POLICY)
        chosen = self._tables[name].choose(model, subject.path)
        if self._instead and isinstance(chosen, RoutePlan):
            chosen = self.in_place_of(chosen, subject)
        if isinstance(chosen, RoutePlan) and sum(len(part) for part in key[:5] if part) <= _MAX_CACHED_CHARS:
            if len(self._narrow_cache) >= _MAX_CACHED:
                self._narrow_cache.clear()
            self._narrow_cache[key] = chosen
        return chosen

    def in_place_of(self, plan: RoutePlan, subject: Subject) -> RoutePlan:
        """Return the route as the policy for routes treats it that fits most specifically; unchanged without one."""
        name = self.policy_for(subject._replace(route=f"{plan.policy}/{plan.name}"))
        return self._instead.get((name or "", plan.policy, plan.name), plan)

    def policy_for(self, subject: Subject) -> str | None:
        """Return the name of the policy whose patterns fit a request most specifically, if any.

        Without a route in ``subject`` no policy for routes fits.
        """
        best: tuple[Rank, str] | None = None
        for policy in self._policies_of(subject.app):
            rank = policy.applies.rank(subject)
            if rank is not None and (best is None or rank > best[0]):
                best = (rank, policy.name)
        return None if best is None else best[1]

    def _policies_of(self, app: str) -> tuple[Policy, ...]:
        """Return the policies whose app patterns fit, so that a user never seen before is not held against all the rest."""
        found = self._by_app.get(app)
        if found is None:
            found = tuple(policy for policy in self.policies if policy.applies.takes_app(app))
            if len(app) <= _MAX_CACHED_CHARS:
                if len(self._by_app) >= _MAX_CACHED:
                    self._by_app.clear()
                self._by_app[app] = found
        return found

    def models_for(self, subject: Subject) -> ModelList:
        """Return what ``GET /v1/models`` may list for a request when policies look at more than the app."""
        name = self.policy_for(subject)
        if name is None:
            return ModelList()
        listed = self._tables[name].models
        return listed if not self._instead else replace(listed, names=self._asked_for(subject, listed.names))

    def _asked_for(self, subject: Subject, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the models that no policy for routes refuses."""
        plans = [(name, self.select_for(subject._replace(model=name), name)) for name in names]
        return tuple(name for name, plan in plans if isinstance(plan, NoRoute) or _allows(plan, name))

    def models(self, app: str) -> ModelList:
        """Return what ``GET /v1/models`` may list for an app."""
        table = self._table(app)
        return ModelList() if table is None else table.models

    def policy_of(self, app: str) -> str | None:
        """Return the name of the policy that applies to an app, if any."""
        if self.asks_more:
            return self.policy_for(Subject(app))
        exact = self._exact_apps.get(app)
        if exact is not None:
            return exact
        return next((name for pattern, name in self._apps if pattern.match(app)), None)

    def _table(self, app: str) -> _Table | None:
        name = self.policy_of(app)
        return None if name is None else self._tables[name]

    def _remember(self, key: tuple[str, str | None, str], plan: RoutePlan) -> None:
        app, model, path = key
        if len(app) + len(model or "") + len(path) > _MAX_CACHED_CHARS:
            return
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[key] = plan


def _allows(plan: RoutePlan, model: str) -> bool:
    access = plan.access
    return access is None or plan.observe_only or access.models is None or access.models.allow(model)


def _most_specific_first(globs: list[tuple[str, str]]) -> tuple[tuple[re.Pattern[str], str], ...]:
    ordered = sorted(globs, key=lambda pair: specificity(pair[0]), reverse=True)
    return tuple((compile_glob(pattern), name) for pattern, name in ordered)


def _joined(rules: list[ReadinessRule]) -> ReadinessRule:
    if not rules:
        return ReadinessRule()
    return ReadinessRule(
        frozenset().union(*(rule.components for rule in rules)),
        frozenset().union(*(rule.providers for rule in rules)),
        max(rule.settle_s for rule in rules),
        tuple(route for rule in rules for route in rule.routes),
    )
