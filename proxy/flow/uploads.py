"""An upload gathered so that it can be read, or handed on as it comes when it is too large for that.

Owns the choice. Knows no forms and no policy.
"""

from __future__ import annotations

from collections import deque
from io import BytesIO

from proxy.core.routing.problems import Problem
from proxy.flow.ports import BodySource


class Resumed:
    """A ``BodySource`` of which some pieces were already taken."""

    __slots__ = ("_pieces", "_source")

    def __init__(self, pieces: list[bytes], source: BodySource) -> None:
        self._pieces = deque(pieces)
        self._source = source

    @property
    def refusal(self) -> Problem | None:
        """Why the door gave the body up half-way, or None."""
        return self._source.refusal

    async def next_piece(self) -> bytes:
        """Return the next piece, ``b""`` at the end."""
        if self._pieces:
            return self._pieces.popleft()
        return await self._source.next_piece()

    def discard(self) -> None:
        """Read and drop what is left."""
        self._pieces.clear()
        self._source.discard()


async def gather(source: BodySource, length: int | None, max_bytes: int) -> bytes | BodySource:
    """Return a whole body of at most ``max_bytes``, or a source of a larger one.

    Args:
        source: The body.
        length: What its head announces, if anything.
        max_bytes: The most that is held.

    Raises:
        ConnectionError: The caller left, or the door gave the body up.
    """
    if length is not None and length > max_bytes:
        return source
    gathered = BytesIO()  # to join the pieces of a large body would hold everybody up
    while piece := await source.next_piece():
        if gathered.write(piece) and gathered.tell() > max_bytes:
            return Resumed([gathered.getvalue()], source)
    return gathered.getvalue()
