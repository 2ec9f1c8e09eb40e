"""A request body in transit: bounded, in order, and honest about its end."""

from __future__ import annotations

import asyncio

import pytest

from proxy.server.body import HIGH_WATER_BYTES, BodyPipe


class Reading:
    """Counts how often reading was stopped and started."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pipe(self) -> BodyPipe:
        return BodyPipe(lambda: self.calls.append("pause"), lambda: self.calls.append("resume"))


async def test_pieces_come_in_order_and_then_the_end() -> None:
    """Whether they were there before or come while somebody waits."""
    pipe = Reading().pipe()
    pipe.feed(b"a")
    first = await pipe.next_piece()
    asyncio.get_running_loop().call_later(0.01, pipe.feed, b"b")
    second = await pipe.next_piece()
    asyncio.get_running_loop().call_later(0.01, pipe.end)

    assert (b"a", b"b", b"", b"") == (first, second, await pipe.next_piece(), await pipe.next_piece())
    assert (2, True) == (pipe.received_bytes, pipe.is_complete)


async def test_reading_stops_above_the_mark_and_goes_on_below_half() -> None:
    """A slow provider holds the caller back instead of filling memory."""
    reading = Reading()
    pipe = reading.pipe()
    for _ in range(3):
        pipe.feed(b"x" * (HIGH_WATER_BYTES // 2))
    assert ["pause"] == reading.calls
    await pipe.next_piece()
    assert ["pause"] == reading.calls
    await pipe.next_piece()

    assert ["pause", "resume"] == reading.calls


async def test_caller_that_left_is_told_after_what_it_sent() -> None:
    """What came came; then the failure, never an end that looks whole."""
    pipe = Reading().pipe()
    pipe.feed(b"a")
    pipe.fail(ConnectionResetError("the caller left"))

    assert b"a" == await pipe.next_piece()
    with pytest.raises(ConnectionResetError):
        await pipe.next_piece()
    assert not pipe.is_complete


async def test_peek_takes_nothing_and_does_not_wait_for_more_than_it_needs() -> None:
    """The model is found in the first bytes of an upload, which then goes on whole."""
    pipe = Reading().pipe()
    pipe.feed(b"ab")
    asyncio.get_running_loop().call_later(0.01, pipe.feed, b"cd")

    assert b"abcd" == await pipe.peek_until(lambda held: b"c" in held, 100)
    assert b"abcd" == await pipe.peek_until(lambda held: False, 4)
    assert b"ab" == await pipe.next_piece()


async def test_discarded_body_holds_nobody_back() -> None:
    """Refused uploads are read to their end so that the refusal arrives."""
    reading = Reading()
    pipe = reading.pipe()
    pipe.feed(b"x" * (HIGH_WATER_BYTES + 1))
    pipe.discard()

    assert (["pause", "resume"], b"") == (reading.calls, pipe.peek())
