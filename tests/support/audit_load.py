"""Callers for audit tests: so many requests a second, whatever becomes of them, each written down.

Runs on a loop of its own thread, so that a test can kill, stop and cut meanwhile. A call that finds no sidecar is in
the journal with no bytes; a sidecar that comes back on another port is found by ``port``.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.support.oracles import Call
from tests.support.wire import chat, message_of

KINDS = ("plain", "stream")
STREAMS = frozenset({"stream", "leaver", "late", "lasting", "departing"})
_ID = re.compile(rb"x-readygate-id: ([0-9a-f-]{36})")
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3})")
_CODE = re.compile(rb'"code": ?"(\w+)"')
_PATIENCE_S = 20.0


class Load:
    """An open loop of callers and their journal."""

    def __init__(
        self, port: Callable[[], int], rate: float, kinds: Sequence[str] = KINDS, seed: int = 1, first: int = 0
    ) -> None:
        """``port`` is asked for each call; ``rate`` is calls a second; ``first`` is the number of the first."""
        self._first = first
        self._port = port
        self._rate = rate
        self._kinds = kinds
        self._dice = random.Random(seed)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)
        self.calls: list[Call] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more and wait for what is under way."""
        self._is_over.set()
        self._thread.join(_PATIENCE_S + 5)
        assert not self._thread.is_alive(), "the callers do not end"

    def first_bytes_ms(self) -> list[float]:
        """Return, sorted, how long whole answers took to begin."""
        return sorted((call.first_byte_s - call.sent_s) * 1000 for call in self.calls if call.is_whole)

    def whole_ms(self, kind: str = "plain") -> list[float]:
        """Return, sorted, how long whole answers of a kind took to end."""
        return sorted((call.ended_s - call.sent_s) * 1000 for call in self.calls if call.is_whole and call.kind == kind)

    async def _run(self) -> None:
        started_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while not self._is_over.is_set():
                number = len(self.calls)
                call = Call(f"mark-{self._first + number:06d}-end", self._dice.choice(self._kinds))
                self.calls.append(call)
                group.create_task(self._call(call, self._dice.randrange(1 << 30)), name=call.marker)
                await asyncio.sleep(max(0.0, started_s + (number + 1) / self._rate - time.monotonic()))

    async def _call(self, call: Call, seed: int) -> None:
        call.sent_s = time.monotonic()
        writer = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port())
                writer.write(_request(call, random.Random(seed)))
                await _read(reader, call, random.Random(seed + 1))
        except (OSError, TimeoutError):
            pass  # what had come until then is what the caller knows
        finally:
            call.ended_s = time.monotonic()
            if writer is not None:
                writer.close()


@contextmanager
def load_of(
    port: Callable[[], int], rate: float, kinds: Sequence[str] = KINDS, seed: int = 1, first: int = 0
) -> Iterator[Load]:
    """Run callers for as long as the block lasts; at its end everything under way has ended."""
    load = Load(port, rate, kinds, seed, first)
    load.start()
    try:
        yield load
    finally:
        load.stop()


def percentile(values: Sequence[float], ratio: float) -> float:
    """Return the value of sorted ``values`` that this share of them does not pass."""
    assert values, "no value to take a percentile of"
    return values[min(len(values) - 1, int(len(values) * ratio))]


def _request(call: Call, dice: random.Random) -> bytes:
    text = f"echo: {call.marker} " + "word " * dice.randrange(5, 40)
    tags = {"x-readygate-conversation": call.marker, "x-readygate-user": f"u-{dice.randrange(7)}"}
    match call.kind:
        case "stream" | "leaver":
            return chat(text, {**tags, "x-sim-speech": f"rate={dice.choice((100, 200, 400))}"}, stream=True)
        case "late":
            return chat(text, {**tags, "x-sim-speech": "latency=700ms,rate=1000"}, stream=True)
        case "lasting" | "departing":
            return chat(text + "more " * 60, {**tags, "x-sim-speech": "rate=40"}, stream=True)
        case "chain":
            return chat(text, tags, model="chain")
        case "blocked":
            return chat(text + " pays with 4111 1111 1111 1111", tags)
        case "error":
            return chat(text, {**tags, "x-sim-fault": dice.choice(("400", "404", "500"))}, model="broken")
        case "steady":
            return chat(text, {**tags, "x-sim-speech": "latency=40ms"})
        case "bare":
            return chat(text, tags)
    return chat(text, {**tags, "x-sim-speech": f"latency={dice.randrange(5, 60)}ms"})


async def _read(reader: asyncio.StreamReader, call: Call, dice: random.Random) -> None:
    got = b""
    leaves_after = {"leaver": dice.randrange(1, 1500), "departing": 4000}.get(call.kind)
    while piece := await reader.read(65536):
        call.first_byte_s = call.first_byte_s or time.monotonic()
        got += piece
        call.bytes = len(got)
        head, found = _HEAD.match(got), _ID.search(got)
        call.status = int(head[1]) if head else 0
        call.id = found[1].decode() if found else ""
        if leaves_after is not None and len(got) >= leaves_after:
            call.has_left = True
            return
        answer = message_of(got)
        if answer.ended == "whole":
            refusal = _CODE.search(answer.body) if call.status >= 400 else None
            call.code = refusal[1].decode() if refusal else ""
            call.is_whole = call.status != 200 or call.kind not in STREAMS or answer.events[-1:] == ["[DONE]"]
            return
