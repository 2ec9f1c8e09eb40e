"""One caller connection: its life, its exchanges one after the other, its deadlines.

Owns the order of things on the socket: one exchange at a time, the next ones queued, reading stopped when the
queue or the socket is full, a refusal only after the answers before it. ``reading`` makes requests of bytes,
``responding`` writes answers. Knows no policy and no provider; the door hands it a handler.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from proxy.core.routing.problems import Code, Problem, problem
from proxy.flow.ports import Inbound
from proxy.server.body import BodyPipe
from proxy.server.reading import Reading

if TYPE_CHECKING:
    from proxy.server.door import DataDoor

WRITE_HIGH_WATER_BYTES: Final = 256 * 1024
LINGER_S: Final = 2.0
"""How long a refused caller may go on sending before the connection is reset."""
MIN_BODY_RATE: Final = 1024
"""Bytes a second, on average, that a body must reach once it has taken longer than the body time-out."""


class FrontProtocol(Reading, asyncio.Protocol):
    """One caller connection; also the ``Responder`` of the exchange that runs on it."""

    __slots__ = ("_is_between", "_late_refusal", "_loop", "_queue", "_task", "_wake")

    def __init__(self, door: DataDoor) -> None:
        super().__init__(door)
        self._loop = asyncio.get_running_loop()
        self._is_between = False
        """An exchange has ended in order, and nothing of the next request has come."""
        self._queue: deque[Inbound] = deque()
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._late_refusal: Problem | None = None

    # --- the connection -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        self._door.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_deaf = True
        self._door.closed(self)
        self._queue.clear()
        if self._body is not None:
            self._body.fail(ConnectionResetError("the caller left"))
        if self._tunnel is not None:
            self._tunnel.close()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        now_s = self._door.now_s
        self.last_read_s = now_s()
        if self._is_between:
            self._is_between = False
            if self._known is None or not self._take_known(self._known, data):
                self._read_first(data)
            return
        if self._tunnel is not None:
            self._tunnel.write(data)
            return
        current = self._current
        if self._is_lingering or self._is_deaf:
            return
        if current is not None and current.head.is_websocket:
            self._hold_for_tunnel(data)
        elif self._known_left_bytes:
            self._take_known_body(data)
        elif self._in_body or self._head_bytes:
            self._read(data)
        else:
            self._take_next(data)

    def _hold_for_tunnel(self, data: bytes) -> None:
        """Keep what a websocket caller sends before its handshake is answered (little, by the protocol)."""
        self._tunnel_backlog.append(data)
        if sum(map(len, self._tunnel_backlog)) > WRITE_HIGH_WATER_BYTES:
            self._transport.abort()

    def eof_received(self) -> bool:
        """A half-closed caller counts as gone: nobody can tell it from one that left."""
        return False

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self.phase_since_s = self._door.now_s()
        if self._live is not None:
            self._live.pause()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self._live is not None:
            self._live.resume()

    # --- exchanges, one after the other ---------------------------------------------------------

    def _begin(self, inbound: Inbound) -> None:
        """Begin an exchange in this connection's task, which is made with the first one; or let it wait its turn."""
        if self._current is not None:
            self._queue.append(inbound)
            self._transport.pause_reading()
            return
        self._current = inbound
        head = inbound.head
        self.begin_answer(head.method == "HEAD", head.is_http_10, not head.keep_alive or self._door.is_draining)
        self._may_overtake = type(inbound.body) is not bytes
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.set_result(None)
        elif self._task is None:
            self._task = self._door.start(self._serve())

    @property
    def is_busy(self) -> bool:
        """True while an exchange runs."""
        return self._current is not None

    async def _serve(self) -> None:
        """Carry this connection's exchanges, one after the other: a task per exchange would cost more than most of it."""
        loop, handle = self._loop, self._door.handler.handle
        waits = False
        try:
            while (inbound := self._current) is not None:
                try:
                    await handle(inbound, self)
                finally:
                    waits = self._exchange_ended(inbound)
                if waits:
                    wake = self._wake = loop.create_future()
                    await wake
        finally:
            self._wake = None
            self._task = None

    def _exchange_ended(self, inbound: Inbound) -> bool:
        """Get ready for the next exchange; True when the task should wait for it."""
        self._current = None
        self._live = None
        if self._closes_after or self._is_answering or self._is_deaf or self._may_overtake or self._queue:
            return self._ended_otherwise(inbound)
        self.phase_since_s = self.last_read_s
        self._is_between = not (self._in_body or self._head_bytes)
        return True

    def _ended_otherwise(self, inbound: Inbound) -> bool:
        """Do the same where the connection closes, has more to do, or had a body that streamed."""
        transport = self._transport
        if transport.is_closing() or self._tunnel is not None:
            return self._tunnel is not None and not transport.is_closing()
        if self._is_answering:
            # The handler returned without finishing the answer: never leave a caller waiting.
            transport.abort()
            return False
        body = inbound.body
        if isinstance(body, BodyPipe) and not body.is_complete:
            body.discard()
            self._linger()
            return False
        if self._closes_after:
            transport.close()
            return False
        self.phase_since_s = self.last_read_s
        if self._queue:
            self._begin(self._queue.popleft())
            if not self._queue:
                transport.resume_reading()
        elif self._late_refusal is not None:
            self._is_deaf = False
            self._refuse(self._late_refusal)
        return self._current is None and not self._is_lingering

    def _note_unread_body(self) -> None:
        current = self._current
        if current is not None and isinstance(current.body, BodyPipe) and not current.body.is_complete:
            self._closes_after = True

    def cancel_exchange(self, reason: str) -> None:
        """Cancel the running exchange; it still writes its row."""
        if self._current is not None and self._task is not None:
            self._task.cancel(reason)

    def _resume_reading(self) -> None:
        if not self._queue:
            self._transport.resume_reading()

    def _refuse(self, refusal: Problem) -> None:
        """Answer a request that never became an exchange, then close; its rest is read and dropped."""
        if self._is_lingering or self._is_deaf:
            return
        self._head_bytes = 0
        self._in_body = False
        if self._body is not None and not self._body.is_complete:
            self._break_off(ConnectionResetError("the caller broke the framing"))
            return
        if self._current is not None:
            # Earlier requests of this connection are answered first; nothing after this one is heard.
            self._is_deaf = True
            self._late_refusal = refusal
            return
        status, reason, headers, body = self._door.refused_early(self._head, refusal, self._target)
        wants_body = self._parser.get_method() != b"HEAD"
        self.begin_answer(not wants_body, False, True)
        self.send_whole(status, reason, headers, body)
        self._linger()

    def _break_off(self, why: Exception) -> None:
        """End an upload that went wrong on the caller's side; its exchange ends as cancelled."""
        if self._body is not None:
            self._body.fail(why)
        self._transport.abort()

    def _linger(self) -> None:
        """Close so that the answer arrives: stop writing, read on for a while, then reset."""
        self._is_lingering = True
        self.phase_since_s = self._door.now_s()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    # --- what the door's sweep asks ---------------------------------------------------------------

    def expire(self, now_s: float) -> None:
        """Close what has waited too long; called about once a second."""
        door = self._door
        waited_s = now_s - self.phase_since_s
        if self._is_lingering:
            if waited_s > LINGER_S:
                self._transport.abort()
        elif self.is_write_paused:
            if waited_s > door.write_stall_s:
                self._transport.abort()
        elif self._tunnel is not None or self._current is not None:
            if self._in_body and self._body is not None and not self._body.is_paused:
                self._expire_body(now_s)
        elif self._in_body:
            self._expire_body(now_s)
        elif self._head_bytes:
            if waited_s > door.head_timeout_s:
                self._refuse(problem(Code.BODY_TIMEOUT, message="The request head did not arrive in time."))
        elif waited_s > door.keepalive_s:
            self._transport.close()

    def _expire_body(self, now_s: float) -> None:
        """End a body that stands still, or that comes so slowly that it only holds the connection."""
        timeout_s = self._door.body_timeout_s
        elapsed_s = now_s - self.phase_since_s
        is_dripping = elapsed_s > timeout_s and self._have_bytes() < MIN_BODY_RATE * elapsed_s
        if self._body is not None and self._body.was_paused:
            is_dripping = False  # the provider is the slow one
        if is_dripping or now_s - self.last_read_s > timeout_s:
            if self._current is None:
                self._refuse(problem(Code.BODY_TIMEOUT, message="The request body did not arrive in time."))
            else:
                self._transport.abort()

    def drain(self) -> None:
        """Let the running exchange be the last; close at once when there is none."""
        self._closes_after = True
        if self._current is None and not self._in_body and not self._head_bytes:
            self._transport.close()

    def cut(self) -> None:
        """Reset the connection: the drain's deadline has passed."""
        self._transport.abort()
