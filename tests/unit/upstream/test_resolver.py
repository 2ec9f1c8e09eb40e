"""Held here: what a look-up may cost, and how long its answer or its failure is believed."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from proxy.upstream import resolver as module
from proxy.upstream.resolver import LOOKUPS_MAX, Place, Resolver

HERE = Place(socket.AF_INET, socket.IPPROTO_TCP, "127.0.0.1")
THERE = Place(socket.AF_INET, socket.IPPROTO_TCP, "127.0.0.2")


class Names:
    """A name service that says what it is told; counts who asks."""

    def __init__(self, *answers: list[Place] | OSError | None) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.hold = threading.Event()

    def __call__(self, host: str, family: int) -> list[Place]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            self.hold.wait(10)
            raise OSError(socket.EAI_AGAIN, "late")
        if isinstance(answer, OSError):
            raise answer
        return answer


async def test_answer_is_used_again_and_its_addresses_take_turns() -> None:
    """One look-up serves many dials; no address gets all of them first."""
    names = Names([HERE, THERE])
    resolver = Resolver(names)
    first = [found["host"] for found in await resolver.resolve("a.test", 443)]
    second = [found["host"] for found in await resolver.resolve("a.test", 443)]

    assert 1 == names.asked
    assert ["127.0.0.1", "127.0.0.2"] == first
    assert ["127.0.0.2", "127.0.0.1"] == second


async def test_failure_is_believed_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm of requests asks once; the name that appears is found soon."""
    monkeypatch.setattr(module, "BAD_S", 0.1)
    names = Names(socket.gaierror(socket.EAI_NONAME, "no such name"), [HERE])
    resolver = Resolver(names)
    for _ in range(3):
        with pytest.raises(OSError, match="no such name"):
            await resolver.resolve("a.test")

    assert 1 == names.asked
    await asyncio.sleep(0.12)
    assert "127.0.0.1" == (await resolver.resolve("a.test"))[0]["host"]


@pytest.mark.parametrize(
    ("code", "is_kept"), [(socket.EAI_AGAIN, True), (socket.EAI_NONAME, False)], ids=["silent", "gone"]
)
async def test_old_answer_outlives_a_silent_name_service_but_not_a_denial(
    monkeypatch: pytest.MonkeyPatch, code: int, is_kept: bool
) -> None:
    """An outage of names is none of providers; an address given up may be somebody else's by now."""
    monkeypatch.setattr(module, "GOOD_S", 0.0)
    resolver = Resolver(Names([HERE], socket.gaierror(code, "no")))
    await resolver.resolve("a.test")
    if is_kept:
        assert "127.0.0.1" == (await resolver.resolve("a.test"))[0]["host"]
    else:
        with pytest.raises(OSError, match="no"):
            await resolver.resolve("a.test")


async def test_look_ups_that_hang_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a thread: so many and no more, and who comes late does not wait."""
    monkeypatch.setattr(module, "HANGS_AFTER_S", 0.1)
    names = Names(None)
    resolver = Resolver(names)
    began_s = time.monotonic()
    found = [asyncio.get_running_loop().create_task(resolver.resolve(f"hang{n}.test")) for n in range(LOOKUPS_MAX + 8)]
    await asyncio.wait(found)
    names.hold.set()

    assert LOOKUPS_MAX == names.asked
    assert all(isinstance(task.exception(), OSError) for task in found)
    assert time.monotonic() - began_s < 2.0
