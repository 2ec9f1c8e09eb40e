"""Policies for routes that other policies have (``applies_to.routes``): which routes, and what is wrong with saying so.

Owns these findings and the list of routes that ``compile`` makes plans for. A policy for routes has none of its own: the route is
chosen first, by a policy that has it, and the policy for routes decides in its place when its patterns are no less specific.
Chain, deadlines and retries stay the route's; redaction, budgets, access and record are the deciding policy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.core.config.problem import Mark, Problem, error, lint
from proxy.core.config.schema import Section, closest
from proxy.core.config.settings import Settings
from proxy.core.policy.access_checks import may_ask
from proxy.core.policy.applies import Applies, may_win
from proxy.core.policy.compile import DEFAULT_ROUTE, TakenRoute, applies_of, route_names

_CONDITIONS = ("apps", "callers", "users", "groups", "models", "paths", "headers", "routes")


@dataclass(frozen=True, slots=True)
class Owner:
    """A policy with routes that others may decide for."""

    applies: Applies
    mark: Mark
    routes: tuple[TakenRoute, ...]


def is_for_routes(top: Section) -> bool:
    """True for a policy that says ``applies_to.routes``, rightly or wrongly."""
    written: bool = top["applies_to"].is_written("routes")
    return written


def is_readable(section: Section) -> bool:
    """Say whether an ``applies_to`` has no mistake."""
    return section.is_good(*_CONDITIONS)


def owners_of(tops: Sequence[Section], settings: Settings) -> list[Owner]:
    """Return the policies that have routes, as far as they are free of mistakes."""
    return [
        Owner(applies_of(top["applies_to"]), top.at("policy"), tuple(_routes_of(top, settings)))
        for top in tops
        if top.is_good("policy", "routes") and is_readable(top["applies_to"]) and not is_for_routes(top)
    ]


def _routes_of(top: Section, settings: Settings) -> list[TakenRoute]:
    sections = [section for section, _ in top["routes"] if section.is_good("match", "chain")]
    found = [TakenRoute(top["policy"], name, one) for name, one in zip(route_names(sections), sections, strict=True)]
    if settings.default_provider is not None and may_ask(top["access"], settings.default_provider, settings):
        found.append(TakenRoute(top["policy"], DEFAULT_ROUTE, None))
    return found


def routes_for(top: Section, owners: Sequence[Owner]) -> list[TakenRoute]:
    """Return the routes that a policy for routes may ever decide for."""
    section: Section = top["applies_to"]
    if not is_for_routes(top) or not is_readable(section):
        return []
    applies = applies_of(section)
    return [
        route
        for owner in owners
        if may_win(applies, owner.applies)
        for route in owner.routes
        if applies.takes_route(f"{route.owner}/{route.name}")
    ]


def check_taking(top: Section, owners: Sequence[Owner], settings: Settings, problems: list[Problem]) -> None:
    """Write down patterns that fit no route, or none that this policy could ever decide for."""
    section: Section = top["applies_to"]
    if not is_for_routes(top):
        return
    if top.is_written("routes"):
        text = "the policy decides for routes of others (`applies_to.routes`): routes of its own would never be asked"
        problems.append(error(top.at("routes"), "contradiction", text, "delete one of the two"))
    if section["routes"] is None or not is_readable(section):
        return
    applies = applies_of(section)
    for pattern, mark in section["routes"]:
        one = Applies(routes=(pattern,))
        named = [owner for owner in owners for r in owner.routes if one.takes_route(f"{r.owner}/{r.name}")]
        if not named:
            known = sorted({route.name for owner in owners for route in owner.routes})
            hint = closest(pattern, known) or "known: " + (", ".join(known) or "none")
            problems.append(error(mark, "unknown-route", f"no policy has a route like {pattern!r}", hint))
        elif not any(may_win(applies, owner.applies) for owner in named):
            rival = named[0].mark
            text = f"never acts: for {pattern!r} the policy at {rival.file}:{rival.line} is always more specific"
            problems.append(error(mark, "unreachable-setting", text, "repeat its conditions here"))
    for route in routes_for(top, owners):
        _check_route(top, route, settings, problems)


def _check_route(top: Section, route: TakenRoute, settings: Settings, problems: list[Problem]) -> None:
    """Refuse what the chain of a route asks and ``access`` of this policy does not allow."""
    access: Section | None = top["access"]
    where = f"route {route.owner}/{route.name}"
    if route.section is None:
        links = [(settings.default_provider, None)]
    else:
        good = [target for target, _ in route.section["chain"] if target.is_good("provider", "region")]
        links = [(target["provider"], target["region"]) for target in good]
        if route.section["redaction"] is not None:
            at = route.section.at("redaction")
            text = f"{where} has `redaction` of its own ({at.file}:{at.line}), which does not count here"
            problems.append(lint(top.at("applies_to"), "no-effect", text, "say it in this policy, too, if it should"))
    if access is None or not access.is_good("providers", "regions"):
        return
    for provider, region in links:
        if not may_ask(access, provider, settings, region):
            text = f"`access` does not allow {provider}, which {where} asks"
            problems.append(error(top.at("access"), "link-not-allowed", text, "allow its provider and region"))
