"""Streams that come in large pieces, worked off in short turns: no stream, however fast, holds the others up.

Owns what one stream has read and not yet worked off, and whose turn it is. A small read never comes here. Knows neither
events nor what is done with them: ``streaming`` takes the slices.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from proxy.flow.ports import LiveBody, Offload
from proxy.terms.outcomes import Outcome

LARGE_READ_BYTES: Final = 8 * 1024
"""A read above this is worked off in turns."""
LARGE_EVENT_BYTES: Final = 16 * 1024
"""Whole events above this, taken together because they cannot be cut, are transformed in a worker thread."""
TURN_S: Final = 0.002
"""How long a turn may last; the slice it is at is worked off."""
PAUSE_ABOVE_BYTES: Final = 64 * 1024
"""The provider is not read while more than this waits."""


class Turns:
    """Whose turn it is: one stream at a time, once per turn of the event loop. One per process."""

    __slots__ = ("lock", "now_s", "offload")

    def __init__(self, now_s: Callable[[], float], offload: Offload) -> None:
        """Take the monotonic clock, and what runs a function in a worker thread."""
        self.now_s = now_s
        self.offload = offload
        self.lock = asyncio.Lock()


class Backlog:
    """What one stream has read and not yet worked off."""

    __slots__ = (
        "_at",
        "_bytes",
        "_has_paused",
        "_is_held",
        "_live",
        "_pieces",
        "_resumed",
        "_slice_bytes",
        "end",
        "is_first_plain",
        "large",
    )

    def __init__(self, live: LiveBody, slice_bytes: int, *, is_held: bool) -> None:
        """``is_held``: the caller takes nothing at the moment."""
        self._live = live
        self._slice_bytes = slice_bytes
        self._is_held = is_held
        self._pieces: deque[bytes] = deque()
        self._at = 0
        self._bytes = 0
        self._has_paused = False
        self._resumed: asyncio.Future[None] | None = None
        self.is_first_plain = False
        """What comes next needs no inflating."""
        self.large: bytes | None = None
        """Whole events, next in order, that are too large to be transformed here."""
        self.end: Outcome | None = None
        """How the body ended, to be told when everything before it has been worked off."""

    def add(self, data: bytes) -> None:
        """Put a read at the end; the provider is stopped when much waits."""
        self._pieces.append(data)
        self._bytes += len(data)
        if self._bytes > PAUSE_ABOVE_BYTES and not self._has_paused:
            self._has_paused = True
            self._live.pause()

    def put_first(self, data: bytes) -> None:
        """Put what the slice taken last was inflated to before everything that waits."""
        if self._at:
            self._pieces[0] = self._pieces[0][self._at :]
            self._at = 0
        self._pieces.appendleft(data)
        self._bytes += len(data)
        self.is_first_plain = True

    @property
    def is_empty(self) -> bool:
        return not self._pieces

    def next_slice(self) -> bytes:
        """Take the next bytes: some small events together, or one larger event as far as it has come."""
        piece, at = self._pieces[0], self._at
        end = piece.find(b"\n\n", at + self._slice_bytes) + 2
        if end < 2:
            has_other_ends = piece.find(b"\r", at, at + self._slice_bytes) >= 0
            end = min(len(piece), at + self._slice_bytes) if has_other_ends else len(piece)
        if end == len(piece):
            self._pieces.popleft()
            self._at = 0
            self.is_first_plain = False
        else:
            self._at = end
        self._bytes -= end - at
        return piece[at:end] if at or end < len(piece) else piece

    def clear(self) -> None:
        """Forget what waits; the provider is read again unless the caller holds it."""
        self._pieces.clear()
        self._at = self._bytes = 0
        self.large = None
        if self._has_paused and not self._is_held:
            self._live.resume()

    # --- the caller's back-pressure -----------------------------------------------------------------

    def hold(self) -> None:
        """The caller takes nothing more for now."""
        self._is_held = True

    def let_go(self) -> None:
        """The caller takes bytes again."""
        self._is_held = False
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    async def until_let_go(self) -> None:
        """Wait while the caller takes nothing."""
        while self._is_held:
            self._resumed = asyncio.get_running_loop().create_future()
            await self._resumed
