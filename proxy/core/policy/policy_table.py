"""The keys of a policy file: one row each, with meaning, default and example.

Owns what a policy may say. Reference pages and the JSON Schema are made from these rows. Only keys that act
are here; what is planned is in ``later`` and refused, so that nothing is ignored silently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from proxy.core.config.kinds import Choice, Flag, Number, Text, duration
from proxy.core.config.problem import error
from proxy.core.config.schema import Items, Key, Kind, ListOf, MapOf, Problems, Section, Table
from proxy.core.config.texts import parse_model, parse_name
from proxy.core.config.yaml_text import BAD, Bad, Map, Node
from proxy.core.policy.access_table import ACCESS
from proxy.core.policy.budget_table import BUDGET, parse_app
from proxy.core.policy.faults import SYNTAX, parse_fault
from proxy.core.policy.fitness_keys import FITNESS_KEYS, ON_FAILURE_KEY, REGIONS_KEY
from proxy.core.policy.model import BrokenStream, FirstTokenFor, Priority, Rescue, RouteRequirement, ShareBy
from proxy.core.policy.paths import parse_path
from proxy.core.policy.redaction_table import REDACTION, ROUTE_REDACTION
from proxy.core.policy.rollout_table import ROLLOUT_KEY
from proxy.core.policy.versions import POLICY_LANGUAGE

COMPONENTS = ("policy", "spool", "audit_store")
"""What readiness may require besides providers."""


def _parse_header_name(text: str) -> str:
    lower = text.strip().lower()
    if not re.fullmatch(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}", lower):
        raise ValueError("a header name: letters, digits and dashes")
    if lower in ("authorization", "api-key", "x-api-key", "cookie"):
        raise ValueError("not a header that holds a secret; name the caller's key in `callers`")
    return lower


def _parse_route(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9._*?-]{1,64}(/[a-z0-9._*?-]{1,64})?", text):
        raise ValueError("a route's name, or its policy's and its own with a slash; * and ? are wildcards")
    return text


_ROUTE_REQUIREMENT = Table(
    "route requirement",
    "A route with healthy targets.",
    (
        Key("route", Text("a route's name", parse_name), "Which.", is_required=True, example="fast"),
        Key("healthy", Number(1, 20), "So many targets of its chain at least.", "1", "1"),
    ),
)


@dataclass(frozen=True, eq=False)
class _Requirement(Kind):
    """A component, a provider or a route that readiness requires."""

    what = "policy, spool, audit_store, a provider's name or {route: NAME, healthy: 1}"

    def read(self, node: Node, path: str, problems: Problems) -> str | RouteRequirement | Bad:
        """Return the name, or what is asked of a route."""
        if isinstance(node, Map):
            section = _ROUTE_REQUIREMENT.read(node, path, problems)
            if isinstance(section, Bad) or not section.is_good("route", "healthy"):
                return BAD
            return RouteRequirement(section["route"], section["healthy"])
        value: str | Bad = Text(self.what, parse_name).read(node, path, problems)
        return value


def _timeouts(doc: str, *, has_defaults: bool) -> Table:
    rows = (
        ("connect", "1m", "2s", "Until the connection (with TLS) stands."),
        ("first_byte", "1h", "60s", "From the request's last byte to the answer's first."),
        ("idle", "1h", "60s", "Longest silence within an answer."),
        ("total", "24h", "600s", "The whole of it."),
    )
    keys = [
        Key(name, duration("10ms", most), text, usual if has_defaults else None, usual)
        for name, most, usual, text in rows
    ]
    text = "From the beginning of a try to a stream's first content; left out: no limit of its own."
    keys.insert(2, Key("first_token", duration("10ms", "1h"), text, None, "15s"))
    return Table("timeouts", doc, tuple(keys))


_PROVIDER = Key("provider", Text("a provider's name"), "Whom to ask.", is_required=True, example="groq")
_TARGET_KEYS = (
    Key("model", Text("a model", parse_model), "For what; left out: the model asked for.", None, "llama-3.3-70b"),
    Key(
        "timeouts",
        _timeouts("Deadlines of this link.", has_defaults=False),
        "Deadlines of this link.",
        "{}",
        "{idle: 5s}",
    ),
    Key("prefill", Flag(), "It goes on from a trailing assistant message; for `rescue: resume`.", "false", "true"),
    *FITNESS_KEYS,
)

_MEMBER = Table(
    "member",
    "One of the targets that share a step.",
    (
        _PROVIDER,
        *_TARGET_KEYS,
        Key("weight", Number(0.001, 1000.0, is_whole=False), "Its part of the load.", "1.0", "3"),
    ),
)


@dataclass(frozen=True, eq=False)
class _Step(Table):
    """A link of a chain: one target, or several that share its load."""

    def read(self, node: Node, path: str, problems: Problems) -> Section | Bad:
        """Return the section; it names a provider or a split, not both."""
        before = len(problems)
        section = super().read(node, path, problems)
        if isinstance(section, Bad):
            return BAD
        own = [key.name for key in self.keys if key.name not in ("split", "by", "sticky")]
        if section.is_written("split"):
            for name in own:
                if section.is_written(name):
                    text = f"`{path}.{name}` never acts beside `split`"
                    problems.append(error(section.at(name), "unreachable-setting", text, "write it in the members"))
            return section
        is_misspelt = any(problem.code == "unknown-key" for problem in problems[before:])
        if not section.is_written("provider"):
            section.refuse("provider", BAD, None)
        if not section.is_written("provider") and not is_misspelt:
            text = f"`{path}` needs the key `provider`: {_PROVIDER.doc}"
            problems.append(error(section.mark, "missing-key", text, "for example `provider: groq`, or a `split`"))
        for name in ("by", "sticky"):
            if section.is_written(name):
                text = f"`{path}.{name}` acts only with `split`"
                problems.append(error(section.at(name), "unreachable-setting", text, "add `split` or delete it"))
        return section


_TARGET = _Step(
    "target",
    "One link of a chain.",
    (
        replace(_PROVIDER, is_required=False),
        *_TARGET_KEYS,
        Key(
            "split",
            ListOf(_MEMBER, 2, 20),
            "Several targets that share this step.",
            None,
            "[{provider: openai, weight: 3}, {provider: azure}]",
        ),
        Key("by", Choice(tuple(ShareBy)), "How they share it.", "weight", "latency"),
        Key("sticky", Choice(("none", "conversation")), "What stays with one of them.", "none", "conversation"),
    ),
    homes={"weight": "the members of `split`"},
)


@dataclass(frozen=True, eq=False)
class _Chain(ListOf):
    """The links of a chain, laid out flat: every target knows by ``share`` which step it is of."""

    def read(self, node: Node, path: str, problems: Problems) -> Items | Bad:
        """Return the targets."""
        steps = super().read(node, path, problems)
        if isinstance(steps, Bad):
            return BAD
        flat = Items()
        for number, (step, mark) in enumerate(steps):
            members = step["split"] if step.is_written("split") else None
            if step.is_written("split") and members is None:
                continue
            for target, at in members or [(step, mark)]:
                share = None if members is None else (number, ShareBy(step["by"]), step["sticky"] == "conversation")
                target.put("share", share, None)
                if members is None:
                    target.put("weight", 1.0, None)
                flat.values.append(target)
                flat.marks.append(at)
        return flat


_MATCH = Table(
    "match",
    "Which requests a route takes: those that fit all that is given.",
    (
        Key(
            "models",
            ListOf(Text("a model or glob", parse_model), 1),
            "Models asked for.",
            None,
            '["gpt-4o-mini", "gpt-*"]',
        ),
        Key("paths", ListOf(Text("a path or glob", parse_path), 1), "Paths after /v1.", None, '["/files*"]'),
    ),
    homes={
        "model": "models, a list",
        "path": "paths, a list",
        "methods": "access",
        **dict.fromkeys(("headers", "apps", "users", "groups", "callers"), "applies_to, of a policy of its own"),
    },
)

_INJECT = Table(
    "inject",
    "Faults to rehearse a chain with.",
    (
        Key("header", Flag(), "Callers may ask for a fault with `x-readygate-fault-inject`.", "false", "true"),
        Key("fault", Text("a fault", parse_fault), f"Hits every exchange: {SYNTAX}.", None, '"status=503"'),
        Key("share", Number(0.0, 1.0, is_whole=False), "How many attempts `fault` hits.", "1.0", "0.2"),
    ),
)

_ROUTE = Table(
    "route",
    "Where some requests go.",
    (
        Key(
            "name",
            Text("a name", parse_name),
            "What rows and metrics call it; left out: its first match.",
            None,
            "fast",
        ),
        Key("match", _MATCH, "Which requests it takes.", is_required=True, example='{models: ["fast"]}'),
        Key(
            "chain", _Chain(_TARGET, 1, 20), "Whom to ask, in order.", is_required=True, example="[{provider: openai}]"
        ),
        Key(
            "timeouts", _timeouts("Deadlines.", has_defaults=True), "Deadlines.", "{}", "{first_byte: 20s, total: 120s}"
        ),
        Key(
            "retries", Choice(("none", "once")), "Whether a failed try is repeated at the same target.", "once", "none"
        ),
        Key(
            "priority", Choice(tuple(Priority)), "Whose turn comes first in a budget's waiting line.", "normal", "high"
        ),
        Key(
            "max_output_tokens",
            Number(1, 10_000_000),
            "Longest answer in tokens; sent along when the caller names none, or a longer one.",
            None,
            "4096",
        ),
        Key("max_attempts", Number(1, 40), "Tries in all; left out: what chain and retries allow.", None, "3"),
        Key("broken_stream", Choice(tuple(BrokenStream)), "What a stream cut midway ends with.", "auto", "cut"),
        Key("rescue", Choice(tuple(Rescue)), "What a stream gets that breaks after its first token.", "none", "resume"),
        Key("first_token_for", Choice(tuple(FirstTokenFor)), "Whom `first_token` cuts.", "others", "all"),
        ON_FAILURE_KEY,
        REGIONS_KEY,
        Key("redaction", ROUTE_REDACTION, "Other than the policy's.", None, "{response: {default: redact}}"),
        Key("inject", _INJECT, "Faults to rehearse, for staging; left out: none.", None, "{header: true}"),
    ),
    later={
        "hedge": "is not there: two attempts at once are billed twice; `timeouts.first_token` moves on from a slow target"
    },
    homes={
        "output_cap": "max_output_tokens, as it is called since version 2",
        "budgets": "budgets of the policy, with route: its name",
        "audit": "a policy whose applies_to names this route",
        "access": "a policy whose applies_to names this route",
        "models": "match",
        "paths": "match",
        "provider": "chain",
        "model": "chain",
        "targets": "chain",
    },
)

_AUDIT = Table(
    "audit",
    "What the record of an exchange must hold.",
    (
        Key("required", Flag(), "true: no row, no exchange.", "true", "true"),
        Key(
            "content",
            Choice(("none", "redacted", "full")),
            "Words kept, sealed: none, as sent, as asked.",
            "none",
            "redacted",
        ),
        Key("content_retention", duration("1h", "36500d"), "Kept words are deleted when they are older.", "30d", "7d"),
        Key("retention", duration("1d", "36500d"), "Rows are deleted when they are older.", None, "90d"),
    ),
    homes=dict.fromkeys(("store", "spool", "durability", "when_full"), "audit of config.yaml"),
)

_READINESS = Table(
    "readiness",
    "What has to be well for /readyz to say yes.",
    (
        Key(
            "require",
            ListOf(_Requirement()),
            "Components, providers, routes with healthy targets.",
            "[policy, spool]",
            "[policy, spool, {route: fast, healthy: 1}]",
        ),
        Key(
            "settle",
            duration("0s", "1h"),
            "What depends on others must last so long before the answer changes.",
            "10s",
            "10s",
        ),
    ),
)


@dataclass(frozen=True, eq=False)
class PolicyParts(Kind):
    """Environments with the keys that differ there; merged by ``layers`` before a policy is read."""

    what = "a map of environments to parts of a policy"

    def read(self, node: Node, path: str, problems: Problems) -> Bad:
        """Refuse: what reaches this point was not merged."""
        problems.append(error(node.mark, "wrong-place", f"`{path}` stands at the top of a policy file"))
        return BAD

    def json_schema(self) -> dict[str, Any]:
        """Return an object of objects."""
        return {"type": "object", "additionalProperties": {"type": "object"}}


_APPLIES_TO = Table(
    "applies_to",
    "Whose requests the policy decides.",
    (
        Key(
            "apps",
            ListOf(Text("an app or glob", parse_app), 1),
            "Apps; the most specific pattern wins.",
            '["*"]',
            '["shop-*"]',
        ),
        Key("callers", ListOf(Text("a caller key's name or glob"), 1), "Caller keys.", None, '["shop-prod"]'),
        Key("users", ListOf(Text("a user or glob"), 1), "Users.", None, '["batch-*"]'),
        Key(
            "groups", ListOf(Text("a group or glob"), 1), "Groups of a token (`jwt`); one is enough.", None, '["eng-*"]'
        ),
        Key("models", ListOf(Text("a model or glob", parse_model), 1), "Models asked for.", None, '["gpt-4*"]'),
        Key("paths", ListOf(Text("a path or glob", parse_path), 1), "Paths after /v1.", None, '["/embeddings"]'),
        Key(
            "headers",
            MapOf(Text("a value or glob"), "a map of header names to values", _parse_header_name),
            "Request headers; all of them have to match.",
            "{}",
            '{x-team: "risk-*"}',
        ),
        Key(
            "routes",
            ListOf(Text("a route's name or glob, or policy/route", _parse_route), 1),
            "Routes that other policies have; this one has none of its own and decides in their place.",
            None,
            '[fast, "shop/*"]',
        ),
    ),
    homes=dict.fromkeys(("methods",), "access"),
)

POLICY = Table(
    "policy",
    "policies/*.yaml: what may happen.",
    (
        POLICY_LANGUAGE.key(),
        Key("policy", Text("a name", parse_name), "The policy's name.", is_required=True, example="default"),
        Key(
            "base",
            Text("a name", parse_name),
            "Instead of `policy`: this file is a base that policies can extend, and acts only through them.",
            None,
            "company",
        ),
        Key(
            "extends",
            Text("a base's name", parse_name),
            "The base whose keys count where this file has none; maps are merged, lists and values replaced.",
            None,
            "company",
        ),
        Key(
            "overlays",
            PolicyParts(),
            "What differs in some `environment` of config.yaml; merged over the rest of the file.",
            None,
            "{dev: {mode: observe}}",
        ),
        Key(
            "mode", Choice(("enforce", "observe")), "observe: decide and record, change nothing.", "enforce", "observe"
        ),
        Key("applies_to", _APPLIES_TO, "Whose requests it decides.", "{}", '{apps: ["shop-*"]}'),
        Key(
            "access", ACCESS, "What may be asked for; left out: whatever a route takes.", None, '{models: ["gpt-4o*"]}'
        ),
        Key("redaction", REDACTION, "What is done with personal data.", "{}", "{request: {default: restore}}"),
        Key("budgets", ListOf(BUDGET), "How much may be used.", "[]", "[{provider: groq, requests_per_minute: 30}]"),
        Key(
            "routes",
            ListOf(_ROUTE),
            "Where requests go.",
            "[]",
            '[{match: {models: ["*"]}, chain: [{provider: openai}]}]',
        ),
        Key("audit", _AUDIT, "What the record must hold.", "{}", "{required: true}"),
        Key("readiness", _READINESS, "What has to be well for /readyz.", "{}", "{require: [policy, spool]}"),
        ROLLOUT_KEY,
    ),
    homes={
        **dict.fromkeys(
            (
                "shadow",
                "providers",
                "server",
                "callers",
                "log",
                "default_provider",
                "policies",
                "environment",
                "prices",
            ),
            "config.yaml",
        ),
        "cases": "a file of its own whose name ends with .cases.yaml",
        "models": "match of a route, access or applies_to",
    },
)
