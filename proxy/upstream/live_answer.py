"""A hold on the connection that an answer streams on, for as long as the answer does.

Owns nothing but the number of the use. Knows the connection only by what it asks of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from proxy.flow.ports import BodySink


class Streaming(Protocol):
    """What a live answer asks of its connection."""

    uses: int
    is_busy: bool

    def attach(self, sink: BodySink) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def abort(self) -> None: ...

    def write(self, data: bytes) -> None: ...

    def throttle(self, pause: Callable[[], None], resume: Callable[[], None]) -> None: ...

    def close(self) -> None: ...


class LiveAnswer:
    """The ``LiveBody`` of one answer: a hold on a connection that ends when the answer does.

    The connection may serve the next attempt the moment this answer is complete, so nothing that is asked of
    this answer afterwards may reach it.
    """

    __slots__ = ("_connection", "_use")

    def __init__(self, connection: Streaming) -> None:
        self._connection = connection
        self._use = connection.uses

    def _is_ours(self) -> bool:
        connection = self._connection
        return connection.uses == self._use and connection.is_busy

    def attach(self, sink: BodySink) -> None:
        """Deliver what has arrived and all that follows."""
        self._connection.attach(sink)

    def pause(self) -> None:
        """Stop reading from the provider."""
        if self._is_ours():
            self._connection.pause()

    def resume(self) -> None:
        """Read on."""
        if self._is_ours():
            self._connection.resume()

    def abort(self) -> None:
        """Close the connection if the answer is still on it."""
        if self._is_ours():
            self._connection.abort()

    def write(self, data: bytes) -> None:
        """Send raw bytes: the other direction of a tunnel."""
        if self._is_ours():
            self._connection.write(data)

    def throttle(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Let the provider's back-pressure reach whoever writes."""
        self._connection.throttle(pause, resume)

    def close(self) -> None:
        """Close in order."""
        if self._is_ours():
            self._connection.close()
