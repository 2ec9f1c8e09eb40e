"""What the pipe of a streamed answer is made of: who watches, who changes, where events end.

Owns the words of it. Knows neither the pipe nor any codec.
"""

from __future__ import annotations

from typing import Protocol

from proxy.core.dialect.seam import Unaligned
from proxy.terms.errors import AnswerBlocked, RedactionFault
from proxy.terms.outcomes import Outcome


class Watch(Protocol):
    """What the pipe asks of a dialect's stream watch."""

    saw_content: bool
    saw_done: bool
    is_finished: bool
    error: bool
    error_data: bytes
    is_malformed: bool

    @property
    def is_error_plain(self) -> bool: ...

    def feed(self, data: bytes) -> None: ...

    def is_cut_at_done(self, *, is_strict: bool) -> bool: ...


class Decoder(Protocol):
    """What makes readable events of a provider's bytes: a content coding undone, another dialect translated."""

    def feed(self, data: bytes) -> bytes: ...

    def flush(self) -> bytes: ...


class Decoders:
    """One decoder behind another."""

    __slots__ = ("_first", "_then")

    def __init__(self, first: Decoder, then: Decoder) -> None:
        self._first = first
        self._then = then

    def feed(self, data: bytes) -> bytes:
        """Return what both make of these bytes."""
        return self._then.feed(self._first.feed(data))

    def flush(self) -> bytes:
        """Return what they held."""
        return self._then.feed(self._first.flush()) + self._then.flush()


class Transform(Protocol):
    """A codec between the provider's events and the caller's."""

    def feed(self, data: bytes) -> bytes: ...

    def finish(self, broken: bool = False) -> bytes: ...


def last_event_end(data: bytes) -> int:
    """Return the offset behind the last blank line of ``data``; 0 when no event ends in it."""
    if data.endswith(b"\n\n"):
        return len(data)
    end = data.rfind(b"\n\n") + 2
    if b"\r" in data:
        end = max(end, data.rfind(b"\n\r\n") + 3 if b"\n\r\n" in data else 0)
        end = max(end, data.rfind(b"\r\r") + 2 if b"\r\r" in data else 0)
    return end if end >= 2 else 0


def outcome_of(failure: Exception) -> Outcome:
    """Return how a stream ends that a transform would not pass on."""
    if isinstance(failure, Unaligned):
        return Outcome.UNALIGNED
    if isinstance(failure, AnswerBlocked):
        return Outcome.ANSWER_BLOCKED
    return Outcome.GATEWAY_FAULT if isinstance(failure, RedactionFault) else Outcome.BAD_STREAM
