"""An answer that is known by its head and comes in one piece is read as the parser reads it, or by the parser."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.policy.model import Timeouts
from proxy.flow.answer_shapes import AnswerShapes
from proxy.flow.headers import to_caller
from proxy.flow.ports import AttemptFailed, Call, CallKind
from proxy.terms.http import RequestHead
from proxy.upstream.connection import UpstreamConnection

HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: %b\r\ncontent-type: application/json\r\nx-request-id: %b\r\nconnection: keep-alive\r\n"
    b"content-length: %b\r\nserver: x\r\n\r\n"
)
CHUNKED = HEAD.replace(b"content-length: %b", b"transfer-encoding: chunked")
BODY = b'{"a":1}'


@dataclass
class Socket:
    """A transport that remembers whether it was closed."""

    is_closed: bool = False

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@dataclass
class Side:
    """One connection and what came of its attempts."""

    shapes: AnswerShapes
    idle: list[UpstreamConnection] = field(default_factory=list)

    def read(self, data: bytes, *, method: str = "POST", most: int = 1024, wants_events: bool = False) -> Any:
        """Send an attempt on a fresh connection whose answer is ``data`` and then the end; return all there is to see."""
        self.idle.clear()
        socket = Socket()
        connection = UpstreamConnection(time.monotonic, self.idle.append, lambda _: None, self.shapes)
        connection.connection_made(cast("asyncio.Transport", socket))
        head = RequestHead(method, b"/v1/x", "/v1/x", [], {})
        deadline_s = time.monotonic() + 60
        call = Call(CallKind("p", head, b"/x", b"", "m"), b"", Timeouts(), deadline_s, most, wants_events=wants_events)
        waiter = connection.begin(call, time.monotonic())
        connection.data_received(data)
        seen_at_once = (waiter.done(), len(self.idle), socket.is_closed)
        connection.connection_lost(None)
        try:
            answer = waiter.result()
        except AttemptFailed as failed:
            return seen_at_once, failed.outcome, failed.bytes_received
        known = answer.head
        crosses = [to_caller(known, is_governed=governed) for governed in (False, True)]
        told = (known.status, known.reason, known.lines, known.telling, known.length, known.has_request_id)
        return seen_at_once, told, crosses, known.content_type, answer.body, answer.live is not None


def answer_of(date: bytes = b"1", request: bytes = b"a", length: bytes | None = None, body: bytes = BODY) -> bytes:
    return HEAD % (date, request, b"%d" % len(body) if length is None else length) + body


def chunk_of(size: bytes = b"7", body: bytes = BODY, end: bytes = b"\r\n0\r\n\r\n") -> bytes:
    return CHUNKED % (b"1", b"a") + size + b"\r\n" + body + end


def taught() -> AnswerShapes:
    """Return shapes that know the heads above."""
    shapes = AnswerShapes()
    for n in (b"1", b"2"):
        assert shapes.whole(answer_of(n, n)) is None
        shapes.head(200, HEAD % (n, n, n))
        shapes.head(200, CHUNKED % (n, n))
    assert shapes.whole(answer_of()) is not None
    assert shapes.whole(chunk_of()) is not None
    return shapes


def same(data: bytes, **how: Any) -> None:
    """Hold what a connection that knows the head makes of ``data`` beside what the parser makes of it."""

    async def both() -> tuple[Any, Any]:
        return Side(taught()).read(data, **how), Side(AnswerShapes()).read(data, **how)

    known, parsed = asyncio.run(both())
    assert parsed == known


@given(st.data(), st.sampled_from([answer_of(), chunk_of()]))
def test_changed_answer_is_read_as_the_parser_reads_it(data: st.DataObject, answer: bytes) -> None:
    """Any byte may be another one, missing, or too much: nothing passes here that the parser refuses."""
    raw = bytearray(answer)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        new = data.draw(st.binary(max_size=2) | st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b"\x7f"]))
        raw[at : at + data.draw(st.integers(0, 2))] = new

    same(bytes(raw))


@given(st.binary(max_size=8), st.text("0123456789abcdefxABCDEF+-_ \t", max_size=4), st.binary(max_size=8))
@example(b"1 ", "7", b"")
@example(b"", "07", b"x")
@example(b"\t1", "7", b"")
@example(b"1\xa0", "7", b"")
def test_changed_values_are_read_as_the_parser_reads_them(value: bytes, length: str, more: bytes) -> None:
    """Values that change are those that nobody has judged."""
    same(answer_of(value, value, length.encode("ascii")) + more)
    same(answer_of(value, b"1", body=BODY + more))


@given(st.lists(st.tuples(st.text("ab \t\r\n", max_size=4), st.integers(0, 12)), max_size=6))
def test_what_a_shape_read_before_makes_no_difference(answers: list[tuple[str, int]]) -> None:
    """It looks for values as long as the last ones first; that must neither miss a head nor see one."""
    seasoned = taught()
    for value, size in answers:
        data = answer_of(value.encode("ascii"), b"x" * size, body=b"1" * (10**size if size < 4 else size))
        fresh, known = taught().whole(data), seasoned.whole(data)

        assert (fresh and (fresh[0].lines, fresh[1])) == (known and (known[0].lines, known[1]))


@given(
    st.text("0123456789abcdefxABCDEF+-_; \t", max_size=4),
    st.binary(max_size=16),
    st.sampled_from([b"", b"\r\n0\r\n\r\n"]),
)
@example("7", BODY, b"\r\n0\r\nx: y\r\n\r\n")
@example("7;a=b", BODY, b"\r\n0\r\n\r\n")
@example("07", BODY, b"\r\n0\r\n\r\n")
@example("c", BODY, b"\r\n0\r\n\r\n")
@example("B", b"x" * 11, b"\r\n0\r\n\r\n")
@example("7", BODY, b"\r\n1\r\nx\r\n0\r\n\r\n")
@example("0", b"", b"\r\n0\r\n\r\n")
def test_chunks_are_read_as_the_parser_reads_them(size: str, body: bytes, end: bytes) -> None:
    """One chunk that is all there is what small answers without a length are; all else is the parser's."""
    same(chunk_of(size.encode("ascii"), body, end))
    same(chunk_of(b"%x" % len(body), body, end))


def test_known_answer_needs_no_parser() -> None:
    """Otherwise nothing is gained, and all of the above holds for no reason."""

    async def was_parsed(data: bytes) -> bool:
        side = Side(taught())
        side.read(data)
        return side.idle[0]._is_worn

    assert not asyncio.run(was_parsed(answer_of(b"3", b"4")))
    assert not asyncio.run(was_parsed(chunk_of()))


def test_what_decides_otherwise_is_not_taken_by_its_head() -> None:
    """HEAD has no body, a bound is a bound, and what stands behind an answer makes the connection worthless."""
    same(answer_of(), method="HEAD")
    same(answer_of(), most=6)
    same(answer_of(), wants_events=True)
    same(answer_of() + b"x")
    same(answer_of()[:-1])
    same(answer_of(length=b"0", body=b""))
    same(answer_of() * 2)


def test_close_in_the_first_of_two_connection_lines_ends_the_connection() -> None:
    """The parser keeps a connection only when no line says close; a head known by its bytes must not outlive that."""
    head = HEAD.replace(b"connection: keep-alive", b"connection: close\r\nconnection: keep-alive")
    taught_by = [head % (n, n, b"7") + BODY for n in (b"1", b"2")]

    async def last_of(known: AnswerShapes) -> Any:
        return Side(known).read(head % (b"3", b"3", b"7") + BODY)

    shapes = AnswerShapes()
    for data in taught_by:
        shapes.head(200, data[: -len(BODY)])

    assert asyncio.run(last_of(AnswerShapes())) == asyncio.run(last_of(shapes))
