"""O5: the most a provider served in any window, read from the provider's own journal.

Shares no code with the counters it judges, and believes none of our numbers: only when the provider saw a request
and what it billed for it. As a command:

    python -m tests.support.window_oracle journal.jsonl --window 60s --limit 6000 --unit tokens

Exit code 0: no window above the limit; 1: some window is; 2: the journal cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from proxy.simulator.journal import Entry
from proxy.simulator.settings import BadSetting, parse_duration

UNITS = ("requests", "tokens", "input", "output")


class Cost(NamedTuple):
    """One request as the provider saw it."""

    at_s: float
    amount: int


class Window(NamedTuple):
    """The worst window: how much it held and when it began."""

    amount: int = 0
    began_s: float = 0.0


def worst_window(costs: Iterable[Cost], window_s: float) -> Window:
    """Return the largest sum of any half-open interval of that length; linear in the sorted costs."""
    ordered = sorted(costs)
    worst, held, first = Window(), 0, 0
    for cost in ordered:
        held += cost.amount
        while ordered[first].at_s <= cost.at_s - window_s:
            held -= ordered[first].amount
            first += 1
        if held > worst.amount:
            worst = Window(held, ordered[first].at_s)
    return worst


def most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """Return how many of the intervals (begin, end) overlap at most."""
    edges = sorted(edge for begin, end in spans for edge in ((begin, 1), (end, -1)))
    running = most = 0
    for _, step in edges:
        running += step
        most = max(most, running)
    return most


def costs_of(
    entries: Iterable[Entry], unit: str = "requests", *, keep: Callable[[Entry], bool] | None = None
) -> list[Cost]:
    """Return what each served request cost; what the provider refused (4xx, 5xx) cost no tokens, but was a request."""
    return [
        Cost(entry.started_s, _amount(unit, entry.tokens_in, entry.tokens_out))
        for entry in entries
        if entry.method == "POST" and (keep is None or keep(entry))
    ]


def read_costs(lines: Iterable[str], unit: str, provider: str | None = None) -> list[Cost]:
    """Return the costs of a journal file. Raises ValueError for a line that is none."""
    costs = []
    for number, line in enumerate(lines, 1):
        try:
            entry: dict[str, Any] = json.loads(line)
            if entry["method"] == "POST" and provider in (None, entry["provider"]):
                costs.append(Cost(entry["started_s"], _amount(unit, entry["tokens_in"], entry["tokens_out"])))
        except (KeyError, TypeError, json.JSONDecodeError) as exc:
            raise ValueError(f"line {number} is no journal entry: {exc!r}") from exc
    return costs


def _amount(unit: str, tokens_in: int, tokens_out: int) -> int:
    return {"requests": 1, "tokens": tokens_in + tokens_out, "input": tokens_in, "output": tokens_out}[unit]


def main(argv: Sequence[str] | None = None) -> int:
    """Judge a journal file."""
    parser = argparse.ArgumentParser(prog="window_oracle", description="The worst window of a provider's journal.")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--window", default="60s", help="length of the window (default: %(default)s)")
    parser.add_argument("--limit", type=int, required=True, help="what no window may pass")
    parser.add_argument("--unit", choices=UNITS, default="requests")
    parser.add_argument("--provider", help="only requests below this prefix")
    args = parser.parse_args(argv)
    try:
        window_s = parse_duration(args.window)
        with args.journal.open() as lines:
            costs = read_costs(lines, args.unit, args.provider)
    except (OSError, ValueError, BadSetting) as exc:
        print(f"window_oracle: {exc}", file=sys.stderr)
        return 2
    worst = worst_window(costs, window_s)
    share = worst.amount / args.limit
    print(f"{len(costs)} requests; worst {args.window}: {worst.amount} {args.unit} = {share:.3f} of {args.limit}")
    return 1 if worst.amount > args.limit else 0


if __name__ == "__main__":
    sys.exit(main())
