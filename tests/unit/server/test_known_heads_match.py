"""A head is known again only when every byte but the digits of its length is the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.server.known_heads import KnownHead, learn
from proxy.terms.http import RequestHead

DATA = b"POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nX-A: 1\r\n\r\n{}"


def head(**changes: object) -> RequestHead:
    made = RequestHead("POST", b"/v1/x", "/v1/x", [], {}, content_length=2)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def known() -> KnownHead:
    found = learn(DATA, head())
    assert found is not None
    return found


@pytest.mark.parametrize(("length", "size"), [(b"2", 2), (b"0", 0), (b"007", 7), (b"123456", 123456)])
def test_another_length_is_the_same_head(length: bytes, size: int) -> None:
    """Where the body begins, and how long it is."""
    data = DATA.replace(b"Length: 2", b"Length: " + length)

    assert (data.index(b"{}"), size) == known().match(data)


@given(st.lists(st.integers(0, 10**9 - 1) | st.text("0123456789\r\n x", max_size=12), max_size=6))
def test_what_a_head_matched_before_makes_no_difference(lengths: list[int | str]) -> None:
    """It looks where the last length ended first; that must neither miss a length nor see one."""
    seasoned = known()
    for length in lengths:
        data = DATA.replace(b"Length: 2", b"Length: %b" % str(length).encode("ascii"))

        assert known().match(data) == seasoned.match(data)


@pytest.mark.parametrize(
    "data",
    [
        DATA.replace(b"X-A: 1", b"X-A: 2"), DATA.replace(b"Host", b"host"), DATA.replace(b"/v1/x", b"/v1/y"), DATA.replace(b": 2\r", b": +2\r"),
        DATA.replace(b": 2\r", b": 2 \r"), DATA.replace(b": 2\r", b": \r"), DATA.replace(b": 2\r", b": 0x2\r"), DATA.replace(b": 2\r", b": 2, 2\r"),
        DATA.replace(b": 2\r", b": 99999999999999\r"), DATA.replace(b": 2\r\n", b": 2\r\nContent-Length: 3\r\n"),
        DATA.replace(b": 2\r\n", b": 2\r\nTransfer-Encoding: chunked\r\n"), DATA[:40], DATA[:-3], b"", b"\r\n" + DATA,
        DATA.replace(b": 2\r\n", b": 2\n"), DATA.replace(b": 2\r", b": \xc2\xb2\r"),
    ],
)  # fmt: skip
def test_anything_else_goes_to_the_strict_parser(data: bytes) -> None:
    """A shortcut past the gate must not be wider than the gate."""
    assert None is known().match(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"content_length": None},
        {"is_chunked": True},
        {"is_websocket": True},
        {"keep_alive": False},
        {"fields": {b"expect": b"100-continue"}},
    ],
)
def test_heads_with_a_say_of_their_own_are_not_remembered(changes: dict[str, object]) -> None:
    """Expect, upgrades, chunks and last requests are looked at anew each time."""
    assert None is learn(DATA, head(**changes))


def test_head_that_repeats_or_lacks_its_length_is_not_remembered() -> None:
    """There must be exactly one place to cut."""
    assert None is learn(DATA.replace(b"X-A: 1", b"Content-Length: 2"), head())
    assert None is learn(DATA.replace(b"Content-Length", b"CONTENT-LENGTH"), head())
    assert None is learn(DATA[:20], head())
