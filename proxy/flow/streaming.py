"""One streamed answer on its way from a provider to a caller.

Owns what is held back: the prelude before the first content, the unfinished last event, and what the
restorer keeps. Works on whole events, so that nothing half-sent ever precedes an error event. Knows no
chain: it tells its relay when it is committed and how it ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.core.routing.classify import classify_error_data
from proxy.core.sse import EventDecoder
from proxy.flow.forwarding import PRELUDE_MAX_S
from proxy.flow.large_reads import LargeReads
from proxy.flow.ports import LiveBody
from proxy.flow.stream_parts import Decoder, Transform, Watch, last_event_end, outcome_of
from proxy.terms.outcomes import OK, Outcome

PARTIAL_EVENT_MAX_BYTES: Final = 1024 * 1024
_DONE: Final = b"data: [DONE]\n\n"


class StreamPipe(LargeReads):
    """A ``BodySink`` that watches, transforms and forwards one live answer.

    Before ``open`` everything is held: a failure then is still invisible to the caller. ``on_terminal`` is
    called once, before the bytes that tell the caller that the answer is complete are written.
    """

    __slots__ = (
        "_is_said",
        "_mask",
        "_partial",
        "believes_done",
        "first_content_s",
        "has_told_error",
        "mends",
    )

    def __init__(
        self,
        live: LiveBody,
        watch: Watch | None,
        transforms: tuple[Transform, ...],
        on_terminal: Callable[[Outcome], None],
        *,
        decoder: Decoder | None = None,
        mask: Callable[[bytes], bytes] | None = None,
        seals_on_finish: bool = False,
        seal_at_bytes: int | None = None,
    ) -> None:
        """Stand between ``live`` and a responder.

        Args:
            watch: Facts of the events; None for bodies that are only passed.
            on_terminal: Called once, before the bytes that complete the answer are written.
            decoder: Makes readable events of the provider's bytes.
            mask: Takes credentials out of events once an in-band error has been seen.
            seals_on_finish: The dialect's last event, not ``[DONE]``, completes the answer.
            seal_at_bytes: This many bytes complete the answer.
        """
        super().__init__(live, watch, transforms, decoder, on_terminal, seals_on_finish, seal_at_bytes)
        self._mask = mask
        self.believes_done = False
        """``[DONE]`` is the end whatever came before it: nobody else could say it better."""
        self.has_told_error = False
        """The caller has the provider's own words about what went wrong."""
        self._is_said = False
        self.mends = False
        """A break can be mended: the provider's error is not shown, ``[DONE]`` alone is no end, and what breaks behind the
        finish is whole."""
        self._partial = b""
        self.first_content_s: float | None = None

    # --- BodySink ---------------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        """Take raw bytes from the provider; forward the whole events among them, and nothing that follows ``[DONE]``."""
        if self._outcome is not None or self._has_done:
            return
        if len(data) > self._large_bytes or self._backlog is not None:
            self._put_off(data)
        elif self._decoder is None:
            self._take(data)
        else:
            self._decode(data, self._decoder)

    def _decode(self, data: bytes, decoder: Decoder) -> None:
        """Take bytes that are no events yet; what they become is worked off like a large read when it is much."""
        try:
            data = decoder.feed(data)
        except Exception:  # noqa: BLE001 - whatever they sent, it is not what they say it is
            self._stop(Outcome.BAD_STREAM)
            return
        if len(data) > self._large_bytes:
            self._wake_for().put_first(data)
        elif data:
            self._take(data)

    def _decode_rest(self, decoder: Decoder) -> None:
        try:
            rest = decoder.flush()
        except Exception:  # noqa: BLE001 - as above
            self._stop(Outcome.BAD_STREAM)
            return
        if rest:
            self._take(rest)

    def _take(self, data: bytes) -> None:
        if self._watch is None:
            transformed = self._transformed(data)
            if transformed is not None:
                self._forward(transformed)
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
        if self._is_too_large(data):
            self._put_off(b"", data)
        else:
            self._take_events(data, self._watch)

    def _take_events(self, data: bytes, watch: Watch, raw: bytes | None = None) -> None:
        """Watch, transform and forward whole events; ``raw`` goes on in their place where nothing transforms."""
        if not self._is_welcome(data, watch):
            return
        if self._transforms:
            transformed = self._transformed(data)
            if transformed is None:
                return
            data = transformed
        self._hand_on(data, watch, raw)

    def _is_welcome(self, data: bytes, watch: Watch, *, is_watched: bool = False) -> bool:
        """Look at whole events; False when they, or what stands among them, ended the stream."""
        try:
            if not is_watched:
                watch.feed(data)
            if watch.is_malformed:
                self._stop(Outcome.BAD_STREAM)
                return False
            if watch.error:
                if not self._ends_at_error(watch):
                    self._pass_error(data, watch)
                return False
            if (
                watch.saw_done
                and not (self._is_sealed or self.believes_done)
                and watch.is_cut_at_done(is_strict=self.mends)
            ):
                self._stop(Outcome.TRUNCATED)
                return False
        except Exception:  # noqa: BLE001 - any failure of ours or nonsense of theirs ends the stream, in band
            self._stop(Outcome.BAD_STREAM)
            return False
        return True

    def _hand_on(self, data: bytes, watch: Watch, raw: bytes | None) -> None:
        """Forward events that are ready, after the row when they complete the answer."""
        if self.first_content_s is None and watch.saw_content:
            self.first_content_s = self._loop.time()
        if not self._is_sealed and (watch.saw_done or (self._seals_on_finish and watch.is_finished)):
            self._seal(OK)
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
            self._stop(outcome_of(exc))
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

    # --- the end ------------------------------------------------------------------------------------

    def on_end(self, outcome: Outcome) -> None:
        """The provider's body ended; decide what that means for the stream."""
        if self._outcome is not None:
            return
        if self._backlog is not None and outcome is not Outcome.TOTAL_TIMEOUT:
            self._backlog.end = outcome
            return
        watch = self._watch
        if watch is not None:
            if outcome is OK:
                self._take_last(watch)
                if self._has_ended():
                    return
                if self._backlog is not None:
                    self._backlog.end = outcome
                    return
            if outcome is OK and not watch.is_finished:
                outcome = Outcome.TRUNCATED
            elif watch.saw_done:
                outcome = OK
            elif self._is_said:
                outcome = self._completed()
        self._conclude(outcome)

    def _take_last(self, watch: Watch) -> None:
        """Take what is only known to be whole now that the body has ended; it may be put off."""
        if self._decoder is not None:
            self._decode_rest(self._decoder)
        if self._partial and self._backlog is None and not self._has_ended():
            # A last event without its blank line is still an event.
            last, self._partial = self._partial, b""
            if self._is_too_large(last):
                self._put_off(b"", last + b"\n\n")
            else:
                self._take_events(last + b"\n\n", watch, None if self._transforms else last)

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
            self._seal(OK)
            self._forward(done)
        return OK

    def _conclude(self, outcome: Outcome) -> None:
        rest = b""
        if outcome is OK and self._waiting is not None:
            self._release(self._waiting)
        if outcome is OK and self._transforms:
            try:
                rest = b"".join([transform.finish() for transform in self._transforms])
            except Exception as exc:  # noqa: BLE001 - as in _transformed
                outcome = outcome_of(exc)
        self._outcome = outcome
        if self._backlog is not None:  # nobody need wait for the caller any more
            self._backlog.let_go()
        if self._prelude_timer is not None:
            self._prelude_timer.cancel()
        if self._first_token_timer is not None:
            self._first_token_timer.cancel()
        if outcome is OK:
            self._seal(outcome)
            self._forward(rest)
        self._commit()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    async def committed(self) -> Outcome | None:
        """Wait until the answer is worth starting; return None then, or why it failed before that."""
        if self._outcome is None and not self._is_ready:
            if not self.holds_all:
                self._prelude_timer = self._loop.call_later(PRELUDE_MAX_S, self._end_prelude)
            try:
                await self._until_ready()
            finally:
                if self._prelude_timer is not None:
                    self._prelude_timer.cancel()
        if self._outcome is not None and self._outcome is not OK:
            return self._outcome
        return None

    async def _until_ready(self) -> None:
        while self._outcome is None and not (self._is_ready or self._is_prelude_over):
            if self._backlog is not None and self._turns is not None:
                await self._work_off(self._backlog, self._turns, is_opening=True)
            else:
                self._committed = self._loop.create_future()
                await self._committed

    async def ended(self) -> Outcome:
        """Wait for the end and return how it came."""
        while self._outcome is None:
            if self._backlog is not None and self._turns is not None:
                await self._work_off(self._backlog, self._turns)
            else:
                self._ended = self._loop.create_future()
                await self._ended
        return self._outcome

    def flush_broken(self) -> bytes:
        """Return what the transforms still hold, for a stream that is about to end with an error.

        Nothing while they are at work beside the loop: the exchange was cancelled in that moment.
        """
        if self._is_apart:
            return b""
        return b"".join([transform.finish(broken=True) for transform in self._transforms])
