"""Malformed and hostile requests: refused before anything leaves, answered well, recorded once (HT-01..05, 08, 13, 23)."""

from __future__ import annotations

import time

import pytest

from tests.support.rawhttp import Broken, RawCaller, chat_body, chunked, raw_chat, raw_request
from tests.support.sidecar import Stage, cases, check_refusal, resident_kib

pytestmark = pytest.mark.faults

JSON = b"Content-Type: application/json"
BODY = chat_body("framing")
CHUNKED = chunked(BODY)
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
SMUGGLED = b"GET /v1/files/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""Rides behind a refused request. Where that is not refused this is a second request of its own right."""
HAS_CANARY = "sk-line-canary-0Aa1Bb2Cc3"


def posting(*lines: bytes, body: bytes = b"") -> bytes:
    """Return a chat POST with exactly these lines behind Host."""
    return POST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def one(table: dict[str, tuple[bytes, ...]]) -> dict[str, tuple[tuple[bytes, ...]]]:
    """Return the table with each tuple of lines as one parameter."""
    return {name: (lines,) for name, lines in table.items()}


LENGTHS = {
    "length and chunked": (JSON, b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "chunked and length": (JSON, b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "two equal lengths": (JSON, b"Content-Length: %d" % len(BODY), b"Content-Length: %d" % len(BODY)),
    "two lengths": (JSON, b"Content-Length: %d" % len(BODY), b"Content-Length: 3"),
    "list of lengths": (JSON, b"Content-Length: %d, %d" % (len(BODY), len(BODY))),
    "signed": (JSON, b"Content-Length: +%d" % len(BODY)),
    "negative": (JSON, b"Content-Length: -1"),
    "hexadecimal": (JSON, b"Content-Length: 0x10"),
    "spaced digits": (JSON, b"Content-Length: 1 0"),
    "space before colon": (JSON, b"Content-Length : %d" % len(BODY)),
    "underscore": (JSON, b"Content_Length: %d" % len(BODY)),
    "underscored digits": (JSON, b"Content-Length: 1_0"),
    "not a number": (JSON, b"Content-Length: ten"),
    "empty": (JSON, b"Content-Length:"),
    "beyond 64 bits": (JSON, b"Content-Length: 18446744073709551617"),
    "fraction": (JSON, b"Content-Length: 1.0"),
}


@pytest.mark.parametrize("lines", cases(one(LENGTHS)))
def test_doubtful_content_length_is_refused(ordinary: Stage, lines: tuple[bytes, ...]) -> None:
    """HT-01: two parties that differ about a body's end make request smuggling."""
    ordinary.refused(posting(*lines, body=BODY + SMUGGLED), status=400)


CODINGS = {
    "xchunked": (JSON, b"Transfer-Encoding: xchunked"),
    "vertical tab": (JSON, b"Transfer-Encoding: \x0bchunked"),
    "form feed": (JSON, b"Transfer-Encoding: \x0cchunked"),
    "NUL": (JSON, b"Transfer-Encoding: chunked\x00"),
    "trailing comma": (JSON, b"Transfer-Encoding: chunked,"),
    "twice in one": (JSON, b"Transfer-Encoding: chunked, chunked"),
    "twice": (JSON, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "gzip, chunked": (JSON, b"Transfer-Encoding: gzip, chunked"),
    "chunked, gzip": (JSON, b"Transfer-Encoding: chunked, gzip"),
    "identity": (JSON, b"Transfer-Encoding: identity"),
    "quoted": (JSON, b'Transfer-Encoding: "chunked"'),
    "folded": (JSON, b"Transfer-Encoding:\r\n chunked"),
    "underscore": (JSON, b"Transfer_Encoding: chunked"),
    "space before colon": (JSON, b"Transfer-Encoding : chunked"),
    "gzip, chunked with no other line": (b"Transfer-Encoding: gzip, chunked",),
    "gzip alone with no other line": (b"Transfer-Encoding: gzip",),
    "parameter": (JSON, b"Transfer-Encoding: chunked;q=1"),
}


@pytest.mark.parametrize("lines", cases(one(CODINGS)))
def test_disguised_transfer_coding_is_refused(ordinary: Stage, lines: tuple[bytes, ...]) -> None:
    """HT-02: only the plain word ``chunked`` is understood alike by everybody."""
    ordinary.refused(posting(*lines, body=CHUNKED + SMUGGLED), status=(400, 501))


def test_chunked_in_http10_is_refused(ordinary: Stage) -> None:
    """HT-02: HTTP/1.0 has no transfer coding; a proxy that took it would see another body's end."""
    data = (
        b"POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\n" + JSON + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    )

    ordinary.refused(data + CHUNKED, status=(400, 501))


CHUNKS = {
    "0x size": b"0x5\r\nhello\r\n0\r\n\r\n",
    "underscored size": b"0_5\r\nhello\r\n0\r\n\r\n",
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "beyond 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "space before size": b" 5\r\nhello\r\n0\r\n\r\n",
    "LF in an extension": b"5;a=b\nc\r\nhello\r\n0\r\n\r\n",
    "CR in an extension": b"5;a=b\rc\r\nhello\r\n0\r\n\r\n",
    "LF after size": b"5\nhello\r\n0\r\n\r\n",
    "no CRLF behind data": b"5\r\nhello0\r\n\r\n",
    "data longer than size": b"3\r\nhello\r\n0\r\n\r\n",
    "LF behind data": b"5\r\nhello\n0\r\n\r\n",
    "extension of 64 KiB": b"5;a=" + b"x" * 65536 + b"\r\nhello\r\n0\r\n\r\n",
    "extension of 2 MiB": b"5;a=" + b"x" * 2_097_152 + b"\r\nhello\r\n0\r\n\r\n",
    "bad line in the trailers": b"0\r\nX-Trailer: 5\r\nbad line\r\n\r\n",
    "length in the trailers": b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    "coding in the trailers": b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("body", cases(CHUNKS))
def test_bad_chunk_is_refused(ordinary: Stage, body: bytes) -> None:
    """HT-03: a chunk that two parsers cut differently hides a second request."""
    ordinary.refused(posting(JSON, b"Transfer-Encoding: chunked", body=body + SMUGGLED), status=400)


def test_body_without_last_chunk_reaches_nobody(ordinary: Stage) -> None:
    """HT-03: a caller that leaves before its body is whole asked for nothing yet."""
    asked = ordinary.asked
    with ordinary.caller() as caller:
        caller.send(posting(JSON, b"Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n" % (len(BODY), BODY)))
        caller.half_close()
        end, rest = caller.ending(2.0)

    assert ("eof", b"", asked) == (end, rest, ordinary.asked)


def test_bad_chunk_in_an_upload_aborts_it_and_leaves_a_row(ordinary: Stage) -> None:
    """HT-03: an upload streams, so the provider has begun to see it: it must not see a proper end."""
    rows = ordinary.kept_rows()
    head = raw_request("POST", "/v1/files/broken-upload", b"Content-Type: multipart/form-data; boundary=b",
                       b"Transfer-Encoding: chunked")  # fmt: skip
    with ordinary.caller() as caller:
        caller.send(head + b"5\r\nhello\r\n", b"zz\r\nhello\r\n0\r\n\r\n", gap_s=0.2)
        caller.ending(2.0)
    ordinary.sidecar.rows("path = '/v1/files/broken-upload'", count=1, within_s=2.0)

    assert rows + 1 == ordinary.kept_rows()
    assert all(entry.received_s < 0 for entry in ordinary.entries("broken-upload"))


@pytest.mark.parametrize(
    "first",
    [
        posting(JSON, b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        posting(JSON, b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
        posting(JSON, b"Host: other", b"Content-Length: 2", body=b"{}"),
        raw_request("GET", "/nowhere"),
        raw_request("CONNECT", "localhost:443"),
        posting(JSON, b"Content-Encoding: gzip", b"Content-Length: 2", body=b"{}"),
        raw_request("TRACE", "/v1/models"),
    ],
    ids=["cl-te", "xchunked", "two hosts", "not v1", "connect", "gzip", "trace"],
)
def test_nothing_behind_a_refused_request_is_routed(ordinary: Stage, first: bytes) -> None:
    """HT-04: what follows a refused request in the same write may be its body; it is never a request."""
    rider = SMUGGLED.replace(b"smuggled", b"rider")
    ordinary.refused(first + rider + rider, status=(400, 404, 405, 415, 501))

    assert not ordinary.entries("rider")


# ---------------------------------------------------------------- HT-05: size


SIZES = {
    "line of 8 KiB in a header passes": (raw_request("GET", "/v1/models", b"X-Long: " + b"a" * 8300), (200,)),
    "target of 16 KiB and more": (raw_request("GET", "/v1/models?" + "a" * 17_000), (414,)),
    "500 header lines": (raw_request("GET", "/v1/models", *[b"X-%d: 1" % n for n in range(500)]), (431,)),
    "long method": (raw_request("A" * 5000, "/v1/models"), (400, 405, 501)),
    "headers of 70 KiB, one line": (raw_request("GET", "/v1/models", b"X-Long: " + b"a" * 70_000), (431,)),
    "headers of 100 KiB, 50 lines": (
        raw_request("GET", "/v1/models", *[b"X-%d: " % n + b"a" * 2000 for n in range(50)]), (431,)),
    "headers of 200 KiB": (raw_request("GET", "/v1/models", *[b"X-%d: " % n + b"a" * 2000 for n in range(100)]), (431,)),
    "header name of 70 KiB": (raw_request("GET", "/v1/models", b"X" * 70_000 + b": 1"), (431,)),
}  # fmt: skip


@pytest.mark.parametrize(("data", "statuses"), cases(SIZES))
def test_oversized_head_is_refused_whatever_its_segments(
    ordinary: Stage, data: bytes, statuses: tuple[int, ...]
) -> None:
    """HT-05: the limit must not depend on how the bytes were cut on their way."""
    if statuses == (200,):
        assert 200 == ordinary.ask(data).status
        return
    ordinary.refused(data, status=statuses)


def test_endless_head_is_cut_at_the_limit(ordinary: Stage) -> None:
    """HT-05, I10: a head without end must not be gathered."""
    before = resident_kib(ordinary)
    with ordinary.caller() as caller:
        caller.send(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Endless: ")
        for _ in range(1024):
            if not caller.try_send(b"a" * 16384):
                break
        try:
            status = caller.read().status
        except Broken:
            status = 431  # our own late bytes may have reset the connection before we read

    assert 431 == status
    assert resident_kib(ordinary) - before < 16 * 1024


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    cases(
        {
            "many lines": (b"", (b"X-Trailer: " + b"a" * 16000 + b"\r\n") * 16),
            "one line": (b"X-Trailer: ", b"a" * 262144),
        }
    ),
)
def test_endless_trailers_are_cut(ordinary: Stage, begins: bytes, goes_on: bytes) -> None:
    """CVE-2026-22815, I10: trailers count against a limit, are not gathered, and who goes on is cut off."""
    rows, asked, before = ordinary.kept_rows(), ordinary.asked, resident_kib(ordinary)
    with ordinary.caller() as caller:
        caller.send(posting(JSON, b"Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n" + begins))
        caller.send(goes_on * 8)
        answer = caller.read()
        refused_s = time.monotonic()
        while caller.try_send(goes_on) and time.monotonic() - refused_s < 5.0:
            time.sleep(0.02)  # noqa: TID251 - no event loop here
        cut_s = time.monotonic() - refused_s
        grown = resident_kib(ordinary) - before

    assert (400, True) == (answer.status, answer.closes)
    check_refusal(answer)
    assert cut_s < 4.5, "a refused caller is listened to for ever"
    assert grown < 6 * 1024, f"{grown} KiB grown"
    assert (rows + 1, asked) == (ordinary.kept_rows(), ordinary.asked)


# ---------------------------------------------------------------- HT-08: versions, hosts, targets, methods


LINES = {
    "0.9": b"GET /v1/models\r\n\r\n",
    "0.9 with a version": b"GET /v1/models HTTP/0.9\r\nHost: localhost\r\n\r\n",
    "1.9": b"GET /v1/models HTTP/1.9\r\nHost: localhost\r\n\r\n",
    "2.0": b"GET /v1/models HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "1.10": b"GET /v1/models HTTP/1.10\r\nHost: localhost\r\n\r\n",
    "lower-case version": b"GET /v1/models http/1.1\r\nHost: localhost\r\n\r\n",
    "h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "no Host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "empty Host": b"GET /v1/models HTTP/1.1\r\nHost:\r\n\r\n",
    "Host with user": b"GET /v1/models HTTP/1.1\r\nHost: a@localhost\r\n\r\n",
    "Host with path": b"GET /v1/models HTTP/1.1\r\nHost: localhost/v1\r\n\r\n",
    "Host with space": b"GET /v1/models HTTP/1.1\r\nHost: local host\r\n\r\n",
    "two Hosts": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "list of Hosts": b"GET /v1/models HTTP/1.1\r\nHost: localhost, evil.example\r\n\r\n",
    "rebound Host": b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "foreign absolute form": b"GET http://evil.example/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "absolute form": b"GET http://localhost/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT": b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n",
    "TRACE": b"TRACE /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "fragment": b"GET /v1/models#x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "dot segments": b"GET /v1/../admin HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "encoded dot segments": b"GET /v1/%2e%2E/admin HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "half-encoded dot segments": b"GET /v1/.%2e%2fadmin HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "backslash dot segments": b"GET /v1/..\\admin HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "not v1": b"GET /v2/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "looks like v1": b"GET /v1x/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "double slash": b"GET //v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "unknown method": b"BREW /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "lower-case method": b"get /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "webdav method": b"PROPFIND /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "control character in target": b"GET /v1/mo\x07dels HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "space in target": b"GET /v1/mo dels HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bare LF": b"GET /v1/models HTTP/1.1\nHost: localhost\n\n",
    "bare LF in the middle": b"GET /v1/models HTTP/1.1\r\nHost: localhost\nX-A: b\r\n\r\n",
    "bare CR": b"GET /v1/models HTTP/1.1\r\nHost: localhost\rX-A: b\r\n\r\n",
    "folded line": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n c\r\n\r\n",
    "leading space": b"GET /v1/models HTTP/1.1\r\n X-A: b\r\nHost: localhost\r\n\r\n",
    "no colon": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-A\r\n\r\n",
    "empty name": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n: b\r\n\r\n",
    "NUL in a value": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-A: b\x00c\r\n\r\n",
    "escape in a value": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-A: b\x1b[31m\r\n\r\n",
    "space in a name": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX A: b\r\n\r\n",
    "non-ASCII name": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-\xc3\xa9: b\r\n\r\n",
}


@pytest.mark.parametrize("data", cases(LINES))
def test_odd_request_head_is_refused(ordinary: Stage, data: bytes) -> None:
    """HT-07, HT-08: a sidecar speaks HTTP/1.1 and 1.0 in origin form to its own app, and nothing else."""
    ordinary.refused(data, status=(400, 404, 405, 421, 501, 505))


# ---------------------------------------------------------------- HT-13, HT-23: credentials in odd lines


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization : Bearer %b",
        b"Authorization\x00: Bearer %b",
        b"Authorization: Bearer %b\x00",
        b" Authorization: Bearer %b",
        b"Authorization Bearer %b",
        b"X-Ok: 1\rAuthorization: Bearer %b",
        b"%b: 1\x01",
    ],
)
def test_malformed_line_with_a_key_is_repeated_nowhere(ordinary: Stage, line: bytes) -> None:
    """HT-13: a parser's complaint that quotes the line puts the key into replies and logs."""
    answer = ordinary.refused(raw_request("GET", "/v1/models", line.replace(b"%b", HAS_CANARY.encode())), status=400)

    assert HAS_CANARY not in answer.text
    assert HAS_CANARY not in str(ordinary.row(answer))
    assert HAS_CANARY not in ordinary.sidecar.log()


@pytest.mark.parametrize(
    "lines",
    [
        (b"Authorization: Bearer a", b"Authorization: Bearer b"),
        (b"Authorization: Bearer a", b"authorization: Bearer a"),
        (b"x-api-key: a", b"X-Api-Key: b"),
        (b"x_api_key: a",),
        (b"api_key: a",),
        (b"Content_Type: text/plain",),
        (b"Content-Type: text/plain",),
        (b"X_Readygate_App: pii",),
        (b"X-Readygate-App: a", b"X-Readygate-App: b"),
        (b"X-Readygate_App: pii",),
    ],
)
def test_repeated_or_misspelt_deciding_header_is_refused(ordinary: Stage, lines: tuple[bytes, ...]) -> None:
    """HT-23: two parties must not disagree about who calls and what is sent."""
    ordinary.refused(raw_chat("x", *lines), status=400)


def test_caller_credentials_never_reach_a_provider_with_a_key_of_ours(ordinary: Stage) -> None:
    """HT-23: exactly one credential goes out, ours, whatever the caller put where."""
    lines = (
        b"Authorization: Bearer sk-callers",
        b"x-api-key: sk-callers",
        b"api-key: sk-callers",
        b"OpenAI-Organization: org-callers",
    )
    ordinary.ask(raw_chat("credentials", *lines))
    entry = ordinary.provider.last

    assert "callers" not in str(entry.headers)
    assert 1 == len(entry.header_values("authorization"))


def test_caller_credential_in_a_custom_auth_header_is_replaced(ordinary: Stage) -> None:
    """HT-23: a provider with a header of its own gets one value in it, not the caller's beside ours."""
    ordinary.ask(raw_chat("custom", b"X-Goog-Api-Key: callers-own", model="goog-1"))

    assert ["goog-own-canary-5Hj3Nd6Rb0Yc2Fs"] == ordinary.provider.last.header_values("x-goog-api-key")


def test_garbage_behind_a_request_is_not_booked_on_it(ordinary: Stage) -> None:
    """A row says what was asked: garbage on a kept connection is not another request for the path before it."""
    with ordinary.caller() as caller:
        caller.send(raw_chat("first"))
        first = caller.read()
        caller.send(b"\x00\x01 this is no request\r\n\r\n")
        second = caller.read()

    assert (200, 400) == (first.status, second.status)
    row = ordinary.row(second)
    assert ("", "") == (row["method"], row["model_asked"])
    assert "/v1/chat/completions" != row["path"]


def test_refusal_of_head_has_no_body(ordinary: Stage) -> None:
    """A client that asked with HEAD reads a body as the next answer."""
    with ordinary.caller() as caller:
        caller.send(raw_request("HEAD", "/nowhere"))
        answer = caller.read("HEAD")
        end, rest = caller.ending()

    assert (404, "eof", b"") == (answer.status, end, rest)


def test_refusal_on_the_anthropic_path_has_its_shape(ordinary: Stage) -> None:
    """Anthropic's SDK reads ``{"type": "error", "error": {...}}``."""
    with RawCaller(ordinary.sidecar.data_port) as caller:
        caller.send(raw_request("POST", "/v1/messages", JSON, b"Content-Encoding: gzip", body=b"{}"))
        answer = caller.read()

    assert 415 == answer.status
    assert "error" == answer.json()["type"]
    assert answer.get("x-readygate-id") == answer.json()["request_id"]
