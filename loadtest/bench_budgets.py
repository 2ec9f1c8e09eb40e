"""``make bench-budgets``: what budgets cost: without any, counted in memory, and shared through a Valkey, side by side.

Run: ``python -m loadtest.bench_budgets [--seconds 4] [--rounds 3]``. One sidecar at a time on one core, provider, load
and Valkey on the other, rounds interleaved; read the lines as ratios to the first. "Away" is the shared store with its
server black-holed: no request may wait for it. Then one decision alone (reserve and settle, four limits), in the
bench's own process. Starts a Valkey of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from loadtest import contestants, machine
from loadtest.bench import Yardstick, say
from loadtest.contestants import REPOSITORY, Absent, Running
from loadtest.generator import Job, Result
from loadtest.payloads import Answer
from tests.support.budget_desk import time_decisions
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.redis import RedisServer, running_redis

LINES = ("no budgets", "memory", "redis", "redis away")
DECISION_GOAL_US = 15.0
SLICES_OPEN_S = 62.0


@dataclass(slots=True)
class Cell:
    """One sidecar under one load in one round."""

    result: Result
    cpu_s: float
    round_trips: int = 0


@dataclass(slots=True)
class Table:
    """What was measured: line -> load -> cells."""

    cells: dict[tuple[str, str], list[Cell]] = field(default_factory=dict)

    def add(self, line: str, load: str, cell: Cell) -> None:
        self.cells.setdefault((line, load), []).append(cell)

    def middle(self, line: str, load: str, read: Callable[[Cell], float]) -> float:
        """Return the median over the rounds."""
        return median(read(cell) for cell in self.cells[line, load])


def config_for(line: str, folder: Path, redis_port: int) -> Path:
    """Write the bench's configuration with another budget store and return its path."""
    folder.mkdir()
    policies = folder / "bench-policies"
    policies.mkdir()
    source = REPOSITORY / "loadtest"
    policy = (source / "bench-policies" / "default.yaml").read_text()
    if line == "no budgets":
        policy = "\n".join(row for row in policy.splitlines() if not row.startswith(("budgets:", "  - {provider: ")))
    (policies / "default.yaml").write_text(policy + "\n")
    config = (source / "bench-config.yaml").read_text()
    if line.startswith("redis"):
        store = f'{{store: "redis://127.0.0.1:{redis_port}/0", max_sidecars: 2, namespace: {line.replace(" ", "-")}}}'
        config = config.replace("budgets: {store: memory}", f"budgets: {store}")
    path = folder / "config.yaml"
    path.write_text(config)
    return path


def launch(line: str, folder: Path, provider_port: int, redis_port: int, core: int) -> Running:
    """Start the sidecar of a line."""
    config = config_for(line, folder / f"{line.replace(' ', '-')}-config", redis_port)
    home = folder / line.replace(" ", "-")
    home.mkdir()
    contestant = contestants.readygate(home, provider_port, config)
    assert not isinstance(contestant, Absent), contestant
    return contestants.launch(contestant, core)


def measure(running: Running, yardstick: Yardstick, job: Job, proxy: FaultProxy | None) -> Cell:
    """Run one job and charge the sidecar with all it did until half a second later."""
    trips = proxy.counts.pieces_up if proxy else 0
    before_ns = machine.family_cpu_ns(running.pid)
    result = yardstick.run(job)
    machine.pause(0.5)
    used_s = (machine.family_cpu_ns(running.pid) - before_ns) / 1e9
    return Cell(result, used_s, (proxy.counts.pieces_up - trips) if proxy else 0)


def play(options: argparse.Namespace, folder: Path, server: RedisServer) -> Table:
    """Run every round over every line."""
    table = Table()
    gateway_core, load_core = machine.split_cores()
    with ExitStack() as stack:
        yardstick = Yardstick(load_core)
        stack.callback(yardstick.stop)
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        os.sched_setaffinity(0, {load_core})
        proxies = {line: stack.enter_context(fault_proxy(port)) for line in LINES if line.startswith("redis")}
        running = {}
        for line in LINES:
            say(f"starting the sidecar: {line}")
            target = proxies[line].port if line in proxies else port
            if line == "redis":
                target = port  # straight: what stands between would be charged to the store
            running[line] = launch(line, folder, yardstick.provider_port, target, gateway_core)
            stack.callback(running[line].stop)
        counted = launch("redis counted", folder, yardstick.provider_port, proxies["redis"].port, gateway_core)
        stack.callback(counted.stop)
        say("waiting for a window: until then a sidecar leaves its slice alone")
        machine.pause(SLICES_OPEN_S)
        proxies["redis away"].black_hole()
        machine.pause(1.0)
        loads = {
            "closed": Job(0, Answer.PLAIN, False, options.connections, options.seconds),
            "fixed": Job(0, Answer.PLAIN, False, 64, options.seconds, options.rate),
        }
        for number in range(options.rounds):
            turn = number % len(LINES)
            for line in LINES[turn:] + LINES[:turn]:
                for load, job in loads.items():
                    at = Job(
                        running[line].contestant.port, job.answer, False, job.connections, job.seconds, job.rate, True
                    )
                    cell = measure(running[line], yardstick, at, None)
                    table.add(line, load, cell)
                    say(
                        f"  round {number + 1}  {line:11} {load:7} {rate_of(cell):7.0f}/s {cost_us(cell):7.1f} us each"
                        + (f"  ERRORS {cell.result.errors}" if cell.result.errors else "")
                    )
        count_trips(table, options, yardstick, counted, proxies["redis"])
    return table


def count_trips(
    table: Table, options: argparse.Namespace, yardstick: Yardstick, counted: Running, line: FaultProxy
) -> None:
    """Count round trips per request on a sidecar of its own behind a counting line, so that none is timed through it."""
    say("counting round trips")
    for load, connections, rate in (("closed", options.connections, 0.0), ("fixed", 64, options.rate)):
        job = Job(counted.contestant.port, Answer.PLAIN, False, connections, options.seconds, rate, True)
        table.add("counted", load, measure(counted, yardstick, job, line))


def rate_of(cell: Cell) -> float:
    """Requests answered in a second."""
    return cell.result.answered / max(1e-9, cell.result.elapsed_s)


def cost_us(cell: Cell) -> float:
    """CPU of the sidecar per request."""
    return cell.cpu_s * 1e6 / max(1, cell.result.answered)


def show(table: Table, decisions: dict[str, float]) -> str:
    """Return the report as Markdown."""
    base = table.middle("no budgets", "closed", cost_us)
    rows = [
        "| budgets | requests/s | CPU per request | against none | p50, p99 at a fixed rate |",
        "|---|---|---|---|---|",
    ]
    for line in LINES:
        cost = table.middle(line, "closed", cost_us)
        p50, p99 = (table.middle(line, "fixed", lambda c, p=p: c.result.latency_ms.get(p, 0.0)) for p in ("p50", "p99"))  # type: ignore[misc]
        rows.append(
            f"| {line} | {table.middle(line, 'closed', rate_of):.0f} | {cost:.1f} us | {cost - base:+.1f} us |"
            f" {p50:.2f}, {p99:.2f} ms |"
        )
    for load in ("closed", "fixed"):
        cell = table.cells["counted", load][0]
        rows.append(
            f"\nRound trips to the store, {load} loop: {cell.round_trips / max(1, cell.result.answered):.2f} a request."
        )
    rows += [
        f"\nOne decision in memory, {name}: {cost:.1f} us CPU (reserve and settle)." for name, cost in decisions.items()
    ]
    return "\n".join(rows)


def main() -> int:
    """Run the bench; 1 when a decision in memory costs more than its line or a request failed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench_budgets", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one cell (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds, medians are taken (default 3)")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rate", type=float, default=300.0, help="requests/s of the fixed rate (default 300)")
    options = parser.parse_args()
    machine.exit_on_sigterm()
    decisions = time_decisions()
    with tempfile.TemporaryDirectory(prefix="readygate-bench-") as folder, running_redis() as server:
        began_s = time.monotonic()
        table = play(options, Path(folder), server)
        say(f"{time.monotonic() - began_s:.0f} s")
    print(show(table, decisions))
    errors = any(cell.result.errors for cells in table.cells.values() for cell in cells)
    return 1 if errors or max(decisions.values()) > DECISION_GOAL_US else 0


if __name__ == "__main__":
    sys.exit(main())
