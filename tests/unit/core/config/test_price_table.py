"""prices.yaml: what it becomes, which row counts, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.core.budget.prices import PriceTable
from proxy.core.config.price_table import parse_prices
from proxy.terms.exchange import Usage

SAMPLE = Path(__file__).parents[4] / "prices.yaml"
HEAD = 'version: 1\nrevision: "r"\n'


def table(rows: str) -> PriceTable:
    result = parse_prices(f"{HEAD}prices: [{rows}]\n", "prices.yaml")
    assert result.table is not None, result.problems
    return result.table


def test_sample_table_is_free_of_problems_and_knows_the_sample_models() -> None:
    """The table in the repository is what people copy."""
    result = parse_prices(SAMPLE.read_text(), "prices.yaml")

    assert () == result.problems
    assert result.table is not None
    assert result.table.find("openai", "gpt-4o-mini-2024-07-18") is not None
    assert result.table.find("openai", "nobody-knows") is None


def test_cost_counts_cached_input_and_hidden_output_at_their_own_price() -> None:
    """1000 in of which 400 cached, 500 out of which 100 hidden: 600·2 + 400·1 + 400·10 + 100·20, in millionths."""
    price = table("{model: m, input: 2, cached: 1, output: 10, reasoning: 20}").find("any", "m")

    assert price is not None
    assert 7600 * 1000 == price.of(Usage(1000, 500, 400, 100))
    assert price.at_most(1000, 500) >= price.of(Usage(1000, 500, 0, 500))


def test_most_specific_row_counts() -> None:
    """A provider's own price before anybody's, an exact model before a glob, a longer glob before a shorter."""
    found = table(
        '{model: "*", input: 1, output: 1}, {model: "gpt-*", input: 2, output: 2}, {model: gpt-4o, input: 3, output: 3},'
        '{provider: openai, model: "*", input: 4, output: 4}'
    )

    names = [("groq", "x"), ("groq", "gpt-x"), ("groq", "gpt-4o"), ("openai", "gpt-4o")]
    prices = [found.find(*name) for name in names]
    assert [1000.0, 2000.0, 3000.0, 4000.0] == [p.input for p in prices if p is not None]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD, "missing-key"),
        (HEAD + "prices: [{model: m, input: 1}]\n", "missing-key"),
        (HEAD + "prices: [{model: m, input: -1, output: 1}]\n", "out-of-range"),
        (HEAD + "prices: [{model: m, input: 1, output: 1, per: token}]\n", "unknown-key"),
        (HEAD + "prices: [{model: m, input: 1, output: 1}, {model: m, input: 2, output: 1}]\n", "duplicate-price"),
    ],
)
def test_wrong_table_is_refused_whole(text: str, code: str) -> None:
    """Half a price table would make half the spend disappear."""
    result = parse_prices(text, "prices.yaml")

    assert result.table is None
    assert code in {problem.code for problem in result.problems}
