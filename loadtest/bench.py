"""``make bench``: nginx, Envoy and Readygate side by side in one run (``python -m loadtest.bench --help``).

Owns the order of things: who runs on which core, rounds interleaved so that a drifting machine hits all alike, the wait
for a gateway's late work (audit rows on their way to the store are charged to the requests that made them), the report
and the exit code: 0, 1 when a goal line was missed or Readygate failed, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from loadtest import contestants, machine, report
from loadtest.contestants import REPOSITORY, Absent, Contestant, Running, StartFailed
from loadtest.figures import DIRECT, Figures, Footprint, Goals, Sample, Workload, judge
from loadtest.generator import Job, Result
from loadtest.payloads import Answer

QUIET_WINDOW_S = 0.2
QUIET_RATIO = 0.02
QUIET_TIMEOUT_S = 20.0
BUSY_RATE = 2000.0
"""Requests/s of the second open loop: no gateway sleeps for long, and none is saturated."""
STARTS = 3
"""How often each gateway is started; the middle time is reported, the last one stays up for the load."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of one run."""

    seconds: float
    rounds: int
    workloads: list[Workload]
    gateways: list[str]
    config: Path
    goals: Goals


@dataclass(slots=True)
class Notes:
    """What a reader must know to trust the figures."""

    absent: list[Absent] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class YardstickLost(Exception):
    """Provider or generator has ended, so nothing can be measured any more."""


class Yardstick:
    """Provider and generator: two processes on the load core, asked over pipes and HTTP."""

    def __init__(self, core: int) -> None:
        self._provider = self._start("loadtest.provider", core)
        self._generator = self._start("loadtest.generator", core)
        self.provider_port = int(self._read(self._provider).split()[1])

    @staticmethod
    def _start(module: str, core: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            machine.pinned([sys.executable, "-m", module], core),
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def _read(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise YardstickLost(f"{process.args!r} ended with code {process.wait()}")
        return line

    def run(self, job: Job) -> Result:
        """Run one job in the generator and wait for its result."""
        assert self._generator.stdin is not None
        self._generator.stdin.write(json.dumps(asdict(job)) + "\n")
        self._generator.stdin.flush()
        return Result(**json.loads(self._read(self._generator)))

    def counters(self) -> dict[str, int]:
        """What the provider has counted so far."""
        if self._provider.poll() is not None:
            raise YardstickLost(f"the reference provider ended with code {self._provider.returncode}")
        with socket.create_connection(("127.0.0.1", self.provider_port), timeout=5.0) as connection:
            connection.sendall(b"GET /bench/stats HTTP/1.1\r\nhost: bench\r\n\r\n")
            counted: dict[str, int] = json.loads(connection.recv(65536).split(b"\r\n\r\n", 1)[1])
            return counted

    def cpu_ns(self) -> int:
        """CPU both processes have used."""
        return machine.family_cpu_ns(self._provider.pid) + machine.family_cpu_ns(self._generator.pid)

    def stop(self) -> None:
        """End both."""
        for process in (self._provider, self._generator):
            process.terminate()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


class Bench:
    """One run: what is alive, what has been measured."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.figures = Figures(plan.workloads)
        self.notes = Notes()
        self.gateway_core, self.load_core = machine.split_cores()
        if self.gateway_core == self.load_core:
            self.notes.warnings.append(
                "one core only: gateway, provider and load share it; requests/s mean little here"
            )
        if shutil.which("taskset") is None:
            self.notes.warnings.append("no taskset: nothing is pinned to a core; requests/s mean little here")

    def run(self, folder: Path) -> None:
        """Start everything, run every round, stop everything."""
        with ExitStack() as stack:
            yardstick = Yardstick(self.load_core)
            stack.callback(yardstick.stop)
            running = self._start_all(stack, folder, yardstick.provider_port)
            machine.pause(1.0)
            idle_mb = {name: machine.family_rss_bytes(one.pid) / 1e6 for name, one in running.items()}
            busy_before, own_before = machine.machine_busy_ns(), self._own_cpu_ns(yardstick, running)
            began = time.perf_counter()
            for number in range(self.plan.rounds):
                for workload in self.plan.workloads:
                    self._play(number, workload, yardstick, running)
            elapsed_ns = (time.perf_counter() - began) * 1e9
            others_ns = (machine.machine_busy_ns() - busy_before) - (self._own_cpu_ns(yardstick, running) - own_before)
            self._note_others(others_ns / max(1.0, elapsed_ns))
            for name, one in running.items():
                loaded_mb = machine.family_rss_bytes(one.pid) / 1e6
                self.figures.footprints[name] = Footprint(one.started_s, idle_mb[name], loaded_mb)

    def _start_all(self, stack: ExitStack, folder: Path, provider_port: int) -> dict[str, Running]:
        running = {}
        for name in self.plan.gateways:
            say(f"starting {name}")
            try:
                outcome = self._start(name, folder, provider_port)
            except StartFailed as failed:
                outcome = Absent(name, f"did not start: {failed}")
            if isinstance(outcome, Absent):
                say(f"  cannot run {name}: {outcome.reason}")
                self.notes.absent.append(outcome)
            else:
                stack.callback(outcome.stop)
                running[name] = outcome
        return running

    def _start(self, name: str, folder: Path, provider_port: int) -> Running | Absent:
        times = []
        for attempt in range(STARTS - 1):
            one = self._launch(name, folder / f"{name}-{attempt}", provider_port)
            if isinstance(one, Absent):
                return one
            times.append(one.started_s)
            one.stop()
        last = self._launch(name, folder / name, provider_port)
        if isinstance(last, Running):
            last.started_s = median([*times, last.started_s])
        return last

    def _launch(self, name: str, folder: Path, provider_port: int) -> Running | Absent:
        contestant = self._configure(name, folder, provider_port)
        return contestant if isinstance(contestant, Absent) else contestants.launch(contestant, self.gateway_core)

    def _configure(self, name: str, folder: Path, provider_port: int) -> Contestant | Absent:
        folder.mkdir()
        match name:
            case "nginx":
                return contestants.nginx(folder, provider_port)
            case "envoy":
                return contestants.envoy(folder, provider_port)
            case _:
                return contestants.readygate(folder, provider_port, self.plan.config)

    def _play(self, number: int, workload: Workload, yardstick: Yardstick, running: dict[str, Running]) -> None:
        order = list(running)
        turn = number % max(1, len(order))  # a different one first in every round
        for name in order[turn:] + order[:turn]:
            one = running[name]
            sample = self._measure(number, workload, yardstick, one)
            self.figures.samples.append(sample)
            say_sample(sample, workload)
        if workload.shows_latency:
            job = self._job(workload, yardstick.provider_port, restores=False)
            self.figures.samples.append(Sample(DIRECT, workload.name, number, yardstick.run(job)))

    def _job(self, workload: Workload, port: int, *, restores: bool) -> Job:
        fields = (workload.answer, workload.with_findings, workload.connections, self.plan.seconds, workload.rate)
        return Job(port, *fields, restores)

    def _measure(self, number: int, workload: Workload, yardstick: Yardstick, one: Running) -> Sample:
        before, load_before, cpu_before = yardstick.counters(), yardstick.cpu_ns(), machine.family_cpu_ns(one.pid)
        job = self._job(workload, one.contestant.port, restores=one.contestant.restores)
        result = yardstick.run(job)
        load_after = yardstick.cpu_ns()
        cpu_after = self._wait_until_quiet(one)
        after = yardstick.counters()
        if one.process.poll() is not None:
            self.notes.warnings.append(
                f"{one.contestant.name} ended with code {one.process.returncode} under {workload.name}"
            )
            result.answered, result.errors["gateway ended"] = 0, 1
        leaks = after["leaks"] - before["leaks"]
        if leaks and one.contestant.restores:
            result.errors["value reached the provider"] = leaks
        return Sample(
            gateway=one.contestant.name,
            workload=workload.name,
            round=number,
            result=result,
            gateway_cpu_s=(cpu_after - cpu_before) / 1e9,
            load_cpu_s=(load_after - load_before) / 1e9,
            upstream_connections=after["connections"] - before["connections"] - 1,  # one of them asked for the counters
            leaks=leaks,
        )

    def _wait_until_quiet(self, one: Running) -> int:
        """Wait for late work; return the CPU used at the moment it was done."""
        deadline = time.perf_counter() + QUIET_TIMEOUT_S
        used_ns = machine.family_cpu_ns(one.pid)
        while time.perf_counter() < deadline:
            machine.pause(QUIET_WINDOW_S)
            now_ns = machine.family_cpu_ns(one.pid)
            if now_ns - used_ns < QUIET_RATIO * QUIET_WINDOW_S * 1e9:
                return used_ns
            used_ns = now_ns
        self.notes.warnings.append(f"{one.contestant.name} was still busy {QUIET_TIMEOUT_S:.0f} s after its load ended")
        return used_ns

    def _own_cpu_ns(self, yardstick: Yardstick, running: dict[str, Running]) -> int:
        return (
            yardstick.cpu_ns()
            + time.process_time_ns()
            + sum(machine.family_cpu_ns(one.pid) for one in running.values())
        )

    def _note_others(self, ratio: float) -> None:
        if ratio > 0.05:
            self.notes.warnings.append(
                f"other processes used {ratio:.2f} cores during the run: ratios hold, latencies and requests/s suffer"
            )


def say(text: str) -> None:
    """Progress goes to standard error, so that standard output is the report alone."""
    print(text, file=sys.stderr, flush=True)


def say_sample(sample: Sample, workload: Workload) -> None:
    """One line of progress."""
    answered = max(1, sample.result.answered)
    errors = f"  ERRORS {sample.result.errors}" if sample.result.errors else ""
    say(
        f"  round {sample.round + 1}  {workload.name:32} {sample.gateway:10} {answered / max(0.001, sample.result.elapsed_s):8.0f}/s"
        f" {sample.gateway_cpu_s * 1e6 / answered:8.1f} µs each{errors}"
    )


def standard_workloads(connections: int, rate: float) -> list[Workload]:
    """The kinds of load of a full run: requests at four loads and streams at two, without findings and with them."""
    found = []
    for with_findings in (False, True):
        ending = ", with findings" if with_findings else ""
        found += [
            Workload(f"plain, closed loop{ending}", Answer.PLAIN, with_findings, connections),
            Workload(f"plain, two callers{ending}", Answer.PLAIN, with_findings, 2),
            Workload(f"plain, {rate:g}/s{ending}", Answer.PLAIN, with_findings, 64, rate),
            Workload(f"plain, {BUSY_RATE:g}/s{ending}", Answer.PLAIN, with_findings, 64, BUSY_RATE),
            Workload(f"stream, full speed{ending}", Answer.STREAM_FULL, with_findings, 8),
            Workload(f"stream, paced{ending}", Answer.STREAM_PACED, with_findings, 100),
        ]
    return found


def parse_options(arguments: list[str]) -> tuple[Plan, Path]:
    """Read the command line; argparse ends the process with 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one cell (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds, medians are taken (default 3)")
    parser.add_argument("--quick", action="store_true", help="one round of 1 s cells: does it run, not what it costs")
    parser.add_argument("--gateways", default="nginx,envoy,readygate", help="which, in this order")
    parser.add_argument(
        "--workloads", default="", help="only those whose name holds one of these, e.g. 'plain, closed;paced'"
    )
    parser.add_argument("--connections", type=int, default=32, help="of the plain closed loop (default 32)")
    parser.add_argument("--rate", type=float, default=300.0, help="requests/s of the open loop (default 300)")
    parser.add_argument("--config", type=Path, default=REPOSITORY / "loadtest" / "bench-config.yaml")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "loadtest" / "reports", help="folder of the reports")
    goals = parser.add_argument_group("goal lines: exit 1 when missed or not measurable")
    goals.add_argument(
        "--max-ratio-envoy", type=float, help="CPU against Envoy's, closed loop and streams, no findings"
    )
    goals.add_argument("--max-ratio-envoy-findings", type=float, help="the same with findings in the prompt")
    goals.add_argument("--max-idle-mb", type=float)
    goals.add_argument("--max-start-s", type=float, help="from exec to the first accepted request")
    goals.add_argument(
        "--max-added-p50-ms", type=float, help="latency added at the fixed rate, first byte of paced streams"
    )
    options = parser.parse_args(arguments)
    names = options.gateways.split(",")
    if unknown := set(names) - {"nginx", "envoy", "readygate"}:
        parser.error(f"unknown gateway: {', '.join(sorted(unknown))}")
    wanted = [part.strip() for part in options.workloads.split(";")]
    workloads = [
        workload
        for workload in standard_workloads(options.connections, options.rate)
        if any(part in workload.name for part in wanted)
    ]
    if not workloads:
        parser.error(f"no workload's name holds {options.workloads!r}")
    lines = {name: getattr(options, name) for name in Goals.__dataclass_fields__}
    seconds, rounds = (1.0, 1) if options.quick else (options.seconds, options.rounds)
    plan = Plan(seconds, rounds, workloads, names, options.config.resolve(), Goals(**lines))
    return plan, options.out


def main(arguments: list[str] | None = None) -> int:
    """Run the bench, print and write its report; returns the exit code."""
    plan, out = parse_options(sys.argv[1:] if arguments is None else arguments)
    machine.exit_on_sigterm()
    bench = Bench(plan)
    with tempfile.TemporaryDirectory(prefix="readygate-bench-") as folder:
        try:
            bench.run(Path(folder))
        except YardstickLost as lost:
            say(f"the bench cannot go on: {lost}")
            return 1
    verdicts = judge(bench.figures, plan.goals)
    names = [name for name in plan.gateways if name in bench.figures.footprints]
    setting = {**machine.describe(), "rounds": str(plan.rounds), "seconds per cell": f"{plan.seconds:g}"}
    written = report.Report(bench.figures, names, verdicts, bench.notes.absent, bench.notes.warnings, setting)
    print(report.markdown(written))
    for path in report.write(written, out):
        say(f"wrote {path}")
    has_failed = "readygate" in plan.gateways and ("readygate" not in names or bool(bench.figures.errors("readygate")))
    return 1 if has_failed or not all(verdict.is_met for verdict in verdicts) else 0


if __name__ == "__main__":
    raise SystemExit(main())
