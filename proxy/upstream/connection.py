"""One connection to a provider: one attempt at a time over a C parser.

Owns the bytes of an answer until somebody takes them. Failures are told as ``Outcome`` values, never as
driver exceptions. Knows neither the pool it returns to nor why it was dialled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import BytesIO
from typing import Final, cast

import httptools

from proxy.flow.answer_shapes import AnswerShapes
from proxy.flow.ports import Answer, AttemptFailed, BodySink, Call
from proxy.terms.http import AnswerHead
from proxy.terms.outcomes import OK, Outcome
from proxy.upstream.live_answer import LiveAnswer

LIVE_HIGH_WATER_BYTES: Final = 256 * 1024
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADER_LINES: Final = 256
MAX_INTERIM_ANSWERS: Final = 16
MAX_ERROR_BYTES: Final = 1024 * 1024
"""An error is read for keys, values and its code where it is; nobody says more than this about one."""
POUR_EVERY_BYTES: Final = 2 * 1024 * 1024
"""So much of a gathered body is put together while the rest is still coming."""
_BODILESS: Final = frozenset({204, 304})


def _is_websocket_answer(lines: bytes) -> bool:
    """True when a 101 switches to what was asked for and to nothing else."""
    lower = lines.lower()
    return b"\r\nupgrade: websocket" in lower or b"\r\nupgrade:websocket" in lower


class UpstreamConnection(asyncio.Protocol):
    """One socket to one provider.

    ``expire`` is called by the upstream's sweep; ``on_idle`` and ``on_closed`` tell the pool.
    """

    __slots__ = (
        "_answer_head",
        "_batch",
        "_body_bytes",
        "_collect_max_bytes",
        "_head_bytes",
        "_held",
        "_held_bytes",
        "_held_outcome",
        "_in_body",
        "_interim_answers",
        "_is_body_ours",
        "_is_complete",
        "_is_head_request",
        "_is_paused",
        "_is_websocket",
        "_keeps_alive",
        "_look_at_bytes",
        "_loop",
        "_now_s",
        "_on_closed",
        "_on_idle",
        "_parser",
        "_poured",
        "_raw_head",
        "_request_is_sent",
        "_shapes",
        "_sink",
        "_throttle",
        "_until_eof",
        "_upload",
        "_waiter",
        "_wants_events",
        "_write_waiter",
        "bytes_received",
        "deadline_s",
        "first_byte_timeout_s",
        "idle_since_s",
        "idle_timeout_s",
        "is_busy",
        "is_raw",
        "last_activity_s",
        "transport",
        "uses",
    )

    transport: asyncio.Transport
    _answer_head: AnswerHead | None
    _waiter: asyncio.Future[Answer] | None
    _sink: BodySink | None
    _write_waiter: asyncio.Future[None] | None

    def __init__(
        self,
        now_s: Callable[[], float],
        on_idle: Callable[[UpstreamConnection], None],
        on_closed: Callable[[UpstreamConnection], None],
        shapes: AnswerShapes,
    ) -> None:
        self._shapes = shapes
        self._now_s = now_s
        self._loop = asyncio.get_running_loop()
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._parser = httptools.HttpResponseParser(self)
        self._waiter = None
        self._sink = None
        self._write_waiter = None
        self._poured: BytesIO | None = None
        self._is_body_ours = False
        self._throttle: tuple[Callable[[], None], Callable[[], None]] | None = None
        self.is_busy = False
        self.is_raw = False
        self.uses = 0
        self.idle_since_s = 0.0
        self._reset_answer()

    def _reset_answer(self) -> None:
        self._raw_head = b""
        self._answer_head = None
        self._held: list[bytes] = []
        self._batch: list[bytes] = []
        self._held_bytes = 0
        self._body_bytes = 0
        self._head_bytes = 0
        self._in_body = False
        self._is_complete = False
        self._is_paused = False
        self._until_eof = False
        self._keeps_alive = False
        self._request_is_sent = True
        self._upload: asyncio.Task[None] | None = None
        self._held_outcome = OK

    # --- one attempt ------------------------------------------------------------------------------

    def begin(self, call: Call) -> asyncio.Future[Answer]:
        """Take the connection for one attempt; the future brings its answer or ``AttemptFailed``."""
        self._reset_answer()
        head, timeouts = call.head, call.timeouts
        self.bytes_received = 0
        self._interim_answers = 0
        self._is_head_request = head.method == "HEAD"
        self._is_websocket = head.is_websocket
        self._wants_events = call.wants_events
        self._collect_max_bytes = call.collect_max_bytes
        self._look_at_bytes = min(call.collect_max_bytes, POUR_EVERY_BYTES)
        self.first_byte_timeout_s = timeouts.first_byte_s
        self.idle_timeout_s = timeouts.idle_s
        self.deadline_s = call.deadline_s
        self.last_activity_s = self._now_s()
        self.is_busy = True
        self.uses += 1
        self._sink = None
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def throttle(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Let the socket's back-pressure reach whoever writes into a tunnel."""
        self._throttle = (pause, resume)

    def write(self, data: bytes | memoryview) -> None:
        """Write bytes of the request (or of a tunnel)."""
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the socket takes more of the request body."""
        if self._write_waiter is not None:
            await self._write_waiter

    def upload_runs(self, upload: asyncio.Task[None], *, is_ours: bool = False) -> None:
        """The request body is still being sent by this task; the first-byte clock starts when it ends.

        ``is_ours``: the body is all here, so a provider that takes none of it for so long is as silent as one that says
        nothing; a caller may send as slowly as the door allows.
        """
        self._upload = upload
        self._is_body_ours = is_ours
        self._request_is_sent = False

    def slice_sent(self) -> None:
        """The provider takes the request body."""
        self.last_activity_s = self._now_s()

    def upload_ended(self) -> None:
        """The request body has been sent."""
        self._request_is_sent = True
        self._upload = None
        self.last_activity_s = self._now_s()

    def _stop_upload(self) -> None:
        if self._upload is not None:
            self._upload.cancel()
            self._upload = None
            self._keeps_alive = False

    def fail(self, outcome: Outcome) -> None:
        """End the attempt with ``outcome`` and close the connection."""
        self._stop_upload()
        waiter, self._waiter = self._waiter, None
        sink, self._sink = self._sink, None
        was_complete = self._is_complete
        self._is_complete = True
        self.transport.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(AttemptFailed(outcome, self.uses > 1, self.bytes_received))
        elif sink is not None and not was_complete:
            sink.on_end(outcome)
        elif not was_complete:
            self._held_outcome = outcome

    # --- the transport ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_closed(self)
        if self._write_waiter is not None and not self._write_waiter.done():
            self._write_waiter.set_result(None)
        if not self.is_busy or self._is_complete:
            return
        if self.is_raw:
            self._end(OK)
            return
        if exc is None and self._until_eof and self._in_body:
            self._complete()
            return
        self.fail(self._outcome_of_loss(exc))

    def _outcome_of_loss(self, exc: Exception | None) -> Outcome:
        if self._in_body:
            return Outcome.TRUNCATED if exc is None else Outcome.RESET
        if self.bytes_received == 0 and self.uses > 1:
            return Outcome.STALE_CONNECTION
        return Outcome.NO_RESPONSE if self.bytes_received == 0 else Outcome.BAD_RESPONSE

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._write_waiter = asyncio.get_running_loop().create_future()
        if self._throttle is not None:
            self._throttle[0]()

    def resume_writing(self) -> None:
        if self._throttle is not None:
            self._throttle[1]()
        waiter, self._write_waiter = self._write_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._in_body:
            self.last_activity_s = self._now_s()
        self.bytes_received += len(data)
        if self.is_raw:
            self._deliver(data)
            return
        if self._is_over():
            # Bytes nobody asked for: the connection cannot be trusted any more.
            self.transport.abort()
            return
        self._feed(data)

    def _feed(self, data: bytes) -> None:
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
                self.transport.abort()
            else:
                self.fail(Outcome.TRUNCATED if self._in_body else Outcome.BAD_RESPONSE)
        else:
            if self._is_over():
                return
            if self._is_head_request and self._answer_head is not None:
                self._complete()
            elif not self._in_body and self._head_bytes > MAX_HEAD_BYTES:
                self.fail(Outcome.TOO_LARGE)

    def _is_over(self) -> bool:
        """True when no attempt waits for anything on this connection."""
        return not self.is_busy or self._is_complete

    # --- the parser's callbacks -------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        # The parser has judged these bytes; taking them apart ourselves spares a call per header line.
        raw = self._raw_head if self._raw_head[:1] == b"H" else self._raw_head.lstrip(b"\r\n")
        first, end = raw.find(b"\r\n"), raw.find(b"\r\n\r\n")
        if end < 0:
            raise ValueError("a head without CRLF line ends")
        if status < 200 and not (status == 101 and self._is_websocket and _is_websocket_answer(raw[first:end])):
            self._raw_head = raw[end + 4 :]
            return
        self._raw_head = b""
        if raw.count(b"\r\n", first, end) > MAX_HEADER_LINES:
            raise ValueError("too many header lines")
        head = self._shapes.head(status, raw[13:first], raw[first:end])
        if self._wants_events and not head.content_type and 200 <= status < 300:
            head = AnswerHead(status, raw[13:first], raw[first:end] + b"\r\ncontent-type: text/event-stream")
        self._answer_head = head
        length = head.telling.get(b"content-length")
        self._keeps_alive = parser.should_keep_alive()
        self._until_eof = length is None and b"transfer-encoding" not in head.telling
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
        if head.content_type == b"text/event-stream" or (length is not None and int(length) > self._collect_max_bytes):
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
            return b"".join(self._held)
        self._pour()
        body, self._poured = self._poured.getvalue(), None  # its own memory, no copy
        return body

    def _read_on(self) -> None:
        if self._waiter is not None:  # else whoever has the answer now says so
            self.resume()

    def on_message_complete(self) -> None:
        if self._answer_head is None:
            self._interim_answers += 1
            if self._interim_answers > MAX_INTERIM_ANSWERS:
                raise ValueError("too many interim answers")
            return
        if self._answer_head.status == 101:
            return
        self._complete()

    # --- the answer -------------------------------------------------------------------------------

    def _go_live(self) -> None:
        """Hand the answer over with its body still arriving."""
        waiter, self._waiter = self._waiter, None
        assert self._answer_head is not None
        if self._poured is not None:
            self._held = [self._gathered()]
        if waiter is not None and not waiter.done():
            waiter.set_result(Answer(self._answer_head, None, LiveAnswer(self), self.uses > 1))

    def _complete(self) -> None:
        self._is_complete = True
        if self._upload is not None:
            self._stop_upload()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            assert self._answer_head is not None
            held = self._held
            body = held[0] if len(held) == 1 and self._poured is None else self._gathered()
            answer = Answer(self._answer_head, body, None, self.uses > 1)
            self._release()
            if not waiter.done():
                waiter.set_result(answer)
            return
        if self._batch:
            self._deliver_batch()
        sink = self._sink
        if sink is not None:
            self._sink = None
            self._release()
            sink.on_end(OK)

    def _deliver_batch(self) -> None:
        """Hand on what one read brought as one piece: providers send each event as a chunk of its own."""
        batch, self._batch = self._batch, []
        if self._sink is not None:
            self._sink.on_body(batch[0] if len(batch) == 1 else b"".join(batch))

    def _end(self, outcome: Outcome) -> None:
        self._is_complete = True
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.on_end(outcome)

    def _release(self) -> None:
        """Go back to the pool, or close when the connection must not be used again."""
        self.is_busy = False
        if self._is_paused:
            self._is_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
        if self._is_head_request:
            # The parser may wait for a body that will not come: it cannot be told that this was HEAD.
            self._parser = httptools.HttpResponseParser(self)
        if self._keeps_alive and (not self._until_eof or self._is_head_request) and not self.transport.is_closing():
            self._held = []
            self.idle_since_s = self._now_s()
            self._on_idle(self)
        else:
            self.transport.close()

    def _switch_to_raw(self, rest: bytes) -> None:
        if self._answer_head is None or self._answer_head.status != 101 or not self._is_websocket:
            self.fail(Outcome.BAD_RESPONSE)
            return
        self.is_raw = True
        self.idle_timeout_s = float("inf")
        self.deadline_s = float("inf")
        self._go_live()
        if rest:
            self._deliver(rest)

    def _deliver(self, data: bytes) -> None:
        if self._sink is not None:
            self._sink.on_body(data)
        else:
            self._held.append(data)

    # --- LiveBody ---------------------------------------------------------------------------------

    def attach(self, sink: BodySink) -> None:
        """Deliver what is held, then all that follows."""
        self._sink = sink
        held, self._held, self._held_bytes = self._held, [], 0
        if held:
            sink.on_body(held[0] if len(held) == 1 else b"".join(held))
            if self._sink is not sink:
                return
        if self._is_complete and self._sink is sink:
            self._sink = None
            if self.is_busy and not self.is_raw and not self.transport.is_closing():
                self._release()
                sink.on_end(OK)
            else:
                sink.on_end(self._held_outcome)
        elif self._is_paused:
            self.resume()

    def pause(self) -> None:
        """Stop reading from the provider."""
        if not self._is_paused and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on; the silence while paused does not count as the provider's."""
        if self._is_paused and not self.transport.is_closing():
            self._is_paused = False
            self.last_activity_s = self._now_s()
            self.transport.resume_reading()

    def abort(self) -> None:
        """Close now; nobody is told."""
        self._sink = None
        self._waiter = None
        self._is_complete = True
        self._stop_upload()
        self.transport.abort()

    def close(self) -> None:
        """End a tunnel in order: what was written still goes out."""
        self._sink = None
        self._is_complete = True
        self.transport.close()

    # --- deadlines --------------------------------------------------------------------------------

    def expire(self, now_s: float) -> None:
        """Fail the attempt when one of its deadlines has passed."""
        if not self.is_busy or self._is_complete:
            return
        if now_s >= self.deadline_s:
            self.fail(Outcome.TOTAL_TIMEOUT)
        elif self._is_paused or not (self._request_is_sent or self._is_body_ours):
            return
        elif not self._in_body:
            if now_s - self.last_activity_s >= self.first_byte_timeout_s:
                self.fail(Outcome.TTFB_TIMEOUT)
        elif now_s - self.last_activity_s >= self.idle_timeout_s:
            self.fail(Outcome.STALLED)
