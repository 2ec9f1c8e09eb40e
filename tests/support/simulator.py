"""The simulated provider for tests: in this loop, or as a process of its own; and a black hole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from proxy.simulator import Entry, Journal, Settings, SimulatedProvider, Speech, parse_fault
from proxy.simulator.faults import FaultBoard

_ROOT = Path(__file__).resolve().parents[2]
_SPEECH_FIELDS = frozenset(field.name for field in fields(Speech))


class Simulator:
    """A running simulated provider as a test sees it."""

    def __init__(self, provider: SimulatedProvider) -> None:
        self.provider = provider
        self._changed = asyncio.Event()
        provider.journal.watch(self._changed.set)

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:port/v1``."""
        return self.provider.base_url

    @property
    def origin(self) -> str:
        """``http://127.0.0.1:port``."""
        return self.provider.origin

    @property
    def port(self) -> int:
        return self.provider.port

    @property
    def journal(self) -> Journal:
        return self.provider.journal

    @property
    def board(self) -> FaultBoard:
        return self.provider.board

    @property
    def entries(self) -> list[Entry]:
        """The requests that came, oldest first."""
        return self.provider.journal.entries

    @property
    def last(self) -> Entry:
        """The newest request."""
        return self.provider.journal[-1]

    def script(self, *steps: object) -> None:
        """Queue faults for the next requests: ``"429:retry_after=2"`` or ``{"fault": …, "content": …, "times": 3}``."""
        self.provider.add_steps(*steps)

    def fault(self, text: str = "") -> None:
        """Go wrong like this on every request from now on; empty heals."""
        self.provider.board.everyone = parse_fault(text)

    def fault_for_model(self, model: str, text: str) -> None:
        """Go wrong like this for one model."""
        self.provider.board.by_model[model] = parse_fault(text)

    def fault_for_provider(self, prefix: str, text: str) -> None:
        """Go wrong like this for requests below ``/prefix/…/v1``."""
        self.provider.board.by_provider[prefix] = parse_fault(text)

    def reset(self) -> None:
        """Forget journal, script and faults."""
        self.provider.world.reset()

    async def wait_for(self, holds: Callable[[list[Entry]], bool], within_s: float = 5.0) -> list[Entry]:
        """Wait until the journal is as wanted and return its entries.

        Raises:
            TimeoutError: It was not within ``within_s``.
        """
        async with asyncio.timeout(within_s):
            while not holds(self.entries):
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await self._changed.wait()
        return self.entries

    async def wait_until_ended(self, count: int, within_s: float = 5.0) -> list[Entry]:
        """Wait until ``count`` exchanges are over, well or badly, and return the entries."""
        return await self.wait_for(lambda entries: sum(entry.is_ended for entry in entries) >= count, within_s)


@asynccontextmanager
async def running_simulator(**options: Any) -> AsyncIterator[Simulator]:
    """Run a simulated provider in this loop; options are the fields of ``Settings`` and of ``Speech``."""
    async with SimulatedProvider(_settings(options)) as provider:
        yield Simulator(provider)


def _settings(options: dict[str, Any]) -> Settings:
    spoken = {key: options.pop(key) for key in list(options) if key in _SPEECH_FIELDS}
    speech = replace(options.pop("speech", Speech()), **spoken)
    return Settings(speech=speech, **options)


@dataclass(frozen=True, slots=True)
class SimulatorProcess:
    """A simulated provider in a process of its own, reached through ``/__sim__/``."""

    process: subprocess.Popen[str]
    base_url: str

    @property
    def origin(self) -> str:
        return self.base_url.removesuffix("/v1")

    @property
    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])

    def journal(self, after: int = 0) -> list[dict[str, Any]]:
        """The entries with a number above ``after``, as JSON objects."""
        entries: list[dict[str, Any]] = self._call("GET", f"journal?after={after}&limit=100000")["entries"]
        return entries

    def stats(self) -> dict[str, int]:
        figures: dict[str, int] = self._call("GET", "stats")
        return figures

    def script(self, *steps: object) -> None:
        """Queue faults for the next requests."""
        self._call("POST", "script", {"steps": list(steps)})

    def fault(self, text: str = "") -> None:
        """Go wrong like this on every request from now on; empty heals."""
        self._call("POST", "faults", {"global": text})

    def reset(self) -> None:
        """Forget journal, script and faults."""
        self._call("POST", "reset")

    def _call(self, method: str, door: str, data: object = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(f"{self.origin}/__sim__/{door}", data=body, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def simulator_process(*arguments: str, port: int = 0) -> Iterator[SimulatorProcess]:
    """Run ``readygate simulate provider`` with more arguments; ended by SIGTERM."""
    command = [sys.executable, "-m", "proxy", "simulate", "provider", "--port", str(port), *arguments]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("simulated provider: "):
                raise RuntimeError(f"the simulated provider did not start (exit code {process.wait(timeout=5)})")
            yield SimulatorProcess(process, line.split()[2])
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def black_hole() -> Iterator[str]:
    """An address whose connections are never completed: a listener whose queue is full. Yields its origin."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        time.sleep(0.05)  # noqa: TID251 - the kernel needs a moment to fill the queue; no event loop here
        yield f"http://127.0.0.1:{address[1]}"


def refused_origin() -> str:
    """Return an origin where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What came over a raw socket, byte for byte, and how it ended: ``eof``, ``reset`` or ``open`` (still waiting)."""

    data: bytes
    ended: str

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def rest(self) -> bytes:
        """Everything after the first head, still framed."""
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1]) if self.head else 0


def chat_request(
    content: str = "hello", stream: bool = False, headers: dict[str, str] | None = None, **body: Any
) -> bytes:
    """Return the bytes of a chat request."""
    data = {"model": "gpt-4o-mini", "stream": stream, "messages": [{"role": "user", "content": content}], **body}
    payload = json.dumps(data).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: sim", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines.append(f"content-length: {len(payload)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + payload


async def raw_exchange(port: int, data: bytes, wait_s: float = 0.3) -> RawAnswer:
    """Send bytes on a fresh connection and take what comes until it ends or nothing comes for ``wait_s``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await read_answer(reader, wait_s)
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader, wait_s: float = 0.3) -> RawAnswer:
    """Take what comes until the connection ends or nothing comes for ``wait_s`` (once whole: for 50 ms)."""
    got = b""
    while True:
        try:
            async with asyncio.timeout(0.05 if _is_whole(got) else wait_s):
                piece = await reader.read(65536)
        except TimeoutError:
            return RawAnswer(got, "open")
        except ConnectionResetError:
            return RawAnswer(got, "reset")
        if not piece:
            return RawAnswer(got, "eof")
        got += piece


def _is_whole(data: bytes) -> bool:
    head, _, rest = data.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        return rest.endswith(b"0\r\n\r\n")
    promised = head.partition(b"content-length: ")[2].split(b"\r\n")[0]
    return promised.isdigit() and len(rest) >= int(promised)
