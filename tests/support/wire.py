"""Byte-level witnesses on both sides of a sidecar: a raw caller, a raw provider, and the sidecar between them.

Everything here reads and writes sockets and blocks; nothing interprets more than framing, so that a test sees
exactly what crossed the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.simulator import Entry, SimulatedProvider
from proxy.simulator import Settings as SimulatorSettings
from tests.support.sidecar_process import ROOT, wait_until
from tests.support.simulator import Simulator

Header = tuple[bytes, bytes]


# ---------------------------------------------------------------- HTTP as bytes


@dataclass(slots=True)
class Message:
    """One HTTP message taken apart: first line, header pairs as they came, body without its framing."""

    first_line: bytes
    headers: list[Header]
    body: bytes
    ended: str = "whole"
    """``whole`` when the framing was closed, else how it broke off: ``eof``, ``reset`` or ``open``."""

    @property
    def status(self) -> int:
        return int(self.first_line.split(b" ", 2)[1])

    def all(self, name: str) -> list[str]:
        """Return every value of a header, any case, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]

    def get(self, name: str) -> str | None:
        """Return the only value of a header, or None; two are a failure."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def has(self, name: str) -> bool:
        return bool(self.all(name))

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of an OpenAI-shaped refusal."""
        error: dict[str, Any] = self.json()["error"]
        return error

    @property
    def events(self) -> list[str]:
        """The data of a stream's events, in order."""
        lines = self.body.decode("utf-8").split("\n")
        return [line[6:] for line in lines if line.startswith("data: ")]


def stream_text(answer: Message) -> str:
    """Return the text of a chat stream so far."""
    events = [json.loads(event) for event in answer.events if event != "[DONE]"]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event.get("choices", []))


def request(method: str, target: str, body: bytes = b"", headers: dict[str, str] | list[Header] | None = None) -> bytes:
    """Return a request with Host and, where there is a body, Content-Length."""
    pairs = (
        [(name.encode(), value.encode()) for name, value in headers.items()]
        if isinstance(headers, dict)
        else list(headers or [])
    )
    lines = [f"{method} {target} HTTP/1.1".encode("latin-1"), b"Host: localhost"]
    lines += [name + b": " + value for name, value in pairs]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chat(content: str = "hello", headers: dict[str, str] | None = None, **fields: Any) -> bytes:
    """Return a chat request; ``model`` is gpt-4o-mini unless given."""
    document = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}], **fields}
    body = json.dumps(document).encode()
    return request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json", **(headers or {})})


class Wire:
    """A blocking socket that reads HTTP messages."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.held = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _more(self) -> str:
        """Read once more; return why not, or nothing."""
        try:
            piece = self.sock.recv(262144)
        except TimeoutError:
            return "open"
        except ConnectionError:
            return "reset"
        self.held += piece
        return "" if piece else "eof"

    def until(self, mark: bytes) -> str:
        """Read until ``mark`` is held; return why not, or nothing."""
        while mark not in self.held:
            why = self._more()
            if why:
                return why
        return ""

    def message(self, *, is_bodiless: bool = False, is_answer: bool = True) -> Message:
        """Read the next message (of an answer that was asked with HEAD: ``is_bodiless``)."""
        why = self.until(b"\r\n\r\n")
        if why:
            return Message(b"HTTP/1.1 0 " + self.held[:200], [], b"", why)
        head, _, self.held = self.held.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        headers = [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
        message = Message(first, headers, b"")
        if is_answer and (is_bodiless or message.status in (204, 304) or message.status < 200):
            return message
        lower = {name.lower(): value for name, value in headers}
        if b"chunked" in lower.get(b"transfer-encoding", b""):
            message.ended = self._chunked(message)
        elif b"content-length" in lower:
            message.ended = self._sized(message, int(lower[b"content-length"]))
        elif is_answer:
            why = self._sized(message, sys.maxsize)
            message.ended = "whole" if why == "eof" else why
        return message

    def _sized(self, message: Message, length: int) -> str:
        pieces, have, why = [self.held], len(self.held), ""
        while have < length and not why:
            self.held = b""
            why = self._more()
            pieces.append(self.held)
            have += len(self.held)
        data = b"".join(pieces)
        message.body, self.held = data[:length], data[length:]
        return why or "whole"

    def _chunked(self, message: Message) -> str:
        pieces: list[bytes] = []
        try:
            while True:
                why = self.until(b"\r\n")
                if why:
                    return why
                line, _, self.held = self.held.partition(b"\r\n")
                size = int(line.split(b";")[0], 16)
                if size == 0:
                    return self._trailers()
                part = Message(b"", [], b"")
                why = self._sized(part, size + 2)
                pieces.append(part.body[:size])
                if why != "whole":
                    return why
        finally:
            message.body = b"".join(pieces)

    def _trailers(self) -> str:
        while not (why := self.until(b"\r\n")):
            trailer, _, self.held = self.held.partition(b"\r\n")
            if not trailer:
                return "whole"
        return why

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Leave with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.sock.close()


@contextmanager
def caller(port: int, timeout_s: float = 5.0) -> Iterator[Wire]:
    """Open a connection to a port of 127.0.0.1."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as sock:
        yield Wire(sock)


def ask(port: int, data: bytes, timeout_s: float = 5.0) -> Message:
    """Send bytes on a fresh connection and return the one answer."""
    with caller(port, timeout_s) as wire:
        wire.send(data)
        return wire.message(is_bodiless=data.startswith(b"HEAD "))


# ---------------------------------------------------------------- providers beside tests that block


@contextmanager
def threaded_simulator(**options: Any) -> Iterator[Simulator]:
    """Run the simulated provider on a loop of its own thread, for tests that block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> Simulator:
        provider = SimulatedProvider(SimulatorSettings(**options))
        await provider.start()
        return Simulator(provider)

    simulator = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield simulator
    finally:
        asyncio.run_coroutine_threadsafe(simulator.provider.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def entries_of(simulator: Simulator, marker: str) -> list[Entry]:
    """Return the provider's requests whose body holds ``marker``."""
    return [entry for entry in simulator.entries if marker.encode() in entry.body]


# ---------------------------------------------------------------- the sidecar


@dataclass(slots=True)
class Sidecar:
    """A sidecar process with its doors and its embedded audit store."""

    process: subprocess.Popen[str]
    folder: Path
    data_port: int = 0
    admin_port: int = 0

    def ask(self, data: bytes, timeout_s: float = 5.0) -> Message:
        """Send one request to the data port on a connection of its own."""
        return ask(self.data_port, data, timeout_s)

    def admin(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> Message:
        """Send one request to the admin port."""
        return ask(self.admin_port, request(method, path, headers={"Connection": "close", **(headers or {})}))

    def status(self, path: str) -> int:
        """Return the status of an admin page, 0 when nobody listens."""
        url = f"http://127.0.0.1:{self.admin_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                code: int = answer.status
                return code
        except urllib.error.HTTPError as exc:
            return exc.code
        except OSError:
            return 0

    def health(self) -> dict[str, Any]:
        document: dict[str, Any] = self.admin("/health").json()
        return document

    def metric(self, name: str, **labels: str) -> float:
        """Return one sample, 0 when there is none."""
        total = 0.0
        for line in self.admin("/metrics").body.decode().splitlines():
            series, _, value = line.rpartition(" ")
            family, _, shown = series.partition("{")
            if family == name and all(f'{key}="{text}"' in shown for key, text in labels.items()):
                total += float(value)
        return total

    def rows(
        self, where: str = "1=1", *values: object, count: int | None = None, within_s: float = 5.0
    ) -> list[dict[str, Any]]:
        """Return audit rows, oldest first; with ``count``, wait until there are at least so many."""
        deadline_s = time.monotonic() + within_s
        while True:
            found = self._rows(where, values)
            if count is None or len(found) >= count or time.monotonic() > deadline_s:
                return found
            time.sleep(0.05)  # noqa: TID251 - no event loop here

    def _rows(self, where: str, values: tuple[object, ...]) -> list[dict[str, Any]]:
        path = self.folder / "audit.db"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
            connection.row_factory = sqlite3.Row
            try:
                found = connection.execute(f"SELECT * FROM audit WHERE {where} ORDER BY ts, id", values).fetchall()
            except sqlite3.OperationalError:  # the schema is not there yet
                return []
        return [dict(row) for row in found]

    def row(self, exchange_id: str | None) -> dict[str, Any]:
        """Return the one row of an exchange, waiting for it to reach the store."""
        assert exchange_id, "the answer has no x-readygate-id"
        found = self.rows("id = ?", exchange_id, count=1)
        assert len(found) == 1, f"{len(found)} rows for {exchange_id}"
        return found[0]

    def log(self) -> str:
        return (self.folder / "sidecar.log").read_text(errors="replace")

    def descriptors(self) -> int:
        """Open file descriptors of the process."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, within_s: float = 15.0) -> int:
        """Wait for the exit and return its code."""
        return self.process.wait(timeout=within_s)


def write_files(folder: Path, config: str, policies: dict[str, str], server: str = "") -> None:
    """Write config.yaml and policies; ``server`` is more of the server section in flow style."""
    doors = "data: {port: 0}, admin: {port: 0}" + (f", {server}" if server else "")
    if "drain:" not in server:
        doors += ", drain: {grace: 0s, deadline: 5s}"
    if "audit:" not in config:
        config += "\naudit: {store: 'sqlite:///audit.db', spool: spool, batch_wait: 20ms}\n"
    (folder / "config.yaml").write_text(f"version: 1\nserver: {{{doors}}}\npolicies: policies/\n{config}\n")
    (folder / "policies").mkdir(exist_ok=True)
    for name, text in policies.items():
        (folder / "policies" / name).write_text(text)


@contextmanager
def serving(
    folder: Path,
    env: dict[str, str] | None = None,
    within_s: float = 20.0,
    module: str = "proxy",
    simulate: str = "never",
) -> Iterator[Sidecar]:
    """Run ``readygate serve`` on the files of a folder; SIGTERM at the end, SIGKILL if that does not help.

    Raises:
        RuntimeError: It ended, or was not ready in time; the message holds what it printed.
    """
    command = [sys.executable, "-m", module, "serve", "-c", str(folder / "config.yaml"), "--simulate", simulate]
    with (folder / "sidecar.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    sidecar = Sidecar(process, folder)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "base URL" in line:
                sidecar.data_port = int(line.split(":")[-1].partition("/")[0])
            if "status page" in line:
                sidecar.admin_port = int(line.split(":")[-1].partition("/")[0])
                break
        if not sidecar.admin_port:
            raise RuntimeError(f"the sidecar ended with {process.wait(timeout=5)}:\n{sidecar.log()}")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        wait_until(lambda: sidecar.status("/livez") == 200, within_s, "the sidecar is not live")
        yield sidecar
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=5)
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def sidecar_for(
    folder: Path, config: str, policies: dict[str, str] | str, *, server: str = "", env: dict[str, str] | None = None
) -> Iterator[Sidecar]:
    """Write the files and serve them; a single policy may be given as text."""
    write_files(folder, config, {"default.yaml": policies} if isinstance(policies, str) else policies, server)
    with serving(folder, env) as sidecar:
        yield sidecar


def eventually(holds: Callable[[], bool], what: str, within_s: float = 5.0) -> None:
    """Wait until it holds. Raises TimeoutError saying ``what``."""
    wait_until(holds, within_s, what)


class _Held(Wire):
    """Bytes that have come already, read as a wire on which nothing more will come."""

    def __init__(self, data: bytes) -> None:
        self.held = data

    def _more(self) -> str:
        return "eof"


def message_of(data: bytes, *, is_bodiless: bool = False) -> Message:
    """Take bytes apart as one answer; ``ended`` is ``eof`` when they are not a whole one."""
    return _Held(data).message(is_bodiless=is_bodiless)
