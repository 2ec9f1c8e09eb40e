"""A small websocket server: RFC 6455 frames and two conversations (realtime, responses).

Owns the handshake, the frame codec and what is said over it. No extensions are ever agreed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from proxy.simulator.answers import Asked, as_object
from proxy.simulator.catalogue import read_prompt
from proxy.simulator.chat import spoken_text, token_counts, wanted_calls
from proxy.simulator.journal import Entry
from proxy.simulator.responses import response_events
from proxy.simulator.settings import Speech
from proxy.simulator.text import cut_pieces, text_of

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_MAX_JOURNALLED_BYTES = 1024 * 1024
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def is_websocket(entry: Entry, headers: dict[str, str]) -> bool:
    """Return whether a request asks for a websocket where one is served."""
    wanted = entry.method == "GET" and headers.get("upgrade", "").lower() == "websocket"
    return wanted and entry.path.endswith(("/v1/realtime", "/v1/responses", "/openai/realtime"))


def handshake_answer(entry: Entry, headers: dict[str, str]) -> bytes | None:
    """Return the 101 answer, or None when the handshake is not a valid one."""
    key = headers.get("sec-websocket-key", "")
    if not key or headers.get("sec-websocket-version") != "13":
        return None
    accept = base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID).digest()).decode()  # noqa: S324 - RFC 6455
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
             f"Sec-WebSocket-Accept: {accept}", f"x-request-id: req_sim{entry.number:08d}"]  # fmt: skip
    offered = [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",") if name.strip()]
    chosen = "realtime" if "realtime" in offered else next(iter(offered), "")
    if chosen:
        lines.append(f"Sec-WebSocket-Protocol: {chosen}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class ProtocolViolation(Exception):
    """The peer broke RFC 6455; ``code`` is the close code it gets."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message or control frame."""

    opcode: int
    payload: bytes


def write_frame(opcode: int, payload: bytes) -> bytes:
    """Return one final, unmasked frame."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x80 | opcode, size) + payload
    if size < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


class FrameReader:
    """Reads masked client frames, fed any split of the bytes; joins fragments."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._opcode = 0
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages these bytes complete.

        Raises:
            ProtocolViolation: Unmasked, reserved, badly fragmented or too large.
        """
        self._buffer += data
        messages: list[Message] = []
        while (frame := self._next_frame()) is not None:
            message = self._join(*frame)
            if message is not None:
                messages.append(message)
        return messages

    def _next_frame(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        if first & 0x70:
            raise ProtocolViolation(1002, "reserved bits")
        if not second & 0x80:
            raise ProtocolViolation(1002, "unmasked frame")
        size, at = second & 0x7F, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(buffer) < 2 + width:
                return None
            size, at = int.from_bytes(buffer[2 : 2 + width], "big"), 2 + width
        opcode = first & 0x0F
        if size > _MAX_MESSAGE_BYTES:
            raise ProtocolViolation(1009, "too large")
        if opcode >= CLOSE and (size > 125 or not first & 0x80):
            raise ProtocolViolation(1002, "bad control frame")
        if len(buffer) < at + 4 + size:
            return None
        mask, payload = bytes(buffer[at : at + 4]), bytes(buffer[at + 4 : at + 4 + size])
        del buffer[: at + 4 + size]
        return bool(first & 0x80), opcode, _unmask(payload, mask)

    def _join(self, is_final: bool, opcode: int, payload: bytes) -> Message | None:
        if opcode >= CLOSE:
            return Message(opcode, payload)
        if (opcode == CONTINUATION) != bool(self._parts):
            raise ProtocolViolation(1002, "bad fragment")
        if opcode != CONTINUATION:
            self._opcode = opcode
        self._parts.append(payload)
        if sum(map(len, self._parts)) > _MAX_MESSAGE_BYTES:
            raise ProtocolViolation(1009, "too large")
        if not is_final:
            return None
        whole, self._parts = b"".join(self._parts), []
        return Message(self._opcode, whole)


def _unmask(payload: bytes, mask: bytes) -> bytes:
    if not payload:
        return payload
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


class Line(Protocol):
    """The connection as a session uses it."""

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket."""

    async def drain(self) -> None:
        """Wait until the socket takes more."""

    def end_websocket(self) -> None:
        """The conversation is over."""

    def close_now(self, how: str) -> None:
        """End the connection at once."""


class WebSocketSession:
    """One conversation: JSON events are answered as the API does, all else is echoed.

    ``{"type":"sim.close","code":4001,"reason":"x"}`` makes the simulator close, ``{"type":"sim.reset"}``
    makes it reset the connection, ``{"type":"sim.ping","data":"x"}`` makes it ping.
    """

    def __init__(self, line: Line, entry: Entry, speech: Speech) -> None:
        self._line = line
        self._entry = entry
        self._speech = speech
        self._reader = FrameReader()
        self._is_realtime = entry.path.endswith("/realtime")
        self._said: list[str] = []
        self._turns = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False
        if self._is_realtime:
            self._send({"type": "session.created", "session": self._session_object()})

    def feed(self, data: bytes) -> None:
        """Take the next bytes from the peer."""
        try:
            messages = self._reader.feed(data)
        except ProtocolViolation as violation:
            self._send_close(violation.code, str(violation))
            return
        for message in messages:
            self._journal(message)
            self._take(message)

    def close(self) -> None:
        """Stop whatever is still being said."""
        for task in self._tasks:
            task.cancel()

    def _journal(self, message: Message) -> None:
        if message.opcode in (TEXT, BINARY):
            self._entry.body_bytes += len(message.payload)
            if len(self._entry.body) < _MAX_JOURNALLED_BYTES:
                self._entry.body += message.payload + b"\n"

    def _take(self, message: Message) -> None:
        if message.opcode == PING:
            self._line.write(write_frame(PONG, message.payload))
        elif message.opcode == CLOSE:
            if not self._is_closing:
                self._line.write(write_frame(CLOSE, message.payload))
            self._line.end_websocket()
        elif message.opcode == BINARY:
            self._line.write(write_frame(BINARY, message.payload))
        elif message.opcode == TEXT:
            self._take_text(message.payload)

    def _take_text(self, payload: bytes) -> None:
        try:
            event = orjson.loads(payload)
        except orjson.JSONDecodeError:
            self._send({"type": "echo", "text": payload.decode("utf-8", "replace")})
            return
        if not isinstance(event, dict):
            self._send({"type": "echo", "json": event})
            return
        kind = str(event.get("type", ""))
        if kind.startswith("sim."):
            self._obey(kind, event)
        elif kind == "response.create":
            self._turns += 1
            events = self._realtime_events(event) if self._is_realtime else self._response_events(event)
            task = asyncio.get_running_loop().create_task(self._speak(events), name="simulated-speech")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif kind == "session.update":
            self._send(
                {"type": "session.updated", "session": {**self._session_object(), **as_object(event.get("session"))}}
            )
        elif kind == "conversation.item.create":
            self._add_item(as_object(event.get("item")))
        else:
            self._send({"type": "echo", "json": event})

    def _obey(self, kind: str, event: dict[str, Any]) -> None:
        if kind == "sim.close":
            code = event.get("code")
            self._send_close(
                code if isinstance(code, int) and 1000 <= code < 5000 else 1000, str(event.get("reason", ""))
            )
        elif kind == "sim.reset":
            self._line.close_now("reset")
        elif kind == "sim.ping":
            self._line.write(write_frame(PING, str(event.get("data", "")).encode()))

    def _add_item(self, item: dict[str, Any]) -> None:
        text = text_of(item.get("content"))
        self._said.append(text)
        item = {"id": f"item_sim{self._entry.number:06d}{len(self._said)}", "object": "realtime.item", **item}
        self._send({"type": "conversation.item.added", "previous_item_id": None, "item": item})
        self._send({"type": "conversation.item.done", "previous_item_id": None, "item": item})

    def _session_object(self) -> dict[str, Any]:
        return {"type": "realtime", "object": "realtime.session", "id": f"sess_sim{self._entry.number:08d}",
                "model": "gpt-realtime", "output_modalities": ["text"]}  # fmt: skip

    def _asked(self, data: dict[str, Any]) -> Asked:
        number = self._entry.number * 100 + self._turns
        return Asked(number, "GET", "/responses", {}, {}, b"", data, self._speech, read_prompt(data))

    def _response_events(self, event: dict[str, Any]) -> list[bytes]:
        asked = self._asked({**event, **as_object(event.get("response"))})
        calls = wanted_calls(asked)
        return [e.data for e in response_events(asked, "" if calls else spoken_text(asked), calls)]

    def _realtime_events(self, event: dict[str, Any]) -> list[bytes]:
        wanted = as_object(event.get("response"))
        asked = self._asked({"input": " ".join(self._said[-1:]), **{k: v for k, v in wanted.items() if k != "input"}})
        text = spoken_text(asked)
        tokens_in, tokens_out = token_counts(asked, text)
        usage = {"total_tokens": tokens_in + tokens_out, "input_tokens": tokens_in, "output_tokens": tokens_out}
        response: dict[str, Any] = {"object": "realtime.response", "id": asked.new_id("resp_"), "output": []}
        place = {"response_id": response["id"], "item_id": asked.new_id("item_"), "output_index": 0, "content_index": 0}
        item = {"id": place["item_id"], "type": "message", "role": "assistant",
                "content": [{"type": "output_text", "text": text}]}  # fmt: skip
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": {**response, "status": "in_progress"}},
            *({"type": "response.output_text.delta", **place, "delta": piece}
              for piece in cut_pieces(text, self._speech.chars, utf16=False)),
            {"type": "response.output_text.done", **place, "text": text},
            {"type": "response.done", "response": {**response, "status": "completed", "output": [item], "usage": usage}},
        ]  # fmt: skip
        return [orjson.dumps({"event_id": f"event_{n}", **one}) for n, one in enumerate(events)]

    async def _speak(self, events: list[bytes]) -> None:
        if self._speech.first_token:
            await asyncio.sleep(self._speech.first_token)
        for data in events:
            self._line.write(write_frame(TEXT, data))
            self._entry.events_sent += 1
            await self._line.drain()
            await asyncio.sleep(1.0 / self._speech.rate if self._speech.rate else 0)

    def _send(self, event: dict[str, Any]) -> None:
        self._line.write(write_frame(TEXT, orjson.dumps({"event_id": f"event_{self._turns}", **event})))

    def _send_close(self, code: int, reason: str) -> None:
        self._is_closing = True
        self._line.write(write_frame(CLOSE, struct.pack("!H", code) + reason.encode("utf-8")[:120]))
        if code in (1002, 1009):
            self._line.end_websocket()
