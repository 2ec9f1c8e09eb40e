"""Does every line of a policy act? Names that exist, patterns that are safe, rules that can be reached.

Owns the findings that need more than one key, each at the line that causes it. Changes and compiles nothing.
Works on files that already have problems: what was refused before is skipped here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from proxy.core.config.problem import Mark, Problem, error, lint
from proxy.core.config.schema import Section, closest
from proxy.core.config.settings import Settings
from proxy.core.policy.access_checks import check_access
from proxy.core.policy.budget_checks import check_budgets, unknown_provider
from proxy.core.policy.compile import budget_ids, effective_timeouts, match_rank, patterns_of, route_names
from proxy.core.policy.custom_types import ALIASES, check_types
from proxy.core.policy.faults import InjectedFault
from proxy.core.policy.globs import is_glob, may_overlap
from proxy.core.policy.model import FirstTokenFor, Rescue, RouteRequirement
from proxy.core.policy.patterns import allows_everything, why_refused
from proxy.core.policy.policy_table import COMPONENTS
from proxy.core.policy.rollout_table import check_rollout
from proxy.core.policy.taking import Owner, check_taking, is_for_routes, routes_for
from proxy.core.redaction.detect import OPT_IN_KINDS
from proxy.core.routing.overrides import OnFailure
from proxy.terms.redaction import Action


def check_policy(
    top: Section,
    settings: Settings,
    known_types: frozenset[str],
    everyday: Sequence[str] = (),
    owners: Sequence[Owner] = (),
) -> list[Problem]:
    """Return what is wrong with one file beyond its single values.

    Args:
        top: The file.
        settings: The config it refers to.
        known_types: Redaction types that exist.
        everyday: As in ``check_types``.
        owners: The policies whose routes it may decide for.
    """
    problems = list(check_types(top["redaction"], everyday))
    own = {section["name"] for section, _ in top["redaction"]["types"] if section.is_good("name")}
    known_types |= own
    for place in (top, *(section for section, _ in top["routes"])):
        _check_redaction(place["redaction"], settings, known_types, problems)
    routes = [section for section, _ in top["routes"] if section.is_good("match", "chain")]
    for route in routes:
        _check_route(route, settings, problems)
    _check_groups(top["applies_to"], settings, problems)
    _check_route_names(top, problems)
    _check_ties(routes, problems)
    check_taking(top, owners, settings, problems)
    named = list(zip(route_names(routes), routes, strict=True))
    of_others = [(one.name, one.section) for one in routes_for(top, owners) if one.section is not None]
    named += of_others
    check_budgets(top, named, settings, problems)
    check_access(top, routes, [section for _, section in of_others], settings, problems)
    _check_readiness(top, named, settings, problems)
    _check_content(top["audit"], settings, problems)
    problems += check_rollout(top, settings)
    is_empty = top.is_good("routes") and not len(top["routes"]) and not is_for_routes(top)
    if is_empty and settings.default_provider is None:
        text = "the policy has no routes and config.yaml no `default_provider`: every request would be refused"
        problems.append(error(top.at("routes"), "no-route", text, "add a route"))
    return problems


def _check_content(audit: Section, settings: Settings, problems: list[Problem]) -> None:
    """Words are kept sealed or not at all, where there is a store for them."""
    if not audit.is_good("content"):
        return
    if audit["content"] == "none":
        if audit.is_written("content_retention"):
            problems.append(
                error(audit.at("content_retention"), "unreachable-setting", "no words are kept", "say `content`, too")
            )
        return
    if settings.audit.key is None:
        text = "kept words have to be sealed, and config.yaml names no `audit.key`"
        problems.append(
            error(audit.at("content"), "content-needs-key", text, "set audit.key: {env: READYGATE_AUDIT_KEY}")
        )
    if isinstance(settings.audit.store, str) and settings.audit.store.startswith("stdout:"):
        text = "words are kept in SQLite or PostgreSQL, and `audit.store` is standard output"
        problems.append(error(audit.at("content"), "content-needs-store", text, "choose another audit.store"))


def _check_redaction(
    redaction: Section | None, settings: Settings, known_types: frozenset[str], problems: list[Problem]
) -> None:
    """Check the directions of a policy, or those a route has of its own."""
    if redaction is None:
        return
    if redaction["request"] is not None:
        _check_placeholders(redaction["request"], settings, problems)
    for section in (redaction["request"], redaction["response"]):
        if section is not None:
            _check_direction(section, known_types, problems)


def _check_placeholders(section: Section, settings: Settings, problems: list[Problem]) -> None:
    if not section.is_good("placeholders", "keep_values"):
        return
    keeps = section["keep_values"] is not None
    if keeps and section["placeholders"] == "numbered" and section.is_written("placeholders"):
        text = "numbers would be given twice in a conversation whose values are kept"
        problems.append(error(section.at("placeholders"), "contradiction", text, "leave it out, or say `keyed`"))
    if keeps and settings.redaction_key is None:
        text = "kept values open only under the key of this start: config.yaml has no `redaction_key`"
        problems.append(lint(section.at("keep_values"), "unset-key", text, "add `redaction_key`"))
    elif section["placeholders"] == "keyed" and settings.redaction_key is None:
        text = (
            "keyed placeholders change with every start and differ between sidecars: config.yaml has no `redaction_key`"
        )
        problems.append(lint(section.at("placeholders"), "unset-key", text, "add `redaction_key`"))


def _check_direction(section: Section, known_types: frozenset[str], problems: list[Problem]) -> None:
    seen: dict[str, Mark] = {}
    for rule, _ in section["rules"]:
        if not rule.is_good("types"):
            continue
        for kind, mark in rule["types"]:
            if kind not in known_types:
                names = sorted(name.lower() for name in known_types)
                others = [alias.lower() for alias, name in ALIASES.items() if name in known_types]
                hint = closest(kind, [*names, *others]) or "known: " + ", ".join(names)
                problems.append(error(mark, "unknown-type", f"no redaction type {kind.lower()!r}", hint))
            elif kind in seen:
                text = f"{kind.lower()} has a rule already, on line {seen[kind].line}"
                problems.append(error(mark, "duplicate-type", text, "delete one of the two"))
            seen.setdefault(kind, mark)
        is_same = rule.is_good("action") and section.is_good("default") and rule["action"] == section["default"]
        if is_same and rule["min_score"] is None and not OPT_IN_KINDS & set(rule["types"].values):
            text = f"the rule changes nothing: `default` is {section['default']} already"
            problems.append(lint(rule.at("action"), "no-effect", text, "delete the rule"))
    if section.is_written("allow"):
        _check_allow(section, problems)


def _check_allow(section: Section, problems: list[Problem]) -> None:
    allow: Section = section["allow"]
    for pattern, mark in allow["patterns"]:
        reason = why_refused(pattern)
        if reason:
            text = f"the pattern {pattern[:60]!r} is refused: {reason}"
            problems.append(error(mark, "bad-pattern", text, "patterns are RE2: no look-around, no back-references"))
        elif allows_everything(pattern):
            text = f"the pattern {pattern[:60]!r} allows every value, so nothing would be redacted"
            problems.append(error(mark, "unreachable-setting", text, "describe the values that may pass"))
    for items in (allow["values"], allow["patterns"], allow["domains"], allow["networks"]):
        seen: set[str] = set()
        for value, mark in items:
            if value in seen:
                problems.append(error(mark, "duplicate-value", "the same entry stands above", "delete one of the two"))
            seen.add(value)
    is_idle = section["default"] == Action.OFF and all(r["action"] == Action.OFF for r, _ in section["rules"])
    if is_idle and section.is_good("default", "rules"):
        text = "`allow` never acts: no type is looked for"
        problems.append(error(section.at("allow"), "unreachable-setting", text, "give `default` or a rule an action"))


def _check_route(route: Section, settings: Settings, problems: list[Problem]) -> None:
    match: Section = route["match"]
    if match.is_good("models", "paths") and match["models"] is None and match["paths"] is None:
        problems.append(
            error(match.mark, "no-match", "the route matches nothing", 'give `models` or `paths`; "*" is all')
        )
    links: dict[tuple[str, str | None], Mark] = {}
    for target, mark in route["chain"]:
        if not target.is_good("provider"):
            continue
        provider: str = target["provider"]
        if provider not in settings.providers:
            problems.append(unknown_provider(provider, target.at("provider"), settings))
        link = (provider, target["model"])
        if not target.is_good("model"):
            continue
        if link in links:
            text = f"the chain asks {provider} for the same model already, on line {links[link].line}"
            problems.append(error(mark, "duplicate-link", text, "delete one of the two, or use `retries: once`"))
        elif links and target["model"] is None and provider not in {p for p, _ in links}:
            text = f"{provider} will be asked for the model the caller named, which another provider serves first"
            problems.append(lint(mark, "unset-model", text, f"give {provider} its own `model`"))
        links.setdefault(link, mark)
        _check_timeouts(route, target, problems)
    if route.is_good("inject"):
        _check_inject(route, {provider for provider, _ in links}, problems)
    _check_attempts(route, len(links), problems)
    _check_streams(route, settings, problems)


def _check_streams(route: Section, settings: Settings, problems: list[Problem]) -> None:
    """Refuse settings of streams that nothing in the route lets act."""
    targets: list[Section] = route["chain"].values
    limited = [s for s in (route, *targets) if s["timeouts"]["first_token"] is not None]
    is_for_others = route.is_good("first_token_for") and route["first_token_for"] == FirstTokenFor.OTHERS
    if is_for_others and limited and len(targets) == 1:
        text = "`first_token` never acts: the route's only target is its last"
        hint = "add a target, or `first_token_for: all`"
        problems.append(error(limited[0]["timeouts"].at("first_token"), "unreachable-setting", text, hint))
    if route["regions"] is not None:
        _check_regions(targets, frozenset(route["regions"].values), settings, problems)
    is_without_retries = route.is_good("retries") and route["retries"] == "none"
    for name, what in route["on_failure"].values.items():
        if what == OnFailure.RETRY and is_without_retries:
            text = f"`on_failure.{name}: retry` never acts: the route has `retries: none`"
            mark = route["on_failure"].marks[name]
            problems.append(error(mark, "unreachable-setting", text, "set `retries: once`"))
    if route.is_written("first_token_for") and not limited:
        text = "`first_token_for` never acts: there is no `first_token`"
        problems.append(error(route.at("first_token_for"), "unreachable-setting", text, "set timeouts.first_token"))
    for target in targets:
        if target.is_written("prefill") and route.is_good("rescue") and route["rescue"] != Rescue.RESUME:
            text = "`prefill` never acts: the route does not resume streams"
            problems.append(
                error(target.at("prefill"), "unreachable-setting", text, "set the route's `rescue: resume`")
            )


def _check_inject(route: Section, providers: set[str], problems: list[Problem]) -> None:
    section: Section | None = route["inject"]
    if section is None:
        return
    fault: InjectedFault | None = section["fault"]
    if fault is not None and fault.target not in ("first", "all", *providers):
        hint = closest(fault.target, providers) or "known: first, all, " + ", ".join(sorted(providers))
        text = f"the fault never acts: the chain does not ask {fault.target!r}"
        problems.append(error(section.at("fault"), "unreachable-setting", text, hint))
    if section.is_written("share") and not section.is_written("fault"):
        text = "`share` acts only with `fault`"
        problems.append(error(section.at("share"), "unreachable-setting", text, "add `fault` or delete it"))
    if fault is not None or section["header"]:
        text = "faults are injected on this route: for rehearsals, never where people depend on it"
        problems.append(lint(route.at("inject"), "rehearsal", text, "delete `inject` before production"))


def _check_regions(
    targets: list[Section], allowed: frozenset[str], settings: Settings, problems: list[Problem]
) -> None:
    """Refuse targets outside the regions of their route."""
    for target in targets:
        provider = settings.providers.get(target["provider"])
        region = target["region"] or (None if provider is None else provider.region)
        if target.is_good("region") and region not in allowed:
            where = f"is in {region}" if region else "does not say its `region`"
            text = f"{target['provider']} {where}; the route allows {', '.join(sorted(allowed))}"
            mark = target.at("region") if target.is_written("region") else target.mark
            problems.append(error(mark, "forbidden-region", text, "take the target out, or allow its region"))


def _check_timeouts(route: Section, target: Section, problems: list[Problem]) -> None:
    total_s: float = effective_timeouts(route, target)["total"]
    for section in (route["timeouts"], target["timeouts"]):
        for phase in ("connect", "first_byte", "first_token", "idle"):
            if section.is_written(phase) and section.is_good(phase) and section[phase] > total_s:
                text = f"`{phase}` of {section[phase]:g}s never acts: `total` is {total_s:g}s"
                problems.append(error(section.at(phase), "unreachable-setting", text, "make `total` the longest"))
    own, common = target["timeouts"], route["timeouts"]
    if own["total"] is not None and own["total"] > common["total"]:
        text = f"`total` of {own['total']:g}s never acts: the route's is {common['total']:g}s"
        problems.append(error(own.at("total"), "unreachable-setting", text, "raise the route's `total`"))


def _check_groups(section: Section, settings: Settings, problems: list[Problem]) -> None:
    if section["groups"] is not None and (settings.jwt is None or settings.jwt.groups_claim is None):
        text = "`applies_to.groups` never matches: only tokens have groups, and config.yaml has no `jwt.claims.groups`"
        problems.append(error(section.at("groups"), "unreachable-setting", text, "add it, or name users or callers"))


def _check_attempts(route: Section, links: int, problems: list[Problem]) -> None:
    wanted = route["max_attempts"]
    if wanted is None or not route.is_good("retries"):
        return
    possible = links * (2 if route["retries"] == "once" else 1)
    if wanted < links:
        text = f"the chain has {links} links and `max_attempts` is {wanted}: the last ones are never asked"
        problems.append(error(route.at("max_attempts"), "unreachable-link", text, f"make it {links} or more"))
    elif wanted > possible:
        text = f"`max_attempts` of {wanted} never acts: chain and retries allow {possible}"
        problems.append(lint(route.at("max_attempts"), "no-effect", text, "lower it or delete it"))


def _check_route_names(top: Section, problems: list[Problem]) -> None:
    _check_unique(((r["name"], r.at("name")) for r, _ in top["routes"]), "route", problems)
    sections = [section for section, _ in top["budgets"] if section.is_good("provider", "id")]
    marks = [s.at("id") if s.is_written("id") else s.mark for s in sections]
    _check_unique(zip(budget_ids(sections), marks, strict=True), "budget", problems)


def _check_unique(names: Iterable[tuple[str | None, Mark]], what: str, problems: list[Problem]) -> None:
    seen: dict[str, Mark] = {}
    for name, mark in names:
        if name is None:
            continue
        if name in seen:
            text = f"another {what} is called {name} already, on line {seen[name].line}"
            problems.append(error(mark, "duplicate-name", text, "give it another name"))
        seen.setdefault(name, mark)


def _check_ties(routes: list[Section], problems: list[Problem]) -> None:
    """Refuse patterns that two routes (or one, twice) claim with equal right."""
    seen: list[tuple[str | None, str | None, Mark]] = []
    by_exact: dict[tuple[str, str | None], Mark] = {}
    for route in routes:
        if not route["match"].is_good("models", "paths"):
            continue
        for (model, path), mark in _marked_patterns(route):
            if model is not None and not is_glob(model) and (path is None or not is_glob(path)):
                first = by_exact.get((model, path))
                by_exact.setdefault((model, path), mark)
            else:
                first = next((m for a, b, m in seen if _is_tie((a, b), (model, path))), None)
                seen.append((model, path, mark))
            if first is not None:
                text = f"{model or path!r} never gets here: the pattern on line {first.line} takes it with equal right"
                problems.append(error(mark, "shadowed-route", text, "delete it, or make one of the two more specific"))


def _marked_patterns(route: Section) -> list[tuple[tuple[str | None, str | None], Mark]]:
    match: Section = route["match"]
    named = match["models"] if match["models"] is not None else match["paths"]
    if named is None:
        return []
    others = len(match["paths"]) if match["models"] is not None and match["paths"] is not None else 1
    marks = [mark for mark in named.marks for _ in range(others)]
    return list(zip(patterns_of(route), marks, strict=True))


def _is_tie(one: tuple[str | None, str | None], other: tuple[str | None, str | None]) -> bool:
    return match_rank(*one) == match_rank(*other) and may_overlap(one[0], other[0]) and may_overlap(one[1], other[1])


def _check_readiness(
    top: Section, routes: list[tuple[str, Section]], settings: Settings, problems: list[Problem]
) -> None:
    section: Section = top["readiness"]
    seen: set[str] = set()
    for value, mark in section["require"]:
        if isinstance(value, RouteRequirement):
            if top.is_good("routes"):
                _check_required_route(value, mark, routes, problems)
            name = f"the route {value.route}"
        else:
            name = value
            if name not in COMPONENTS and name not in settings.providers:
                hint = closest(name, (*COMPONENTS, *settings.providers))
                known = "known: " + ", ".join((*COMPONENTS, *settings.providers))
                problems.append(error(mark, "unknown-component", f"readiness cannot require {name!r}", hint or known))
        if name in seen:
            problems.append(error(mark, "duplicate-value", f"{name} stands above", "delete one of the two"))
        seen.add(name)


def _check_required_route(
    value: RouteRequirement, mark: Mark, routes: list[tuple[str, Section]], problems: list[Problem]
) -> None:
    by_name = dict(routes)
    route = by_name.get(value.route)
    if route is None:
        hint = closest(value.route, by_name) or "known: " + ", ".join(by_name)
        problems.append(error(mark, "unknown-route", f"no route {value.route!r} in this policy", hint))
    elif value.healthy > len(route["chain"]):
        text = f"the route {value.route} has {len(route['chain'])} targets: {value.healthy} are never healthy"
        problems.append(error(mark, "out-of-range", text, "lower `healthy`"))
