"""Keeps the values of a conversation between its turns, where policy asks: the provider may hold what earlier turns said.

Owns which store entry belongs to which history, what becomes of a turn whose store does not answer, and the writes
under way. Knows no cipher and no Redis: a ``ValueStore`` is asked. Never logs a value or the name of a conversation.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import Any, Final, Protocol

from proxy.core.dialect import Dialect
from proxy.core.health.breaker import Breaker, BreakerState
from proxy.core.redaction import Vault
from proxy.core.redaction.history import (
    ID_WINDOW_BYTES,
    KeptRow,
    answer_id,
    history_of,
    names_history,
    read_rows,
    write_rows,
)
from proxy.flow.exchange import Exchange
from proxy.terms.errors import ValuesUnavailable

NOT_RECALLED: Final = "values_not_recalled"
"""What a row notes when earlier turns' placeholders could not be known: they come back as they are."""
NOT_KEPT: Final = "values_not_kept"
"""What a row notes when later turns will not know this one's placeholders."""
MAX_VALUES: Final = 1000
"""Of one history; more than these are not kept."""
_MAX_BYTES: Final = 1 << 20
_MAX_WRITES: Final = 1000
"""Under way at once; what comes on top of it is not kept."""


class ValueStore(Protocol):
    """Holds sealed rows by history, each for its time."""

    async def read(self, history: str) -> list[bytes]:
        """Return everything kept under a name. Raises ValuesUnavailable."""
        ...

    async def write(self, history: str, rows: bytes, keep_s: float) -> None:
        """Add to what is kept under a name, and keep all of it for so long from now. Raises ValuesUnavailable."""
        ...

    async def close(self) -> None:
        """Let connections go."""
        ...


class KeptValues:
    """The values of conversations as exchanges meet them; one per process."""

    def __init__(self, store: ValueStore, key: bytes, now_s: Callable[[], float], dice: Callable[[], float]) -> None:
        """``key``: names of histories are made with it, so that a store tells nothing of conversations."""
        self._store = store
        self._key = hmac.digest(key, b"histories", "sha256")
        self._now_s = now_s
        self._dice = dice
        self._breaker = Breaker()
        self._writes: dict[str, asyncio.Task[None]] = {}
        """By history: a turn that comes at once waits for what the turn before it had to keep."""
        self.recalled = self.kept = self.failures = 0

    @property
    def is_open(self) -> bool:
        """True while the store is left alone."""
        return self._breaker.state is not BreakerState.CLOSED

    async def close(self) -> None:
        """Finish the writes under way, then let the store go."""
        if self._writes:
            await asyncio.wait(set(self._writes.values()), timeout=1.0)
        await self._store.close()

    async def join(self, exchange: Exchange, keep_s: float, document: Any) -> None:
        """Give an exchange the values of the turns before it, and keep its own for the turns after it.

        Args:
            exchange: Redacted already; its vault grows by what is recalled.
            keep_s: How long.
            document: The request, parsed; or None where it holds no member that names a history.
        """
        conversation, before = history_of(document)
        lasting = self._names(exchange, ("said", exchange.facts.conversation), ("conversation", conversation))
        earlier = [*lasting, *self._names(exchange, ("answer", before))]
        own = {} if exchange.vault is None else {row[2]: row for row in exchange.vault.rows()}
        found = {name: await self._recall(exchange, name) for name in earlier}
        recalled = {tag: row for rows in found.values() for tag, row in rows.items()}
        self.recalled += len(recalled)
        if recalled:
            vault = exchange.vault = exchange.vault or Vault()
            vault.take(recalled.values())
        known = recalled | own
        if known:
            follower = exchange.follows = Follower(self, exchange, list(known.values()), keep_s)
            for name in lasting:
                new = [row for tag, row in known.items() if tag not in found[name]]
                if new or own:  # nothing new was said again: what is kept lasts from now on
                    follower.waits_for(self._keep(exchange, name, new, keep_s, len(found[name])))

    def keep_under(
        self, exchange: Exchange, answer: str, rows: list[KeptRow], keep_s: float
    ) -> asyncio.Task[None] | None:
        """Keep rows under the id of an answer that the next turn may name."""
        return self._keep(exchange, self._names(exchange, ("answer", answer))[0], rows, keep_s, 0)

    def _names(self, exchange: Exchange, *kinds: tuple[str, str]) -> list[str]:
        """Return the store's names of histories; another app or another caller key has others for the same ids."""
        facts = exchange.facts
        who = (facts.app, facts.caller)
        return [
            hmac.digest(self._key, repr((*who, kind, name)).encode(), "sha256").hex()[:40]
            for kind, name in kinds
            if name
        ]

    async def _recall(self, exchange: Exchange, name: str) -> dict[str, KeptRow]:
        """Return what is kept under a name, by placeholder."""
        under_way = self._writes.get(name)
        if under_way is not None:
            await asyncio.wait({under_way})
        try:
            blobs = await self._ask(self._store.read(name))
            return {row[2]: row for blob in blobs for row in read_rows(blob)}
        except (ValuesUnavailable, ValueError):
            self.fail(exchange, NOT_RECALLED)
            return {}

    def _keep(
        self, exchange: Exchange, name: str, rows: list[KeptRow], keep_s: float, already: int
    ) -> asyncio.Task[None] | None:
        data = write_rows(rows)
        if already + len(rows) > MAX_VALUES or len(data) > _MAX_BYTES or len(self._writes) >= _MAX_WRITES:
            self.fail(exchange, NOT_KEPT)
            return None
        task = asyncio.get_running_loop().create_task(self._write(exchange, name, data, keep_s, self._writes.get(name)))
        self._writes[name] = task
        self.kept += len(rows)

        def forget(done: asyncio.Task[None]) -> None:
            if self._writes.get(name) is done:
                del self._writes[name]

        task.add_done_callback(forget)
        return task

    async def _write(
        self, exchange: Exchange, name: str, data: bytes, keep_s: float, earlier: asyncio.Task[None] | None
    ) -> None:
        if earlier is not None:
            await asyncio.wait({earlier})
        try:
            await self._ask(self._store.write(name, data, keep_s))
        except ValuesUnavailable:
            self.fail(exchange, NOT_KEPT)

    async def _ask(self, call: Any) -> Any:
        """Ask the store unless it is left alone; the breaker hears what came of it."""
        if self._breaker.admit(self._now_s()).is_refused:
            call.close()
            raise ValuesUnavailable("the store of values is left alone for a while")
        is_probe, has_ended = self._breaker.state is BreakerState.HALF_OPEN, False
        try:
            answer = await call
            has_ended = True
        except ValuesUnavailable:
            has_ended = True
            self._breaker.fail(1.0, self._now_s(), self._dice(), is_probe=is_probe)
            raise
        finally:
            if is_probe and not has_ended:  # the caller left
                self._breaker.cancel_probe(self._now_s())
        self._breaker.succeed(self._now_s(), is_probe=is_probe)
        return answer

    def fail(self, exchange: Exchange, note: str) -> None:
        """Count it, and say it in the row."""
        self.failures += 1
        if note not in exchange.facts.notes:
            exchange.facts.notes.append(note)


class Follower:
    """Sees to it that later turns know the values of this one: by the conversation, and by the id its answer says."""

    __slots__ = ("_exchange", "_has_id", "_keep_s", "_kept", "_rows", "_seen", "_tasks")

    def __init__(self, kept: KeptValues, exchange: Exchange, rows: list[KeptRow], keep_s: float) -> None:
        self._kept = kept
        self._exchange = exchange
        self._rows = rows
        self._keep_s = keep_s
        self._has_id = exchange.dialect is Dialect.RESPONSES
        """An id is still to come by which the next turn may name this answer."""
        self._seen = b""
        self._tasks: list[asyncio.Task[None]] = []

    def waits_for(self, task: asyncio.Task[None] | None) -> None:
        """Note a write that has to be over before the answer is."""
        if task is not None:
            self._tasks.append(task)

    async def settled(self) -> None:
        """Wait until later turns can know the values, or never will; the store bounds how long that takes."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def take_answer(self, body: bytes) -> None:
        """Take a whole answer."""
        self._look(body[:ID_WINDOW_BYTES])
        self._give_up()

    # --- as a codec between the provider's events and the caller's, which changes nothing

    def feed(self, data: bytes) -> bytes:
        if self._has_id:
            self._seen = (self._seen + data)[:ID_WINDOW_BYTES]
            self._look(self._seen)
        return data

    def finish(self, broken: bool = False) -> bytes:
        self._give_up()
        return b""

    def _give_up(self) -> None:
        """Say that no later turn will know the values by an id, where none came."""
        if self._has_id:
            self._has_id, self._rows, self._seen = False, [], b""
            self._kept.fail(self._exchange, NOT_KEPT)

    def _look(self, beginning: bytes) -> None:
        name = answer_id(beginning) if self._has_id else ""
        if name:
            self.waits_for(self._kept.keep_under(self._exchange, name, self._rows, self._keep_s))
            self._has_id, self._rows, self._seen = False, [], b""
        elif len(beginning) >= ID_WINDOW_BYTES:
            self._give_up()


def may_name_history(exchange: Exchange, body: bytes) -> bool:
    """True when a request has to be parsed to know what it goes on from."""
    return exchange.dialect is Dialect.RESPONSES and names_history(body)
