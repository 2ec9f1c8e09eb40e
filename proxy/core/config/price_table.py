"""The price table's text -> prices, or everything that is wrong with it.

Owns what the file may say. Prices are US dollars for a million tokens, as providers publish them.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.core.budget.prices import Price, PriceRow, PriceTable
from proxy.core.config.config_table import VERSION
from proxy.core.config.kinds import Number, Text
from proxy.core.config.problem import Mark, Problem, error, has_errors, in_order
from proxy.core.config.schema import Key, ListOf, Section, Table
from proxy.core.config.texts import parse_model, parse_name
from proxy.core.config.yaml_text import BAD, parse_yaml

_PER_MILLION = Number(0.0, 100_000.0, is_whole=False)
_NANO_PER_MILLIONTH = 1000.0

_PRICE = Table(
    "price",
    "What one model, or several, cost.",
    (
        Key("provider", Text("a provider's name", parse_name), "At this provider only.", None, "openai"),
        Key(
            "model",
            Text("a model or glob", parse_model),
            "Which; * stands for any text.",
            is_required=True,
            example='"gpt-4o-mini*"',
        ),
        Key("input", _PER_MILLION, "US dollars for a million input tokens.", is_required=True, example="0.15"),
        Key("output", _PER_MILLION, "US dollars for a million output tokens.", is_required=True, example="0.6"),
        Key("cached", _PER_MILLION, "Of input from the provider's cache; left out: as input.", None, "0.075"),
        Key("reasoning", _PER_MILLION, "Of output that is not shown; left out: as output.", None, "0.6"),
    ),
)

PRICES = Table(
    "prices",
    "prices.yaml: what tokens cost.",
    (
        VERSION,
        Key("revision", Text("a name"), "What you call this state of the table.", is_required=True, example='"2026-11"'),
        Key("prices", ListOf(_PRICE), "The rows; the most specific one counts.", is_required=True, example="[]"),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PriceResult:
    """What became of a price table. ``table`` is None exactly when one of the problems is an error."""

    table: PriceTable | None
    problems: tuple[Problem, ...]


def parse_prices(text: str, file: str) -> PriceResult:
    """Read the whole text and return prices or every problem, never only the first."""
    node, problems = parse_yaml(text, file)
    top = PRICES.read(node, "", problems) if node is not None else BAD
    if not isinstance(top, Section):
        return PriceResult(None, in_order(problems))
    if top.is_good("prices"):
        seen: dict[tuple[str | None, str], Mark] = {}
        for section, mark in top["prices"]:
            key = (section["provider"], section["model"])
            if key in seen and section.is_good("model"):
                text = f"{section['model']!r} has a price already, on line {seen[key].line}"
                problems.append(error(mark, "duplicate-price", text, "delete one of the two"))
            seen.setdefault(key, mark)
    if has_errors(problems):
        return PriceResult(None, in_order(problems))
    rows = tuple(PriceRow(s["provider"], s["model"], _price(s)) for s in top["prices"].values)
    return PriceResult(PriceTable(rows, top["revision"]), in_order(problems))


def _price(section: Section) -> Price:
    cached = section["input"] if section["cached"] is None else section["cached"]
    reasoning = section["output"] if section["reasoning"] is None else section["reasoning"]
    return Price(*(price * _NANO_PER_MILLIONTH for price in (section["input"], section["output"], cached, reasoning)))
