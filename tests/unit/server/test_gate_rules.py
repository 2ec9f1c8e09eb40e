"""Which request heads may go on at all."""

from __future__ import annotations

import pytest

from proxy.core.routing.problems import Problem
from proxy.server import gate
from proxy.terms.http import Header, RequestHead


@pytest.mark.parametrize("target", [b"/v1/x", b"/v1/a.b/c..d", b"/v1/x?y=/../z", b"/v1/%2Efile", b"/v1/...", b"/v1//x"])
def test_plain_targets_give_their_path(target: bytes) -> None:
    """Dots within names, and anything in the query, are harmless."""
    assert target.split(b"?")[0].decode() == gate.split_target(target)


@pytest.mark.parametrize(
    ("target", "status"),
    [(b"/v1/../admin", 400), (b"/v1/%2e%2E/x", 400), (b"/v1/.", 400), (b"/v1/..%2fx", 400), (b"/v1/..%5cx", 400), (b"*", 400),
     (b"http://h/v1/x", 400), (b"", 400), (b"/v1/x#y", 400), (b"/" + b"x" * 20_000, 414)],
)  # fmt: skip
def test_tricky_targets_are_refused(target: bytes, status: int) -> None:
    """A path that another parser reads differently never gets that far."""
    result = gate.split_target(target)

    assert isinstance(result, Problem)
    assert status == result.status


@pytest.mark.parametrize(
    ("method", "may"),
    [
        ("GET", True),
        ("POST", True),
        ("OPTIONS", True),
        ("CONNECT", False),
        ("TRACE", False),
        ("get", False),
        ("BREW" * 50, False),
    ],
)
def test_methods(method: str, may: bool) -> None:
    """Those of providers' APIs, and no others."""
    result = gate.check_method(method)

    assert may == (result is None)
    assert result is None or (result.status == 405 and len(result.message) < 80)


@pytest.mark.parametrize(
    ("version", "fields", "status"),
    [("1.1", {b"host": b"h"}, None), ("1.1", {}, 400), ("1.0", {}, None), ("1.0", {b"transfer-encoding": b"chunked"}, 400),
     ("2.0", {b"host": b"h"}, 505), ("0.9", {}, 505)],
)  # fmt: skip
def test_versions(version: str, fields: dict[bytes, bytes], status: int | None) -> None:
    """1.1 needs a Host, 1.0 knows no chunks, the rest is not spoken."""
    result = gate.check_version(version, fields)

    assert status == (None if result is None else result.status)


@pytest.mark.parametrize(
    ("value", "name"),
    [(b"LocalHost:8080", "localhost"), (b"127.0.0.1", "127.0.0.1"), (b"[::1]:80", "::1"), (b"a_b.c", "a_b.c"), (b"", None), (b"a b", None),
     (b"user@h", None), (b"h/p", None), (b"h:99999999", None), (b"[::1", None), (b"h,h2", None), (b"h\x00", None)],
)  # fmt: skip
def test_host_names(value: bytes, name: str | None) -> None:
    """One host, perhaps a port, and nothing that a URL parser could split."""
    assert name == gate.host_name(value)


@pytest.mark.parametrize(
    ("name", "seen", "ambiguous"),
    [(b"authorization", [b"authorization"], True), (b"authorization", [], False), (b"x-any", [b"x-any"], False),
     (b"content_length", [], True), (b"x_readygate_app", [], True), (b"x_any", [], False), (b"transfer_encoding", [b"host"], True)],
)  # fmt: skip
def test_repeats_and_misspellings_of_vital_fields(name: bytes, seen: list[bytes], ambiguous: bool) -> None:
    """Two hosts, two keys or an underscored length are read differently by different parsers (HT-23)."""
    assert ambiguous == gate.is_ambiguous_repeat(name, dict.fromkeys(seen, b"x"))


@pytest.mark.parametrize(
    ("fields", "status"),
    [({b"transfer-encoding": b"Chunked"}, None), ({b"transfer-encoding": b"gzip, chunked"}, 400), ({b"transfer-encoding": b"identity"}, 400),
     ({b"content-encoding": b"gzip"}, 415), ({b"content-encoding": b"identity"}, None), ({b"expect": b"100-Continue"}, None),
     ({b"expect": b"x"}, 417)],
)  # fmt: skip
def test_codings_and_expectations(fields: dict[bytes, bytes], status: int | None) -> None:
    """Only what can be read and answered."""
    result = gate.check_coding(RequestHead("POST", b"/v1/x", "/v1/x", [], fields))

    assert status == (None if result is None else result.status)


@pytest.mark.parametrize(
    ("said", "kept"),
    [(b"Upgrade", None), (b"upgrade, HTTP2-Settings", None), (b"close, Upgrade", b"close"), (b"X-Hop , Upgrade,, close", b"X-Hop, close")],
)  # fmt: skip
def test_declined_upgrade_keeps_what_else_connection_names(said: bytes, kept: bytes | None) -> None:
    """A wish to close stays a wish, and a header named for this hop stays named, so that it is dropped."""
    expected = [] if kept is None else [(b"Connection", kept)]

    assert expected == gate.without_upgrade([(b"Connection", said)])


def test_declined_upgrade_is_the_same_request_without_the_offer() -> None:
    """RFC 9110 section 7.8: a server may ignore Upgrade."""
    headers: list[Header] = [
        (b"Host", b"h"),
        (b"Upgrade", b"h2c"),
        (b"HTTP2-Settings", b"x"),
        (b"Connection", b"Upgrade"),
        (b"X", b"1"),
    ]

    assert b"GET /v1/x HTTP/1.1\r\nHost: h\r\nX: 1\r\n\r\n" == gate.render_head(
        "GET", b"/v1/x", "1.1", gate.without_upgrade(headers)
    )


CHUNKED = b"POST /v1/x HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (CHUNKED + b"5;a=" + b"x" * 500 + b"\r\nhello\r\n0\r\n\r\n", True),
        (CHUNKED + b"5;a=" + b"x" * 500, True),
        (CHUNKED + b"5\r\nhello\r\n1;a=" + b"x" * 500 + b"\r\nx\r\n", True),
        (CHUNKED + b"5;a=" + b"x" * 90 + b"\r\nhello\r\n0\r\n\r\n", False),
        (CHUNKED + b"64;a=" + b"x" * 500 + b"\r\n" + b"y" * 100 + b"\r\n0\r\n\r\n", False),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\nPOST /v1/x HTTP/1.1\r\nX: ;" + b"x" * 500, False),
        (CHUNKED + b"no size;" + b"x" * 500, False),
        (b"POST /v1/x HTTP/1.1\r\nContent-Length: 999\r\n\r\n5;a=" + b"x" * 500, False),
        (b"POST /v1/x HTTP/1.1\r\nX: chunked;" + b"x" * 500, False),
    ],
)
def test_framing_that_outweighs_its_body_is_seen(data: bytes, expected: bool) -> None:
    """With 100 bytes to spare; what is no chunk is for the parser."""
    assert expected is gate.is_mostly_framing(data, 100)
