"""The caller's half of one streamed answer: what is held before its first content, and what goes out.

Owns the prelude and the moment of the seal: the row is written before the bytes that complete the answer. Knows no
provider; ``streaming`` fills it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.flow.ports import Responder
from proxy.flow.stream_parts import Watch
from proxy.terms.outcomes import Outcome

PRELUDE_MAX_S: Final = 0.25
PRELUDE_MAX_BYTES: Final = 16 * 1024
HELD_STREAM_MAX_BYTES: Final = 8 * 1024 * 1024
"""A stream that is delivered only when whole may be so long."""


class Forwarding:
    """Holds, then forwards; a failure while everything is held is invisible to the caller."""

    __slots__ = (
        "_committed",
        "_first_token_timer",
        "_held",
        "_held_bytes",
        "_is_prelude_over",
        "_is_sealed",
        "_loop",
        "_on_terminal",
        "_outcome",
        "_prelude_timer",
        "_responder",
        "_seal_at_bytes",
        "_seals_on_finish",
        "_waiting",
        "_watch",
        "bytes_out",
        "holds_all",
    )

    def __init__(
        self,
        watch: Watch | None,
        on_terminal: Callable[[Outcome], None],
        seals_on_finish: bool,
        seal_at_bytes: int | None,
    ) -> None:
        self._watch = watch
        self._on_terminal = on_terminal
        self._seals_on_finish = seals_on_finish
        self._seal_at_bytes = seal_at_bytes
        self.holds_all = False
        """Nothing goes out before the answer is whole."""
        self._loop = asyncio.get_running_loop()
        self._outcome: Outcome | None = None
        self._responder: Responder | None = None
        self._waiting: Responder | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._is_sealed = False
        self._is_prelude_over = False
        self._committed: asyncio.Future[None] | None = None
        self._prelude_timer: asyncio.TimerHandle | None = None
        self._first_token_timer: asyncio.TimerHandle | None = None
        self.bytes_out = 0

    def _stop(self, outcome: Outcome) -> None:
        raise AssertionError("a stream stops")

    def _may_have_content(self) -> bool:
        raise AssertionError("a stream knows what waits")

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

    def _end_prelude(self) -> None:
        self._is_prelude_over = True
        self._commit()

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
        if self._may_have_content():  # it may be among what has come
            self.limit_first_token(PRELUDE_MAX_S)
        elif self._outcome is None and self._watch is not None and not self._watch.saw_content:
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
