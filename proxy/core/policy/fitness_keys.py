"""The keys of a target that say what it can take, what it may have, and which parameters it gets; and a route's
``on_failure``.

Owns these rows of the policy's language; ``policy_table`` puts them into its tables.
"""

from __future__ import annotations

import re

from proxy.core.config.kinds import Choice, Number, Text
from proxy.core.config.schema import Key, ListOf, MapOf
from proxy.core.config.texts import parse_name
from proxy.core.dialect.modalities import MODALITIES
from proxy.core.policy.model import PersonalData
from proxy.core.routing.overrides import CHANGEABLE, OnFailure
from proxy.terms.outcomes import Outcome

_PARAM = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FIXED = frozenset({"model", "messages", "input", "prompt", "stream"})


def _parse_param(text: str) -> str:
    if not _PARAM.fullmatch(text):
        raise ValueError("a top-level parameter such as logit_bias")
    if text in _FIXED:
        raise ValueError(f"{text} cannot be left out or renamed")
    return text


FITNESS_KEYS = (
    Key(
        "context",
        Number(1, 100_000_000),
        "Tokens its model reads; longer requests pass it over, and a context-length error walks on to a larger one.",
        None,
        "128000",
    ),
    Key(
        "modalities",
        ListOf(Choice(MODALITIES), 1),
        "What it can read; requests with other content pass it over.",
        None,
        "[text, image]",
    ),
    Key(
        "personal_data",
        Choice(tuple(PersonalData)),
        "none: requests with values that were found and not replaced, or with content unread, pass it over.",
        "any",
        "none",
    ),
    Key(
        "region", Text("a region", parse_name), "Where it keeps what it is sent; left out: as its provider.", None, "eu"
    ),
    Key(
        "drop_params",
        ListOf(Text("a parameter", _parse_param)),
        "Parameters it does not get; the row notes each.",
        "[]",
        "[logit_bias, seed]",
    ),
    Key(
        "rename_params",
        MapOf(Text("a parameter", _parse_param), "a map of parameter: name there", _parse_param),
        "Parameters that have another name there.",
        "{}",
        "{max_tokens: max_completion_tokens}",
    ),
)


def _parse_failure(text: str) -> str:
    if text not in {outcome.value for outcome in CHANGEABLE}:
        raise ValueError("a failure class: " + ", ".join(sorted(o.value for o in Outcome if o in CHANGEABLE)))
    return text


REGIONS_KEY = Key(
    "regions",
    ListOf(Text("a region", parse_name), 1),
    "Where its requests may go; a target elsewhere, or that does not say, is an error.",
    None,
    "[eu, ch]",
)

ON_FAILURE_KEY = Key(
    "on_failure",
    MapOf(Choice(tuple(OnFailure)), "a map of failure class: what follows", _parse_failure),
    "What follows from single failure classes, where not what docs/fallback.md says.",
    "{}",
    "{upstream_5xx: next, ttfb_timeout: stop}",
)
