"""A request body that is still arriving: a bounded pipe between the caller's socket and an attempt.

Owns the pieces that were read and not yet taken. Knows the connection only through two callbacks
that stop and start its reading.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from proxy.core.routing.problems import Problem

HIGH_WATER_BYTES = 256 * 1024


class BodyPipe:
    """A ``BodySource`` filled by the connection's parser and emptied by one attempt.

    Reading of the caller's socket stops above ``HIGH_WATER_BYTES`` and goes on when a piece is taken.
    """

    __slots__ = (
        "_ended",
        "_failure",
        "_held_bytes",
        "_pause",
        "_pieces",
        "_resume",
        "_waiter",
        "is_paused",
        "received_bytes",
        "refusal",
        "was_paused",
    )

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._ended = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._pause = pause
        self._resume = resume
        self.is_paused = False
        self.was_paused = False
        self.received_bytes = 0
        self.refusal: Problem | None = None
        """Why the door gave this body up, for the answer."""

    def feed(self, data: bytes) -> None:
        """Take a piece from the parser."""
        self.received_bytes += len(data)
        self._pieces.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HIGH_WATER_BYTES and not self.is_paused:
            self.is_paused = self.was_paused = True
            self._pause()
        self._wake()

    def end(self) -> None:
        """The body is complete."""
        self._ended = True
        self._wake()

    def fail(self, failure: Exception) -> None:
        """The caller left or broke the framing; whoever reads gets ``failure``."""
        self._failure = failure
        self._wake()

    def refuse(self, refusal: Problem) -> None:
        """The door will take no more of this body; the caller is to be told why."""
        self.refusal = refusal
        self.discard()
        self.fail(ConnectionAbortedError(refusal.code))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next_piece(self) -> bytes:
        """Return the next piece, ``b""`` at the end. Raises what ``fail`` was given."""
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        piece = self._pieces.popleft()
        self._held_bytes -= len(piece)
        if self.is_paused and self._held_bytes <= HIGH_WATER_BYTES // 2:
            self.is_paused = False
            self._resume()
        return piece

    @property
    def is_complete(self) -> bool:
        """True when the caller has sent everything."""
        return self._ended

    def peek(self) -> bytes:
        """Return the bytes held now, without taking them."""
        return b"".join(self._pieces)

    async def peek_until(self, enough: Callable[[bytes], bool], limit_bytes: int) -> bytes:
        """Wait until the bytes held satisfy ``enough``, reach ``limit_bytes`` or are all there; leave them held."""
        while True:
            held = self.peek()
            if self._ended or self._failure is not None or len(held) >= limit_bytes or enough(held):
                return held
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None

    def discard(self) -> None:
        """Drop what is held and stop holding the caller back."""
        self._pieces.clear()
        self._held_bytes = 0
        if self.is_paused:
            self.is_paused = False
            self._resume()
