"""The keys of one budget of a policy file: what is limited, for whom, and what happens then.

Owns the words; ``budget_checks`` finds what can never act, ``compile`` makes rules of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from proxy.core.budget.dimensions import UNITS, Dimension, Unit
from proxy.core.config.kinds import Choice, Number, Text, duration
from proxy.core.config.schema import Key, Kind, ListOf, Problems, Section, Table
from proxy.core.config.texts import parse_model, parse_name
from proxy.core.config.yaml_text import BAD, Bad, Map, Node
from proxy.core.policy.model import Scope, UnknownPrice, WhenExhausted

NOT_YET = "is not available in this version; it would be ignored, so it is refused"


def parse_app(text: str) -> str:
    """Return an app's or a user's name or glob."""
    if not text.isascii() or not text.isprintable() or " " in text or len(text) > 128:
        raise ValueError("printable ASCII without spaces, at most 128; * and ? are wildcards")
    return text


_LIMIT = Number(1, 1_000_000_000_000)
_DOLLARS = Number(0.000001, 1_000_000, is_whole=False)
_SLOTS = Number(1, 1_000_000)
_COUNTED = {
    Unit.REQUESTS: ("Requests", ("10", "30", "1000", "14400", "14400", "400000")),
    Unit.TOKENS: ("Tokens, in and out,", ("2000", "6000", "100000", "500000", "500000", "15000000")),
    Unit.INPUT_TOKENS: ("Input tokens", ("2000", "6000", "100000", "500000", "500000", "15000000")),
    Unit.OUTPUT_TOKENS: ("Output tokens", ("2000", "6000", "100000", "500000", "500000", "15000000")),
    Unit.COST: ("US dollars", ("5", "20", "20", "500")),
}
_SPANS = {
    "10s": "in any 10 seconds",
    "minute": "in any 60 seconds",
    "hour": "in any hour",
    "day": "in any 24 hours",
    "calendar_day": "between midnight and midnight in `time_zone`",
    "month": "in a calendar month of `time_zone`",
}


def _limit_keys() -> tuple[Key, ...]:
    """One key per dimension."""
    keys: list[Key] = []
    examples = {unit: iter(numbers) for unit, (_, numbers) in _COUNTED.items()}
    for dimension in Dimension:
        unit = UNITS[dimension]
        if unit is Unit.CONCURRENT:
            keys.append(Key(dimension.value, _SLOTS, "Exchanges at the same time.", None, "8"))
            continue
        span = _SPANS[dimension.value.partition("_per_")[2].removesuffix("_usd")]
        kind = _DOLLARS if unit is Unit.COST else _LIMIT
        keys.append(Key(dimension.value, kind, f"{_COUNTED[unit][0]} {span}.", None, next(examples[unit])))
    return tuple(keys)


@dataclass(frozen=True, eq=False)
class _Exhausted(Kind):
    """``next``, ``refuse`` or ``{wait: 2s}``."""

    what = "next, refuse or {wait: 2s}"

    def read(self, node: Node, path: str, problems: Problems) -> tuple[WhenExhausted, float] | Bad:
        """Return what happens, and the longest wait in seconds."""
        if isinstance(node, Map):
            section = _WAIT.read(node, path, problems)
            if not isinstance(section, Section) or not section.is_good("wait"):
                return BAD
            return WhenExhausted.WAIT, section["wait"]
        words = Choice(("next", "refuse"), {"wait": "needs a time: write {wait: 2s}"})
        word: str | Bad = words.read(node, path, problems)
        return BAD if isinstance(word, Bad) else (WhenExhausted(word), 0.0)

    def json_schema(self) -> dict[str, Any]:
        """Return a word or a map."""
        return {"anyOf": [{"enum": ["next", "refuse"]}, _WAIT.json_schema()]}


_WAIT = Table(
    "when_exhausted",
    "How long an exchange waits for room.",
    (Key("wait", duration("10ms", "10m"), "Longest wait.", is_required=True, example="2s"),),
)


def _parse_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            "a name of the IANA time zone database, such as UTC, Europe/Berlin or America/Sao_Paulo"
        ) from None
    return text


BUDGET = Table(
    "budget",
    "How much may be used: limits, of what, and counted by whom.",
    (
        Key("id", Text("a name", parse_name), "Its name; left out: made from what it limits.", None, "groq-free"),
        Key("provider", Text("a provider's name"), "Only what goes to this provider.", None, "groq"),
        Key("model", Text("a model or glob", parse_model), "Only for models asked of a provider.", None, '"gpt-4o*"'),
        Key("route", Text("a route's name"), "Only exchanges of this route.", None, "fast"),
        Key("app", Text("an app or glob", parse_app), "Only exchanges of these apps.", None, "shop"),
        Key("caller", Text("a caller key's name"), "Only exchanges with this caller key.", None, "shop-prod"),
        Key("user", Text("a user or glob", parse_app), "Only exchanges of these users.", None, '"batch-*"'),
        Key(
            "per", ListOf(Choice(tuple(Scope)), max_items=6), "Each of these has the limits for itself.", "[]", "[user]"
        ),
        *_limit_keys(),
        Key(
            "time_zone",
            Text("a time zone", _parse_zone),
            "Where calendar days and months begin.",
            "UTC",
            "Europe/Berlin",
        ),
        Key("when_exhausted", _Exhausted(), "What then.", "next", "refuse"),
        Key("max_waiting", Number(1, 100_000), "Exchanges that may wait in line.", "100", "100"),
        Key(
            "unknown_price",
            Choice(tuple(UnknownPrice)),
            "For limits of cost: models without a price.",
            "allow",
            "refuse",
        ),
    ),
    homes={
        "wait": "when_exhausted",
        "timezone": "time_zone",
        "scope": "per",
        "requests_per_second": "requests_per_10s, the shortest window",
    },
)
LIMITS = tuple(dimension.value for dimension in Dimension)
