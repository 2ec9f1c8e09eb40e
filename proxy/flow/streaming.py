"""One streamed answer on its way from a provider to a caller.

Owns what is held back: the prelude before the first content, the unfinished last event, and what the
restorer keeps. Works on whole events, so that nothing half-sent ever precedes an error event. Knows no
chain: it tells its relay when it is committed and how it ended.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Final, Protocol

from proxy.core.dialect.seam import Unaligned
from proxy.core.routing.classify import classify_error_data
from proxy.core.sse import EventDecoder
from proxy.flow.coding import Inflater, InflateTooLarge
from proxy.flow.ports import LiveBody, Responder
from proxy.terms.errors import AnswerBlocked, RedactionFault
from proxy.terms.outcomes import Outcome

PRELUDE_MAX_S: Final = 0.25
PRELUDE_MAX_BYTES: Final = 16 * 1024
PARTIAL_EVENT_MAX_BYTES: Final = 1024 * 1024
HELD_STREAM_MAX_BYTES: Final = 8 * 1024 * 1024
"""A stream that is delivered only when whole may be so long."""
_DONE: Final = b"data: [DONE]\n\n"


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


class StreamPipe:
    """A ``BodySink`` that watches, transforms and forwards one live answer.

    Before ``open`` everything is held: a failure then is still invisible to the caller. ``on_terminal`` is
    called once, before the bytes that tell the caller that the answer is complete are written.
    """

    __slots__ = (
        "_committed",
        "_ended",
        "_first_token_timer",
        "_has_done",
        "_held",
        "_held_bytes",
        "_inflater",
        "_is_said",
        "_is_sealed",
        "_live",
        "_loop",
        "_mask",
        "_on_terminal",
        "_outcome",
        "_partial",
        "_prelude_timer",
        "_responder",
        "_seal_at_bytes",
        "_seals_on_finish",
        "_transforms",
        "_waiting",
        "_watch",
        "believes_done",
        "bytes_out",
        "first_content_s",
        "has_told_error",
        "holds_all",
        "mends",
    )

    def __init__(
        self,
        live: LiveBody,
        watch: Watch | None,
        transforms: tuple[Transform, ...],
        on_terminal: Callable[[Outcome], None],
        *,
        inflater: Inflater | None = None,
        mask: Callable[[bytes], bytes] | None = None,
        seals_on_finish: bool = False,
        seal_at_bytes: int | None = None,
    ) -> None:
        """Stand between ``live`` and a responder.

        Args:
            watch: Facts of the events; None for bodies that are only passed.
            on_terminal: Called once, before the bytes that complete the answer are written.
            inflater: Undoes a content coding first.
            mask: Takes credentials out of events once an in-band error has been seen.
            seals_on_finish: The dialect's last event, not ``[DONE]``, completes the answer.
            seal_at_bytes: This many bytes complete the answer.
        """
        self._live = live
        self._watch = watch
        self._transforms = transforms
        self._on_terminal = on_terminal
        self._inflater = inflater
        self._mask = mask
        self._seals_on_finish = seals_on_finish
        self._seal_at_bytes = seal_at_bytes
        self.holds_all = False
        """Nothing goes out before the answer is whole."""
        self.believes_done = False
        """``[DONE]`` is the end whatever came before it: nobody else could say it better."""
        self.has_told_error = False
        """The caller has the provider's own words about what went wrong."""
        self._is_said = False
        self._has_done = False
        self.mends = False
        """A break can be mended: the provider's error is not shown, ``[DONE]`` alone is no end, and what breaks behind the
        finish is whole."""
        self._waiting: Responder | None = None
        self._first_token_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._responder: Responder | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._partial = b""
        self._is_sealed = False
        self._outcome: Outcome | None = None
        self._committed: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[Outcome] | None = None
        self._prelude_timer: asyncio.TimerHandle | None = None
        self.first_content_s: float | None = None
        self.bytes_out = 0

    # --- BodySink ---------------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        """Take raw bytes from the provider; forward the whole events among them, and nothing that follows ``[DONE]``."""
        if self._outcome is not None or self._has_done:
            return
        if self._watch is None:
            transformed = self._transformed(data)
            if transformed is not None:
                self._forward(transformed)
            return
        if self._inflater is not None:
            try:
                data = self._inflater.feed(data)
            except (zlib.error, InflateTooLarge):
                self._stop(Outcome.BAD_STREAM)
                return
        if self._partial:
            data = self._partial + data
        end = last_event_end(data)
        if end == len(data):
            self._partial = b""
        else:
            self._partial = data[end:]
            if len(self._partial) > PARTIAL_EVENT_MAX_BYTES:
                self._stop(Outcome.BAD_STREAM)
                return
            if not end:
                return
            data = data[:end]
        self._take_events(data, self._watch)

    def _take_events(self, data: bytes, watch: Watch, raw: bytes | None = None) -> None:
        """Watch, transform and forward whole events; ``raw`` goes on in their place where nothing transforms."""
        try:
            watch.feed(data)
            if watch.is_malformed:
                self._stop(Outcome.BAD_STREAM)
                return
            if watch.error:
                if not self._ends_at_error(watch):
                    self._pass_error(data, watch)
                return
            if (
                watch.saw_done
                and not (self._is_sealed or self.believes_done)
                and watch.is_cut_at_done(is_strict=self.mends)
            ):
                self._stop(Outcome.TRUNCATED)
                return
        except Exception:  # noqa: BLE001 - any failure of ours or nonsense of theirs ends the stream, in band
            self._stop(Outcome.BAD_STREAM)
            return
        if self._transforms:
            transformed = self._transformed(data)
            if transformed is None:
                return
            data = transformed
        if self.first_content_s is None and watch.saw_content:
            self.first_content_s = self._loop.time()
        if not self._is_sealed and (watch.saw_done or (self._seals_on_finish and watch.is_finished)):
            self._seal(Outcome.OK)
        # Only an end may lack its blank line: an error event behind anything else would be read as part of it.
        self._forward(raw if raw is not None and watch.is_finished else data)
        self._has_done = watch.saw_done
        if self.mends:
            self._is_said = watch.is_finished

    def _transformed(self, data: bytes) -> bytes | None:
        """Return what the transforms make of some events; None when one of them ended the stream."""
        try:
            for transform in self._transforms:
                data = transform.feed(data)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the stream ends in band
            self._stop(_outcome_of(exc))
            return None
        return data

    def _ends_at_error(self, watch: Watch) -> bool:
        """Stop at an in-band error that the caller need not see: nothing has left yet, or another may go on."""
        is_unseen = self._responder is None
        if not is_unseen and not self.mends:
            return False
        outcome = classify_error_data(watch.error_data)
        if not is_unseen:
            if outcome is Outcome.UPSTREAM_4XX:
                return False
            outcome = Outcome.UPSTREAM_ERROR_EVENT
        self._stop(outcome)
        return True

    def _pass_error(self, data: bytes, watch: Watch) -> None:
        """Let the caller have everything up to the provider's error, and nothing behind it: no ``[DONE]`` makes it good."""
        passed = b""
        for event in EventDecoder(PARTIAL_EVENT_MAX_BYTES).feed(data):
            passed += event.raw
            if event.data == watch.error_data:
                break
        if self._mask is not None:
            passed = self._mask(passed)
        transformed = self._transformed(passed)
        if transformed is not None:
            self._forward(transformed)
            self.has_told_error = watch.is_error_plain
            self._stop(Outcome.UPSTREAM_ERROR_EVENT)

    def on_end(self, outcome: Outcome) -> None:
        """The provider's body ended; decide what that means for the stream."""
        if self._outcome is not None:
            return
        watch = self._watch
        if watch is not None:
            if self._partial and outcome is Outcome.OK:
                # A last event without its blank line is still an event.
                partial, self._partial = self._partial, b""
                self._take_events(partial + b"\n\n", watch, None if self._transforms else partial)
                if self._has_ended():
                    return
            if outcome is Outcome.OK and not watch.is_finished:
                outcome = Outcome.TRUNCATED
            elif watch.saw_done:
                outcome = Outcome.OK
            elif self._is_said:
                outcome = self._completed()
        self._conclude(outcome)

    def _has_ended(self) -> bool:
        return self._outcome is not None

    def _stop(self, outcome: Outcome) -> None:
        self._live.abort()
        self._conclude(self._completed() if self._is_said else outcome)

    def _completed(self) -> Outcome:
        """Whatever broke behind the finish reason, the answer is whole; give it the end it lacks."""
        self._is_said = False
        if not self._has_done:
            done = self._transformed(_DONE)
            if done is None:
                return self._outcome or Outcome.BAD_STREAM
            self._seal(Outcome.OK)
            self._forward(done)
        return Outcome.OK

    def _conclude(self, outcome: Outcome) -> None:
        rest = b""
        if outcome is Outcome.OK and self._waiting is not None:
            self._release(self._waiting)
        if outcome is Outcome.OK and self._transforms:
            try:
                rest = b"".join([transform.finish() for transform in self._transforms])
            except Exception as exc:  # noqa: BLE001 - as in _transformed
                outcome = _outcome_of(exc)
        self._outcome = outcome
        if self._prelude_timer is not None:
            self._prelude_timer.cancel()
        if self._first_token_timer is not None:
            self._first_token_timer.cancel()
        if outcome is Outcome.OK:
            self._seal(outcome)
            self._forward(rest)
        self._commit()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(outcome)

    def _seal(self, outcome: Outcome) -> None:
        if not self._is_sealed and self._responder is not None:
            self._is_sealed = True
            self._on_terminal(outcome)

    # --- holding and forwarding -------------------------------------------------------------------

    def _forward(self, data: bytes) -> None:
        if not data:
            return
        responder = self._responder
        if responder is not None:
            self.bytes_out += len(data)
            if self._seal_at_bytes is not None and self.bytes_out >= self._seal_at_bytes:
                self._seal(Outcome.OK)
            responder.write(data)
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self.holds_all and self._held_bytes > HELD_STREAM_MAX_BYTES and self._outcome is None:
            self._stop(Outcome.TOO_LARGE)
        elif self._is_ready:
            if self._waiting is not None:
                self._release(self._waiting)
            else:
                self._commit()

    def _commit(self) -> None:
        if self._committed is not None and not self._committed.done():
            self._committed.set_result(None)

    async def committed(self) -> Outcome | None:
        """Wait until the answer is worth starting; return None then, or why it failed before that."""
        if self._outcome is None and not self._is_ready:
            self._committed = self._loop.create_future()
            if not self.holds_all:
                self._prelude_timer = self._loop.call_later(PRELUDE_MAX_S, self._commit)
            try:
                await self._committed
            finally:
                if self._prelude_timer is not None:
                    self._prelude_timer.cancel()
        if self._outcome is not None and self._outcome is not Outcome.OK:
            return self._outcome
        return None

    @property
    def _is_ready(self) -> bool:
        if self.holds_all:
            return False
        watch = self._watch
        return watch is None or watch.saw_content or self._held_bytes > PRELUDE_MAX_BYTES

    def limit_first_token(self, within_s: float) -> None:
        """Stop the stream when no content has come by then."""
        self._first_token_timer = self._loop.call_later(max(0.0, within_s), self._first_token_is_late)

    def _first_token_is_late(self) -> None:
        if self._outcome is None and self._watch is not None and not self._watch.saw_content:
            self._stop(Outcome.FIRST_TOKEN_TIMEOUT)

    def open(self, responder: Responder, *, keeps_prelude: bool = False) -> None:
        """Start to write; what was held goes first.

        Args:
            responder: Whom to write to; its head has been sent.
            keeps_prelude: Write nothing before the first content, so that a failure until then can still be made
                good by another target.
        """
        if keeps_prelude and self._outcome is None and not self._is_ready:
            self._waiting = responder
        else:
            self._release(responder)

    def _release(self, responder: Responder) -> None:
        self._waiting = None
        self._responder = responder
        held, self._held = self._held, []
        watch = self._watch
        if (
            watch is not None and (watch.saw_done or (self._seals_on_finish and watch.is_finished))
        ) or self._outcome is Outcome.OK:
            self._seal(Outcome.OK)
        for piece in held:
            self.bytes_out += len(piece)
            responder.write(piece)

    async def ended(self) -> Outcome:
        """Wait for the end and return how it came."""
        if self._outcome is not None:
            return self._outcome
        self._ended = self._loop.create_future()
        return await self._ended

    def flush_broken(self) -> bytes:
        """Return what the transforms still hold, for a stream that is about to end with an error."""
        return b"".join([transform.finish(broken=True) for transform in self._transforms])


def _outcome_of(failure: Exception) -> Outcome:
    """Return how a stream ends that a transform would not pass on."""
    if isinstance(failure, Unaligned):
        return Outcome.UNALIGNED
    if isinstance(failure, AnswerBlocked):
        return Outcome.ANSWER_BLOCKED
    return Outcome.GATEWAY_FAULT if isinstance(failure, RedactionFault) else Outcome.BAD_STREAM
