"""The reference provider of the bench: precomputed answers over asyncio, as cheap as Python allows.

Owns one listening socket and five counters. It is a yardstick, not a model of a provider: for latency, errors, faults and
echoes use the simulated provider (``readygate simulate provider``). ``GET /bench/stats`` answers the counters.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import cast

import uvloop

from loadtest.payloads import LEAK_MARK, PACE_S, PACED_SLOTS, Answer, plain_answer, stream_answer
from loadtest.ticker import Ticker


@dataclass(slots=True)
class Counters:
    """What happened since the provider started."""

    connections: int = 0
    open: int = 0
    requests: int = 0
    streams_cut: int = 0
    """Streams whose reader left before the end."""
    leaks: int = 0
    """Requests that arrived with a value redaction should have taken out."""


_PLAIN = {flag: plain_answer(with_findings=flag) for flag in (False, True)}
_STREAM = {flag: stream_answer(with_findings=flag) for flag in (False, True)}


class Pacer:
    """Gives every paced stream one event per ``PACE_S``, and spreads the streams evenly over that time.

    Timers of their own would gather streams at the same millisecond at random, and events that arrive together cost a
    gateway less: the same load would give other figures every time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: list[set[Provider]] = [set() for _ in range(PACED_SLOTS)]
        self._at = 0
        self._ticker: Ticker | None = None

    def join(self, stream: Provider) -> None:
        """Take in a stream, in the slot with the fewest others."""
        min(self._slots, key=len).add(stream)
        if self._ticker is None:
            self._ticker = Ticker(self._loop, PACE_S / PACED_SLOTS, self._tick)
            self._ticker.__enter__()

    def leave(self, stream: Provider) -> None:
        """Let go of a stream; the clock stops with the last one."""
        for slot in self._slots:
            slot.discard(stream)
        if self._ticker is not None and not any(self._slots):
            self._ticker.__exit__()
            self._ticker = None

    def _tick(self, _due_at: float) -> None:
        self._at = (self._at + 1) % PACED_SLOTS
        for stream in tuple(self._slots[self._at]):
            stream.next_event()


class Provider(asyncio.Protocol):
    """One connection: reads whole requests (length or chunked), answers each at once."""

    def __init__(self, counters: Counters, loop: asyncio.AbstractEventLoop, pacer: Pacer) -> None:
        self._counters = counters
        self._loop = loop
        self._pacer = pacer
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._events: Iterator[bytes] = iter(())
        self._is_paced = False
        self._is_streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not inherit from asyncio's
        self._counters.connections += 1
        self._counters.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._counters.open -= 1
        if self._is_streaming:
            self._is_streaming = False
            self._counters.streams_cut += 1
            if self._is_paced:
                self._pacer.leave(self)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while self._buffer:
            size = request_size(self._buffer)
            if size is None or size > len(self._buffer):
                return
            request, self._buffer = self._buffer[:size], self._buffer[size:]
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        assert self._transport is not None
        if request.startswith(b"GET /bench/stats"):
            body = json.dumps(asdict(self._counters)).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            return
        self._counters.requests += 1
        head_end = request.index(b"\r\n\r\n")
        wanted = header(request, b"x-bench-answer", head_end)
        with_findings = wanted.endswith(b"+findings")
        if LEAK_MARK in request:
            self._counters.leaks += 1
        kind = wanted.removesuffix(b"+findings").decode() or Answer.PLAIN
        if kind == Answer.PLAIN:
            self._transport.write(_PLAIN[with_findings])
        else:
            self._stream(_STREAM[with_findings], is_paced=kind == Answer.STREAM_PACED)

    def _stream(self, pieces: list[bytes], *, is_paced: bool) -> None:
        assert self._transport is not None
        self._transport.write(pieces[0])
        self._events = iter(pieces[1:])
        self._is_paced, self._is_streaming = is_paced, True
        self.next_event()
        if is_paced:
            self._pacer.join(self)

    def next_event(self) -> None:
        """Write one event; at full speed, come back in the loop's next turn."""
        if not self._is_streaming or self._transport is None:
            return
        event = next(self._events)
        self._transport.write(event)
        if event is _STREAM[False][-1] or event is _STREAM[True][-1]:
            self._is_streaming = False
            if self._is_paced:
                self._pacer.leave(self)
        elif not self._is_paced:
            self._loop.call_soon(self.next_event)


def request_size(buffer: bytes) -> int | None:
    """Length of the first request in ``buffer``, head and body, or None while that cannot be told."""
    head_end = buffer.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    length = header(buffer, b"content-length", head_end)
    if length:
        return head_end + 4 + int(length)
    if header(buffer, b"transfer-encoding", head_end) == b"chunked":
        end = buffer.find(b"\r\n0\r\n\r\n", head_end)
        return None if end < 0 else end + 7
    return head_end + 4


def header(request: bytes, name: bytes, head_end: int) -> bytes:
    """Value of a header given in lower case, or empty; written for speed, so the head is searched, not parsed."""
    head = request[: head_end + 2].lower()
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()


async def serve(port: int) -> None:
    """Listen on loopback until cancelled; says ``ready PORT`` on standard output."""
    loop = asyncio.get_running_loop()
    counters, pacer = Counters(), Pacer(loop)
    server = await loop.create_server(lambda: Provider(counters, loop, pacer), "127.0.0.1", port, backlog=1024)
    print(f"ready {server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Run the provider; port 0 takes a free one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
