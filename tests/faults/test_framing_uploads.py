"""Bodies of every size and shape, expectations and offers to change protocols on one connection (HT-03, HT-19)."""

from __future__ import annotations

import hashlib

import pytest

from tests.support.rawhttp import chat_body, chunked, raw_chat, raw_request
from tests.support.sidecar import Stage, cases

pytestmark = pytest.mark.faults

JSON = b"Content-Type: application/json"
FORM = b"Content-Type: multipart/form-data; boundary=frontier"
UPLOAD = (
    b'--frontier\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{}\r\n--frontier--\r\n'
)


# ---------------------------------------------------------------- bodies


def test_body_of_8_mib_arrives_byte_for_byte(ordinary: Stage) -> None:
    """Images in base64 make such requests; nothing in them may change."""
    body = chat_body("x" * (8 * 1024 * 1024), model="bare-big")
    with ordinary.caller(20.0) as caller:
        caller.send(raw_request("POST", "/v1/chat/completions", JSON, body=body))
        status = caller.read().status

    assert (200, hashlib.sha256(body).hexdigest()) == (status, ordinary.provider.last.sha256)


@pytest.mark.parametrize("kind", ["json", "upload"])
def test_chunked_body_with_trailers_arrives_without_them(ordinary: Stage, kind: str) -> None:
    """Envoy CVE-2026-73513: trailers are read and dropped, whatever they claim to be."""
    trailers = b"Authorization: Bearer sk-trailer\r\nX-Trailer: 1\r\n"
    body, line, path = (
        (chat_body("trailing"), JSON, "/v1/chat/completions") if kind == "json" else (UPLOAD, FORM, "/v1/files")
    )
    data = raw_request("POST", path, line, b"Transfer-Encoding: chunked", b"Trailer: X-Trailer")
    with ordinary.caller() as caller:
        caller.send(data + chunked(body[:7], body[7:8], body[8:], trailers=trailers))
        answer = caller.read()
        caller.send(raw_chat("echo: next"))
        after = caller.read()
    entry = ordinary.provider.entries[-2]

    assert (200, 200) == (answer.status, after.status)
    assert (body, []) == (entry.body, entry.trailers)
    assert not [name for name, _ in entry.headers if name.lower() in ("trailer", "x-trailer")]
    assert "sk-trailer" not in str(entry.headers)


def test_body_cut_into_single_bytes_arrives_whole(ordinary: Stage) -> None:
    """CVE-2025-69229: many tiny chunks are slow, not wrong, and do not hold others up."""
    body = chat_body("y" * 20_000, model="bare-tiny")
    data = raw_request("POST", "/v1/chat/completions", JSON, b"Transfer-Encoding: chunked")
    with ordinary.caller(10.0) as caller:
        caller.send(data + chunked(*[body[n : n + 1] for n in range(len(body))]))
        status = caller.read().status

    assert (200, body) == (status, ordinary.provider.last.body)


def test_declared_oversized_body_is_refused_before_it_is_read(hasty: Stage) -> None:
    """The answer comes at once: the caller has sent no byte of the body yet."""
    hasty.refused(raw_request("POST", "/v1/chat/completions", JSON, b"Content-Length: 1048577"), status=413)


def test_declared_oversized_upload_is_refused_before_it_is_read(hasty: Stage) -> None:
    """What policy does not read whole has a limit of its own, max_upload, and keeps to it as strictly."""
    hasty.refused(raw_request("POST", "/v1/files", FORM, b"Content-Length: 2097153"), status=413)


def test_upload_between_the_two_limits_passes(hasty: Stage) -> None:
    """max_body is for bodies that policy reads; an upload above it streams through untouched."""
    body = UPLOAD.replace(b"{}", b"x" * 1_500_000)
    answer = hasty.ask(raw_request("POST", "/v1/files", FORM, body=body))

    assert (200, hashlib.sha256(body).hexdigest()) == (answer.status, hasty.provider.last.sha256)


@pytest.mark.parametrize("line", cases({"json": JSON, "multipart": FORM}))
def test_oversized_chunked_body_is_refused_where_it_passes_the_limit(hasty: Stage, line: bytes) -> None:
    """A body of unknown length is counted as it comes."""
    rows = hasty.kept_rows()
    sent = 0
    with hasty.caller(3.0) as caller:
        caller.send(raw_request("POST", "/v1/files", line, b"Transfer-Encoding: chunked"))
        while sent < 3 * 1024 * 1024 and caller.try_send(b"10000\r\n" + b"x" * 65536 + b"\r\n"):
            sent += 65536
        caller.try_send(b"0\r\n\r\n")
        answer = caller.read()

    assert (413, rows + 1) == (answer.status, hasty.kept_rows())


# ---------------------------------------------------------------- HT-19: Expect


def test_expectation_is_met_then_the_body_is_read(ordinary: Stage) -> None:
    """HT-19: curl asks first when a body is large."""
    body = chat_body("echo: expected")
    with ordinary.caller() as caller:
        caller.send(
            raw_request(
                "POST", "/v1/chat/completions", JSON, b"Expect: 100-continue", b"Content-Length: %d" % len(body)
            )
        )
        interim = caller.read_until(b"\r\n\r\n")
        caller.send(body)
        answer = caller.read()

    assert b"HTTP/1.1 100 Continue\r\n\r\n" == interim
    assert (200, "expected") == (answer.status, answer.json()["choices"][0]["message"]["content"])
    assert ordinary.provider.last.header("expect") is None


def test_expectation_of_an_upload_is_met(ordinary: Stage) -> None:
    """HT-19: a streamed body is asked for as well."""
    with ordinary.caller() as caller:
        caller.send(
            raw_request("POST", "/v1/files", FORM, b"Expect: 100-continue", b"Content-Length: %d" % len(UPLOAD))
        )
        interim = caller.read_until(b"\r\n\r\n")
        caller.send(UPLOAD)
        status = caller.read().status

    assert (b"HTTP/1.1 100 Continue\r\n\r\n", 200, UPLOAD) == (interim, status, ordinary.provider.last.body)


def test_expectation_with_a_bad_key_is_refused_unread(guarded: Stage) -> None:
    """HT-19: the body is never asked for."""
    answer = guarded.refused(
        raw_request("POST", "/v1/chat/completions", JSON, b"Authorization: Bearer sk-wrong", b"Expect: 100-continue",
                    b"Content-Length: 500"),
        status=401, code="invalid_api_key",
    )  # fmt: skip

    assert [] == answer.interim


def test_expectation_with_a_spent_budget_is_refused_unread(ordinary: Stage) -> None:
    """HT-19: the body of a request that cannot be paid for is never asked for."""
    first = ordinary.ask(raw_chat("x", b"X-Readygate-App: thin"))
    answer = ordinary.refused(
        raw_request("POST", "/v1/chat/completions", JSON, b"X-Readygate-App: thin", b"Expect: 100-continue",
                    b"Content-Length: 500"),
        status=429,
    )  # fmt: skip

    assert (200, []) == (first.status, answer.interim)


def test_expectation_of_an_oversized_body_is_refused_unread(hasty: Stage) -> None:
    """HT-19: 413 instead of 100."""
    data = raw_request("POST", "/v1/chat/completions", JSON, b"Expect: 100-continue", b"Content-Length: 99999999")

    assert [] == hasty.refused(data, status=413).interim


def test_unknown_expectation_is_refused(ordinary: Stage) -> None:
    """RFC 9110: 417."""
    ordinary.refused(raw_request("POST", "/v1/chat/completions", JSON, b"Expect: 200-ok", body=b"{}"), status=417)
    ordinary.refused(raw_request("GET", "/v1/models", b"Expect: 200-ok"), status=417)


def test_expectation_in_http10_is_ignored(ordinary: Stage) -> None:
    """RFC 9110 section 10.1.1: an HTTP/1.0 client would take 100 for its answer."""
    body = chat_body("echo: old")
    answer = ordinary.ask(
        raw_request("POST", "/v1/chat/completions", JSON, b"Expect: 100-continue", body=body, version=b"HTTP/1.0")
    )

    assert (200, []) == (answer.status, answer.interim)


# ---------------------------------------------------------------- offers to change protocols


@pytest.mark.parametrize(
    ("lines", "pieces"),
    [
        ((b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"), 1),
        ((b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"), 3),
        ((b"Connection: Upgrade", b"Upgrade: websocket"), 1),
        ((b"Connection: keep-alive, Upgrade", b"Upgrade: TLS/1.2"), 2),
        ((b"Upgrade: h2c",), 1),
    ],
    ids=["h2c", "h2c in pieces", "websocket by POST", "tls in pieces", "without Connection"],
)
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_upgrade_offer_with_a_body_is_declined_and_served(
    ordinary: Stage, lines: tuple[bytes, ...], pieces: int, coding: str
) -> None:
    """RFC 9110 section 7.8: a server may ignore the offer; Java's HttpClient makes it on every first request."""
    body = chat_body("echo: plain old")
    if coding == "length":
        data = raw_request("POST", "/v1/chat/completions", JSON, *lines, body=body)
    else:
        data = raw_request("POST", "/v1/chat/completions", JSON, *lines, b"Transfer-Encoding: chunked") + chunked(body)
    step = -(-len(data) // pieces)
    with ordinary.caller(2.0) as caller:
        caller.send(*[data[at : at + step] for at in range(0, len(data), step)], gap_s=0.02 if pieces > 1 else 0.0)
        answer = caller.read()
        caller.send(raw_chat("echo: next"))
        after = caller.read()

    assert (200, "plain old") == (answer.status, answer.json()["choices"][0]["message"]["content"])
    assert "next" == after.json()["choices"][0]["message"]["content"]
    assert not {"upgrade", "http2-settings", "connection"} & {
        name.lower() for name, _ in ordinary.provider.entries[-2].headers
    }


def test_declined_upgrade_of_http10_stays_http10(ordinary: Stage) -> None:
    """A caller that speaks 1.0 cannot read chunks, whatever it offers."""
    body = chat_body("echo: old", stream=True)
    data = raw_request("POST", "/v1/chat/completions", JSON, b"Connection: Upgrade", b"Upgrade: h2c", body=body,
                       version=b"HTTP/1.0")  # fmt: skip
    with ordinary.caller(2.0) as caller:
        caller.send(data)
        answer = caller.read()

    assert ("close", "[DONE]") == (answer.framing, answer.events[-1])


def test_declined_upgrade_keeps_a_wish_to_close(ordinary: Stage) -> None:
    """``Connection: close, Upgrade`` asks for two things; declining one does not forget the other."""
    with ordinary.caller(2.0) as caller:
        caller.send(raw_request("GET", "/v1/models", b"Connection: close, Upgrade", b"Upgrade: h2c"))
        answer = caller.read()
        end, _ = caller.ending()

    assert (200, True, "eof") == (answer.status, answer.closes, end)
