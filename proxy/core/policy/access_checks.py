"""Does an ``access`` section agree with the chains, and with itself?

Owns these findings, each at the line that causes it. What passes here leaves no provider or region to ask about later.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.core.config.problem import Problem, error, lint
from proxy.core.config.schema import Items, Section, closest
from proxy.core.config.settings import Settings
from proxy.core.policy.access import ALWAYS_ALLOWED
from proxy.core.policy.access_table import ACCESS
from proxy.core.policy.budget_checks import unknown_provider
from proxy.core.policy.globs import may_overlap


def may_ask(section: Section | None, provider: str | None, settings: Settings, region: str | None = None) -> bool:
    """Say whether ``access`` lets a chain ask a provider; ``region`` is the link's own, None: the provider's."""
    if section is None or provider is None or provider not in settings.providers:
        return True
    providers: Items | None = section["providers"]
    regions: Items | None = section["regions"]
    if providers is not None and provider not in providers.values:
        return False
    return regions is None or (region or settings.providers[provider].region) in regions.values


def check_access(
    top: Section, routes: Sequence[Section], of_others: Sequence[Section], settings: Settings, problems: list[Problem]
) -> None:
    """Write down rules that contradict the chains or each other, or that do nothing.

    ``of_others`` are the routes of other policies that this one decides for; ``taking`` holds their chains to its rules.
    """
    section: Section | None = top["access"]
    if section is None or not top.is_good("access"):
        return
    keys = [key.name for key in ACCESS.keys]
    if not any(section.is_written(key) for key in keys):
        problems.append(lint(top.at("access"), "no-effect", "`access` limits nothing", "give it a key or delete it"))
    _check_names(section, [*routes, *of_others], settings, problems)
    if section.is_written("over_max_tokens") and section["max_tokens"] is None:
        text = "`over_max_tokens` acts only with `max_tokens`"
        problems.append(error(section.at("over_max_tokens"), "unreachable-setting", text, "add `max_tokens`"))
    params: Items | None = section["params"]
    for name, mark in section["forbidden_params"]:
        if params is not None and name not in ALWAYS_ALLOWED:
            text = f"`params` decides alone what may be there, {name} too"
            problems.append(error(mark, "unreachable-setting", text, "keep one of `params` and `forbidden_params`"))
    for route in routes:
        _check_chain(section, route, settings, problems)
    takes_the_rest = settings.default_provider is not None and not top["applies_to"].is_written("routes")
    if takes_the_rest and not may_ask(section, settings.default_provider, settings):
        text = f"`access` does not let `default_provider` {settings.default_provider} take what no route takes"
        problems.append(lint(top.at("access"), "unreachable-link", text, "such requests are refused"))


def _check_names(section: Section, routes: Sequence[Section], settings: Settings, problems: list[Problem]) -> None:
    for name, mark in section["providers"] or ():
        if name not in settings.providers:
            problems.append(unknown_provider(name, mark, settings))
    regions = {target["region"] for route in routes for target in route["chain"].values if target.is_good("region")}
    regions |= {provider.region for provider in settings.providers.values()}
    known = sorted(region for region in regions if region is not None)
    for name, mark in section["regions"] or ():
        if name not in known:
            hint = closest(name, known) or "known: " + (", ".join(known) or "none; give providers a `region`")
            problems.append(error(mark, "unknown-region", f"no provider has the region {name!r}", hint))
    for key in ("models", "paths", "methods", "providers", "regions", "params", "forbidden_params"):
        seen: set[str] = set()
        for name, mark in section[key] or ():
            if name in seen:
                problems.append(error(mark, "duplicate-value", f"{name} stands above", "delete one of the two"))
            seen.add(name)


def _check_chain(section: Section, route: Section, settings: Settings, problems: list[Problem]) -> None:
    if section.is_good("providers", "regions"):
        for target, mark in route["chain"]:
            if not target.is_good("provider", "region"):
                continue
            if not may_ask(section, target["provider"], settings, target["region"]):
                region = target["region"] or settings.providers[target["provider"]].region
                text = f"`access` does not allow {target['provider']}, region {region or 'not declared'}"
                hint = "delete the link, or allow its provider and region"
                problems.append(error(mark, "link-not-allowed", text, hint))
    allowed: Items | None = section["models"]
    wanted: Items | None = route["match"]["models"] if route["match"].is_good("models") else None
    if allowed is None or wanted is None or not section.is_good("models"):
        return
    for pattern, mark in wanted:
        if not any(may_overlap(pattern, other) for other in allowed.values):
            text = f"{pattern!r} is never asked for here: `access.models` does not allow it"
            problems.append(lint(mark, "unreachable-route", text, "allow it, or delete it from the route"))
