"""A head that is read by its shape says what it says when it is taken apart."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from proxy.flow.answer_shapes import AnswerShapes
from proxy.flow.headers import to_caller
from proxy.terms.http import AnswerHead

NAMES = st.sampled_from(
    [
        *("content-type", "Content-Type", "content-length", "Content-Encoding", "x-request-id", "Connection"),
        *("transfer-encoding", "Keep-Alive", "x-ratelimit-limit-requests", "X-RateLimit-Remaining-Tokens"),
        *("openai-organization", "OpenAI-Project", "x-readygate-id", "X-Readygate-Policy", "date", "set-cookie"),
        *("Set-Cookie", "server", "te", "Trailer", "x.y", "a+b"),
    ]
)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12) | st.sampled_from(
    [
        "keep-alive",
        "close",
        "x-secret, close",
        "application/json",
        "text/event-stream; charset=utf-8",
        "",
        " ",
        "gzip",
        "a\t",
    ]
)


def raw(lines: bytes) -> bytes:
    """Return a whole head with these lines."""
    return b"HTTP/1.1 200 OK" + lines + b"\r\n\r\n"


def lines_of(names: list[str], values: list[str]) -> bytes:
    """Return header lines as a provider may write them."""
    return "".join(f"\r\n{name}: {value}" for name, value in zip(names, values, strict=True)).encode("ascii")


@given(st.data(), st.lists(NAMES, max_size=10))
def test_shape_reads_a_head_as_taking_it_apart_does(data: st.DataObject, names: list[str]) -> None:
    """Whatever the values become later: what is told, and what crosses under every condition, is the same."""
    shapes = AnswerShapes()
    for _ in range(4):
        lines = lines_of(names, data.draw(st.lists(VALUES, min_size=len(names), max_size=len(names))))

        known, plain = shapes.head(200, raw(lines)), AnswerHead(200, b"OK", lines)

        assert plain.telling == known.telling
        assert plain.content_type == known.content_type
        assert plain.length == known.length
        assert plain.has_request_id == known.has_request_id
        assert plain.lines == known.lines
        assert plain.fields == known.fields
        for is_decoded, is_governed, is_own_key in product((False, True), repeat=3):
            crosses = [
                to_caller(head, is_decoded=is_decoded, is_governed=is_governed, is_own_key=is_own_key)
                for head in (plain, known)
            ]
            assert crosses[0] == crosses[1]


def test_third_head_of_an_order_is_read_by_its_shape() -> None:
    """Otherwise nothing is gained."""
    shapes = AnswerShapes()
    names = ["content-type", "date", "x-ratelimit-limit-tokens"]

    heads = [shapes.head(200, raw(lines_of(names, ["application/json", f"{n}", "9"]))) for n in range(3)]

    assert [False, False, True] == [head.kept is not None for head in heads]
    assert b"content-type: application/json\r\ndate: 2\r\n" == to_caller(heads[2], is_governed=True)


def test_value_that_changes_later_is_learned_to_change() -> None:
    """A date stands still for a second and then does not: a third value must not be read apart for ever."""
    shapes = AnswerShapes()
    values = ["1", "1", "1", "2", "3", "4"]

    heads = [shapes.head(200, raw(lines_of(["date", "server"], [value, "x"]))) for value in values]

    assert [False, False, True, False, True, True] == [head.kept is not None for head in heads]
    assert 1 == len(shapes._shapes)


def test_reason_that_is_no_text_does_not_cross() -> None:
    """It is copied into our own status line, and the parser lets control characters through."""
    shapes = AnswerShapes()
    heads = [
        shapes.head(200, b"HTTP/1.1 200 %b\r\nserver: x\r\n\r\n" % reason)
        for reason in (b"OK", b"", b"caf\xc3\xa9", b"OK\x0bthen", b"OK\x0bthen", b"OK\x0bthen", b"\x7f")
    ]

    assert [b"OK", b"", b"caf\xc3\xa9", b"", b"", b"", b""] == [head.reason for head in heads]


def test_providers_that_never_repeat_themselves_fill_no_memory() -> None:
    """Names are chosen by the provider: what is remembered of them is bounded."""
    shapes = AnswerShapes()

    for n in range(200):
        for _ in range(2):
            shapes.head(200, raw(lines_of([f"x-{n}", "date"], ["1", "2"])))

    assert len(shapes._shapes) <= 8
    assert len(shapes._known) <= 8
    assert len(shapes._seen) <= 32


def test_header_named_in_the_first_of_two_connection_lines_never_crosses() -> None:
    """What Connection names is for this hop only, in every line of it and however often such a head came before."""
    shapes = AnswerShapes()
    names = ["connection", "connection", "x-hop", "date"]

    heads = [shapes.head(200, raw(lines_of(names, ["x-hop", "keep-alive", f"{n}", f"{n}"]))) for n in range(4)]

    assert [b"date: %d\r\n" % n for n in range(4)] == [to_caller(head) for head in heads]
