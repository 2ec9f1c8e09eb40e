"""config.yaml text -> Settings, or everything that is wrong with it.

Owns the step from checked sections to frozen settings and the checks that need two keys at once.
Reads no file and no environment: an unset secret is for ``sources`` to find.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.core.budget.shares import OnOutage, Shares
from proxy.core.config.budget_store import MEMORY_STORE
from proxy.core.config.config_table import CONFIG, LANGUAGE
from proxy.core.config.jwt_table import jwt_settings
from proxy.core.config.problem import Mark, Problem, error, has_errors, in_order, lint
from proxy.core.config.schema import Entries, Items, Section, closest
from proxy.core.config.settings import (
    AdminToken,
    AuditSettings,
    AuthHeader,
    BudgetStoreSettings,
    CallerKey,
    Durability,
    HealthCheck,
    Listen,
    LogFormat,
    LogLevel,
    LogSettings,
    NamesSettings,
    OnNamesFailure,
    PolicyCases,
    ProviderKind,
    ProviderSettings,
    SecretRef,
    ServerSettings,
    Settings,
    StreamUsage,
    WhenFull,
)
from proxy.core.config.texts import is_loopback, parse_store_url
from proxy.core.config.yaml_text import BAD, Map, Node, parse_yaml
from proxy.terms.admin import Role

RESERVED_PROVIDER_NAMES = frozenset({"policy", "spool", "audit_store", "budget_store", "any", "all", "none"})
"""Words that mean something else where a policy names providers."""

MAIN_ADMIN = "admin"
"""What the holder of ``admin_token`` is called."""

_OTHER_KINDS = (
    ("policy", "a policy file", "name config.yaml with -c, and this file or its folder with --policies"),
    ("base", "a base of policies", "name config.yaml with -c, and its folder with --policies"),
    ("cases", "a file of cases", "name config.yaml with -c; `readygate test` plays the cases beside its policies"),
    ("keys", "a file of caller keys", "name config.yaml with -c, and this file there as `callers_file`"),
)
_AUTH_HEADERS = {
    ProviderKind.OPENAI: AuthHeader("authorization", "Bearer "),
    ProviderKind.AZURE: AuthHeader("api-key", ""),
    ProviderKind.ANTHROPIC: AuthHeader("x-api-key", ""),
}


@dataclass(frozen=True, slots=True)
class ConfigResult:
    """What became of a config file. ``settings`` is None exactly when one of the problems is an error."""

    settings: Settings | None
    problems: tuple[Problem, ...]
    provider_marks: Mapping[str, Mark]
    """Where each provider is written, for problems found later (an unset secret, a missing CA file)."""


def parse_settings(text: str, file: str, base_dir: Path) -> ConfigResult:
    """Read the whole text and return settings or every problem, never only the first.

    Args:
        text: The content of the file.
        file: Its name, for messages.
        base_dir: Absolute folder that relative paths in it start from.
    """
    node, problems = parse_yaml(text, file)
    other = None if node is None else _other_kind(node)
    if other is not None:
        return ConfigResult(None, (other,), {})
    if node is not None and LANGUAGE.is_too_new(node, problems):
        return ConfigResult(None, in_order(problems), {})
    top = CONFIG.read(node, "", problems) if node is not None else BAD
    if not isinstance(top, Section):
        return ConfigResult(None, in_order(problems), {})
    _check_doors(top, problems)
    _check_providers(top, problems)
    _check_callers(top, problems)
    _check_budget_store(top["budgets"], problems)
    marks = top["providers"].marks if top.is_good("providers") else {}
    settings = None if has_errors(problems) else _settings(top, base_dir)
    return ConfigResult(settings, in_order(problems), marks)


def _other_kind(node: Node) -> Problem | None:
    """Say so when the file is one of ours, but no config: a list of its keys would tell a newcomer nothing."""
    if not isinstance(node, Map) or "providers" in node.entries:
        return None
    for key, what, advice in _OTHER_KINDS:
        if key in node.entries:
            return error(node.entries[key].mark, "wrong-file", f"this is {what}, not config.yaml", advice)
    return None


def _check_doors(top: Section, problems: list[Problem]) -> None:
    server: Section = top["server"]
    data, admin, drain = server["data"], server["admin"], server["drain"]
    at = data.at("host") if data.is_written("host") else server.at("data")
    if not is_loopback(data["host"]) and top.is_good("callers") and not _knows_callers(top):
        text = f"the data port would take requests from everyone on {data['host']}, because there are no `callers`"
        problems.append(error(at, "open-data-port", text, "listen on 127.0.0.1, or add a caller key"))
    if (data["host"], data["port"]) == (admin["host"], admin["port"]) and data["port"] != 0:
        at = admin.at("port") if admin.is_written("port") else data.at("port")
        problems.append(error(at, "same-port", f"data and admin both want port {data['port']}", "give them two ports"))
    if drain["grace"] >= drain["deadline"]:
        text = f"the drain grace of {drain['grace']:g}s leaves nothing of the deadline of {drain['deadline']:g}s"
        problems.append(error(drain.at("grace"), "unreachable-setting", text, "make `deadline` longer than `grace`"))


def _knows_callers(top: Section) -> bool:
    """Say whether nobody without a credential is let in."""
    return bool(len(top["callers"])) or top["callers_file"] is not None or top["jwt"] is not None


def _check_providers(top: Section, problems: list[Problem]) -> None:
    if not top.is_good("providers"):
        return
    providers: Entries = top["providers"]
    if not providers.marks:
        problems.append(error(top.at("providers"), "no-provider", "`providers` is empty", "add at least one"))
    for name, mark in providers.marks.items():
        if name in RESERVED_PROVIDER_NAMES:
            problems.append(error(mark, "bad-name", f"a provider cannot be called {name}: the word is taken"))
        _check_provider(name, providers.values[name], problems)
    default = top["default_provider"]
    if default is not None and default not in providers.marks:
        hint = closest(default, providers.marks) or "known: " + ", ".join(providers.marks)
        text = f"`default_provider` names {default!r}, which is not in `providers`"
        problems.append(error(top.at("default_provider"), "unknown-provider", text, hint))


def _check_provider(name: str, section: Section, problems: list[Problem]) -> None:
    if section.is_written("api_keys") and section.is_written("api_key"):
        text = f"`providers.{name}` has both `api_key` and `api_keys`"
        problems.append(error(section.at("api_keys"), "duplicate-key", text, "move the one into the others"))
    is_azure = section["kind"] == ProviderKind.AZURE
    for key in ("api_version", "deployments"):
        if section.is_written(key) and not is_azure:
            text = f"`providers.{name}.{key}` acts only with `kind: azure`"
            problems.append(error(section.at(key), "unreachable-setting", text, "add `kind: azure` or delete it"))
    if is_azure and section.is_written("deployments") and section["api_version"] is None:
        text = f"`providers.{name}.deployments` needs `api_version`: deployment paths are versioned"
        problems.append(
            error(section.at("deployments"), "missing-key", text, 'for example `api_version: "2024-10-21"`')
        )
    if section.is_written("auth_header") and section["api_key"] is None and not _writes_key(section):
        text = f"`providers.{name}.auth_header` acts only with `api_key`"
        problems.append(error(section.at("auth_header"), "unreachable-setting", text, "add `api_key` or delete it"))
    header = section["auth_header"]
    if isinstance(header, AuthHeader) and header.name in section["headers"].values:
        text = f"`providers.{name}.headers` sets {header.name} again, which `auth_header` sends"
        problems.append(error(section["headers"].marks[header.name], "duplicate-key", text, "delete one of the two"))


def _writes_key(section: Section) -> bool:
    return section.is_written("api_key") or section.is_written("api_keys")


def _check_callers(top: Section, problems: list[Problem]) -> None:
    for key in ("name", "sha256"):
        _check_twice(top["callers"], "callers", key, "duplicate-caller", problems)
    for key in ("name", "token"):
        _check_twice(top["admin_tokens"], "admin tokens", key, "duplicate-token", problems)
    for token, _ in top["admin_tokens"]:
        if token["name"] == MAIN_ADMIN and top["admin_token"] is not None:
            text = f"`admin_token` is already called {MAIN_ADMIN}"
            problems.append(error(token.at("name"), "duplicate-token", text, "choose another name"))


def _check_twice(items: Items, what: str, key: str, code: str, problems: list[Problem]) -> None:
    """Write down every second item with the same value of a key."""
    seen: dict[Any, Mark] = {}
    for item, _ in items:
        value = item[key]
        if value is BAD:
            continue
        if value in seen:
            text = f"two {what} have the same {key}; the first is on line {seen[value].line}"
            problems.append(error(item.at(key), code, text))
        seen.setdefault(value, item.at(key))


def _check_budget_store(section: Section, problems: list[Problem]) -> None:
    for key in ("max_sidecars", "private_share", "on_outage", "boost_after", "lease", "namespace"):
        if section.is_written(key) and section["store"] == MEMORY_STORE and section.is_good("store"):
            text = f"`budgets.{key}` acts only with a shared store"
            problems.append(error(section.at(key), "unreachable-setting", text, "name the store's URL or delete it"))
    if section.is_written("boost_after") and section["on_outage"] != OnOutage.BOOST:
        text = "`budgets.boost_after` acts only with `on_outage: boost`"
        problems.append(error(section.at("boost_after"), "unreachable-setting", text, "delete it"))
    if section["on_outage"] == OnOutage.ALLOW:
        text = "`on_outage: allow` lets everything pass while the store is away: no limit holds then"
        problems.append(lint(section.at("on_outage"), "unbounded-outage", text, "strict keeps the limits"))


def _settings(top: Section, base_dir: Path) -> Settings:
    return Settings(
        server=_server(top["server"]),
        policies=base_dir / top["policies"],
        shadow=None if top["shadow"] is None else base_dir / top["shadow"],
        policies_history=None if top["policies_history"] is None else base_dir / top["policies_history"],
        environment=top["environment"],
        policy_cases=PolicyCases(top["policy_cases"]),
        providers={name: _provider(name, section, base_dir) for name, section in top["providers"].values.items()},
        default_provider=top["default_provider"],
        budgets=_budgets(top["budgets"], base_dir),
        prices=None if top["prices"] is None else base_dir / top["prices"],
        audit=_audit(top["audit"], base_dir),
        jwt=jwt_settings(top["jwt"], base_dir),
        callers_file=None if top["callers_file"] is None else base_dir / top["callers_file"],
        callers=tuple(CallerKey(c["name"], c["sha256"], c["app"]) for c in top["callers"].values),
        admin_token=_anchored(top["admin_token"], base_dir),
        admin_tokens=tuple(
            AdminToken(t["name"], Role(t["role"]), _anchored(t["token"], base_dir) or t["token"])
            for t in top["admin_tokens"].values
        ),
        redaction_key=_anchored(top["redaction_key"], base_dir),
        names=None if top["names"] is None else _names(top["names"], base_dir),
        log=LogSettings(LogLevel(top["log"]["level"]), LogFormat(top["log"]["format"])),
    )


def _server(section: Section) -> ServerSettings:
    timeouts, drain = section["timeouts"], section["drain"]
    return ServerSettings(
        data=Listen(section["data"]["host"], section["data"]["port"]),
        admin=Listen(section["admin"]["host"], section["admin"]["port"]),
        max_body_bytes=section["max_body"],
        max_upload_bytes=section["max_upload"],
        max_head_bytes=section["max_head"],
        head_timeout_s=timeouts["head"],
        body_timeout_s=timeouts["body"],
        write_stall_s=timeouts["write_stall"],
        keepalive_s=timeouts["keepalive"],
        max_connections=section["max_connections"],
        drain_grace_s=drain["grace"],
        drain_deadline_s=drain["deadline"],
        allowed_hosts=tuple(section["allowed_hosts"].values),
    )


def _provider(name: str, section: Section, base_dir: Path) -> ProviderSettings:
    kind = ProviderKind(section["kind"])
    ca_file, check = section["ca_file"], section["health_check"]
    keys = {key: _anchored(ref, base_dir) or ref for key, ref in section["api_keys"].values.items()}
    return ProviderSettings(
        name=name,
        base_url=section["base_url"],
        kind=kind,
        api_key=_anchored(section["api_key"], base_dir) or next(iter(keys.values()), None),
        api_keys=keys if len(keys) > 1 else {},
        health_check=None if check is None else HealthCheck(check["every"], check["timeout"]),
        auth_header=section["auth_header"] or _AUTH_HEADERS[kind],
        api_version=section["api_version"],
        headers=dict(section["headers"].values),
        deployments=dict(section["deployments"].values),
        ca_file=None if ca_file is None else base_dir / ca_file,
        keepalive_s=section["keepalive"],
        max_connections=section["max_connections"],
        egress_proxy=section["egress_proxy"],
        stream_usage=StreamUsage(section["stream_usage"]),
        region=section["region"],
    )


def _budgets(section: Section, base_dir: Path) -> BudgetStoreSettings:
    store: Any = section["store"]
    if store == MEMORY_STORE:
        return BudgetStoreSettings()
    return BudgetStoreSettings(
        url=_anchored(store, base_dir) if isinstance(store, SecretRef) else store,
        shares=Shares(section["max_sidecars"], section["private_share"], OnOutage(section["on_outage"])),
        boost_after_s=section["boost_after"],
        lease_s=section["lease"],
        namespace=section["namespace"],
    )


def _audit(section: Section, base_dir: Path) -> AuditSettings:
    store: Any = section["store"]
    return AuditSettings(
        store=_anchored(store, base_dir) or "" if isinstance(store, SecretRef) else parse_store_url(store, base_dir),
        spool=base_dir / section["spool"],
        spool_max_bytes=section["spool_max"],
        content_max_bytes=section["content_max"],
        durability=Durability(section["durability"]),
        when_full=WhenFull(section["when_full"]),
        sink_batch_rows=section["batch_rows"],
        sink_batch_wait_s=section["batch_wait"],
        may_migrate=section["migrate"],
        key=_anchored(section["key"], base_dir),
    )


def _names(section: Section, base_dir: Path) -> NamesSettings:
    ca_file = section["ca_file"]
    return NamesSettings(
        url=section["url"],
        languages=tuple(dict.fromkeys(section["languages"].values)),
        timeout_s=section["timeout"],
        max_text_bytes=section["max_text"],
        concurrency=section["concurrency"],
        on_failure=OnNamesFailure(section["on_failure"]),
        api_key=_anchored(section["api_key"], base_dir),
        auth_header=section["auth_header"] or AuthHeader(),
        ca_file=None if ca_file is None else base_dir / ca_file,
    )


def _anchored(ref: SecretRef | None, base_dir: Path) -> SecretRef | None:
    """Return the reference with its file made absolute."""
    if ref is None or ref.file is None:
        return ref
    return SecretRef(file=base_dir / ref.file, mark=ref.mark)
