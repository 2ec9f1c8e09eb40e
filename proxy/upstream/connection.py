"""One connection to a provider: one attempt at a time.

Owns the socket, the attempt's deadlines and who waits for its answer; ``reading`` makes answers of bytes. Failures
are told as ``Outcome`` values, never as driver exceptions. Knows neither the pool it returns to nor why it was
dialled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from proxy.flow.answer_shapes import AnswerShapes
from proxy.flow.ports import Answer, AttemptFailed, BodySink, Call, answer_of
from proxy.terms.http import AnswerHead
from proxy.terms.outcomes import OK, Outcome
from proxy.upstream.live_answer import LiveAnswer
from proxy.upstream.reading import NOTHING, AnswerReading


class UpstreamConnection(AnswerReading, asyncio.Protocol):
    """One socket to one provider.

    ``expire`` is called by the upstream's sweep; ``on_idle`` and ``on_closed`` tell the pool.
    """

    __slots__ = (
        "_is_body_ours",
        "_on_closed",
        "_on_idle",
        "_request_is_sent",
        "_throttle",
        "_upload",
        "_write_waiter",
        "bytes_received",
        "idle_since_s",
        "is_raw",
        "transport",
        "uses",
    )

    transport: asyncio.Transport
    _write_waiter: asyncio.Future[None] | None
    _upload: asyncio.Task[None] | None

    def __init__(
        self,
        now_s: Callable[[], float],
        on_idle: Callable[[UpstreamConnection], None],
        on_closed: Callable[[UpstreamConnection], None],
        shapes: AnswerShapes,
    ) -> None:
        super().__init__(now_s, shapes)
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._write_waiter = None
        self._is_body_ours = False
        self._request_is_sent = True
        self._upload = None
        self._throttle: tuple[Callable[[], None], Callable[[], None]] | None = None
        self.is_raw = False
        self.uses = 0
        self.idle_since_s = 0.0

    # --- one attempt ------------------------------------------------------------------------------

    def begin(self, call: Call, now_s: float) -> asyncio.Future[Answer]:
        """Take the connection for one attempt; the future brings its answer or ``AttemptFailed``."""
        if self._is_worn:
            self._reset_answer()
        self._call = call
        self._is_head_request = is_head = call.kind.head.method == "HEAD"
        self._is_unread = not is_head
        self.bytes_received = 0
        self.last_activity_s = now_s
        self.is_busy = True
        self.uses += 1
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
        self._request_is_sent = self._is_unread = False

    def slice_sent(self) -> None:
        """The provider takes the request body."""
        self.last_activity_s = self._now_s()

    def upload_ended(self) -> None:
        """The request body has been sent."""
        self._request_is_sent = True
        self._upload = None
        self.last_activity_s = self._now_s()

    def _stop_upload(self) -> None:
        """Leave off sending; the connection cannot be used again after half a request."""
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
        self._is_unread = False
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
        if self._is_unread:
            self._is_unread = False
            whole = self._shapes.whole(data) if len(data) <= self._call.collect_max_bytes else None
            if whole is not None:
                head, body = whole
                self._take_whole(head, body)
                return
        if self._in_body:
            self.last_activity_s = self._now_s()
        self.bytes_received += len(data)
        if self.is_raw:
            self._deliver(data)
        elif self._is_over():
            # Bytes nobody asked for: the connection cannot be trusted any more.
            self._drop()
        else:
            self._feed(data)

    def _drop(self) -> None:
        self.transport.abort()

    # --- the answer -------------------------------------------------------------------------------

    def _go_live(self) -> None:
        """Hand the answer over with its body still arriving."""
        waiter, self._waiter = self._waiter, None
        assert self._answer_head is not None
        if self._poured is not None:
            self._held = [self._gathered()]
        if waiter is not None and not waiter.done():
            waiter.set_result(Answer(self._answer_head, None, LiveAnswer(self), self.uses > 1))

    def _take_whole(self, head: AnswerHead, body: bytes) -> None:
        """Take an answer that came in one piece: no trace of it stays, and the connection is free."""
        waiter, now_s = self._waiter, self._now_s
        self._waiter = None
        self.is_busy = False
        self._call = NOTHING
        self.idle_since_s = now_s()
        self._on_idle(self)
        if waiter is not None and not waiter.done():
            waiter.set_result(answer_of(head, body, self.uses > 1))

    def _complete(self) -> None:
        self._is_complete = True
        if self._upload is not None:
            self._stop_upload()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            assert self._answer_head is not None
            answer = Answer(self._answer_head, self._gathered(), None, self.uses > 1)
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
            self._call = NOTHING
            self.idle_since_s = self._now_s()
            self._on_idle(self)
        else:
            self.transport.close()

    def _switch_to_raw(self, rest: bytes) -> None:
        if self._answer_head is None or self._answer_head.status != 101 or not self._call.kind.head.is_websocket:
            self.fail(Outcome.BAD_RESPONSE)
            return
        self.is_raw = True  # from now on neither deadline nor silence ends it
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
        self._is_unread = False
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
        if self._is_over() or self.is_raw:
            return
        timeouts = self._call.timeouts
        if now_s >= self._call.deadline_s:
            self.fail(Outcome.TOTAL_TIMEOUT)
        elif self._is_paused or not (self._request_is_sent or self._is_body_ours):
            return
        elif not self._in_body:
            if now_s - self.last_activity_s >= timeouts.first_byte_s:
                self.fail(Outcome.TTFB_TIMEOUT)
        elif now_s - self.last_activity_s >= timeouts.idle_s:
            self.fail(Outcome.STALLED)
