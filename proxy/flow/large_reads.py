"""The large reads of one streamed answer: put off, worked off a turn at a time, or read beside the loop.

Owns the backlog and who is told of it. Knows how long a turn is (``pacing``), not what events are: ``streaming`` takes what
its turn brings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from sys import maxsize

from proxy.flow.forwarding import Forwarding
from proxy.flow.pacing import LARGE_EVENT_BYTES, LARGE_READ_BYTES, TURN_S, Backlog, Turns
from proxy.flow.ports import LiveBody
from proxy.flow.stream_parts import Decoder, Transform, Watch, outcome_of
from proxy.terms.outcomes import Outcome


class LargeReads(Forwarding):
    """Takes what is too much to be taken at once; small reads never come here."""

    __slots__ = (
        "_backlog",
        "_bytes_in",
        "_decoder",
        "_ended",
        "_has_done",
        "_is_apart",
        "_is_held",
        "_large_bytes",
        "_live",
        "_transforms",
        "_turns",
        "is_buffered",
    )

    def __init__(
        self,
        live: LiveBody,
        watch: Watch | None,
        transforms: tuple[Transform, ...],
        decoder: Decoder | None,
        on_terminal: Callable[[Outcome], None],
        seals_on_finish: bool,
        seal_at_bytes: int | None,
    ) -> None:
        super().__init__(watch, on_terminal, seals_on_finish, seal_at_bytes)
        self._live = live
        self._transforms = transforms
        self._decoder = decoder
        self._turns: Turns | None = None
        self._large_bytes = maxsize
        self._backlog: Backlog | None = None
        self._is_held = False
        self._is_apart = False
        self._bytes_in = 0
        self._has_done = False
        self._ended: asyncio.Future[None] | None = None
        self.is_buffered = False
        """The transforms keep whole texts and judge them at their ends."""

    def take_turns(self, turns: Turns) -> None:
        """Have large reads worked off in turns by whoever waits in ``committed`` and ``ended``, not at once."""
        if self._transforms:
            self._turns, self._large_bytes = turns, LARGE_READ_BYTES
        elif self._watch is not None:  # to watch is a tenth of the work
            self._turns, self._large_bytes = turns, LARGE_READ_BYTES * 8

    def _may_have_content(self) -> bool:
        return self._backlog is not None

    def _is_too_large(self, events: bytes) -> bool:
        """True for events that are not to be transformed on the loop: large ones, and in a stream that is buffered all."""
        if len(events) <= LARGE_EVENT_BYTES and not self.is_buffered:
            return False
        if self._turns is None or not self._transforms:
            return False
        self._bytes_in += len(events)
        return self._bytes_in > LARGE_EVENT_BYTES

    def _put_off(self, data: bytes, events: bytes | None = None) -> None:
        """Leave a large read, or whole events that are large, to whoever waits for this stream."""
        backlog = self._wake_for()
        if data:
            backlog.add(data)
        if events is not None:
            backlog.large = events

    def _wake_for(self) -> Backlog:
        """Return the backlog after telling whoever waits for this stream that there is something in it."""
        backlog = self._backlog
        if backlog is None:
            backlog = self._backlog = Backlog(self._live, self._large_bytes // 4, is_held=self._is_held)
        for waiting in (self._committed, self._ended):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        return backlog

    async def _work_off(self, backlog: Backlog, turns: Turns, *, is_opening: bool = False) -> None:
        """Take what was put off, a turn at a time; ``is_opening``: only until the answer is worth starting."""
        while self._outcome is None and not self._has_done:
            if is_opening and (self._is_ready or self._is_prelude_over):
                return
            await backlog.until_let_go()
            if backlog.large is not None:
                await self._take_large(backlog, turns)
            elif backlog.is_empty:
                break
            else:
                async with turns.lock:
                    self._take_turn(backlog, turns.now_s)
                    await asyncio.sleep(0)  # with the lock: whoever is next has the next turn of the loop
        self._backlog = None
        backlog.clear()
        if backlog.end is not None:
            self.on_end(backlog.end)

    def _take_turn(self, backlog: Backlog, now_s: Callable[[], float]) -> None:
        until_s = now_s() + TURN_S
        while self._outcome is None and not backlog.is_empty:
            if self._decoder is None or backlog.is_first_plain:
                self._take(backlog.next_slice())
            else:
                self._decode(backlog.next_slice(), self._decoder)
            if backlog.large is not None or self._is_held or now_s() > until_s:
                return

    async def _take_large(self, backlog: Backlog, turns: Turns) -> None:
        """Read events beside the loop that are too large for a turn."""
        data, backlog.large = backlog.large, None
        watch = self._watch
        assert data is not None
        assert watch is not None
        self._is_apart = True
        made: bytes | Outcome = await turns.offload(partial(self._read_apart, data, watch))
        self._is_apart = False
        if self._outcome is not None:
            return
        if isinstance(made, Outcome):
            self._stop(made)
        elif self._is_welcome(data, watch, is_watched=True):
            self._hand_on(made, watch, None)

    def _read_apart(self, data: bytes, watch: Watch) -> bytes | Outcome:
        """Watch and transform in a worker thread; the loop then decides what it comes to. Nothing else is touched."""
        try:
            watch.feed(data)
        except Exception:  # noqa: BLE001 - as in _is_welcome
            return Outcome.BAD_STREAM
        if watch.error or watch.is_malformed:
            return data
        try:
            for transform in self._transforms:
                data = transform.feed(data)
        except Exception as exc:  # noqa: BLE001 - as in _transformed
            return outcome_of(exc)
        return data

    def pause(self) -> None:
        """The caller's socket is full."""
        self._is_held = True
        if self._backlog is not None:
            self._backlog.hold()
        self._live.pause()

    def resume(self) -> None:
        """The caller takes bytes again."""
        self._is_held = False
        if self._backlog is not None:
            self._backlog.let_go()
        else:
            self._live.resume()

    # --- what the stream does with it ---------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        raise AssertionError("a stream takes bytes")

    def _decode(self, data: bytes, decoder: Decoder) -> None:
        raise AssertionError("a stream decodes bytes")

    def _is_welcome(self, data: bytes, watch: Watch, *, is_watched: bool = False) -> bool:
        raise AssertionError("a stream looks at events")

    def _hand_on(self, data: bytes, watch: Watch, raw: bytes | None) -> None:
        raise AssertionError("a stream hands events on")

    def _stop(self, outcome: Outcome) -> None:
        raise AssertionError("a stream stops")

    def on_end(self, outcome: Outcome) -> None:
        """The provider's body has ended."""
        raise AssertionError("a stream ends")
