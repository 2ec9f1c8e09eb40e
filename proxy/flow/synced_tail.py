"""The caller's side of one exchange when rows must survive a power cut: the end of an answer waits for its row.

Owns what is held back once the row has been written and until it is synced. Stands between an exchange and
its responder with ``durability: fsync`` only; otherwise it is never made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from proxy.flow.outbox import Outbox
from proxy.flow.ports import LiveBody, Pausable, Responder
from proxy.terms.errors import SpoolUnavailable


class SyncedTail:
    """A ``Responder`` that lets nothing pass between the row's writing and its sync."""

    def __init__(self, responder: Responder, outbox: Outbox) -> None:
        self._responder = responder
        self._outbox = outbox
        self._waiter: asyncio.Future[None] | None = None
        self._held: list[Callable[[], None]] = []
        self._is_lost = False
        self.is_sealed: Callable[[], bool] = lambda: False
        """Whether the exchange has written its row; set by whoever makes the exchange."""

    async def settled(self) -> None:
        """Wait until nothing is held back any more, or the caller is gone."""
        if self._waiter is None:
            return
        try:
            await asyncio.wait([self._waiter])
        except asyncio.CancelledError:
            self._waiter = None
            self.abort()
        else:
            self._release(self._waiter)

    @property
    def has_started(self) -> bool:
        return bool(self._held) or self._responder.has_started

    def send_whole(self, status: int, reason: bytes, headers: bytes, body: bytes) -> None:
        self._pass(partial(self._responder.send_whole, status, reason, headers, body))

    def send_head(self, status: int, reason: bytes, headers: bytes) -> None:
        self._pass(partial(self._responder.send_head, status, reason, headers))

    def start(self, status: int, reason: bytes, headers: bytes, length: int | None) -> None:
        self._pass(partial(self._responder.start, status, reason, headers, length))

    def write(self, data: bytes) -> None:
        if self._waiter is None and not self.is_sealed():
            self._responder.write(data)
        else:
            self._pass(partial(self._responder.write, data))

    def finish(self) -> None:
        self._pass(self._responder.finish)

    def abort(self) -> None:
        """Cut at once: a broken end needs no promise. What was held belongs to a whole one, and is dropped."""
        self._held.clear()
        self._responder.abort()

    def bind(self, live: Pausable) -> None:
        self._responder.bind(live)

    def tunnel(self, head: bytes, live: LiveBody) -> None:
        self._responder.tunnel(head, live)

    def tunnel_write(self, data: bytes) -> None:
        self._responder.tunnel_write(data)

    def _pass(self, act: Callable[[], None]) -> None:
        """Do it now, or after the sync that is being waited for."""
        if self._waiter is None and not self._is_lost and self.is_sealed():
            try:
                self._waiter = self._outbox.waiter()
            except SpoolUnavailable:
                self._is_lost = True
            else:
                if self._waiter is not None:
                    self._waiter.add_done_callback(self._release)
        if self._waiter is not None:
            self._held.append(act)
        else:
            self._do(act)

    def _release(self, waiter: asyncio.Future[None]) -> None:
        if self._waiter is None:
            return
        self._waiter = None
        self._is_lost = not waiter.cancelled() and waiter.exception() is not None
        held, self._held = self._held, []
        for act in held:
            self._do(act)

    def _do(self, act: Callable[[], None]) -> None:
        """Act; the end of a stream whose row is not safe is a broken one, a refusal goes out all the same."""
        if self._is_lost and self._responder.has_started:
            self._responder.abort()
        else:
            act()
