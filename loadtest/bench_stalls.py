"""How long large exchanges hold up everybody else: every kind, by size, through a real sidecar.

``python -m loadtest.bench_stalls [--megabytes 1,5,10,20] [--only TEXT]`` prints a table. *Held* is the longest that the
event loop did not turn while the process used CPU time; *second caller* the slowest short answer meanwhile.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.support.large_exchanges import CASES, Held, floor

MEGABYTE = 1_000_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", default="1,5,10,20")
    parser.add_argument("--only", default="", help="cases whose name holds this")
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
                    figures = [ground.measure(case, int(size * MEGABYTE)) for size in sizes]
                    print(f"| {case.name} |{''.join(map(_shown, figures))} {_rest(figures)} |", flush=True)


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
