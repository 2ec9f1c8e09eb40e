"""An open-loop caller for budget tests: asks so often a second whatever comes back, and writes down every answer.

Each prompt carries a marker and says what the provider shall bill, so journal, answers and rows join without
trusting anybody's ids.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from proxy.simulator import Entry

_numbers = count(1)
_IDLE_S = 20.0
_MARKER = re.compile(rb"mark-\d+-")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be sent: what it may use (``max_tokens``) and what the provider will bill."""

    max_tokens: int | None = 20
    tokens_in: int = 10
    tokens_out: int = 20
    seconds: float = 0.0
    """How long the provider takes."""
    fault: str = "ok"
    """Empty: say nothing to the provider, so that its own faults act."""
    provider: str = "main"
    headers: tuple[tuple[str, str], ...] = ()
    stream: bool = False

    def body(self, marker: str) -> bytes:
        """Return the chat request."""
        if not self.fault:
            return self._document(marker)
        speech = f"prompt_tokens={self.tokens_in},completion_tokens={self.tokens_out},latency={self.seconds}s"
        joint = "," if ":" in self.fault else ":"
        return self._document(f"{marker} [[sim {self.fault}{joint}{speech}]]")

    def _document(self, text: str) -> bytes:
        document: dict[str, Any] = {"model": f"{self.provider}-m", "messages": [{"role": "user", "content": text}]}
        if self.max_tokens is not None:
            document["max_tokens"] = self.max_tokens
        if self.stream:
            document["stream"] = True
        return json.dumps(document).encode()


@dataclass(slots=True)
class Shot:
    """One request as its caller saw it. Times are monotonic seconds."""

    sidecar: int
    marker: str
    sent_s: float
    ask: Ask
    status: int = 0
    """0: the connection broke."""
    code: str = ""
    retry_after_s: float | None = None
    ended_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def is_served(self) -> bool:
        return self.status == 200

    @property
    def latency_s(self) -> float:
        return self.ended_s - self.sent_s


class Caller:
    """Keep-alive connections to the sidecars, and the record of what came."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._idle: list[list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]]] = [[] for _ in ports]
        self.shots: list[Shot] = []

    @property
    def served(self) -> list[Shot]:
        return [shot for shot in self.shots if shot.is_served]

    @property
    def denied(self) -> list[Shot]:
        return [shot for shot in self.shots if shot.status == 429]

    @property
    def broken(self) -> list[Shot]:
        """Answers that are neither a success nor a budget's refusal."""
        return [shot for shot in self.shots if shot.status not in (200, 429)]

    async def ask(self, sidecar: int, ask: Ask) -> Shot:
        """Send one request and wait for its answer."""
        marker = f"mark-{next(_numbers)}-"
        shot = Shot(sidecar, marker, time.monotonic(), ask)
        self.shots.append(shot)
        try:
            reader, writer = await self._connection(sidecar)
            writer.write(_request(ask, ask.body(marker)))
            if await _read(reader, shot):
                self._idle[sidecar].append((reader, writer, shot.sent_s))
            else:
                writer.close()
        except (OSError, asyncio.IncompleteReadError):
            shot.status = 0
        shot.ended_s = time.monotonic()
        return shot

    async def _connection(self, sidecar: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return an idle connection, or a new one; one that was idle for long may be closing at the other end."""
        idle = self._idle[sidecar]
        while idle:
            reader, writer, used_s = idle.pop()
            if time.monotonic() - used_s < _IDLE_S:
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._ports[sidecar])

    async def burst(self, asks: int, ask: Ask, sidecars: Sequence[int] | None = None) -> list[Shot]:
        """Send so many at once, spread over the sidecars."""
        names = list(range(len(self._ports))) if sidecars is None else list(sidecars)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self.ask(names[n % len(names)], ask), name=f"ask-{n}") for n in range(asks)]
        return [task.result() for task in running]

    async def steady(
        self,
        per_s: float,
        seconds: float,
        ask: Ask | Callable[[random.Random], Ask],
        *,
        sidecars: Sequence[int] | None = None,
        seed: int = 1,
        is_regular: bool = False,
    ) -> list[Shot]:
        """Send ``per_s`` requests a second, with random gaps, to random sidecars; wait for the last answer."""
        names = list(range(len(self._ports))) if sidecars is None else list(sidecars)
        dice = random.Random(seed)
        loop = asyncio.get_running_loop()
        began_s, next_s = loop.time(), 0.0
        running: list[asyncio.Task[Shot]] = []
        async with asyncio.TaskGroup() as tasks:
            while next_s < seconds:
                await asyncio.sleep(max(0.0, began_s + next_s - loop.time()))
                wanted = ask(dice) if callable(ask) else ask
                running.append(tasks.create_task(self.ask(dice.choice(names), wanted), name="ask"))
                next_s += 1.0 / per_s if is_regular else dice.expovariate(per_s)
        return [task.result() for task in running]

    def close(self) -> None:
        """Close the idle connections."""
        for idle in self._idle:
            while idle:
                idle.pop()[1].close()


def reconcile(shots: Iterable[Shot], entries: Iterable[Entry]) -> None:
    """O1 for budgets: every answer a caller was served is exactly one request at the provider, no refusal is any."""
    seen = Counter(text.split(b"-")[1] for entry in entries for text in _MARKER.findall(entry.body))
    for shot in shots:
        times = seen[shot.marker.split("-")[1].encode()]
        assert times <= 1, f"{shot.marker} reached the provider {times} times"
        if shot.status in (200, 429):  # what broke on its way may or may not have reached it
            assert shot.is_served == (times == 1), f"{shot.marker}: {shot.status} {shot.code}, at the provider {times}"


def _request(ask: Ask, body: bytes) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in ask.headers]
    lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def _read(reader: asyncio.StreamReader, shot: Shot) -> bool:
    """Read an answer into the shot; True when the connection may be used again."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    shot.headers = headers
    status = int(first.split(" ", 2)[1])
    if headers.get("transfer-encoding") == "chunked":
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    if status >= 400:
        error = json.loads(body).get("error", {})
        shot.code = str(error.get("code"))
        wait_ms, wait_s = headers.get("retry-after-ms"), headers.get("retry-after")
        shot.retry_after_s = float(wait_ms) / 1000 if wait_ms else float(wait_s) if wait_s else None
    shot.status = status
    return headers.get("connection", "").lower() != "close"


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        pieces.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(pieces)
