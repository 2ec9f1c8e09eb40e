"""The reading half of a provider connection: from bytes to an answer, over a strict C parser.

Owns the answer being read: its head, what has come of its body and nobody has taken yet. An answer whose head is of
a kind known from answers before, and that came in one piece, needs no parser: ``flow.answer_shapes`` says when. What
becomes of an answer that is complete, too large to be gathered, or broken is the connection's affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import BytesIO
from typing import Final

import httptools

from proxy.core.policy.model import Timeouts
from proxy.flow.answer_shapes import AnswerShapes
from proxy.flow.ports import Answer, BodySink, Call, CallKind
from proxy.terms.http import AnswerHead, RequestHead
from proxy.terms.outcomes import OK, Outcome

LIVE_HIGH_WATER_BYTES: Final = 256 * 1024
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADER_LINES: Final = 256
MAX_INTERIM_ANSWERS: Final = 16
MAX_ERROR_BYTES: Final = 1024 * 1024
"""An error is read for keys, values and its code where it is; nobody says more than this about one."""
POUR_EVERY_BYTES: Final = 2 * 1024 * 1024
"""So much of a gathered body is put together while the rest is still coming."""
NOTHING: Final = Call(CallKind("", RequestHead("", b"", "", [], {}), b"", b""), b"", Timeouts(), 0.0, 0)
"""What an idle connection carries: it must not hold on to the body of its last request."""
_BODILESS: Final = frozenset({204, 304})


def _is_websocket_answer(lines: bytes) -> bool:
    """True when a 101 switches to what was asked for and to nothing else."""
    lower = lines.lower()
    return b"\r\nupgrade: websocket" in lower or b"\r\nupgrade:websocket" in lower


class AnswerReading:
    """Reads answers one after the other; one that is all here goes to ``_complete``, a bad one to ``fail``."""

    __slots__ = (
        "_answer_head",
        "_batch",
        "_body_bytes",
        "_call",
        "_collect_max_bytes",
        "_head_bytes",
        "_held",
        "_held_bytes",
        "_held_outcome",
        "_in_body",
        "_interim_answers",
        "_is_complete",
        "_is_head_request",
        "_is_paused",
        "_is_unread",
        "_is_worn",
        "_keeps_alive",
        "_look_at_bytes",
        "_loop",
        "_now_s",
        "_parser",
        "_poured",
        "_raw_head",
        "_shapes",
        "_sink",
        "_until_eof",
        "_waiter",
        "is_busy",
        "last_activity_s",
    )

    last_activity_s: float
    _is_head_request: bool
    _waiter: asyncio.Future[Answer] | None
    _sink: BodySink | None

    def __init__(self, now_s: Callable[[], float], shapes: AnswerShapes) -> None:
        self._now_s = now_s
        self._shapes = shapes
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._call = NOTHING
        self._waiter = None
        self._sink = None
        self.is_busy = False
        self._is_unread = False
        """Nothing of the answer that is waited for has come, and it may be known by its head."""
        self._reset_answer()

    def _reset_answer(self) -> None:
        """Forget what was read."""
        self._is_worn = False
        """The parser has read something; an answer that was taken in one piece leaves nothing to forget."""
        self._raw_head = b""
        self._answer_head: AnswerHead | None = None
        self._held: list[bytes] = []
        self._batch: list[bytes] = []
        self._held_bytes = 0
        self._body_bytes = 0
        self._head_bytes = 0
        self._interim_answers = 0
        self._poured: BytesIO | None = None
        self._in_body = False
        self._is_complete = False
        self._is_paused = False
        self._until_eof = False
        self._keeps_alive = False
        self._held_outcome = OK

    def _is_over(self) -> bool:
        """True when no attempt waits for anything on this connection."""
        return not self.is_busy or self._is_complete

    def _feed(self, data: bytes) -> None:
        """Let the parser read bytes of an answer."""
        if not self._is_worn:
            self._is_worn = True
            self._collect_max_bytes = self._call.collect_max_bytes
            self._look_at_bytes = min(self._collect_max_bytes, POUR_EVERY_BYTES)
        if not self._in_body:
            self._raw_head = self._raw_head + data if self._raw_head else data
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if self._batch:
                self._deliver_batch()
        except httptools.HttpParserUpgrade as exc:
            self._switch_to_raw(data[exc.args[0] :])
        except httptools.HttpParserError:
            if self._batch:
                self._deliver_batch()
            if self._is_over():
                self._drop()
            else:
                self.fail(Outcome.TRUNCATED if self._in_body else Outcome.BAD_RESPONSE)
        else:
            if self._is_over():
                return
            if self._is_head_request and self._answer_head is not None:
                self._complete()
            elif not self._in_body and self._head_bytes > MAX_HEAD_BYTES:
                self.fail(Outcome.TOO_LARGE)

    # --- the parser's callbacks -------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        # The parser has judged these bytes; taking them apart ourselves spares a call per header line.
        raw = self._raw_head if self._raw_head[:1] == b"H" else self._raw_head.lstrip(b"\r\n")
        first, end = raw.find(b"\r\n"), raw.find(b"\r\n\r\n")
        if end < 0:
            raise ValueError("a head without CRLF line ends")
        if status < 200 and not (
            status == 101 and self._call.kind.head.is_websocket and _is_websocket_answer(raw[first:end])
        ):
            self._raw_head = raw[end + 4 :]
            return
        self._raw_head = b""
        if raw.count(b"\r\n", first, end) > MAX_HEADER_LINES:
            raise ValueError("too many header lines")
        head = self._shapes.head(status, raw[: end + 4])
        if self._call.wants_events and not head.content_type and 200 <= status < 300:
            head = AnswerHead(status, head.reason, head.lines + b"\r\ncontent-type: text/event-stream")
        self._answer_head = head
        self._keeps_alive = parser.should_keep_alive()
        self._until_eof = head.length is None and b"transfer-encoding" not in head.telling
        self._in_body = True
        # Not before: a head that drips, or interim answers without end, are no answer yet.
        self.last_activity_s = self._now_s()
        self._head_bytes = 0
        if status == 101:
            return
        if self._is_head_request or status in _BODILESS:
            self._until_eof = False
            return
        if status >= 400 and self._collect_max_bytes > MAX_ERROR_BYTES:
            self._collect_max_bytes = self._look_at_bytes = MAX_ERROR_BYTES
        is_large = head.length is not None and int(head.length) > self._collect_max_bytes
        if is_large or head.content_type == b"text/event-stream":
            self._go_live()

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._sink is not None:
            self._batch.append(data)
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._waiter is not None:
            if self._body_bytes > self._look_at_bytes:
                self._look_at_size()
        elif self._held_bytes > LIVE_HIGH_WATER_BYTES and not self._is_paused:
            self.pause()

    def on_message_complete(self) -> None:
        if self._answer_head is None:
            self._interim_answers += 1
            if self._interim_answers > MAX_INTERIM_ANSWERS:
                raise ValueError("too many interim answers")
            return
        if self._answer_head.status == 101:
            return
        self._complete()

    # --- what has come of the body ------------------------------------------------------------------

    def _look_at_size(self) -> None:
        """Hand the answer over when it is too large to be gathered; else put together what there is of it, now and then."""
        if self._body_bytes > self._collect_max_bytes:
            self._go_live()
            return
        self._look_at_bytes = min(self._body_bytes + POUR_EVERY_BYTES, self._collect_max_bytes)
        self._pour()
        # A fast provider is read dozens of times in one turn of the loop: let others have theirs.
        self.pause()
        self._loop.call_soon(self._read_on)

    def _pour(self) -> None:
        """Put the pieces so far together: to join all of a large body at its end would hold everybody up."""
        if self._poured is None:
            self._poured = BytesIO()
        self._poured.writelines(self._held)
        self._held = []

    def _gathered(self) -> bytes:
        if self._poured is None:
            return self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._pour()
        body, self._poured = self._poured.getvalue(), None  # its own memory, no copy
        return body

    def _read_on(self) -> None:
        if self._waiter is not None:  # else whoever has the answer now says so
            self.resume()

    def _deliver_batch(self) -> None:
        """Hand on what one read brought as one piece: providers send each event as a chunk of its own."""
        batch, self._batch = self._batch, []
        if self._sink is not None:
            self._sink.on_body(batch[0] if len(batch) == 1 else b"".join(batch))

    # --- what the connection does with it -----------------------------------------------------------

    def _complete(self) -> None:
        raise AssertionError("a connection completes answers")

    def _go_live(self) -> None:
        raise AssertionError("a connection hands answers over that are still arriving")

    def _switch_to_raw(self, rest: bytes) -> None:
        raise AssertionError("a connection becomes a tunnel")

    def _drop(self) -> None:
        raise AssertionError("a connection closes")

    def fail(self, outcome: Outcome) -> None:
        """End the attempt with ``outcome`` and close the connection."""
        raise AssertionError("a connection fails attempts")

    def pause(self) -> None:
        """Stop reading from the provider."""
        raise AssertionError("a connection stops reading")

    def resume(self) -> None:
        """Read on."""
        raise AssertionError("a connection reads on")
