"""Whose requests a policy decides: patterns over caller, app, user, headers, model, path and route, and which policy wins.

Owns the order of precedence: the policy whose patterns are the most specific wins, compared by caller key first, then app,
user, group, headers, model, path and route; two that could tie are refused when they are loaded. Knows no YAML and no HTTP
but header names. A route is known only once some policy has chosen it, so a policy for routes decides in place of the policy
that has them: any pattern of routes is more specific than none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from proxy.core.policy.globs import compile_glob, is_glob, may_overlap, specificity

Rank = tuple[tuple[object, ...], ...]
_VAGUE = specificity(None)
_MANY = 1_000_000
"""More groups than anybody has."""
_NO_HEADERS = (0,)
_NO_ROUTES = (0, _VAGUE)


class Subject(NamedTuple):
    """One request as policies see it before a route is chosen; empty text where nothing is known."""

    app: str = ""
    caller: str = ""
    user: str = ""
    model: str = ""
    path: str = ""
    """What follows ``/v1``, without query."""
    fields: Mapping[bytes, bytes] = {}
    """Lower-case header name -> value."""
    groups: tuple[str, ...] = ()
    """Of a verified token, in its order."""
    route: str = ""
    """``policy/route`` that was chosen; empty before."""


@dataclass(frozen=True, slots=True)
class Applies:
    """The patterns of one policy; None: no condition of that kind."""

    apps: tuple[str, ...] = ("*",)
    callers: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    headers: tuple[tuple[str, str], ...] = ()
    """(lower-case name, value or glob); all of them have to match."""
    groups: tuple[str, ...] | None = None
    """One of the caller's has to match."""
    routes: tuple[str, ...] | None = None
    """Names of other policies' routes, or ``policy/route``."""

    @property
    def asks_more(self) -> bool:
        """True when something besides the app decides."""
        return bool(self.headers) or any(
            patterns is not None
            for patterns in (self.callers, self.users, self.groups, self.models, self.paths, self.routes)
        )

    def takes_app(self, app: str) -> bool:
        """True when the app's pattern, at least, does not stand against a request."""
        return any(_matches(pattern, app) for pattern in self.apps)

    def rank(self, subject: Subject) -> Rank | None:
        """Return how specifically this applies to a request, or None when it does not. The greatest wins."""
        found: list[tuple[object, ...]] = []
        for patterns, value in (
            (self.callers, subject.caller),
            (self.apps, subject.app),
            (self.users, subject.user),
        ):
            best = _best(patterns, value)
            if best is None:
                return None
            found.append(best)
        best_group = self._group_rank(subject.groups)
        if best_group is None:
            return None
        found.append(best_group)
        headers = self._header_rank(subject)
        if headers is None:
            return None
        found.append(headers)
        for patterns, value in ((self.models, subject.model), (self.paths, subject.path)):
            best = _best(patterns, value)
            if best is None:
                return None
            found.append(best)
        route = self._route_rank(subject.route)
        if route is None:
            return None
        found.append(route)
        return tuple(found)

    def takes_route(self, route: str) -> bool:
        """True when the pattern of routes, at least, fits ``policy/route``."""
        return self.routes is not None and any(_matches(_qualified(pattern), route) for pattern in self.routes)

    def _route_rank(self, route: str) -> tuple[object, ...] | None:
        if self.routes is None:
            return _NO_ROUTES
        ranks = [(1, _specificity(pattern)) for pattern in self.routes if _matches(_qualified(pattern), route)]
        return max(ranks, default=None)

    def _group_rank(self, groups: tuple[str, ...]) -> tuple[object, ...] | None:
        """Exact before glob, then the first of the caller's groups, so that two policies for two groups never tie."""
        if self.groups is None:
            return (False, 1 - _MANY, (False, 0, 0))
        ranks = [
            (not is_glob(pattern), -place, specificity(pattern))
            for place, group in enumerate(groups)
            for pattern in self.groups
            if _matches(pattern, group)
        ]
        return max(ranks, default=None)

    def _header_rank(self, subject: Subject) -> tuple[object, ...] | None:
        for name, pattern in self.headers:
            value = subject.fields.get(name.encode("ascii"))
            if value is None or _glob(pattern).match(value.decode("utf-8", "replace")) is None:
                return None
        return _header_specificity(self.headers)


def _qualified(route: str) -> str:
    """Return a pattern over ``policy/route``: a name alone means that of any policy."""
    return route if "/" in route else f"*/{route}"


def _header_specificity(headers: tuple[tuple[str, str], ...]) -> tuple[object, ...]:
    if not headers:
        return _NO_HEADERS
    return (len(headers), *sorted((specificity(pattern) for _, pattern in headers), reverse=True))


@lru_cache(maxsize=4096)
def _specificity(pattern: str) -> tuple[object, ...]:
    return specificity(pattern)


@lru_cache(maxsize=4096)
def _glob(pattern: str) -> re.Pattern[str]:
    return compile_glob(pattern)


def _best(patterns: tuple[str, ...] | None, value: str) -> tuple[object, ...] | None:
    if patterns is None:
        return _VAGUE
    ranks = [_specificity(pattern) for pattern in patterns if _matches(pattern, value)]
    return max(ranks, default=None)


def _matches(pattern: str, value: str) -> bool:
    return _glob(pattern).match(value) is not None if is_glob(pattern) else pattern == value


def may_tie(one: Applies, other: Applies) -> bool:
    """Say whether some request fits both with equal right."""
    if _header_specificity(one.headers) != _header_specificity(other.headers):
        return False
    rivals = dict(other.headers)
    if any(name in rivals and not may_overlap(pattern, rivals[name]) for name, pattern in one.headers):
        return False
    pairs = zip(_patterns(one), _patterns(other), strict=True)
    return all(_may_meet(mine, theirs) for mine, theirs in pairs) and _routes_may_tie(one.routes, other.routes)


def may_win(one: Applies, other: Applies) -> bool:
    """Say whether some request fits both and the first of them no less specifically; routes left aside."""
    rivals = dict(other.headers)
    if any(name in rivals and not may_overlap(pattern, rivals[name]) for name, pattern in one.headers):
        return False
    mine, theirs = _header_specificity(one.headers), _header_specificity(other.headers)
    sides = [
        _best_side(one.callers, other.callers),
        _best_side(one.apps, other.apps),
        _best_side(one.users, other.users),
        # Of several groups that a caller is in, the first decides: who has a pattern there can come first.
        1 if one.groups is not None else 0 if other.groups is None else -1,
        (mine > theirs) - (mine < theirs),
        _best_side(one.models, other.models),
        _best_side(one.paths, other.paths),
    ]
    return None not in sides and next((side > 0 for side in sides if side), True)


def _best_side(mine: tuple[str, ...] | None, theirs: tuple[str, ...] | None) -> int | None:
    """Return 1, 0 or -1: the most specific that ``mine`` can be where both fit; None: nothing fits both."""
    pairs = product(mine if mine is not None else (None,), theirs if theirs is not None else (None,))
    ranks = [(specificity(one), specificity(other)) for one, other in pairs if may_overlap(one, other)]
    return max(((one > other) - (one < other) for one, other in ranks), default=None)


def _routes_may_tie(mine: tuple[str, ...] | None, theirs: tuple[str, ...] | None) -> bool:
    if mine is None or theirs is None:
        return mine is theirs
    return any(
        specificity(one) == specificity(other) and may_overlap(_qualified(one), _qualified(other))
        for one, other in product(mine, theirs)
    )


def _patterns(applies: Applies) -> tuple[tuple[str, ...] | None, ...]:
    return applies.callers, applies.apps, applies.users, applies.groups, applies.models, applies.paths


def _may_meet(mine: tuple[str, ...] | None, theirs: tuple[str, ...] | None) -> bool:
    pairs = product(mine if mine is not None else (None,), theirs if theirs is not None else (None,))
    return any(specificity(one) == specificity(other) and may_overlap(one, other) for one, other in pairs)
