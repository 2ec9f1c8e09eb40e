"""Waiting lines: order, priorities, ends."""

from __future__ import annotations

import asyncio

from proxy.core.budget.dimensions import Dimension
from proxy.core.policy.model import Priority
from proxy.flow.budgets import Denied, Granted
from proxy.flow.verdicts import SharedReservation, Verdict
from proxy.flow.waiting import WaitingLines

SCOPE = ("p", ())
NO = Denied("p", Dimension.CONCURRENT, 1.0, False, "wait", 1, SCOPE)
YES = Granted(SharedReservation("r", ()))


class Door:
    """Grants as often as it was told to."""

    def __init__(self) -> None:
        self.room = 0
        self.served: list[str] = []

    async def enter(self, name: str) -> Verdict:
        await asyncio.sleep(0)
        if not self.room:
            return NO
        self.room -= 1
        self.served.append(name)
        return YES


async def line_up(lines: WaitingLines, door: Door, names: dict[str, Priority], for_s: float) -> list[Verdict]:
    loop = asyncio.get_running_loop()
    verdicts: list[Verdict] = []

    async def stand(name: str, priority: Priority) -> None:
        verdicts.append(await lines.wait(SCOPE, priority, loop.time() + for_s, NO, lambda: door.enter(name)))

    async with asyncio.TaskGroup() as tasks:
        for name, priority in names.items():
            tasks.create_task(stand(name, priority))
        for _ in range(len(names)):
            await asyncio.sleep(0.01)
            door.room += 1
            lines.freed()
    return verdicts


async def test_first_come_first_served_within_priorities() -> None:
    """Three kinds of waiters, served high, normal, low, and in order within each."""
    lines, door = WaitingLines(asyncio.get_running_loop().time), Door()
    names = {"l1": Priority.LOW, "n1": Priority.NORMAL, "h1": Priority.HIGH, "n2": Priority.NORMAL, "h2": Priority.HIGH}

    verdicts = await line_up(lines, door, names, 5.0)

    assert ["h1", "h2", "n1", "n2", "l1"] == door.served
    assert [YES] * 5 == verdicts
    assert ({}, 5, 0) == (lines.lines, lines.waited, lines.gave_up)


async def test_wait_in_vain_ends_on_time_with_the_last_word() -> None:
    """Nobody waits longer than policy says."""
    loop = asyncio.get_running_loop()
    lines, door = WaitingLines(loop.time), Door()
    began_s = loop.time()

    verdict = await lines.wait(SCOPE, Priority.NORMAL, began_s + 0.05, NO, lambda: door.enter("a"))

    assert NO is verdict
    assert 0.04 < loop.time() - began_s < 0.5
    assert ({}, 1) == (lines.lines, lines.gave_up)


async def test_leaving_the_line_lets_the_next_one_try() -> None:
    """A caller that hangs up must not block those behind."""
    lines, door = WaitingLines(asyncio.get_running_loop().time), Door()
    async with asyncio.TaskGroup() as tasks:
        far_s = asyncio.get_running_loop().time() + 5.0
        first = tasks.create_task(lines.wait(SCOPE, Priority.NORMAL, far_s, NO, lambda: door.enter("first")))
        await asyncio.sleep(0.01)
        second = tasks.create_task(lines.wait(SCOPE, Priority.NORMAL, far_s, NO, lambda: door.enter("second")))
        await asyncio.sleep(0.01)
        door.room = 1
        first.cancel()
        await asyncio.wait([first, second])

    assert ["second"] == door.served
    assert {} == lines.lines


async def test_newcomer_is_told_the_wait_of_whoever_is_in_front() -> None:
    """A retry-after of a tenth of a second would bring a refused caller back for nothing, again and again."""
    loop = asyncio.get_running_loop()
    lines, door = WaitingLines(loop.time), Door()
    slow = NO._replace(dimension=Dimension.REQUESTS_PER_MINUTE, retry_after_s=40.0)
    waiter = loop.create_task(lines.wait(SCOPE, Priority.NORMAL, loop.time() + 60.0, slow, lambda: door.enter("a")))
    await asyncio.sleep(0.01)
    told = lines.denial_in_front(SCOPE)
    waiter.cancel()
    await asyncio.wait([waiter])

    assert told is not None
    assert (Dimension.REQUESTS_PER_MINUTE, True) == (told.dimension, 39.0 < told.retry_after_s <= 40.0)
    assert lines.denial_in_front(SCOPE) is None
