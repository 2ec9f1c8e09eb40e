"""The keys of a policy's ``access`` section, and what they compile to.

Owns these rows of the policy's language; ``policy_table`` puts them into its own.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.core.config.kinds import Choice, Number, Text, size
from proxy.core.config.schema import Key, ListOf, Section, Table
from proxy.core.config.texts import parse_model, parse_name
from proxy.core.policy.access import AccessPlan, Over, Patterns
from proxy.core.policy.paths import parse_path

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_PARAM = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_NEEDED = frozenset({"model", "messages", "input", "prompt"})


def _parse_param(text: str) -> str:
    if not _PARAM.fullmatch(text):
        raise ValueError("a top-level parameter such as tools")
    return text


def _parse_forbidden(text: str) -> str:
    if text in _NEEDED:
        raise ValueError(f"no request can do without {text}; limit `models` or `paths`")
    return _parse_param(text)


ACCESS: Final = Table(
    "access",
    "What may be asked for; a key that is left out limits nothing.",
    (
        Key("models", ListOf(Text("a model or glob", parse_model), 1), "Models asked for.", None, '["gpt-4o*"]'),
        Key(
            "paths",
            ListOf(Text("a path or glob", parse_path), 1),
            "Paths after /v1.",
            None,
            '["/chat/completions", "/models*"]',
        ),
        Key("methods", ListOf(Choice(METHODS), 1), "HTTP methods.", None, "[GET, POST]"),
        Key(
            "providers",
            ListOf(Text("a provider's name"), 1),
            "Providers that chains may ask; any other in a chain is an error.",
            None,
            "[openai, local]",
        ),
        Key(
            "regions",
            ListOf(Text("a region", parse_name), 1),
            "Regions (`region` of a provider) that chains may ask; any other in a chain is an error.",
            None,
            "[eu]",
        ),
        Key("max_body", size("1B", "1TiB"), "Longest request body.", None, "1MiB"),
        Key(
            "max_tokens",
            Number(1, 10_000_000),
            "Longest answer in tokens; sent along when the caller names none.",
            None,
            "4096",
        ),
        Key(
            "over_max_tokens",
            Choice(tuple(Over)),
            "What becomes of a request for a longer one: refused, or cut to `max_tokens`.",
            "refuse",
            "clamp",
        ),
        Key(
            "params",
            ListOf(Text("a parameter", _parse_param)),
            "The only top-level parameters, besides model, messages, input, prompt and stream.",
            None,
            "[temperature, max_tokens]",
        ),
        Key(
            "forbidden_params",
            ListOf(Text("a parameter", _parse_forbidden)),
            "Top-level parameters that are refused.",
            "[]",
            "[tools, logprobs, logit_bias]",
        ),
    ),
    homes={"apps": "applies_to", "users": "applies_to", "headers": "applies_to", "max_upload": "server of config.yaml"},
)


def compile_access(section: Section | None) -> AccessPlan | None:
    """Return the plan of a section without errors; None: nothing is limited."""
    if section is None:
        return None

    def names(key: str) -> tuple[str, ...] | None:
        return None if section[key] is None else tuple(section[key].values)

    models, paths, methods, params = names("models"), names("paths"), names("methods"), names("params")
    return AccessPlan(
        None if models is None else Patterns(models),
        None if paths is None else Patterns(paths),
        None if methods is None else frozenset(methods),
        names("providers"),
        names("regions"),
        section["max_body"],
        section["max_tokens"],
        Over(section["over_max_tokens"]),
        None if params is None else frozenset(params),
        frozenset(section["forbidden_params"].values),
    )
