"""How long large exchanges hold up everybody else: every kind, by size, through a real sidecar.

``python -m loadtest.bench_stalls [--megabytes 1,5,10,20] [--only TEXT] [--tries 3]`` prints a table, the best of the
tries in each cell. *Held* is the longest that the event loop did not turn while the process used CPU time; *second
caller* the slowest short answer beside the largest size, *idle* the same without a large exchange.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.support.large_exchanges import CASES, Case, Floor, Held, floor

MEGABYTE = 1_000_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", default="1,5,10,20")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--tries", type=int, default=1)
    options = parser.parse_args()
    sizes = [float(size) for size in options.megabytes.split(",")]
    shown = "".join(f" {size:g} MB | held |" for size in sizes)
    print(f"| exchange |{shown} second caller | idle |")
    print("|---|" + "---|---|" * len(sizes) + "---|---|")
    cases = [case for case in CASES if options.only in case.name]
    for policy in dict.fromkeys(case.policy for case in cases):
        with tempfile.TemporaryDirectory() as folder, floor(Path(folder), policy) as ground:
            for case in cases:
                if case.policy == policy:
                    figures = [_best(ground, case, int(size * MEGABYTE), options.tries) for size in sizes]
                    print(f"| {case.name} |{''.join(map(_shown, figures))} {_rest(figures)} |", flush=True)


def _best(ground: Floor, case: Case, size: int, tries: int) -> Held:
    """Return the best of some measurements, time by time; an answer that is not whole is never the best."""
    seen = [ground.measure(case, size) for _ in range(tries)]
    worst = max(seen, key=lambda held: (held.answer.status != 200, held.answer.ended != "whole"))
    return worst._replace(
        took_s=min(held.took_s for held in seen),
        held_s=min(held.held_s for held in seen),
        second_s=min(held.second_s for held in seen),
        idle_s=min(held.idle_s for held in seen),
    )


def _shown(held: Held) -> str:
    mark = (
        ""
        if held.answer.status == 200 and held.answer.ended == "whole"
        else f" ({held.answer.status} {held.answer.ended})"
    )
    return f" {held.took_s:.2f} s{mark} | {held.held_s * 1000:.0f} ms |"


def _rest(figures: list[Held]) -> str:
    return " | ".join(
        f"{max(times) * 1000:.0f} ms" for times in ([f.second_s for f in figures], [f.idle_s for f in figures])
    )


if __name__ == "__main__":
    main()
