"""A TCP proxy that goes wrong on command: between a sidecar and Redis, PostgreSQL or a provider.

Runs on a loop of its own thread, so that tests that block can turn its knobs while traffic flows. It knows no
protocol: it sees two streams of bytes. A black hole holds what it was given and delivers it when the line heals,
as TCP does after a partition; so what a client gave up on may still arrive, late.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

_PIECE_BYTES = 65536


class Line(StrEnum):
    """What the proxy does with connections."""

    PASS = "pass"
    REFUSE = "refuse"
    """New connections are refused, existing ones reset."""
    BLACK_HOLE = "black_hole"
    """Connections are accepted and nothing moves in either direction."""


@dataclass(slots=True)
class Counts:
    """What went through so far."""

    connections: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    pieces_up: int = 0
    """Reads from the client side that were passed on: about one per round trip of a request-reply protocol."""
    replies_dropped: int = 0
    cuts: int = 0


class FaultProxy:
    """One listener in front of one target. Every method may be called from any thread, at any time."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._moves = asyncio.Event()
        self._line = Line.PASS
        self._delay_s = 0.0
        self._bytes_per_s = 0.0
        self._drops = 0
        self._cut_after: int | None = None
        self.counts = Counts()
        self.port = 0

    # --- knobs ------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Pass everything on at once, what a black hole has held included."""
        self._call(self._heal)

    def refuse(self) -> None:
        """Refuse new connections and reset those that are open."""
        self._call(self._refuse)

    def black_hole(self) -> None:
        """Accept connections and move nothing."""
        self._call(self._black_hole)

    def delay(self, seconds: float) -> None:
        """Hold every piece back so long, in each direction; 0 ends it."""
        self._call(lambda: setattr(self, "_delay_s", seconds))

    def throttle(self, bytes_per_s: float) -> None:
        """Move so many bytes a second, in each direction of each connection; 0 ends it."""
        self._call(lambda: setattr(self, "_bytes_per_s", bytes_per_s))

    def drop_replies(self, count: int = 1) -> None:
        """Swallow the next so many pieces that come from the target: it did the work, nobody hears of it."""
        self._call(lambda: setattr(self, "_drops", count))

    def cut_after(self, count: int) -> None:
        """Reset the connection that carries the ``count``-th byte towards the target from now on; that byte arrives."""
        self._call(lambda: setattr(self, "_cut_after", count))

    def cut(self) -> None:
        """Reset every open connection; new ones are served."""
        self._call(self._reset_all)

    @property
    def line(self) -> Line:
        """What it does now."""
        return self._line

    @property
    def open_connections(self) -> int:
        """Client connections that are open."""
        return len(self._open) // 2

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        """Reset everything and end the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> None:
        self._moves.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_PIECE_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._line = Line.REFUSE
        if self._server is not None:
            self._server.close()
        self._moves.set()
        self._reset_all()
        # Not cancelled: the streams of Python 3.11 report a cancelled handler as an error.
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=5)

    def _call(self, change: Callable[[], object]) -> None:
        async def act() -> None:
            change()
            if self._server is not None and not self._server.is_serving() and self._line is not Line.REFUSE:
                await self._listen_again()

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)

    async def _listen_again(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_PIECE_BYTES)

    def _heal(self) -> None:
        self._line = Line.PASS
        self._delay_s = self._bytes_per_s = 0.0
        self._drops, self._cut_after = 0, None
        self._moves.set()

    def _refuse(self) -> None:
        self._line = Line.REFUSE
        self._moves.set()
        if self._server is not None:
            self._server.close()
        self._reset_all()

    def _black_hole(self) -> None:
        self._line = Line.BLACK_HOLE
        self._moves.clear()

    def _reset_all(self) -> None:
        for writer in tuple(self._open):
            _reset(writer)

    # --- traffic ----------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            await self._moves.wait()
            if self._line is Line.REFUSE:
                raise ConnectionResetError
            far_reader, far = await asyncio.open_connection(*self._target, limit=_PIECE_BYTES)
            self._open.add(far)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far, is_up=True), name="up")
                pumps.create_task(self._pump(far_reader, writer, is_up=False), name="down")
        except* (OSError, asyncio.IncompleteReadError):
            _reset(writer)
        finally:
            self._tasks.discard(task)
            for end in (writer, far):
                if end is not None:
                    self._open.discard(end)
                    end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool) -> None:
        while piece := await reader.read(_PIECE_BYTES):
            await self._moves.wait()
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
                await self._moves.wait()
            if not is_up and self._drops > 0:
                self._drops -= 1
                self.counts.replies_dropped += 1
                continue
            if self._bytes_per_s:
                await self._drip(piece, writer)
            else:
                await self._write(piece, writer, is_up=is_up)
            self._count(len(piece), is_up=is_up)
        with contextlib.suppress(OSError):
            writer.write_eof()

    def _count(self, size: int, *, is_up: bool) -> None:
        if is_up:
            self.counts.bytes_up += size
            self.counts.pieces_up += 1
        else:
            self.counts.bytes_down += size

    async def _write(self, piece: bytes, writer: asyncio.StreamWriter, *, is_up: bool) -> None:
        if is_up and self._cut_after is not None:
            if len(piece) >= self._cut_after:
                writer.write(piece[: self._cut_after])
                await writer.drain()
                self._cut_after = None
                self.counts.cuts += 1
                await asyncio.sleep(0.01)  # what was cut off behind must not overtake what arrived
                raise ConnectionResetError
            self._cut_after -= len(piece)
        writer.write(piece)
        await writer.drain()

    async def _drip(self, piece: bytes, writer: asyncio.StreamWriter) -> None:
        step = max(1, int(self._bytes_per_s / 50))
        for at in range(0, len(piece), step):
            part = piece[at : at + step]
            writer.write(part)
            await writer.drain()
            if self._bytes_per_s:
                await asyncio.sleep(len(part) / self._bytes_per_s)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


@contextmanager
def fault_proxy(port: int, host: str = "127.0.0.1") -> Iterator[FaultProxy]:
    """Run a proxy in front of a port for as long as the block lasts."""
    proxy = FaultProxy(host, port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
