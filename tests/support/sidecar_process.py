"""A sidecar as a user starts it: its own process, its own folder, free ports; ended by SIGTERM."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listened on a moment ago."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Say whether a GET of the URL ends in a 2xx."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return 200 <= answer.status < 300
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def wait_until(holds: Callable[[], bool], within_s: float, what: str) -> None:
    """Ask 20 times a second until it holds.

    Raises:
        TimeoutError: It did not hold within ``within_s``; the message is ``what``.
    """
    deadline_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise TimeoutError(what)
        time.sleep(0.05)  # noqa: TID251  # no event loop here


@dataclass(frozen=True, slots=True)
class SidecarProcess:
    """A running sidecar and where it answers."""

    process: subprocess.Popen[bytes]
    data_url: str
    admin_url: str
    folder: Path

    @property
    def base_url(self) -> str:
        """What an app gets as OPENAI_BASE_URL."""
        return f"{self.data_url}/v1"

    def log(self) -> str:
        """Return everything the process printed so far."""
        return (self.folder / "sidecar.log").read_text(errors="replace")


@contextmanager
def running_sidecar(
    folder: Path, config: str, policies: dict[str, str], *, ready_within_s: float = 20.0
) -> Iterator[SidecarProcess]:
    """Start ``readygate serve`` in a folder of its own and stop it at the end.

    Args:
        folder: Empty; gets the files, the spool, the database and ``sidecar.log``.
        config: Text of config.yaml without ``version``, ``server`` and ``policies``.
        policies: File name -> text.
        ready_within_s: Longest wait for ``/readyz``.

    Raises:
        TimeoutError: It was not ready in time, or ended; the message holds its log.
    """
    data, admin = free_port(), free_port()
    doors = f"server: {{data: {{port: {data}}}, admin: {{port: {admin}}}, drain: {{grace: 0s, deadline: 5s}}}}\n"
    (folder / "config.yaml").write_text(f"version: 1\n{doors}policies: policies/\n{config}")
    (folder / "policies").mkdir()
    for name, text in policies.items():
        (folder / "policies" / name).write_text(text)
    command = [sys.executable, "-m", "proxy", "serve", "-c", str(folder / "config.yaml")]
    with (folder / "sidecar.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    sidecar = SidecarProcess(process, f"http://127.0.0.1:{data}", f"http://127.0.0.1:{admin}", folder)
    try:
        ready_url = f"{sidecar.admin_url}/readyz"
        wait_until(lambda: process.poll() is not None or answers(ready_url), ready_within_s, "the sidecar is not ready")
        if process.poll() is not None:
            raise TimeoutError(f"the sidecar ended with {process.returncode}:\n{sidecar.log()}")
        yield sidecar
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=5)
