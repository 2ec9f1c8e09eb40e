"""The answering half of a caller connection: status lines, framing, back-pressure, tunnels.

Owns how bytes of an answer are written, one answer at a time. Knows nothing of requests but the few facts
``begin_answer`` is told.
"""

from __future__ import annotations

import asyncio
from typing import Final

from proxy.flow.ports import LiveBody, Pausable

JOIN_BELOW_BYTES: Final = 64 * 1024
_STATUS_LINES: Final[dict[tuple[int, bytes], bytes]] = {}
_STATUS_LINES_MAX: Final = 256
_CLOSE: Final = b"connection: close\r\n"


def status_line(status: int, reason: bytes) -> bytes:
    """Return a status line; the common ones are remembered."""
    key = (status, reason)
    line = _STATUS_LINES.get(key)
    if line is None:
        line = b"HTTP/1.1 %d %s\r\n" % (status, reason)
        if len(_STATUS_LINES) < _STATUS_LINES_MAX:
            _STATUS_LINES[key] = line
    return line


class Responding:
    """Implements ``flow.ports.Responder`` over a transport."""

    __slots__ = (
        "_answer_is_chunked",
        "_closes_after",
        "_is_answering",
        "_is_http_10",
        "_live",
        "_may_overtake",
        "_omits_body",
        "_transport",
        "_tunnel",
        "_tunnel_backlog",
        "has_started",
        "is_write_paused",
    )

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._live: Pausable | None = None
        self._tunnel: LiveBody | None = None
        self._tunnel_backlog: list[bytes] = []
        self._is_answering = False
        self._closes_after = False
        self._is_http_10 = False
        self._answer_is_chunked = False
        self._omits_body = False
        self._may_overtake = False
        """The request's body may still be arriving when the answer begins."""
        self.has_started = False
        self.is_write_paused = False

    def begin_answer(self, omits_body: bool, is_http_10: bool, closes_after: bool) -> None:
        """Get ready for the answer of the next exchange."""
        self.has_started = False
        self._is_answering = True
        self._omits_body = omits_body
        self._is_http_10 = is_http_10
        self._closes_after = closes_after

    def send_whole(self, status: int, reason: bytes, headers: bytes, body: bytes) -> None:
        """Write a complete answer in one piece (two when the body is large).

        One that overtakes its own request's body is this connection's last.
        """
        self.has_started = True
        self._is_answering = False
        if self._may_overtake:
            self._note_unread_body()
        line = _STATUS_LINES.get((status, reason)) or status_line(status, reason)
        size = len(body)
        try:
            if self._closes_after or self._omits_body or size > JOIN_BELOW_BYTES or status in (204, 304):
                self._send_otherwise(line, headers, body, is_bodiless=status in (204, 304))
            else:
                self._transport.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (line, headers, size, body))
        except RuntimeError:
            self._ignore_if_closed()

    def _send_otherwise(self, line: bytes, headers: bytes, body: bytes, *, is_bodiless: bool) -> None:
        closing = _CLOSE if self._closes_after else b""
        if is_bodiless:
            self._transport.write(b"%b%b%b\r\n" % (line, headers, closing))
            return
        head = b"%b%bcontent-length: %d\r\n%b\r\n" % (line, headers, len(body), closing)
        if self._omits_body:
            self._transport.write(head)
        elif len(body) <= JOIN_BELOW_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def _note_unread_body(self) -> None:
        raise AssertionError("a connection knows what it has read")

    def send_head(self, status: int, reason: bytes, headers: bytes) -> None:
        """Write the head of an answer to HEAD: the provider's own framing headers are in ``headers``."""
        self.has_started = True
        self._is_answering = False
        closing = _CLOSE if self._closes_after else b""
        self._transport.write(b"%b%b%b\r\n" % (status_line(status, reason), headers, closing))

    def start(self, status: int, reason: bytes, headers: bytes, length: int | None) -> None:
        """Write the head of an answer whose body follows; the same holds."""
        self.has_started = True
        self._answer_is_chunked = False
        if self._may_overtake:
            self._note_unread_body()
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self._is_http_10:
            framing = b""
            self._closes_after = True
        else:
            framing = b"transfer-encoding: chunked\r\n"
            self._answer_is_chunked = True
        closing = _CLOSE if self._closes_after else b""
        self._transport.write(b"".join((status_line(status, reason), headers, framing, closing, b"\r\n")))

    def write(self, data: bytes) -> None:
        """Write a piece of the body."""
        if not data or self._omits_body:
            return
        try:
            if self._answer_is_chunked:
                self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                self._transport.write(data)
        except RuntimeError:
            self._ignore_if_closed()

    def finish(self) -> None:
        """End the body in order."""
        self._is_answering = False
        if self._answer_is_chunked and not self._omits_body:
            try:
                self._transport.write(b"0\r\n\r\n")
            except RuntimeError:
                self._ignore_if_closed()

    def _ignore_if_closed(self) -> None:
        """Raise the error of a write again, unless the caller has just left: the exchange hears of it a turn later."""
        if not self._transport.is_closing():
            raise  # noqa: PLE0704 - called where the error is being handled

    def abort(self) -> None:
        """Close without a proper end: what was written arrives, the end that would make it complete does not."""
        self._is_answering = False
        self._closes_after = True
        self._transport.close()

    def bind(self, live: Pausable) -> None:
        """Let the caller's back-pressure reach this body."""
        self._live = live
        if self.is_write_paused:
            live.pause()

    def tunnel(self, head: bytes, live: LiveBody) -> None:
        """Switch to raw bytes both ways after a websocket handshake."""
        self.has_started = True
        self._is_answering = False
        self._tunnel = live
        self._closes_after = True
        live.throttle(self._transport.pause_reading, self._transport.resume_reading)
        self._transport.write(head)
        for piece in self._tunnel_backlog:
            live.write(piece)
        self._tunnel_backlog.clear()

    def tunnel_write(self, data: bytes) -> None:
        """Write raw bytes of the provider's side of a tunnel."""
        self._transport.write(data)
