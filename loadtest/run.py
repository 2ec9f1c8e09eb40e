"""``make loadtest``: sidecar, simulated provider and locust, each a process, started and stopped here.

Owns the stack, the length of the run and the exit code: 0, 1 when a threshold was missed or something did not start.
``python -m loadtest.run --smoke`` is the 20 s form; ``--help`` lists the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtest import contestants
from loadtest.contestants import REPOSITORY, Absent, StartFailed
from loadtest.machine import exit_on_sigterm, pause
from loadtest.thresholds import Line, Tally, judge

SPEECH = ("--latency", "80ms", "--rate", "100", "--quiet")
"""How the simulated provider speaks: 80 ms to the first byte, then 100 events a second."""
LEAK_MARK = ".com.br"
"""In every made-up address, and in nothing else that is sent."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running sidecar in front of a running simulated provider."""

    data_url: str
    admin_url: str
    provider_url: str


@contextmanager
def simulated_provider(folder: Path) -> Iterator[int]:
    """Run the simulated provider on a free port; yields the port.

    Raises:
        StartFailed: It did not listen within ten seconds.
    """
    port = contestants.free_port()
    command = [sys.executable, "-m", "proxy", "simulate", "provider", "--port", str(port), *SPEECH]
    with (folder / "provider.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        if not _is_listening(f"http://127.0.0.1:{port}/__sim__/health", process):
            raise StartFailed(f"simulated provider: {(folder / 'provider.log').read_text(errors='replace')[-2000:]}")
        yield port
    finally:
        process.terminate()
        process.wait()


def _is_listening(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return True
        except OSError:
            pause(0.05)
    return False


@contextmanager
def stack(folder: Path, config: Path) -> Iterator[Stack]:
    """Run provider and sidecar for the length of a with-block.

    Raises:
        StartFailed: One of them did not start; the message holds what it wrote.
    """
    with simulated_provider(folder) as provider_port:
        sidecar = contestants.readygate(folder, provider_port, config)
        if isinstance(sidecar, Absent):
            raise StartFailed(sidecar.reason)
        running = contestants.launch(sidecar, core=None)
        try:
            ports = (sidecar.port, sidecar.admin_port, provider_port)
            yield Stack(*(f"http://127.0.0.1:{port}" for port in ports))
        finally:
            running.stop()


def run_locust(up: Stack, folder: Path, options: argparse.Namespace) -> Tally:
    """Run the scenario headless in a process of its own and read the tally it leaves.

    Raises:
        StartFailed: Locust left no tally.
    """
    tally_path = folder / "tally.json"
    options.out.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "locust", "-f", str(REPOSITORY / "loadtest" / "locustfile.py"), "--headless"),
        *("--users", str(options.users), "--spawn-rate", str(max(1, options.users // 3)), "--run-time", options.time),
        *("--stop-timeout", "10", "--host", up.data_url, "--only-summary", "--exit-code-on-error", "0"),
        *("--html", str(options.out / "loadtest.html")),
    ]
    environment = {"READYGATE_ADMIN": up.admin_url, "READYGATE_TALLY": str(tally_path), "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, check=False)
    if not tally_path.exists():
        raise StartFailed("locust left no tally: see its output above")
    return Tally(**json.loads(tally_path.read_text()))


def count_leaks(up: Stack) -> int:
    """Requests in the provider's journal (its last 10,000) that still hold a made-up address."""
    leaks, last = 0, 0
    while True:
        with urllib.request.urlopen(f"{up.provider_url}/__sim__/journal?after={last}&limit=500", timeout=30) as answer:
            entries = json.load(answer)["entries"]
        if not entries:
            return leaks
        leaks += sum(LEAK_MARK in entry.get("body", "") for entry in entries)
        last = entries[-1]["number"]


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; argparse ends the process with 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.run", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="20 s instead of 5 minutes")
    parser.add_argument("--time", default="", help="length of the run, e.g. 90s or 10m")
    parser.add_argument("--users", type=int, default=30, help="each about one request a second (default 30)")
    parser.add_argument("--config", type=Path, default=REPOSITORY / "loadtest" / "bench-config.yaml")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "loadtest" / "reports", help="folder of the reports")
    options = parser.parse_args(arguments)
    options.time = options.time or ("20s" if options.smoke else "5m")
    options.config, options.out = options.config.resolve(), options.out.resolve()
    return options


def report(tally: Tally, lines: list[Line], out: Path) -> str:
    """The outcome as text; also written beside the HTML report, as loadtest.txt."""
    text = "\n".join(f"{'ok  ' if line.is_met else 'MISS'} {line.text}" for line in lines)
    for reason, count in sorted(tally.failure_reasons.items(), key=lambda item: -item[1])[:10]:
        text += f"\n     {count} x {reason}"
    (out / "loadtest.txt").write_text(text + "\n")
    return text


def main(arguments: list[str] | None = None) -> int:
    """Run the load test; returns the exit code."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    exit_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="readygate-loadtest-") as name:
        folder = Path(name)
        try:
            with stack(folder, options.config) as up:
                tally = run_locust(up, folder, options)
                lines = judge(tally, count_leaks(up))
        except StartFailed as failed:
            print(f"load test could not run: {failed}", file=sys.stderr)
            return 1
    print(report(tally, lines, options.out))
    print(f"report: {options.out / 'loadtest.html'}")
    return 0 if all(line.is_met for line in lines) else 1


if __name__ == "__main__":
    raise SystemExit(main())
