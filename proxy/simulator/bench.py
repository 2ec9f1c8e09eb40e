"""The fixed answer of benchmarks: everything decided beforehand, as few instructions as possible.

Owns a connection that answers any POST with the same 0.8 KB chat answer, or the same stream. It
journals nothing but counts. A connection that opens with anything else is handed to the ordinary
``Connection``, bytes and all.
"""

from __future__ import annotations

import asyncio
from typing import cast

import httptools
import orjson

from proxy.simulator.answers import CREATED
from proxy.simulator.connection import Connection
from proxy.simulator.delivery import frame_chunk
from proxy.simulator.text import default_text
from proxy.simulator.world import World

_ANSWER_BYTES = 800
_STREAM_MARKS = (b'"stream":true', b'"stream": true')


def fixed_answer() -> bytes:
    """Return head and body of the plain answer; the body is about 0.8 KB."""

    def body(words: int) -> bytes:
        message = {"role": "assistant", "content": default_text(words), "refusal": None}
        usage = {"prompt_tokens": 240, "completion_tokens": words, "total_tokens": 240 + words}
        return orjson.dumps({
            "id": "chatcmpl-bench0001", "object": "chat.completion", "created": CREATED, "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": usage, "system_fingerprint": "fp_simulated",
        })  # fmt: skip

    words = 10
    while len(body(words)) < _ANSWER_BYTES:
        words += 1
    data = body(words)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\ncontent-length: %d\r\n\r\n"
    return head % len(data) + data


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)


def fixed_events(count: int) -> list[bytes]:
    """Return a stream of ``count`` events, each framed as one chunk; the last holds ``[DONE]`` and the end mark."""

    def event(delta: dict[str, str], finish: str | None) -> bytes:
        data = orjson.dumps({
            "id": "chatcmpl-bench0001", "object": "chat.completion.chunk", "created": CREATED, "model": "gpt-4o-mini",
            "system_fingerprint": "fp_simulated",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        })  # fmt: skip
        return frame_chunk(b"data: " + data + b"\n\n")

    words = default_text(max(0, count - 3)).split(" ")
    events = [event({"role": "assistant", "content": ""}, None)]
    events += [event({"content": " " + word}, None) for word in words[: max(0, count - 3)]]
    events.append(event({}, "stop"))
    events.append(frame_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    return events


class BenchScript:
    """The bytes all bench connections share."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.answer = fixed_answer()
        self.events = fixed_events(max(3, world.settings.bench_events))
        self.events[0] = STREAM_HEAD + self.events[0]
        self.interval_s = world.settings.bench_interval_s


class BenchConnection(asyncio.Protocol):
    """One connection of a benchmark. Only the callbacks that are needed are there: the parser skips the rest."""

    def __init__(self, script: BenchScript) -> None:
        self._script = script
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._wants_stream = False
        self._is_first = True
        self._at = len(script.events)
        self._due_s = 0.0
        self._is_paused = False
        self._is_held = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._is_first:
            if not data.startswith(b"POST /v1/"):
                self._hand_over(data)
                return
            self._is_first = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        if b'"stream"' in body and any(mark in body for mark in _STREAM_MARKS):
            self._wants_stream = True

    def on_message_complete(self) -> None:
        self._script.world.bench_requests += 1
        if self._at < len(self._script.events):
            self._transport.abort()  # a pipelined request behind a stream: no benchmark sends one
        elif self._wants_stream:
            self._wants_stream = False
            self._at, self._due_s = 0, self._loop.time()
            self._send_event()
        else:
            self._transport.write(self._script.answer)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._is_held:
            self._is_held = False
            self._send_event()

    def _send_event(self) -> None:
        script = self._script
        if self._is_paused:
            self._is_held = True
            return
        if self._transport.is_closing():
            return
        self._transport.write(script.events[self._at])
        script.world.bench_events += 1
        self._at += 1
        if self._at >= len(script.events):
            return
        if script.interval_s:
            self._due_s += script.interval_s
            self._loop.call_at(self._due_s, self._send_event)
        else:
            self._loop.call_soon(self._send_event)

    def _hand_over(self, data: bytes) -> None:
        ordinary = Connection(self._script.world)
        self._transport.set_protocol(ordinary)
        ordinary.connection_made(self._transport)
        ordinary.data_received(data)
