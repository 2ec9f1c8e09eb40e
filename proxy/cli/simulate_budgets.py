"""``readygate simulate budgets``: what a fleet of sidecars admits, on virtual time.

Owns its options, its table and its progress bar. Decides nothing: ``simulator/budgets`` plays, ``core/budget`` admits.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from proxy.core.budget.shares import OnOutage
from proxy.simulator.budgets import SCENARIOS, Figures, Fleet, Load, draw, make_scenario, measure, play, worst_of
from proxy.simulator.settings import BadSetting, parse_duration

TOKENS_PER_SIDECAR = 1200
"""Limit a sidecar when none is given: then a slice holds two requests of 150 tokens."""
_BAR_AFTER_S = 2.0
_BAR_WIDTH = 30

EXAMPLES = """examples:
  readygate simulate budgets                                   ten sidecars, every scenario
  readygate simulate budgets --sidecars 10,100,1000 --plot budgets.svg
  readygate simulate budgets --limit 6000 --sidecars 8 --max-sidecars 12 --private-share 0.4 --scenario half-cut
  readygate simulate budgets --trace demand.csv --patience 2s --format json

A trace is a file of lines "second,multiple": from that second on callers ask for so many times the limit.
The worst window counts what the provider would see; the bound is what the theorem allows (docs/budgets.md).
exit code: 0 every window within its bound, 1 some window above it, 2 wrong options
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the kind."""
    duration = _reader(parse_duration)
    fleet = parser.add_argument_group("the fleet")
    fleet.add_argument("--sidecars", type=_reader(_counts), default=(10,), metavar="N,N", help="how many (default: 10)")
    fleet.add_argument("--limit", type=int, metavar="TOKENS",
                       help=f"tokens in a window (default: {TOKENS_PER_SIDECAR} a sidecar)")  # fmt: skip
    fleet.add_argument("--window", type=duration, default=60.0, metavar="TIME", help="its length (default: 60s)")
    fleet.add_argument("--max-sidecars", type=int, metavar="M", help="what they are told (default: as many as run)")
    fleet.add_argument("--private-share", type=float, default=0.25, metavar="RATIO", help="default: %(default)s")
    fleet.add_argument("--on-outage", choices=[mode.value for mode in OnOutage], default="strict")
    load = parser.add_argument_group("the callers")
    load.add_argument("--demand", type=float, default=3.0, metavar="X", help="multiple of the limit (default: 3)")
    load.add_argument("--trace", type=Path, metavar="FILE", help="demand over time, instead of --demand")
    load.add_argument("--spread", choices=("even", "skewed", "one"), default="even", help="who asks (default: even)")
    load.add_argument("--estimate", type=_reader(_span), default=(60.0, 240.0), metavar="A-B",
                      help="tokens a request reserves (default: 60-240)")  # fmt: skip
    load.add_argument("--overestimate", type=_reader(_span), default=(1.0, 6.0), metavar="A-B",
                      help="how many times its use that is (default: 1-6; 1-1: estimates are right)")  # fmt: skip
    load.add_argument("--takes", type=_reader(_times), default=(0.5, 50.0), metavar="A-B",
                      help="how long an exchange runs (default: 0.5s-50s)")  # fmt: skip
    load.add_argument("--patience", type=duration, default=0.0, metavar="TIME",
                      help="how long a refused caller comes back (default: never)")  # fmt: skip
    run = parser.add_argument_group("the run")
    run.add_argument("--scenario", type=_reader(_names), default=tuple(SCENARIOS), metavar="NAME,NAME",
                     help=f"default: all of {', '.join(SCENARIOS)}")  # fmt: skip
    run.add_argument("--duration", type=duration, default=300.0, metavar="TIME", help="virtual (default: 5m)")
    run.add_argument("--seed", type=int, default=1, help="of the dice (default: %(default)s)")
    run.add_argument("--seeds", type=int, default=1, metavar="N", help="play so many seeds and show the worst window")
    run.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the use over time")
    run.add_argument("--format", choices=("table", "json"), default="table")
    run.add_argument("--quiet", action="store_true", help="no progress bar")


def _reader(read: Callable[[str], Any]) -> Callable[[str], Any]:
    def reader(text: str) -> Any:
        try:
            return read(text)
        except (BadSetting, ValueError) as problem:
            raise argparse.ArgumentTypeError(str(problem)) from None

    return reader


def _counts(text: str) -> tuple[int, ...]:
    counts = tuple(int(part.replace("_", "")) for part in text.split(","))
    if not all(1 <= count <= 100_000 for count in counts):
        raise ValueError(f"expected numbers from 1 to 100000, got {text!r}")
    return counts


def _span(text: str) -> tuple[float, float]:
    low, dash, high = text.partition("-")
    if not dash or not 0 < float(low) <= float(high):
        raise ValueError(f"expected a span such as 60-240, got {text!r}")
    return float(low), float(high)


def _times(text: str) -> tuple[float, float]:
    low, dash, high = text.partition("-")
    if not dash or not 0 < parse_duration(low) <= parse_duration(high):
        raise ValueError(f"expected a span such as 0.5s-50s, got {text!r}")
    return parse_duration(low), parse_duration(high)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(SCENARIOS) if text == "all" else tuple(text.split(","))
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise ValueError(f"unknown scenario {unknown[0]!r}; known: {', '.join(SCENARIOS)}")
    return names


def _read_trace(path: Path) -> tuple[tuple[float, float], ...]:
    """Return (from second, multiple) pairs. Raises ValueError with the line."""
    steps: list[tuple[float, float]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            at_s, multiple = (float(part) for part in line.split(","))
        except ValueError:
            raise ValueError(f"{path}:{number}: expected SECOND,MULTIPLE, got {line!r}") from None
        if multiple < 0 or (steps and at_s <= steps[-1][0]):
            raise ValueError(f"{path}:{number}: seconds must rise and multiples be 0 or more")
        steps.append((at_s, multiple))
    if not steps:
        raise ValueError(f"{path}: no line SECOND,MULTIPLE")
    return tuple(steps)


def run(args: argparse.Namespace) -> int:
    """Play, print, and say by the exit code whether a window passed its bound."""
    try:
        load = _load_of(args)
        _check(args)
    except (OSError, ValueError) as problem:
        print(f"readygate simulate budgets: {problem}", file=sys.stderr)
        return 2
    bar = _Bar(len(args.sidecars) * len(args.scenario) * args.seeds, is_quiet=args.quiet)
    figures = [_play(args, load, sidecars, name, bar) for sidecars in args.sidecars for name in args.scenario]
    bar.clear()
    if args.plot is not None:
        args.plot.write_text(draw(figures))
    print(_as_json(figures) if args.format == "json" else _as_table(figures))
    return 1 if any(one.worst_window_ratio > one.bound_ratio for one in figures) else 0


def _load_of(args: argparse.Namespace) -> Load:
    demand = ((0.0, args.demand),) if args.trace is None else _read_trace(args.trace)
    low, high = args.estimate
    return Load(demand, args.spread, (int(low), int(high)), args.overestimate, args.takes, args.patience)


def _check(args: argparse.Namespace) -> None:
    if args.limit is not None and args.limit < 1:
        raise ValueError("--limit: expected 1 or more")
    if not 0 < args.private_share < 1:
        raise ValueError("--private-share: expected a ratio between 0 and 1")
    if (args.max_sidecars is not None and args.max_sidecars < 1) or args.seeds < 1 or args.demand < 0:
        raise ValueError("--max-sidecars and --seeds: expected 1 or more; --demand: 0 or more")
    if not 1 <= args.window <= 3600 or args.duration < args.window:
        raise ValueError("--window: expected 1s to 1h; --duration: at least as long")
    if args.overestimate[0] < 1:
        raise ValueError("--overestimate: expected 1 or more; less is an overrun, which no limit can foresee")
    if args.plot is not None:
        args.plot.touch()


def _play(args: argparse.Namespace, load: Load, sidecars: int, name: str, bar: _Bar) -> Figures:
    fleet = Fleet(
        sidecars,
        args.limit or TOKENS_PER_SIDECAR * sidecars,
        args.window,
        args.max_sidecars or sidecars,
        args.private_share,
        OnOutage(args.on_outage),
    )
    runs = []
    for seed in range(args.seed, args.seed + args.seeds):
        scenario = make_scenario(name, fleet, load, duration_s=args.duration, seed=seed)
        bar.begin(f"{name}, {sidecars:,} sidecars")
        runs.append(measure(scenario, play(scenario, bar.tell)))
        bar.end()
    return worst_of(runs)


class _Bar:
    """A progress bar on standard error, for people who wait longer than two seconds."""

    def __init__(self, runs: int, *, is_quiet: bool) -> None:
        self._runs = runs
        self._done = 0
        self._name = ""
        self._is_quiet = is_quiet or not sys.stderr.isatty()
        self._began_s = time.monotonic()
        self._width = 0

    def begin(self, name: str) -> None:
        self._name = name
        self.tell(0.0)

    def end(self) -> None:
        self._done += 1

    def tell(self, part: float) -> None:
        """Show that so much of the present run is done."""
        if self._is_quiet or time.monotonic() - self._began_s < _BAR_AFTER_S:
            return
        share = (self._done + part) / self._runs
        filled = int(share * _BAR_WIDTH)
        text = f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {share:4.0%} {self._name}"
        print("\r" + text.ljust(self._width), end="", file=sys.stderr, flush=True)
        self._width = len(text)

    def clear(self) -> None:
        """Leave the line empty."""
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)


_COLUMNS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("sidecars", lambda f: f"{f.sidecars:,}"),
    ("scenario", lambda f: f.scenario),
    ("worst window", lambda f: f"{f.worst_window_ratio:.3f}"),
    ("bound", lambda f: f"{f.bound_ratio:.3f}" if math.isfinite(f.bound_ratio) else "none"),
    ("use", lambda f: f"{f.use_ratio:.3f}"),
    ("in trouble", lambda f: f"{f.use_in_trouble_ratio:.3f}"),
    ("fairness", lambda f: f"{f.fairness:.3f}"),
    ("refused", lambda f: f"{f.refused_ratio:.1%}"),
    ("waited p50", lambda f: f"{f.waited_p50_s:.1f} s"),
    ("p95", lambda f: f"{f.waited_p95_s:.1f} s"),
    ("by slices", lambda f: f"{f.slice_ratio:.0%}"),
    ("store peak", lambda f: f"{f.busiest_second:,}/s"),
)


def _as_table(figures: list[Figures]) -> str:
    rows = [[title for title, _ in _COLUMNS], *([show(one) for _, show in _COLUMNS] for one in figures)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(_COLUMNS))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if n == 1 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _as_json(figures: list[Figures]) -> str:
    shown = []
    for one in figures:
        data = asdict(one)
        data["line"] = [[round(at_s, 1), round(ratio, 4)] for at_s, ratio in one.line]
        if not math.isfinite(one.bound_ratio):
            data["bound_ratio"] = None
        shown.append(data)
    return json.dumps({"runs": shown}, indent=2)
