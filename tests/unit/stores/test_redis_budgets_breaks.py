"""The shared counters' connection breaking in ways of its own: nobody may be left waiting for an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from proxy.core.budget.central import CentralCounter, Charge
from proxy.core.budget.dimensions import SHAPES, Dimension
from proxy.stores.redis_budgets import RedisBudgets

HOUR = CentralCounter("p/b", "", Dimension.REQUESTS_PER_HOUR, SHAPES[Dimension.REQUESTS_PER_HOUR], "UTC", 10)


class Server:
    """Answers every operation; raises what it is told to at the next command that admits."""

    def __init__(self) -> None:
        self.trouble: BaseException | None = None
        self.cancelled: list[str] = []

    async def evalsha(self, _sha: str, _keys: int, *words: Any) -> list[list[int]]:
        said = orjson.loads(words[-1])
        if said[0] == "H":
            return [[1, 1], *([[1]] * (said.count("S")))]
        if "A" in said and self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            raise trouble
        if said[0] == "S":
            self.cancelled.append(said[1])
        return [[1, 0, 0, 9, 1] if word == "A" else [1] for word in said if word in ("A", "S")]

    async def aclose(self) -> None: ...


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[RedisBudgets]:
    store = RedisBudgets(
        "redis://127.0.0.1:1/0", sidecar="s", namespace="n", max_sidecars=1, lease_s=30.0,
        unix_s=lambda: 1e9, now_s=time.monotonic, notice=lambda *_a, **_k: None,
    )  # fmt: skip
    store._client = server
    task = asyncio.get_running_loop().create_task(store.run())
    while store.is_open:  # noqa: ASYNC110 - the first heartbeat
        await asyncio.sleep(0.001)
    try:
        yield store
    finally:
        task.cancel()
        await asyncio.wait([task])
        await store.close()


async def test_connection_that_closed_before_we_wrote_is_one_command_without_an_answer() -> None:
    """Uvloop says RuntimeError then; it used to end the conversation for good, and every later caller waited for ever."""
    server = Server()
    async with running(server) as store, asyncio.timeout(3.0):
        server.trouble = RuntimeError(
            "unable to perform operation on <TCPTransport closed=True>; the handler is closed"
        )
        first = await store.acquire("a", [Charge(HOUR, 1)], ())
        second = await store.acquire("b", [Charge(HOUR, 1)], ())

    assert first is None
    assert second is not None
    assert second.is_granted
    assert ["a"] == server.cancelled, "what may have been charged is taken back"


async def test_defect_that_ends_the_conversation_leaves_nobody_waiting() -> None:
    """Whatever it is: callers get their answer from the slice, and health is not told that all is well."""
    server = Server()
    async with running(server) as store, asyncio.timeout(3.0):
        server.trouble = KeyError("a defect")
        asked = [store.acquire(name, [Charge(HOUR, 1)], ()) for name in "ab"]
        answers = [await one for one in asked]
        await asyncio.sleep(0.01)
        later = await store.acquire("c", [Charge(HOUR, 1)], ())

        assert [None, None, None] == [*answers, later]
        assert (True, "KeyError") == (store.is_open, store.trouble)


@pytest.mark.parametrize("number", [1, 250])
async def test_breaker_that_opens_frees_all_who_queued_behind_late_commands(number: int) -> None:
    """Batches of a hundred, four at once: the rest must not wait for a time-out of their own."""
    server = Server()
    async with running(server) as store, asyncio.timeout(3.0):
        commands = 0

        async def late(*_: Any) -> Any:
            nonlocal commands
            commands += 1
            await asyncio.sleep(0.05)
            raise TimeoutError

        server.evalsha = late  # type: ignore[method-assign]
        asked = [store.acquire(f"r{n}", [Charge(HOUR, 1)], ()) for n in range(number * 4)]
        answers = [await one for one in asked]

        assert {None} == set(answers)
        assert 1 <= commands <= 4
