"""How an answer leaves: framing, pace, coding, and the ways it may end badly.

Owns the plan of one delivery, the bytes of heads and chunks, and the coroutine that walks the plan
over a ``Wire``. Knows nothing of endpoints or fault names.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Protocol

from proxy.simulator.answers import Answer, Kind, write_events
from proxy.simulator.codings import Coder, coder_for
from proxy.simulator.settings import Speech


class Ending(Enum):
    """What follows the last byte that is sent."""

    WHOLE = "whole"
    """The framing is closed; the connection lives on if both sides want it to."""
    CLOSE = "close"
    """The framing is closed, then the connection (said so in the head)."""
    CUT = "cut"
    RESET = "reset"
    STALL = "stall"


class Framing(Enum):
    """How the receiver is told where the body ends."""

    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until_close"
    NONE = "none"
    """No body and nothing said about one (204, 304, answers to HEAD)."""


@dataclass(slots=True)
class Drip:
    """Send ``size`` bytes every ``every_s`` seconds; the head, the body, or both."""

    size: int
    every_s: float
    head: bool
    body: bool


@dataclass(slots=True)
class Delivery:
    """The plan of one delivery."""

    answer: Answer
    speech: Speech
    ending: Ending = Ending.WHOLE
    stop: int | None = None
    """Events (or, without events, body bytes) sent before the ending; -1 ends before the head, None sends all."""
    partial: int = 0
    """Bytes of the next event sent as well."""
    hold_s: float = 0.0
    """How long a stall lasts before the connection is closed; 0 waits for the peer."""
    version: str = "HTTP/1.1"
    framing: Framing | None = None
    """None chooses: chunks for events, a length otherwise."""
    before: bytes = b""
    """Sent before the head (interim answers)."""
    raw: bytes | None = None
    """Sent instead of head and body."""
    after_body: bytes = b""
    """Sent after the whole answer, outside its framing."""
    repeat: tuple[bytes, int] | None = None
    """A block and how often it follows the body."""
    suffix: bytes = b""
    """Follows the repeated block."""
    drip: Drip | None = None
    trailers: list[tuple[str, str]] = field(default_factory=list)
    code_as: str = ""
    code_label: str = ""
    members: int = 1

    def is_simple(self) -> bool:
        """Return whether it can be written in one piece, now."""
        return (
            self.answer.events is None and self.ending in (Ending.WHOLE, Ending.CLOSE) and not self.speech.latency
            and self.drip is None and self.repeat is None
        )  # fmt: skip


class Wire(Protocol):
    """The connection as a delivery uses it."""

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket; counted in the journal."""

    async def drain(self) -> None:
        """Wait until the socket takes more; raises ``ConnectionResetError`` when the peer is gone."""

    def count_event(self, count: int) -> None:
        """Count whole events."""

    def finish(self, keep: bool) -> None:
        """The answer is whole: wait for the next request, or close."""

    def cut(self) -> None:
        """Send what is buffered, then FIN."""

    async def reset(self) -> None:
        """Send what is buffered, then RST."""


def frame_chunk(data: bytes) -> bytes:
    """Return data as one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def head_of(plan: Delivery, framing: Framing, length: int, keep: bool) -> bytes:
    """Return the head: status line, the answer's headers, then the framing ones."""
    answer = plan.answer
    lines = [f"{plan.version} {answer.status} {phrase_of(answer.status)}"]
    if answer.content_type:
        lines.append(f"content-type: {answer.content_type}")
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if framing is Framing.LENGTH:
        lines.append(f"content-length: {length}")
    elif framing is Framing.CHUNKED:
        lines.append("transfer-encoding: chunked")
        if plan.trailers:
            lines.append("trailer: " + ", ".join(name for name, _ in plan.trailers))
    if not keep:
        lines.append("connection: close")
    elif plan.version == "HTTP/1.0":
        lines.append("connection: keep-alive")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def phrase_of(status: int) -> str:
    """Return the reason phrase of a status, ``Unknown`` for those nobody registered."""
    return _PHRASES.get(status, "Unknown")


_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {529: "Site is overloaded"}


def plain_bytes(plan: Delivery, keep: bool) -> bytes:
    """Return a whole simple answer: interim heads, head, body and what comes after."""
    if plan.raw is not None:
        return plan.before + plan.raw + plan.after_body
    body = _coded_body(plan)
    framing = plan.framing or Framing.LENGTH
    head = head_of(plan, framing, len(body), keep)
    if framing is Framing.CHUNKED:
        body = (frame_chunk(body) if body else b"") + _last_chunk(plan)
    elif framing is Framing.NONE:
        body = b""
    return plan.before + head + body + plan.after_body


def _last_chunk(plan: Delivery) -> bytes:
    return b"0\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in plan.trailers) + b"\r\n"


def _coded_body(plan: Delivery) -> bytes:
    coder = coder_for(plan.code_as)
    if coder is None or plan.repeat is not None:
        return plan.answer.body
    body, count = plan.answer.body, plan.members
    step = -(-len(body) // count) or 1
    return b"".join(coder_for(plan.code_as).whole(body[i : i + step]) for i in range(0, len(body), step))  # type: ignore[union-attr]


async def deliver(plan: Delivery, wire: Wire, keep: bool) -> None:
    """Walk the plan; returns when the answer has ended, well or badly.

    Raises:
        ConnectionResetError: The peer left before the end.
    """
    if plan.speech.latency:
        await asyncio.sleep(plan.speech.latency)
    keep = keep and plan.ending is not Ending.CLOSE and plan.framing is not Framing.UNTIL_CLOSE
    if plan.stop == -1:
        await _end(plan, wire, keep)
        return
    if plan.answer.events is not None and plan.raw is None:
        await _deliver_events(plan, wire, keep)
    elif plan.repeat is not None:
        await _deliver_repeated(plan, wire, keep)
    else:
        await _deliver_body(plan, wire, keep)
    await _end(plan, wire, keep)


async def _end(plan: Delivery, wire: Wire, keep: bool) -> None:
    if plan.ending in (Ending.WHOLE, Ending.CLOSE):
        wire.finish(keep)
    elif plan.ending is Ending.CUT:
        wire.cut()
    elif plan.ending is Ending.RESET:
        await wire.reset()
    else:
        await asyncio.sleep(plan.hold_s or 3600.0)
        wire.cut()


async def _deliver_body(plan: Delivery, wire: Wire, keep: bool) -> None:
    if plan.stop is None:
        data = plain_bytes(plan, keep)
        split = data.find(b"\r\n\r\n") + 4
        await _send(wire, data[:split], plan.drip, is_head=True)
        await _send(wire, data[split:], plan.drip, is_head=False)
        return
    body = _coded_body(plan)
    framing = plan.framing or Framing.LENGTH
    wire.write(plan.before + head_of(plan, framing, len(body), keep))
    sent = body[: plan.stop + plan.partial]
    if sent:
        wire.write(frame_chunk(sent) if framing is Framing.CHUNKED else sent)
    await wire.drain()


async def _send(wire: Wire, data: bytes, drip: Drip | None, is_head: bool) -> None:
    if drip is None or not (drip.head if is_head else drip.body):
        wire.write(data)
        await wire.drain()
        return
    for start in range(0, len(data), drip.size):
        wire.write(data[start : start + drip.size])
        await wire.drain()
        await asyncio.sleep(drip.every_s)


async def _deliver_repeated(plan: Delivery, wire: Wire, keep: bool) -> None:
    block, times = plan.repeat or (b"", 0)
    body = plan.answer.body
    framing = plan.framing or Framing.CHUNKED
    length = len(body) + len(block) * times + len(plan.suffix)
    wire.write(plan.before + head_of(plan, framing, length, keep))
    is_chunked = framing is Framing.CHUNKED
    for part in (body, *(block for _ in range(times)), plan.suffix):
        if part:
            wire.write(frame_chunk(part) if is_chunked else part)
            await wire.drain()
    if is_chunked and plan.ending is not Ending.CUT:
        wire.write(_last_chunk(plan))


async def _deliver_events(plan: Delivery, wire: Wire, keep: bool) -> None:
    events = plan.answer.events or []
    framing = plan.framing or Framing.CHUNKED
    coder = coder_for(plan.code_as)
    units = write_events(events, plan.speech)
    tail = b""
    if plan.stop is not None:
        tail = units[plan.stop][: plan.partial] if plan.partial and plan.stop < len(units) else b""
        units = units[: plan.stop]
    await _send(wire, plan.before + head_of(plan, framing, 0, keep), plan.drip, is_head=True)
    writer = _EventWriter(plan, wire, coder, framing is Framing.CHUNKED)
    await writer.send_all(units, [event.kind for event in events], tail)
    if plan.ending in (Ending.WHOLE, Ending.CLOSE):
        closing = coder.end() if coder else b""
        if framing is Framing.CHUNKED:
            closing = (frame_chunk(closing) if closing else b"") + _last_chunk(plan)
        wire.write(closing + plan.after_body)
    await wire.drain()


class _EventWriter:
    """Sends the events of one stream at their pace."""

    def __init__(self, plan: Delivery, wire: Wire, coder: Coder | None, is_chunked: bool) -> None:
        self._plan = plan
        self._wire = wire
        self._coder = coder
        self._is_chunked = is_chunked
        self._gap_s = plan.speech.gap
        if plan.drip is not None and plan.drip.body:
            self._gap_s = plan.drip.every_s

    async def send_all(self, units: list[bytes], kinds: list[Kind], tail: bytes) -> None:
        speech = self._plan.speech
        if speech.rate or speech.first_token:
            await self._send_paced(units, kinds)
            if tail:
                await self._send(tail)
        else:
            await self._send_unpaced([*units, tail] if tail else units, len(units))

    async def _send_paced(self, units: list[bytes], kinds: list[Kind]) -> None:
        speech = self._plan.speech
        loop = asyncio.get_running_loop()
        due_s = -1.0
        for unit, kind in zip(units, kinds, strict=False):
            if kind is Kind.CONTENT:
                step_s = (1.0 / speech.rate if speech.rate else 0.0) if due_s >= 0 else speech.first_token
                due_s = (due_s if due_s >= 0 else loop.time()) + step_s
                wait_s = due_s - loop.time()
                if wait_s > 0:
                    await self._wire.drain()
                    await asyncio.sleep(wait_s)
            await self._send(unit)
            self._wire.count_event(1)

    async def _send_unpaced(self, units: list[bytes], whole: int) -> None:
        split = self._split_bytes()
        if split:
            await self._send(b"".join(units))
            self._wire.count_event(whole)
            return
        batch = max(1, self._plan.speech.batch)
        for start in range(0, len(units), batch):
            await self._send(b"".join(units[start : start + batch]))
            self._wire.count_event(min(batch, whole - start))
            await asyncio.sleep(0)

    def _split_bytes(self) -> int:
        drip = self._plan.drip
        return drip.size if drip is not None and drip.body else self._plan.speech.split

    async def _send(self, data: bytes) -> None:
        if self._coder is not None:
            data = self._coder.piece(data)
        split = self._split_bytes()
        if not split:
            self._write(data)
            await self._wire.drain()
            return
        for start in range(0, len(data), split):
            self._write(data[start : start + split])
            await self._wire.drain()
            await asyncio.sleep(self._gap_s)

    def _write(self, data: bytes) -> None:
        self._wire.write(frame_chunk(data) if self._is_chunked else data)
