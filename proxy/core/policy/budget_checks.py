"""Does every line of a budget act? Names that exist, limits that can be reached, shares that are not nothing.

Owns the findings about ``budgets`` of one policy file, each at the line that causes it. Changes and compiles nothing.
"""

from __future__ import annotations

from itertools import pairwise

from proxy.core.budget.calendar import Calendar
from proxy.core.budget.dimensions import NANO_USD, SHAPES, UNITS, Dimension, Unit, window_s
from proxy.core.budget.estimate import ASSUMED_OUTPUT_TOKENS
from proxy.core.config.problem import Mark, Problem, error, lint
from proxy.core.config.schema import Section, closest
from proxy.core.config.settings import Settings
from proxy.core.policy.budget_table import LIMITS
from proxy.core.policy.globs import is_glob, may_overlap
from proxy.core.policy.model import WhenExhausted

_SHORTEST_HINT = "requests_per_minute, tokens_per_minute, concurrent, cost_per_day_usd"


def unknown_provider(name: str, mark: Mark, settings: Settings) -> Problem:
    """Return the problem of a provider that config.yaml does not have."""
    hint = closest(name, settings.providers) or "known: " + ", ".join(settings.providers)
    return error(mark, "unknown-provider", f"no provider {name!r} in config.yaml", hint)


def check_budgets(top: Section, routes: list[tuple[str, Section]], settings: Settings, problems: list[Problem]) -> None:
    """Write down what is wrong with the budgets of a policy; ``routes`` by name are those it decides for."""
    for section, _ in top["budgets"]:
        _check_names(section, top, routes, settings, problems)
        if section.is_good(*LIMITS) and all(section[limit] is None for limit in LIMITS):
            text = "the budget limits nothing"
            problems.append(error(section.mark, "empty-budget", text, f"give a limit such as {_SHORTEST_HINT}"))
        _check_settings(section, settings, problems)
        _check_per(section, problems)
        _check_windows(section, problems)
        _check_slices(section, settings, problems)


def _check_names(
    section: Section, top: Section, routes: list[tuple[str, Section]], settings: Settings, problems: list[Problem]
) -> None:
    """Refuse conditions that no exchange of this policy can meet."""
    links = [t for _, route in routes for t, _ in route["chain"] if t.is_good("provider", "model")]
    used = {link["provider"] for link in links} | {settings.default_provider}
    provider, model = section["provider"], section["model"]
    if provider is not None and section.is_good("provider"):
        if provider not in settings.providers:
            problems.append(unknown_provider(provider, section.at("provider"), settings))
            return
        if provider not in used and top.is_good("routes"):
            text = f"the budget never acts: no route of this policy uses {provider}"
            problems.append(error(section.at("provider"), "unused-budget", text, "delete it or route to it"))
            return
    asked = [link["model"] for link in links if provider in (None, link["provider"])]
    is_open = settings.default_provider is not None and provider in (None, settings.default_provider)
    if model is not None and not is_open and not any(may_overlap(model, other) for other in asked):
        text = f"the budget never acts: no chain asks {provider or 'any provider'} for a model like {model!r}"
        problems.append(error(section.at("model"), "unused-budget", text, "delete it or route to it"))
    known = [*(name for name, _ in routes), *(["default"] if settings.default_provider else [])]
    if section["route"] is not None and section["route"] not in known:
        hint = closest(section["route"], known) or "known: " + ", ".join(known)
        problems.append(error(section.at("route"), "unknown-route", f"no route {section['route']!r} here", hint))
    _check_callers(section, top, settings, problems)


def _check_callers(section: Section, top: Section, settings: Settings, problems: list[Problem]) -> None:
    app, caller = section["app"], section["caller"]
    patterns = top["applies_to"]["apps"].values
    if app is not None and not any(may_overlap(app, pattern) for pattern in patterns):
        text = f"the budget never acts: this policy does not apply to {app!r}"
        problems.append(error(section.at("app"), "unused-budget", text, "move it to that app's policy"))
    names = [key.name for key in settings.callers]
    if caller is not None and caller not in names and settings.callers_file is None and settings.jwt is None:
        hint = closest(caller, names) or ("known: " + ", ".join(names) if names else "config.yaml has no `callers`")
        problems.append(error(section.at("caller"), "unknown-caller", f"no caller key {caller!r}", hint))


def _check_settings(section: Section, settings: Settings, problems: list[Problem]) -> None:
    """Refuse words that need another word to act."""
    written = [d for d in Dimension if section[d.value] is not None]
    costs = [d for d in written if UNITS[d] is Unit.COST]
    if costs and settings.prices is None:
        text = f"`{costs[0]}` never acts: config.yaml names no price table"
        hint = "add `prices: prices.yaml` to config.yaml"
        problems.append(error(section.at(costs[0].value), "unpriced-budget", text, hint))
    if section.is_written("unknown_price") and not costs:
        text = "`unknown_price` acts only on limits of cost"
        problems.append(lint(section.at("unknown_price"), "no-effect", text, "delete it"))
    if section.is_written("time_zone") and not any(isinstance(SHAPES.get(d), Calendar) for d in written):
        text = "`time_zone` acts only on limits per calendar day or month"
        problems.append(lint(section.at("time_zone"), "no-effect", text, "delete it"))
    if section.is_written("max_waiting") and section["when_exhausted"][0] is not WhenExhausted.WAIT:
        text = "`max_waiting` acts only with `when_exhausted: {wait: …}`"
        problems.append(lint(section.at("max_waiting"), "no-effect", text, "delete it"))


def _check_per(section: Section, problems: list[Problem]) -> None:
    seen: set[str] = set()
    for word, mark in section["per"]:
        if word in seen:
            problems.append(error(mark, "duplicate-value", f"{word} stands above", "delete one of the two"))
        elif section[word] is not None and (word in ("provider", "route", "caller") or not is_glob(section[word])):
            text = f"`per: {word}` changes nothing: the budget is about one {word} only"
            problems.append(lint(mark, "no-effect", text, "delete it"))
        seen.add(word)


def _check_windows(section: Section, problems: list[Problem]) -> None:
    """Name a limit per longer window that a shorter window's can never let anyone reach, and the reverse."""
    for unit in Unit:
        sliding = [d for d, shape in SHAPES.items() if UNITS[d] is unit and not isinstance(shape, Calendar)]
        given = [(d, section[d.value]) for d in sliding if section[d.value] is not None and section.is_good(d.value)]
        for (short, low), (long, high) in pairwise(given):
            if low >= high:
                text = f"`{short}` of {low:g} never acts: `{long}` is {high:g}"
                problems.append(lint(section.at(short.value), "no-effect", text, "lower it or delete it"))
            ratio = int(window_s(long) / window_s(short))
            if low * ratio <= high:
                text = f"`{long}` of {high:g} never acts: `{short}` of {low:g} allows {low * ratio:g} at most"
                problems.append(lint(section.at(long.value), "no-effect", text, "lower it or delete it"))


def _check_slices(section: Section, settings: Settings, problems: list[Problem]) -> None:
    """Say when a sidecar's private slice is too small to admit anything without the shared counter."""
    if settings.budgets.url is None:
        return
    shares = settings.budgets.shares
    for dimension in Dimension:
        limit = section[dimension.value]
        if limit is None or not section.is_good(dimension.value):
            continue
        unit = UNITS[dimension]
        own = shares.split(round(limit * NANO_USD) if unit is Unit.COST else int(limit)).slice
        least = ASSUMED_OUTPUT_TOKENS if unit in (Unit.TOKENS, Unit.OUTPUT_TOKENS) else 1
        if own < least:
            what = f"a sidecar's own share of `{dimension}` is {own}"
            text = f"{what}: nothing passes while the budget store is away"
            hint = "raise the limit, raise `private_share` or lower `max_sidecars`"
            problems.append(lint(section.at(dimension.value), "small-slice", text, hint))
