"""One accepted connection: HTTP in, planned answers out, and the faults of the connection itself.

Owns the parser, the queue of pipelined requests, the running answer and the facts of its journal
entry. Knows nothing of endpoints; ``planning`` decides, ``delivery`` sends.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from typing import cast

import httptools

from proxy.simulator.admin import ADMIN_PREFIX, answer_admin
from proxy.simulator.answers import Answer, error_answer
from proxy.simulator.delivery import Delivery, Ending, Framing, deliver, plain_bytes
from proxy.simulator.faults import Fault, parse_fault
from proxy.simulator.journal import Entry
from proxy.simulator.planning import Planned, Question, plan_answer
from proxy.simulator.settings import BadSetting
from proxy.simulator.websocket import WebSocketSession, handshake_answer, is_websocket
from proxy.simulator.world import World

_MAX_QUEUED = 64
_LINGER_NOTHING = struct.pack("ii", 1, 0)


class _Incoming:
    """A request while it arrives."""

    __slots__ = ("body", "entry", "headers", "is_admin", "is_answered", "keep", "lower", "size", "started_s", "target")

    def __init__(self, started_s: float) -> None:
        self.started_s = started_s
        self.target = b""
        self.headers: list[tuple[str, str]] = []
        self.lower: dict[str, str] = {}
        self.body: list[bytes] = []
        self.size = 0
        self.entry: Entry | None = None
        self.keep = True
        self.is_admin = False
        self.is_answered = False


class Connection(asyncio.Protocol):
    """See the module. ``serves`` says which paths: ``both``, ``api`` or ``admin``."""

    def __init__(self, world: World, serves: str = "both") -> None:
        self._world = world
        self._serves = serves
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._incoming = _Incoming(0.0)
        self._queue: deque[_Incoming] = deque()
        self._entry: Entry | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_answering = False
        self._is_pumping = False
        self._is_ours_to_end = False
        self._end_on_next = ""
        self._writable: asyncio.Future[None] | None = None
        self._websocket: WebSocketSession | None = None
        self.idle_since_s = 0.0

    # -------------------------------------------------------------- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.idle_since_s = time.monotonic()
        self._record = self._world.journal.open_connection(f"{peer[0]}:{peer[1]}" if peer else "", self.idle_since_s)
        self._world.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._record.bytes_received += len(data)
        if self._websocket is not None:
            self._websocket.feed(data)
            return
        is_doomed = bool(self._end_on_next)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as problem:
            self._admit_mistake(problem.__context__ or problem)
        except httptools.HttpParserError as problem:
            self._refuse_nonsense(data, problem)
        if is_doomed and not self._transport.is_closing():
            self._end_the_race()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        now_s = time.monotonic()
        closed_by = "simulator" if self._is_ours_to_end else "peer"
        self._world.connections.discard(self)
        if self._websocket is not None:
            self._websocket.close()
        for entry in (self._entry, self._incoming.entry):
            if entry is not None and entry.number and not entry.is_ended:
                entry.closed_by = closed_by
                self._world.journal.end(entry, now_s)
        if self._task is not None:
            self._task.cancel()
        self._world.journal.close_connection(self._record, closed_by, now_s)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # -------------------------------------------------------------- parser

    def on_message_begin(self) -> None:
        self._incoming = _Incoming(time.monotonic())
        self.idle_since_s = -1.0

    def on_url(self, url: bytes) -> None:
        self._incoming.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        incoming = self._incoming
        pair = (name.decode("latin-1"), value.decode("latin-1"))
        if incoming.entry is not None:
            incoming.entry.trailers.append(pair)
            return
        incoming.headers.append(pair)
        incoming.lower[pair[0].lower()] = pair[1]

    def on_headers_complete(self) -> None:
        incoming = self._incoming
        target = incoming.target.decode("latin-1")
        incoming.keep = self._parser.should_keep_alive()
        if self._serves != "api" and target.startswith(ADMIN_PREFIX):
            incoming.is_admin = True
            entry = Entry(0, 0, incoming.started_s)
        else:
            entry = self._world.journal.begin(self._record.number, incoming.started_s)
            self._record.requests += 1
        entry.method = self._parser.get_method().decode("latin-1")
        entry.target = target
        entry.http_version = self._parser.get_http_version()
        entry.headers = incoming.headers
        incoming.entry = entry
        if self._end_on_next:
            return
        if not incoming.is_admin and self._answer_early(incoming, entry):
            return
        if incoming.lower.get("expect", "").lower() == "100-continue" and not self._is_answering:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        incoming = self._incoming
        incoming.size += len(body)
        if incoming.is_answered:
            return
        incoming.body.append(body)
        if incoming.size > self._world.settings.max_body_bytes and incoming.entry is not None:
            incoming.body.clear()
            answer = error_answer(413, "The request is too large.", code="request_too_large")
            self._answer_now(incoming, incoming.entry, answer, keep=False)

    def on_message_complete(self) -> None:
        incoming = self._incoming
        entry = incoming.entry
        if entry is None:
            return
        body = incoming.body[0] if len(incoming.body) == 1 else b"".join(incoming.body)
        incoming.body = [body]
        if not incoming.is_admin:
            self._world.journal.received(entry, body, time.monotonic())
            entry.body_bytes = incoming.size
        if incoming.is_answered or self._end_on_next or is_websocket(entry, incoming.lower):
            return
        self._queue.append(incoming)
        if len(self._queue) > _MAX_QUEUED:
            self._transport.pause_reading()
        self._pump()

    # -------------------------------------------------------------- answering

    def _pump(self) -> None:
        if self._is_pumping:
            return
        self._is_pumping = True
        while self._queue and not self._is_answering and not self._transport.is_closing():
            if len(self._queue) == _MAX_QUEUED:
                self._transport.resume_reading()
            self._answer(self._queue.popleft())
        self._is_pumping = False

    def _answer(self, incoming: _Incoming) -> None:
        entry = incoming.entry
        if entry is None:
            return
        self._entry, self._is_answering = entry, True
        body = incoming.body[0]
        if incoming.is_admin:
            answer = answer_admin(self._world, entry.method, entry.target, body)
            planned = Planned(Delivery(answer, self._world.settings.speech), Fault())
        elif self._serves == "admin":
            planned = Planned(Delivery(error_answer(404, "Only /__sim__/ here."), self._world.settings.speech), Fault())
        else:
            wall_s = time.time()  # noqa: TID251 - a Retry-After date means this clock; the simulator is its own world
            planned = plan_answer(self._world, Question(entry, incoming.lower, body, wall_s))
        self._carry_out(planned, incoming.keep)

    def _carry_out(self, planned: Planned, keep: bool) -> None:
        plan, fault = planned.plan, planned.fault
        if fault.name == "refuse":
            self._world.close_listener(fault.seconds("for", 2.0))
            plan.stop, plan.ending = -1, Ending.RESET
        elif fault.name == "silence":
            plan.stop, plan.ending, plan.hold_s = -1, Ending.STALL, fault.seconds("for", 0.0)
        entry = self._entry
        if entry is not None and plan.stop != -1:
            entry.status = plan.answer.status
        if plan.is_simple():
            keep = keep and plan.ending is Ending.WHOLE and plan.framing is not Framing.UNTIL_CLOSE
            self.write(plain_bytes(plan, keep))
            self.finish(keep)
            self._after_answer(fault)
        else:
            self._task = self._loop.create_task(self._deliver(plan, fault, keep), name="simulated-answer")
            self._task.add_done_callback(self._look_at_task)

    async def _deliver(self, plan: Delivery, fault: Fault, keep: bool) -> None:
        try:
            await deliver(plan, self, keep)
        except ConnectionResetError:
            return  # the peer left; connection_lost writes it down
        self._after_answer(fault)

    def _after_answer(self, fault: Fault) -> None:
        if fault.name == "race":
            self._end_on_next = fault.text("how", "fin")
        elif fault.name == "close_after":
            self._loop.call_later(fault.seconds("delay", 0.05), self._close_if_idle, fault.text("how", "fin"))

    def _answer_early(self, incoming: _Incoming, entry: Entry) -> bool:
        header = incoming.lower.get("x-sim-fault", "")
        if not header.startswith("early") and not self._world.board.may_be_early():
            return False
        try:
            step = None if header else self._world.board.take_step(entry.path, "")
            fault = parse_fault(header) if header else step.fault if step else self._world.board.everyone
        except BadSetting:
            return False
        entry.fault = fault.source
        kind = Fault("status", {"status": fault.text("status", "413")})
        answer = error_answer(kind.count("status", 413), "The request was refused before it was read.")
        if "retry_after" in fault.args:
            answer.headers.append(("retry-after", fault.text("retry_after")))
        self._answer_now(incoming, entry, answer, keep=fault.flag("read", False))
        return True

    def _answer_now(self, incoming: _Incoming, entry: Entry, answer: Answer, keep: bool) -> None:
        incoming.is_answered = True
        self._entry = entry
        entry.status = answer.status
        answer.headers.append(("x-request-id", f"req_sim{entry.number:08d}"))
        self.write(plain_bytes(Delivery(answer, self._world.speech), keep))
        self.finish(keep)

    # -------------------------------------------------------------- wire

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket; once it is closing they go nowhere."""
        if self._transport.is_closing():
            return
        entry = self._entry
        if entry is not None:
            if not entry.bytes_sent:
                entry.first_byte_s = time.monotonic()
            entry.bytes_sent += len(data)
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the socket takes more."""
        if self._transport.is_closing():
            raise ConnectionResetError
        if self._writable is not None:
            await self._writable

    def count_event(self, count: int) -> None:
        """Count whole events."""
        if self._entry is not None:
            self._entry.events_sent += count

    def finish(self, keep: bool) -> None:
        """The answer is whole: wait for the next request, or close."""
        self._end_entry(is_complete=True, closed=not keep)
        self._is_answering = False
        self._task = None
        if not keep:
            self._close()
            return
        self.idle_since_s = time.monotonic()
        self._pump()

    def cut(self) -> None:
        """Send what is buffered, then FIN."""
        self._end_entry(is_complete=False, closed=True)
        self._close()

    async def reset(self) -> None:
        """Send what is buffered, give the peer a moment to read it, then RST."""
        while self._transport.get_write_buffer_size() and not self._transport.is_closing():  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.002)
        if self._entry is not None and self._entry.bytes_sent:
            await asyncio.sleep(0.02)
        self._end_entry(is_complete=False, closed=True)
        self.close_now("reset")

    def close_now(self, how: str) -> None:
        """End the connection: ``fin`` or ``reset``."""
        self._is_ours_to_end = True
        if how == "reset":
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
            self._transport.abort()
        else:
            self._transport.close()

    def end_websocket(self) -> None:
        """The websocket is closed: end its entry and the connection."""
        self._end_entry(is_complete=True, closed=True)
        self._close()

    # -------------------------------------------------------------- ends

    def _close(self) -> None:
        self._is_ours_to_end = True
        self._transport.close()

    def _close_if_idle(self, how: str) -> None:
        if not self._is_answering and self.idle_since_s >= 0:
            self.close_now(how)

    def _end_entry(self, is_complete: bool, closed: bool) -> None:
        entry = self._entry
        if entry is None or entry.is_ended:
            return
        entry.is_complete = is_complete
        if closed:
            entry.closed_by = "simulator"
        if entry.number:
            self._world.journal.end(entry, time.monotonic())

    def _end_the_race(self) -> None:
        if self._incoming.entry is not None:
            self._entry = self._incoming.entry
            self._entry.fault = "race"
        self._end_entry(is_complete=False, closed=True)
        self.close_now(self._end_on_next)

    def _look_at_task(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._admit_mistake(problem)

    def _admit_mistake(self, problem: BaseException) -> None:
        """A bug of the simulator: say so aloud and end the connection, so that no test waits for ever."""
        self._loop.call_exception_handler({"message": "the simulated provider failed", "exception": problem})
        self.close_now("reset")

    def _refuse_nonsense(self, data: bytes, problem: Exception) -> None:
        entry = self._incoming.entry
        if entry is None or entry.is_ended:
            entry = self._world.journal.begin(self._record.number, time.monotonic())
            self._world.journal.received(entry, bytes(data), time.monotonic())
        entry.fault = f"unparseable: {problem}"
        self._answer_now(self._incoming, entry, error_answer(400, f"This is not HTTP: {problem}"), keep=False)

    def _switch(self, rest: bytes) -> None:
        """Go on as a websocket, or as HTTP when the upgrade was something else or was refused."""
        self._parser = httptools.HttpRequestParser(self)
        incoming, entry = self._incoming, self._incoming.entry
        if entry is not None and not incoming.is_answered and is_websocket(entry, incoming.lower):
            wall_s = time.time()  # noqa: TID251 - a Retry-After date means this clock; the simulator is its own world
            planned = plan_answer(self._world, Question(entry, incoming.lower, b"", wall_s))
            self._entry, self._is_answering = entry, True
            accepted = handshake_answer(entry, incoming.lower) if planned.fault.name == "ok" else None
            if accepted is not None:
                entry.status = 101
                self.write(accepted)
                self._websocket = WebSocketSession(self, entry, planned.plan.speech)
                self._websocket.feed(rest)
                return
            self._carry_out(planned, keep=False)
        if rest:
            self.data_received(rest)
