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

    __slots__ = ("_late_refusal", "_queue", "_task", "_wake")

    def __init__(self, door: DataDoor) -> None:
        super().__init__(door)
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
        self._door.closed(self)
        self._queue.clear()
        if self._body is not None:
            self._body.fail(ConnectionResetError("the caller left"))
        if self._tunnel is not None:
            self._tunnel.close()
        self._door.busy.discard(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        door = self._door
        self.last_read_s = door.now_s()
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
        elif self._known is None or not self._take_known(self._known, data):
            self._read_first(data)

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
        self._started = True
        if self._current is not None:
            self._queue.append(inbound)
            self._transport.pause_reading()
            return
        self._run(inbound)

    def _run(self, inbound: Inbound) -> None:
        """Begin an exchange in this connection's task, which is made with the first one."""
        head = inbound.head
        self.begin_answer(
            omits_body=head.method == "HEAD",
            is_http_10=head.is_http_10,
            closes_after=not head.keep_alive or self._door.is_draining,
        )
        self._current = inbound
        self._door.busy.add(self)
        if self._wake is not None:
            self._wake.set_result(None)
        elif self._task is None:
            self._task = self._door.start(self._serve())

    async def _serve(self) -> None:
        """Carry this connection's exchanges, one after the other: a task per exchange would cost more than most of it."""
        loop = asyncio.get_running_loop()
        try:
            while (inbound := self._current) is not None:
                try:
                    await self._door.handler.handle(inbound, self)
                finally:
                    self._exchange_ended(inbound)
                if not self._has_next() and not self._transport.is_closing() and not self._is_lingering:
                    self._wake = loop.create_future()
                    await self._wake
                    self._wake = None
        finally:
            self._wake = None
            self._task = None

    def _has_next(self) -> bool:
        return self._current is not None

    def _exchange_ended(self, inbound: Inbound) -> None:
        self._current = None
        self._live = None
        self._door.busy.discard(self)
        transport = self._transport
        if transport.is_closing() or self._tunnel is not None:
            return
        if self._is_answering:
            # The handler returned without finishing the answer: never leave a caller waiting.
            transport.abort()
            return
        body = inbound.body
        if type(body) is not bytes and isinstance(body, BodyPipe) and not body.is_complete:
            body.discard()
            self._linger()
            return
        if self._closes_after:
            transport.close()
            return
        self.phase_since_s = self.last_read_s
        self._tunnel_backlog.clear()
        if self._queue:
            self._run(self._queue.popleft())
            if not self._queue:
                transport.resume_reading()
        elif self._late_refusal is not None:
            self._is_deaf = False
            self._refuse(self._late_refusal)

    def send_whole(self, status: int, reason: bytes, headers: bytes, body: bytes) -> None:
        """Write a complete answer; one that overtakes its own request's body is this connection's last."""
        self._note_unread_body()
        super().send_whole(status, reason, headers, body)

    def start(self, status: int, reason: bytes, headers: bytes, length: int | None) -> None:
        """Write the head of an answer whose body follows; the same holds."""
        self._note_unread_body()
        super().start(status, reason, headers, length)

    def _note_unread_body(self) -> None:
        current = self._current
        if current is not None and type(current.body) is not bytes:
            body = current.body
            if isinstance(body, BodyPipe) and not body.is_complete:
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
        self.begin_answer(omits_body=not wants_body, is_http_10=False, closes_after=True)
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
