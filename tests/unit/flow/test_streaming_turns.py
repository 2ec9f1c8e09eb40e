"""Large reads of a stream: worked off in turns, in order, with back-pressure, and ended as if they had been small."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from proxy.core.dialect import Dialect, StreamWatch
from proxy.flow.coding import Inflater
from proxy.flow.pacing import LARGE_EVENT_BYTES, LARGE_READ_BYTES, PAUSE_ABOVE_BYTES, Turns
from proxy.flow.stream_parts import Transform
from proxy.flow.streaming import StreamPipe
from proxy.terms.outcomes import Outcome

DONE = b"data: [DONE]\n\n"
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"


BURST = b"".join(event(f"word {n} ") for n in range(3000))
"""More than the provider may send ahead of us."""


class Live:
    """A provider's body that counts how often it was stopped, let go and aborted."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> object:
        return lambda *given: self.calls.append(name)


class Slow:
    """A transform that takes its time, and notes in which thread it worked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.threads: set[str] = set()
        self.fed = b""
        self.hook: Callable[[], None] = lambda: None

    def feed(self, data: bytes) -> bytes:
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)  # noqa: TID251 - it stands for work
        self.fed += data
        self.hook()
        return data

    def finish(self, broken: bool = False) -> bytes:
        return b""


class Stage:
    """A pipe that takes turns, with both its sides and the moment it was sealed."""

    def __init__(self, *transforms: Transform, decoder: Inflater | None = None) -> None:
        self.live = Live()
        self.written: list[bytes] = []
        self.sealed_behind: list[tuple[Outcome, bytes]] = []
        self.pipe = StreamPipe(
            self.live,  # type: ignore[arg-type]
            StreamWatch(Dialect.CHAT),
            transforms,
            lambda outcome: self.sealed_behind.append((outcome, self.data)),
            decoder=decoder,
        )
        self.turns = Turns(time.monotonic, partial(asyncio.get_running_loop().run_in_executor, None))
        self.pipe.take_turns(self.turns)

    @property
    def data(self) -> bytes:
        return b"".join(self.written)

    def write(self, data: bytes) -> None:
        self.written.append(data)

    async def opened(self) -> None:
        assert None is await self.pipe.committed()
        self.pipe.open(self)  # type: ignore[arg-type]


def started(waiting: Coroutine[Any, Any, Outcome]) -> asyncio.Task[Outcome]:
    return asyncio.get_running_loop().create_task(waiting)


async def beats_during(work: asyncio.Task[Any]) -> int:
    """Return how often others had a turn while a task ran."""
    count = 0
    while not work.done():
        await asyncio.sleep(0)
        count += 1
    return count


async def test_burst_goes_out_whole_in_order_and_others_get_their_turns() -> None:
    """A read of hundreds of kilobytes is no reason to stand still; its row is still written before its last event."""
    stage = Stage(Slow(0.0005))
    stage.pipe.on_body(BURST + STOP + DONE)
    stage.pipe.on_end(Outcome.OK)
    await stage.opened()
    ended = started(stage.pipe.ended())
    beats = await beats_during(ended)

    assert Outcome.OK is ended.result()
    assert BURST + STOP + DONE == stage.data
    assert [Outcome.OK] == [outcome for outcome, _ in stage.sealed_behind]
    assert DONE not in stage.sealed_behind[0][1]
    assert beats > len(BURST) / 2048 / 5


async def test_provider_waits_while_much_is_put_off_and_is_let_go_behind_it() -> None:
    """What one stream may hold is bounded."""
    stage = Stage(Slow())
    assert len(BURST) > PAUSE_ABOVE_BYTES
    stage.pipe.on_body(BURST)
    paused = list(stage.live.calls)
    await stage.opened()
    ended = started(stage.pipe.ended())
    while "resume" not in stage.live.calls:  # noqa: ASYNC110 - a turn of the loop is what is waited for
        await asyncio.sleep(0)
    small = event("more")
    stage.pipe.on_body(small + STOP + DONE)
    stage.pipe.on_end(Outcome.OK)

    assert ["pause"] == paused
    assert Outcome.OK is await ended
    assert BURST + small + STOP + DONE == stage.data


async def test_nothing_is_worked_off_while_the_caller_takes_nothing() -> None:
    """The caller's full socket stops the turns as well, and the provider stays stopped."""
    stage = Stage(Slow())
    stage.pipe.on_body(BURST)
    await stage.opened()
    ended = started(stage.pipe.ended())
    await asyncio.sleep(0)
    stage.pipe.pause()
    await asyncio.sleep(0.02)
    had = len(stage.data)
    await asyncio.sleep(0.02)
    still = len(stage.data)
    stage.pipe.on_body(STOP + DONE)
    stage.pipe.on_end(Outcome.OK)
    stage.pipe.resume()

    assert had == still < len(BURST)
    assert Outcome.OK is await ended
    assert BURST + STOP + DONE == stage.data


async def test_break_behind_a_burst_is_told_behind_it() -> None:
    """What had come goes out first, as if it had come in small pieces."""
    stage = Stage(Slow())
    stage.pipe.on_body(BURST)
    stage.pipe.on_end(Outcome.RESET)
    await stage.opened()

    assert Outcome.RESET is await stage.pipe.ended()
    assert BURST == stage.data


async def test_deadline_does_not_wait_for_what_was_put_off() -> None:
    """The time for the whole answer is over, whatever has come meanwhile."""
    stage = Stage(Slow(0.001))
    stage.pipe.on_body(BURST)
    await stage.opened()
    ended = started(stage.pipe.ended())
    await asyncio.sleep(0.005)
    stage.pipe.on_end(Outcome.TOTAL_TIMEOUT)

    assert Outcome.TOTAL_TIMEOUT is await ended
    assert len(stage.data) < len(BURST)


async def test_deadline_does_not_wait_for_the_caller_either() -> None:
    """A caller who takes nothing does not keep the exchange from ending."""
    stage = Stage(Slow())
    stage.pipe.on_body(BURST)
    await stage.opened()
    ended = started(stage.pipe.ended())
    await asyncio.sleep(0)
    stage.pipe.pause()
    await asyncio.sleep(0.02)
    stage.pipe.on_end(Outcome.TOTAL_TIMEOUT)

    async with asyncio.timeout(1.0):
        assert Outcome.TOTAL_TIMEOUT is await ended


async def test_large_event_is_transformed_beside_the_loop_and_small_ones_on_it() -> None:
    """Events cannot be cut, so one of a megabyte is no work for a turn; the order stays."""
    transform = Slow()
    stage = Stage(transform)
    before, large, behind = event("first"), event("x" * 3 * LARGE_EVENT_BYTES), event("last")
    for at in range(0, len(large), LARGE_READ_BYTES):  # in small reads, and the last of them completes it
        stage.pipe.on_body((before if not at else b"") + large[at : at + LARGE_READ_BYTES - 512])
        stage.pipe.on_body(large[at + LARGE_READ_BYTES - 512 : at + LARGE_READ_BYTES])
    stage.pipe.on_body(behind + STOP + DONE)
    stage.pipe.on_end(Outcome.OK)
    await stage.opened()

    assert Outcome.OK is await stage.pipe.ended()
    assert before + large + behind + STOP + DONE == stage.data
    assert {threading.main_thread().name} < transform.threads


async def test_large_last_event_without_its_blank_line_is_still_an_event() -> None:
    """As a small one is."""
    stage = Stage(Slow())
    large = event("x" * 3 * LARGE_EVENT_BYTES) + STOP
    stage.pipe.on_body(large[:-2])
    stage.pipe.on_end(Outcome.OK)
    await stage.opened()

    assert Outcome.OK is await stage.pipe.ended()
    assert large == stage.data


async def test_cancelled_while_an_event_is_transformed_leaves_the_transforms_alone() -> None:
    """They are at work in another thread; what they hold is not asked for, and nothing more goes out."""
    reached, go_on = threading.Event(), threading.Event()
    transform = Slow()
    stage = Stage(transform)
    stage.pipe.on_body(event("first"))
    await stage.opened()

    def wait() -> None:
        reached.set()
        go_on.wait(5)

    transform.hook = wait
    stage.pipe.on_body(event("x" * 3 * LARGE_EVENT_BYTES))
    ended = started(stage.pipe.ended())
    while not reached.is_set():  # noqa: ASYNC110 - the other thread sets it
        await asyncio.sleep(0.001)
    ended.cancel()
    await asyncio.wait([ended])
    held = stage.pipe.flush_broken()
    go_on.set()
    await asyncio.sleep(0.02)

    assert ended.cancelled()
    assert (b"", event("first")) == (held, stage.data)


async def test_coded_stream_is_inflated_slice_by_slice() -> None:
    """Two kilobytes of gzip may be two megabytes of events."""
    text = event("0" * 400) * 15_000
    stage = Stage(Slow(), decoder=Inflater(b"gzip"))
    coded = gzip.compress(text + STOP + DONE)
    stage.pipe.on_body(coded[: LARGE_READ_BYTES - 1])
    stage.pipe.on_body(coded[LARGE_READ_BYTES - 1 :])
    stage.pipe.on_end(Outcome.OK)
    await stage.opened()
    ended = started(stage.pipe.ended())
    beats = await beats_during(ended)

    assert Outcome.OK is ended.result()
    assert text + STOP + DONE == stage.data
    assert beats > 20


async def test_streams_that_burst_together_take_turns() -> None:
    """One turn for all of them per turn of the loop, not one for each."""
    turns: Turns | None = None
    stages = [Stage(Slow()) for _ in range(3)]
    for stage in stages:
        turns = turns or stage.turns
        stage.pipe.take_turns(turns)
        stage.pipe.on_body(BURST + STOP + DONE)
        stage.pipe.on_end(Outcome.OK)
        await stage.opened()
    ended = [started(stage.pipe.ended()) for stage in stages]
    most = 0
    while not all(task.done() for task in ended):
        before = [len(stage.written) for stage in stages]
        await asyncio.sleep(0)
        most = max(most, sum(len(stage.written) > had for stage, had in zip(stages, before, strict=True)))

    assert 1 == most
    assert all(BURST + STOP + DONE == stage.data for stage in stages)


async def test_large_error_event_ends_the_stream_as_a_small_one_does() -> None:
    """The provider's own words go on, and nothing behind them."""
    stage = Stage(Slow())
    error = b'data: {"error":{"message":"' + b"x" * 3 * LARGE_EVENT_BYTES + b'"}}\n\n'
    stage.pipe.on_body(event("first"))
    await stage.opened()
    stage.pipe.on_body(error + event("never"))

    assert Outcome.UPSTREAM_ERROR_EVENT is await stage.pipe.ended()
    assert event("first") + error == stage.data
    assert stage.pipe.has_told_error


async def test_large_event_that_is_no_json_ends_the_stream() -> None:
    """Nothing behind it can be trusted, and none of it goes on."""
    stage = Stage(Slow())
    stage.pipe.on_body(event("first"))
    await stage.opened()
    stage.pipe.on_body(b"data: " + b"x" * 3 * LARGE_EVENT_BYTES + b"\n\n" + event("never"))

    assert Outcome.BAD_STREAM is await stage.pipe.ended()
    assert event("first") == stage.data


async def test_buffered_stream_is_transformed_beside_the_loop_once_it_is_long() -> None:
    """Its texts are judged at their ends, megabytes at once; a short one is not worth the way to a thread."""
    transform = Slow()
    stage = Stage(transform)
    stage.pipe.is_buffered = True
    short, long = event("short"), BURST[: 4 * LARGE_EVENT_BYTES].rpartition(b"data: ")[0]
    stage.pipe.on_body(short)
    await stage.opened()
    threads = [set(transform.threads)]
    for at in range(0, len(long), 4096):
        stage.pipe.on_body(long[at : at + 4096])
    stage.pipe.on_body(STOP + DONE)
    stage.pipe.on_end(Outcome.OK)

    assert Outcome.OK is await stage.pipe.ended()
    assert short + long + STOP + DONE == stage.data
    assert {threading.main_thread().name} == threads[0] < transform.threads
