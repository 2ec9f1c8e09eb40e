"""The pipe of one streamed answer: what is held, when it commits, how it ends."""

from __future__ import annotations

import asyncio
import gzip
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dialect import Dialect, StreamWatch
from proxy.flow.coding import Inflater
from proxy.flow.stream_parts import Transform, last_event_end
from proxy.flow.streaming import PARTIAL_EVENT_MAX_BYTES, StreamPipe
from proxy.terms.outcomes import Outcome

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n'


class Live:
    """A provider's body that remembers having been aborted."""

    def __init__(self) -> None:
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1

    def __getattr__(self, name: str) -> object:
        return lambda *given: None


class Sink:
    """A responder that gathers what was written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def __getattr__(self, name: str) -> object:
        return lambda *given: None


class Upper:
    """A transform that holds its last byte back."""

    def __init__(self) -> None:
        self.held = b""

    def feed(self, data: bytes) -> bytes:
        whole = self.held + data
        self.held = whole[-1:]
        return whole[:-1]

    def finish(self, broken: bool = False) -> bytes:
        held, self.held = self.held, b""
        return held


class Stage:
    """A pipe with both its sides and the moment it was sealed."""

    def __init__(self, *transforms: Transform, is_watched: bool = True, **options: object) -> None:
        self.live, self.sink = Live(), Sink()
        self.ended: list[tuple[Outcome, bytes]] = []
        watch = StreamWatch(Dialect.CHAT) if is_watched else None
        self.pipe = StreamPipe(
            self.live,
            watch,
            transforms,
            lambda outcome: self.ended.append((outcome, self.sink.data)),
            **options,  # type: ignore[arg-type]
        )

    def open(self) -> None:
        self.pipe.open(self.sink)  # type: ignore[arg-type]


async def test_stream_is_passed_whole_and_sealed_before_its_last_event() -> None:
    """The row is written before the caller can take the answer for complete."""
    stage = Stage()
    stage.pipe.on_body(ROLE + TOKEN)
    assert None is await stage.pipe.committed()
    stage.open()
    stage.pipe.on_body(STOP)
    stage.pipe.on_body(DONE)
    stage.pipe.on_end(Outcome.OK)

    assert Outcome.OK is await stage.pipe.ended()
    assert ROLE + TOKEN + STOP + DONE == stage.sink.data
    assert [(Outcome.OK, ROLE + TOKEN + STOP)] == stage.ended
    assert len(stage.sink.data) == stage.pipe.bytes_out


@pytest.mark.parametrize("outcome", [Outcome.RESET, Outcome.STALLED, Outcome.TOTAL_TIMEOUT])
async def test_failure_before_the_first_token_is_told_and_nothing_was_written(outcome: Outcome) -> None:
    """The chain can still be walked."""
    stage = Stage()
    stage.pipe.on_body(ROLE)
    stage.pipe.on_end(outcome)

    assert outcome is await stage.pipe.committed()
    assert (b"", []) == (stage.sink.data, stage.ended)


async def test_clean_end_without_a_finish_is_a_truncation() -> None:
    """However politely it ends."""
    stage = Stage()
    stage.pipe.on_body(TOKEN)
    await stage.pipe.committed()
    stage.open()
    stage.pipe.on_end(Outcome.OK)

    assert Outcome.TRUNCATED is await stage.pipe.ended()


async def test_reset_behind_done_does_no_harm() -> None:
    """Everything had come; how the connection died is of no interest."""
    stage = Stage()
    stage.pipe.on_body(TOKEN + STOP + DONE)
    await stage.pipe.committed()
    stage.open()
    stage.pipe.on_end(Outcome.RESET)

    assert Outcome.OK is await stage.pipe.ended()


async def test_error_event_first_is_a_failure_and_later_it_is_passed() -> None:
    """Unseen it may fall back; seen it is the provider's word."""
    early = Stage()
    early.pipe.on_body(ERROR)
    late = Stage()
    late.pipe.on_body(TOKEN)
    await late.pipe.committed()
    late.open()
    late.pipe.on_body(ERROR)
    late.pipe.on_end(Outcome.OK)

    assert Outcome.UPSTREAM_ERROR_EVENT is await early.pipe.committed()
    assert 1 == early.live.aborted
    assert Outcome.UPSTREAM_ERROR_EVENT is await late.pipe.ended()
    assert TOKEN + ERROR == late.sink.data


async def test_prelude_is_held_for_a_moment_only() -> None:
    """A provider that says hello and then thinks must not look dead to the caller."""
    stage = Stage()
    stage.pipe.on_body(ROLE)
    began_s = asyncio.get_running_loop().time()

    assert None is await stage.pipe.committed()
    assert 0.2 < asyncio.get_running_loop().time() - began_s < 0.6


async def test_half_an_event_is_never_forwarded() -> None:
    """So that an error event never follows half a line."""
    stage = Stage()
    stage.pipe.on_body(TOKEN + TOKEN[:20])
    await stage.pipe.committed()
    stage.open()
    stage.pipe.on_end(Outcome.RESET)

    assert Outcome.RESET is await stage.pipe.ended()
    assert TOKEN == stage.sink.data


async def test_endless_line_is_stopped() -> None:
    """One event is bounded; the provider is let go."""
    stage = Stage()
    stage.pipe.on_body(b"data: " + b"x" * PARTIAL_EVENT_MAX_BYTES)

    assert Outcome.BAD_STREAM is await stage.pipe.committed()
    assert 1 == stage.live.aborted


async def test_transforms_are_flushed_at_the_end_and_at_a_break() -> None:
    """What a restorer held back reaches the caller either way."""
    whole, broken = Stage(Upper()), Stage(Upper())
    for stage in (whole, broken):
        stage.pipe.on_body(TOKEN)
        await stage.pipe.committed()
        stage.open()
    whole.pipe.on_body(STOP + DONE)
    whole.pipe.on_end(Outcome.OK)
    broken.pipe.on_end(Outcome.RESET)

    assert TOKEN + STOP + DONE == whole.sink.data
    assert TOKEN == broken.sink.data + broken.pipe.flush_broken()


async def test_compressed_stream_is_inflated_and_nonsense_stopped() -> None:
    """Flushed per event or not; a mislabelled one is a bad stream."""
    good = Stage(decoder=Inflater(b"gzip"))
    for piece in (packed := gzip.compress(TOKEN + STOP + DONE))[:10], packed[10:]:
        good.pipe.on_body(piece)
    bad = Stage(decoder=Inflater(b"gzip"))
    bad.pipe.on_body(TOKEN)

    assert None is await good.pipe.committed()
    good.open()
    assert TOKEN + STOP + DONE == good.sink.data
    assert Outcome.BAD_STREAM is await bad.pipe.committed()


async def test_unwatched_body_is_sealed_by_its_length() -> None:
    """A file has no last event; its length says when it is whole."""
    stage = Stage(is_watched=False, seal_at_bytes=6)
    stage.open()
    stage.pipe.on_body(b"abc")
    assert [] == stage.ended
    stage.pipe.on_body(b"def")

    assert [(Outcome.OK, b"abc")] == stage.ended


@given(
    data=st.lists(st.sampled_from([TOKEN, b": ping\n\n", b"event: x\r\ndata: {}\r\n\r\n", ROLE]), max_size=5),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_any_split_gives_the_same_bytes(data: list[bytes], cuts: list[int]) -> None:
    """Mid-line, mid-CRLF, mid-character."""

    async def run() -> bytes:
        body = TOKEN + b"".join(data) + STOP + DONE
        stage = Stage()
        places = [0, *sorted(min(at, len(body)) for at in cuts), len(body)]
        stage.open()
        for a, b in pairwise(places):
            stage.pipe.on_body(body[a:b])
        stage.pipe.on_end(Outcome.OK)
        assert Outcome.OK is await stage.pipe.ended()
        assert body == stage.sink.data
        return body

    asyncio.run(run())


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", 0),
        (b"data: x", 0),
        (b"data: x\n", 0),
        (b"data: x\n\n", 9),
        (b"a\n\nb", 3),
        (b"a\r\n\r\nb", 5),
        (b"a\r\rb", 3),
        (b"a\n\nb\r\n\r\nc", 8),
        (b"\n\n", 2),
    ],
)
def test_end_of_the_last_whole_event(data: bytes, end: int) -> None:
    """All three line ends of the standard."""
    assert end == last_event_end(data)
