"""The counters that sidecars share, kept in Redis or Valkey by ``budgets.lua``.

Owns the connection, the breaker before it, what is waiting to be sent, and which slots this sidecar holds.
Everything asked or settled in one turn of the event loop goes out as one command. A command whose outcome is not
known is never repeated: its reservations are cancelled later, by id, which is harmless if they were never made.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from proxy.core.budget.central import CentralCounter, CentralVerdict, Charge
from proxy.core.budget.shares import Outage
from proxy.stores.redis_client import (
    COMMAND_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    STORE_ERRORS,
    Client,
    NoScriptError,
    RedisError,
    connect,
)
from proxy.stores.redis_words import SCRIPT, Word, Words

HEARTBEAT_S = 1.0
ALIVE_S = 5.0
"""A sidecar not heard of for so long does not count as a member."""
SETTLE_WITHIN_S = 0.01
MAX_BATCH = 100
"""Operations of one command: a longer script would keep everybody else waiting."""
MAX_IN_FLIGHT = 4
MAX_UNSETTLED = 10_000
"""Settlements kept through an outage; older ones are given up, which can only leave a budget unused."""

Notice = Callable[..., None]


class _Operation:
    """One operation on its way: ``write`` gives its words, ``read`` takes its reply, ``lost`` hears that none came."""

    __slots__ = ("lost", "read", "write")

    def __init__(
        self,
        write: Callable[[dict[str, int]], list[Word]],
        read: Callable[[Any], None] | None = None,
        lost: Callable[[], None] | None = None,
    ) -> None:
        self.write = write
        self.read = read
        self.lost = lost


def _lose(operations: Sequence[_Operation]) -> None:
    for operation in operations:
        if operation.lost is not None:
            operation.lost()


class RedisBudgets:
    """Implements ``flow.budget_ports.Central``. Nothing is asked before ``run`` and after ``close``."""

    def __init__(  # noqa: PLR0913 - assembly names each of them
        self,
        url: str,
        *,
        sidecar: str,
        namespace: str,
        max_sidecars: int,
        lease_s: float,
        unix_s: Callable[[], float],
        now_s: Callable[[], float],
        notice: Notice,
        on_back: Callable[[], None] | None = None,
        script: str = SCRIPT,
    ) -> None:
        """Dial nothing yet.

        Args:
            url: See ``redis_client.connect``.
            sidecar: Who we are among the members; unique per process.
            namespace: Whose counters; one hash tag, so one node of a cluster.
            unix_s: The wall clock, for calendar boundaries only.
            now_s: The monotonic clock.
            notice: Hears of outages, of too many members and of lost slots.
            on_back: Called when the store answers again after an outage.
        """
        self._client: Client = connect(url)
        self._script = script
        self._sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._words = Words(namespace, lease_s, unix_s)
        self._sidecar = sidecar
        self.max_sidecars = max_sidecars
        self._lease_s = lease_s
        self._now_s = now_s
        self._notice = notice
        self.on_back = on_back
        self._outage = Outage()
        self._outage.is_open = True
        self._tasks: asyncio.TaskGroup | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[_Operation] = deque()
        self._unsettled: deque[_Operation] = deque(maxlen=MAX_UNSETTLED)
        self._flush_handle: asyncio.Handle | None = None
        self._is_urgent = False
        self._in_flight = 0
        self._slots: dict[str, set[str]] = {}
        self._era = 0
        """When the state in the store began, as we know it; another one means that charges were lost."""
        self.members = 0
        self.pauses: dict[str, float] = {}
        """Whom the sidecars agreed not to ask -> monotonic second until when."""
        self.round_trips = 0
        self.operations = 0
        self.failures = 0
        self.given_up = 0
        """Settlements that an outage was too long for; what they had reserved stays charged until its window has passed."""
        self.latency_s = 0.0

    # --- flow.budget_ports.Central ------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """True while the store is not asked."""
        return self._outage.is_open

    @property
    def trouble(self) -> str:
        """Why the store is not asked; empty when it is."""
        return self._outage.reason or "not connected yet" if self._outage.is_open else ""

    def outage_s(self, now_s: float) -> float:
        """Return for how long the store has not answered."""
        return self._outage.lasted_s(now_s)

    def acquire(self, rid: str, charges: Sequence[Charge], pauses: Sequence[str]) -> Awaitable[CentralVerdict | None]:
        """Charge all counters or none; None when the outcome is not known."""
        loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[CentralVerdict | None] = loop.create_future()
        slots = [self._words.key(c) for c, _ in charges if c.shape is None]

        def read(reply: list[int]) -> None:
            verdict = self._words.verdict(charges, reply)
            if future.done():  # its exchange has gone, and asked for the cancellation itself
                return
            if verdict.is_granted:
                for key in slots:
                    self._slots.setdefault(key, set()).add(rid)
            future.set_result(verdict)

        def lost() -> None:
            # At once where the store still answers: whoever asks again finds no room that only this one holds.
            self.cancel(rid, charges)
            if not future.done():
                future.set_result(None)

        if self._tasks is None:
            future.set_result(None)
            return future
        self._put(_Operation(lambda index: self._words.acquire(rid, charges, pauses, index), read, lost), urgent=True)
        return future

    def settle(self, rid: str, charges: Sequence[Charge], spent: Sequence[int]) -> None:
        """Correct the charges to what was spent, soon."""
        self._end(rid, charges, spent, marks=False)

    def cancel(self, rid: str, charges: Sequence[Charge]) -> None:
        """Take the charges back, soon."""
        self._end(rid, charges, [0] * len(charges), marks=True)

    def pause(self, whom: str, for_s: float) -> None:
        """Tell the other sidecars that a provider takes nothing for so long."""
        self.pauses[whom] = max(self.pauses.get(whom, 0.0), self._now_s() + for_s)
        if not self._outage.is_open:  # a hint is not worth keeping
            self._put(_Operation(lambda _index: ["P", whom, for_s]), urgent=False)

    def _end(self, rid: str, charges: Sequence[Charge], spent: Sequence[int], *, marks: bool) -> None:
        for held in self._slots.values():
            held.discard(rid)
        if self._outage.is_open:
            self._later(rid, charges, spent, marks=marks)
        else:
            self._put(self._settlement(rid, charges, spent, marks=marks), urgent=False)

    def _settlement(self, rid: str, charges: Sequence[Charge], spent: Sequence[int], *, marks: bool) -> _Operation:
        return _Operation(
            lambda index: self._words.settle(rid, charges, spent, index, marks=marks),
            lost=lambda: self._later(rid, charges, spent, marks=marks),
        )

    def _later(self, rid: str, charges: Sequence[Charge], spent: Sequence[int], *, marks: bool) -> None:
        """Keep a settlement until the store answers again."""
        self.given_up += len(self._unsettled) == MAX_UNSETTLED
        self._unsettled.append(self._settlement(rid, charges, spent, marks=marks))

    async def look(self, counters: Sequence[CentralCounter]) -> list[tuple[int, float]] | None:
        """Return what is used of each and the seconds until it is whole again; None when the store does not say."""
        if self._tasks is None or self._outage.is_open or not counters:
            return None if counters else []
        future: asyncio.Future[list[tuple[int, float]] | None] = asyncio.get_running_loop().create_future()

        def answer(reply: list[int] | None) -> None:
            if not future.done():
                pairs = (
                    None if reply is None else list(zip(reply[::2], (ms / 1000.0 for ms in reply[1::2]), strict=True))
                )
                future.set_result(pairs)

        self._put(
            _Operation(lambda index: self._words.look(counters, index), answer, lambda: answer(None)), urgent=True
        )
        return await future

    # --- sending ------------------------------------------------------------------------------------

    def _put(self, operation: _Operation, *, urgent: bool) -> None:
        """Send with whatever else this turn of the loop brings; settlements may wait a little for company."""
        if self._tasks is None or self._loop is None:
            if operation.lost is not None:
                operation.lost()
            return
        self._waiting.append(operation)
        if self._flush_handle is not None:
            if not urgent or self._is_urgent:
                return
            self._flush_handle.cancel()
        self._is_urgent = urgent
        if urgent:
            self._flush_handle = self._loop.call_soon(self._flush)
        else:
            self._flush_handle = self._loop.call_later(SETTLE_WITHIN_S, self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
        if self._outage.is_open:  # what queued up behind late commands does not wait for its own
            self._lose_waiting()
        while self._waiting and self._in_flight < MAX_IN_FLIGHT and self._tasks is not None:
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            self._in_flight += 1
            self._tasks.create_task(self._send(batch), name="budget-store-batch")

    def _lose_waiting(self) -> None:
        """Let everybody who waits to be sent go on without an answer."""
        waiting = list(self._waiting)
        self._waiting.clear()
        _lose(waiting)

    async def _send(self, batch: list[_Operation]) -> None:
        try:
            replies = await self._command(batch)
        except BaseException:
            _lose(batch)
            raise
        finally:
            self._in_flight -= 1
        if replies is None:
            _lose(batch)
        else:
            for operation, reply in zip(batch, replies, strict=True):
                if operation.read is not None:
                    operation.read(reply)
        if self._waiting and self._flush_handle is None:
            self._flush()

    async def _command(self, batch: list[_Operation]) -> list[Any] | None:
        """Run one script call; None when its outcome is not known."""
        index: dict[str, int] = {}
        words: list[Word] = []
        for operation in batch:
            words += operation.write(index)
        keys = (*self._words.common, *index)
        packed = orjson.dumps(words)
        began_s = self._now_s()
        self.round_trips += 1
        self.operations += len(batch)
        try:
            # The driver's time-outs are per read; this one is for the whole command, dialling included.
            async with asyncio.timeout(CONNECT_TIMEOUT_S + COMMAND_TIMEOUT_S):
                try:
                    replies: list[Any] = await self._client.evalsha(self._sha, len(keys), *keys, packed)
                except NoScriptError:
                    replies = await self._client.eval(self._script, len(keys), *keys, packed)
        except (*STORE_ERRORS, RuntimeError) as exc:  # uvloop's word for a connection that closed before we wrote
            self._failed(exc)
            return None
        self.latency_s = self._now_s() - began_s
        self._worked()
        return replies

    def _failed(self, exc: BaseException) -> None:
        self.failures += 1
        reason = type(exc).__name__
        if isinstance(exc, RedisError) and str(exc).startswith(("OOM", "READONLY", "LOADING", "NOAUTH", "CLUSTERDOWN")):
            reason = str(exc).split(" ", 1)[0]
        if self._outage.failed(reason, self._now_s()):
            self._notice("budget_store_away", reason=reason)

    def _worked(self) -> None:
        if self._outage.worked():
            self._notice("budget_store_back")
            if self.on_back is not None:
                self.on_back()

    # --- running ------------------------------------------------------------------------------------

    async def greet(self) -> None:
        """Meet the store before the first request does; when it is away, that is said and we go on."""
        self._loop = asyncio.get_running_loop()
        await self._beat()
        if self._outage.is_open:
            self._notice("budget_store_away", reason=self._outage.reason)

    async def run(self) -> None:
        """Keep the connection alive: a heartbeat a second, which is also the probe in an outage. Ends by cancellation."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                renewed_s = self._now_s()
                while True:
                    await self._beat()
                    now_s = self._now_s()
                    if now_s - renewed_s >= self._lease_s / 3:
                        if now_s - renewed_s > self._lease_s:
                            self._notice("budget_lease_missed", paused_s=round(now_s - renewed_s, 1))
                        await self._renew()
                        renewed_s = now_s
                    await asyncio.sleep(HEARTBEAT_S)
        except BaseExceptionGroup as exc:
            # A defect of ours ended the conversation: slices decide from now on, nobody waits, and health says so.
            self._outage.is_open, self._outage.reason = True, type(exc.exceptions[0]).__name__
            raise
        finally:
            self._tasks = None
            self._lose_waiting()

    async def _beat(self) -> None:
        """Say that we are here, hear who else is, and deliver what an outage kept."""
        kept = [self._unsettled.popleft() for _ in range(min(MAX_BATCH - 1, len(self._unsettled)))]
        beat = _Operation(lambda _index: ["H", self._sidecar, ALIVE_S, self._era], self._heard)
        self._in_flight += 1
        await self._send([beat, *kept])
        while self._unsettled and not self._outage.is_open:
            kept = [self._unsettled.popleft() for _ in range(min(MAX_BATCH, len(self._unsettled)))]
            self._in_flight += 1
            await self._send(kept)

    def _heard(self, reply: list[Any]) -> None:
        before, self.members = self.members, reply[0]
        if reply[1] != self._era != 0:
            self._notice("budget_store_lost_state")
        self._era = reply[1]
        if self.members > self.max_sidecars >= before:
            self._notice("members_exceed_max", members=self.members, max_sidecars=self.max_sidecars)
        now_s = self._now_s()
        self.pauses = {
            name.decode("utf-8", "replace"): now_s + left_ms / 1000.0
            for name, left_ms in zip(reply[2::2], reply[3::2], strict=True)
        }

    async def _renew(self) -> None:
        """Keep our slots for another lease; what has run out meanwhile is lost, and said to be."""
        for key, held in list(self._slots.items()):
            if not held:
                del self._slots[key]
                continue
            rids = sorted(held)
            for start in range(0, len(rids), MAX_BATCH):
                part = rids[start : start + MAX_BATCH]
                self._in_flight += 1
                await self._send([self._renewal(key, part)])

    def _renewal(self, key: str, rids: list[str]) -> _Operation:
        def read(reply: list[int]) -> None:
            if reply[0] < len(rids):
                self._notice("budget_slots_lost", slots=len(rids) - reply[0])

        return _Operation(lambda index: self._words.renew(key, rids, index), read)

    async def close(self) -> None:
        """Deliver what can still be delivered, and hang up."""
        left = [*self._waiting, *self._unsettled]
        self._waiting.clear()
        while left and not self._outage.is_open:
            await self._command(left[:MAX_BATCH])
            del left[:MAX_BATCH]
        try:
            await self._client.aclose()
        except STORE_ERRORS:
            self._notice("budget_store_unclean_close")
