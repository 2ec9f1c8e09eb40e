"""What no policy touches arrives byte for byte, both ways, through the real sidecar: any headers, any body, any split."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tests.support.raw_provider import RawProvider, raw_provider
from tests.support.wire import Header, Message, Sidecar, caller, sidecar_for

pytestmark = pytest.mark.integration

QUICK = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

POLICY = """
version: 1
policy: nothing
routes: [{match: {models: ["*"]}, chain: [{provider: raw}], retries: none}]
"""

FRAMING = {b"host", b"content-length", b"transfer-encoding", b"connection", b"date", b"keep-alive"}
"""Belongs to one connection: written anew on each side."""
_HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
}  # fmt: skip
_NOT_FREE = _HOP_BY_HOP | FRAMING | {
    b"authorization", b"expect", b"http2-settings", b"accept-encoding", b"content-type", b"content-encoding", b"x-api-key",
    b"api-key", b"server-timing", b"x-request-id", b"cache-control", b"x-accel-buffering",
}  # fmt: skip
"""Names with a meaning of their own, tested by name elsewhere."""

TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KNOWN_NAMES = [
    b"Accept", b"accept-language", b"User-Agent", b"OpenAI-Beta", b"Idempotency-Key", b"Cookie", b"Set-Cookie", b"Range",
    b"If-None-Match", b"ETag", b"X-Stainless-Lang", b"x-stainless-lang", b"X_Under_Score", b"x", b"Vary", b"Link", b"Via",
    b"X-Forwarded-For", b"traceparent", b"OpenAI-Processing-Ms", b"x-ratelimit-remaining-tokens", b"Warning", b"Age",
]  # fmt: skip


def _is_free(name: bytes) -> bool:
    lower = name.lower()
    return (
        lower not in _NOT_FREE and lower.replace(b"_", b"-") not in _NOT_FREE and not lower.startswith(b"x-readygate")
    )


names = (st.sampled_from(KNOWN_NAMES) | st.text(TOKEN, min_size=1, max_size=12).map(str.encode)).filter(_is_free)
_visible = st.integers(0x21, 0x7E) | st.integers(0x80, 0xFF)
values = st.lists(_visible | st.sampled_from([0x20, 0x09]), max_size=24).map(lambda codes: bytes(codes).strip(b" \t"))
headers = st.lists(st.tuples(names, values), max_size=12)
bodies = st.binary(max_size=400) | st.builds(
    lambda piece, times: piece * times, st.binary(min_size=1, max_size=40), st.integers(1, 4000)
)

_pchar = st.sampled_from("abcXYZ019-_~!$&'()*+,;=:@") | st.sampled_from(
    ["%3A", "%2F", "%2f", "%20", "%C3%A9", "%00", "%ff", "%25", "..x", "x.y"]
)
segments = st.lists(_pchar, min_size=1, max_size=6).map("".join)
paths = st.lists(segments, min_size=1, max_size=4).map(lambda parts: "/v1/x-" + "/".join(parts))
queries = st.lists(_pchar | st.sampled_from(["?", "/", "&", "=", "[", "]", "{", "|", '"', "^", "`"]), max_size=10).map(
    lambda parts: "?" + "".join(parts) if parts else ""
)


@st.composite
def cuts(draw: st.DrawFn, most: int = 6) -> list[float]:
    """Where to cut some bytes, as fractions of their length."""
    return sorted(draw(st.lists(st.floats(0, 1), max_size=most)))


def cut(data: bytes, at: list[float]) -> list[bytes]:
    places = [0, *[int(part * len(data)) for part in at], len(data)]
    return [data[a:b] for a, b in pairwise(places) if b > a]


def in_chunks(data: bytes, at: list[float]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in cut(data, at)) + b"0\r\n\r\n"


@pytest.fixture(scope="module")
def provider() -> Iterator[RawProvider]:
    with raw_provider() as running:
        yield running


@pytest.fixture(scope="module")
def sidecar(provider: RawProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f"providers: {{raw: {{base_url: '{provider.base_url}', keepalive: 30s}}}}"
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), config, POLICY, server="max_body: 16MiB") as running:
        yield running


def exchange(sidecar: Sidecar, pieces: list[bytes], method: str = "POST") -> Message:
    with caller(sidecar.data_port) as wire:
        for piece in pieces:
            wire.send(piece)
        return wire.message(is_bodiless=method == "HEAD")


def free(pairs: list[Header], ours: frozenset[bytes] = frozenset()) -> list[Header]:
    """The end-to-end headers among these, in order."""
    return [
        (name, value)
        for name, value in pairs
        if name.lower() not in FRAMING | ours and not name.lower().startswith(b"x-readygate-")
    ]


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


# ---------------------------------------------------------------- requests


@QUICK
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]),
    path=paths,
    query=queries,
    sent=headers,
    body=bodies,
    content_type=st.sampled_from([b"application/octet-stream", b"multipart/form-data; boundary=x", b"audio/wav", b"text/plain", b"application/JSON", b""]),
    is_chunked=st.booleans(),
    chunks=cuts(),
    writes=cuts(),
)  # fmt: skip
@example(
    method="POST",
    path="/v1/x-a",
    query="?a=%3A&b=%2F",
    sent=[(b"X-A", b"1"), (b"x-a", b"2"), (b"X-B", b"\xe9\xff")],
    body=b"\x00\xff" * 100_000,
    content_type=b"application/octet-stream",
    is_chunked=True,
    chunks=[0.5],
    writes=[0.1, 0.9],
)
def test_request_arrives_byte_for_byte(  # noqa: PLR0917 - hypothesis gives them by name
    sidecar: Sidecar, provider: RawProvider, method: str, path: str, query: str, sent: list[Header], body: bytes,
    content_type: bytes, is_chunked: bool, chunks: list[float], writes: list[float],
) -> None:  # fmt: skip
    """Method, target, end-to-end headers in order and spelling, and the body, whatever the framing and the split."""
    if content_type == b"application/JSON":
        body = b'{"k": "' + body.hex().encode()[:500] + b'", "n": 1.0e2}'
    if not content_type or method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        body = b"" if method in ("GET", "HEAD", "OPTIONS") else body[:50]
    pairs = [*sent, (b"Content-Type", content_type)] if content_type else sent
    lines = [f"{method} {path}{query} HTTP/1.1".encode("latin-1"), b"Host: localhost"]
    lines += [name + b": " + value for name, value in pairs]
    if is_chunked and body:
        data = b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n" + in_chunks(body, chunks)
    else:
        data = b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body
    provider.answer(OK if method != "HEAD" else b"HTTP/1.1 200 OK\r\n\r\n")

    answer = exchange(sidecar, cut(data, writes), method)

    assert 200 == answer.status, answer
    (seen,) = provider.seen
    assert f"{method} {path}{query} HTTP/1.1".encode("latin-1") == seen.first_line
    assert pairs == free(seen.headers)
    assert body == seen.body
    names_seen = [name.lower() for name, _ in seen.headers]
    assert len([name for name in names_seen if name in (b"content-length", b"transfer-encoding")]) <= 1
    assert not (set(names_seen) & _HOP_BY_HOP - {b"transfer-encoding"})
    assert [b"127.0.0.1:%d" % provider.port] == [value for name, value in seen.headers if name.lower() == b"host"]


_numbers = st.sampled_from(["0", "-0", "1.0e2", "1E+2", "1.10", "1e-7", "123456789012345678901234567890", "-9007199254740993",
                            "0.1000000000000000055511151231257827", "1e308"]) | st.integers().map(str)  # fmt: skip
_strings = st.text(
    st.characters(codec="utf-8", exclude_characters='"\\', exclude_categories=["Cc", "Cs"]), max_size=12
).map(lambda text: f'"{text}"') | st.sampled_from(
    ['"\\u0041"', '"\\ud83d\\ude00"', '"\\/"', '"\\n\\t\\u0000"', '"[EMAIL-1]"', '"\u2028"', '""']
)
_space = st.sampled_from(["", "", " ", "\n", "\t ", "\r\n"])


def _object(pairs: list[tuple[str, str]], space: str) -> str:
    return "{" + ",".join(f"{space}{key}{space}:{space}{value}" for key, value in pairs) + space + "}"


_json = st.recursive(
    _numbers | _strings | st.sampled_from(["true", "false", "null"]),
    lambda inner: (
        st.builds(
            lambda items, gap: "[" + ",".join(gap + item for item in items) + gap + "]",
            st.lists(inner, max_size=3),
            _space,
        )
        | st.builds(_object, st.lists(st.tuples(_strings, inner), max_size=3), _space)
    ),
    max_leaves=8,
)
_unknown = st.lists(
    st.tuples(
        st.sampled_from(['"x_unknown"', '"seed"', '"temperature"', '"logit_bias"', '"\u00e9"', '""', '"x"']), _json
    ),
    max_size=5,
)


@st.composite
def chat_bodies(draw: st.DrawFn) -> bytes:
    """A chat request as text: known keys in any order among unknown ones, odd numbers, escapes and white space."""
    space = draw(_space)
    known = [
        ('"model"', '"m-1"'),
        ('"messages"', f'[{{"role":{space}"user","content":{draw(_strings)},"x":{draw(_json)}}}]'),
    ]
    return (draw(_space) + _object(draw(st.permutations(known + draw(_unknown))), space) + draw(_space)).encode()


@QUICK
@given(
    body=chat_bodies(),
    writes=cuts(),
    path=st.sampled_from(["/v1/chat/completions", "/v1/x-unknown", "/v1/moderations"]),
)
@example(
    body=b'{"model":"m-1","messages":[],"seed":123456789012345678901234567890,"temperature":1.0e2,"a":1,"a":2}',
    writes=[],
    path="/v1/chat/completions",
)
def test_json_request_arrives_byte_for_byte(
    sidecar: Sidecar, provider: RawProvider, body: bytes, writes: list[float], path: str
) -> None:
    """Unknown fields, big integers, 1.0e2, escapes, white space, repeated unknown keys: read, not rewritten."""
    provider.answer(OK)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"

    answer = exchange(sidecar, cut(head.encode() + body, writes))

    assert 200 == answer.status, answer
    assert body == provider.seen[0].body


@pytest.mark.parametrize("text", ["\\ud83d", "\\ude00\\ud83d", "cut \\ud83d off"])
def test_lone_surrogate_escape_arrives_byte_for_byte(sidecar: Sidecar, provider: RawProvider, text: str) -> None:
    """JavaScript clients that cut text by UTF-16 units send them; a policy that touches nothing has no reason to refuse."""
    body = f'{{"model":"m-1","messages":[{{"role":"user","content":"{text}"}}]}}'.encode()
    provider.answer(OK)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"

    answer = exchange(sidecar, [head.encode() + body])

    assert 200 == answer.status, answer.body
    assert body == provider.seen[0].body


_variants = st.sampled_from([
    [], [(b"X-Turn", b"1")], [(b"X-Turn", b"2")], [(b"X-Turn", b"1"), (b"X-Turn", b"1")], [(b"x-turn", b"1")],
    [(b"X-Content-Length", b"7")], [(b"Content-length-x", b"7")],
])  # fmt: skip
_turns = st.lists(
    st.tuples(_variants, st.sampled_from([b"application/json", b"application/octet-stream"]), st.integers(0, 3000), st.booleans()),
    min_size=2, max_size=6,
)  # fmt: skip


@QUICK
@given(
    turns=_turns,
    writes=cuts(8),
    is_pipelined=st.booleans(),
    spelling=st.sampled_from([b"Content-Length: ", b"content-length:", b"CONTENT-LENGTH: 0"]),
)
def test_requests_of_one_connection_arrive_byte_for_byte(
    sidecar: Sidecar, provider: RawProvider, turns: list[tuple[list[Header], bytes, int, bool]], writes: list[float],
    is_pipelined: bool, spelling: bytes,
) -> None:  # fmt: skip
    """What one request of a connection said is never taken for what the next one says, however alike their heads are."""
    requests: list[bytes] = []
    expected: list[tuple[list[Header], bytes]] = []
    for number, (variant, content_type, size, ends_in_framing) in enumerate(turns):
        text = b'"%d' % number + b"x" * size + b'"'
        body = (b'{"k":' + text + b"}") if size or content_type == b"application/octet-stream" else b"{}"
        pairs = [(b"Content-Type", content_type), *variant]
        lines = [b"POST /v1/x-turns HTTP/1.1", b"Host: localhost", *(name + b": " + value for name, value in pairs)]
        lines.insert(len(lines) if ends_in_framing else 2, spelling + b"%d" % len(body))
        requests.append(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        expected.append((pairs, body))
    provider.answer(OK)

    with caller(sidecar.data_port) as wire:
        if is_pipelined:
            for piece in cut(b"".join(requests), writes):
                wire.send(piece)
            answers = [wire.message() for _ in requests]
        else:
            answers = []
            for data in requests:
                for piece in cut(data, writes):
                    wire.send(piece)
                answers.append(wire.message())

    assert [200] * len(turns) == [answer.status for answer in answers]
    assert len({answer.get("x-readygate-id") for answer in answers}) == len(turns)
    assert expected == [(free(seen.headers), seen.body) for seen in provider.seen]


# ---------------------------------------------------------------- answers


@st.composite
def reasons(draw: st.DrawFn) -> bytes:
    return bytes(draw(st.lists(_visible | st.just(0x20), max_size=12))).strip()


@QUICK
@given(
    status=st.sampled_from([200, 201, 202, 203, 206, 226, 299, 400, 402, 404, 405, 410, 418, 422, 451, 499]),
    reason=reasons(),
    said=headers,
    body=bodies,
    content_type=st.sampled_from([b"application/octet-stream", b"application/json", b"text/html", b"audio/mpeg", b""]),
    coding=st.sampled_from([b"", b"", b"gzip", b"br", b"x-own"]),
    framing=st.sampled_from(["length", "chunked", "close"]),
    chunks=cuts(),
    writes=cuts(),
)  # fmt: skip
@example(
    status=200,
    reason=b"OK",
    said=[(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"X-Obs", b"\xc3\xa9")],
    body=b"\x00\xff" * 1_500_000,
    content_type=b"audio/mpeg",
    coding=b"",
    framing="chunked",
    chunks=[0.3],
    writes=[0.5],
)
def test_answer_arrives_byte_for_byte(  # noqa: PLR0917 - hypothesis gives them by name
    sidecar: Sidecar, provider: RawProvider, status: int, reason: bytes, said: list[Header], body: bytes,
    content_type: bytes, coding: bytes, framing: str, chunks: list[float], writes: list[float],
) -> None:  # fmt: skip
    """Status, reason, end-to-end headers in order and spelling, and the body in its coding, whatever the split."""
    assume(status < 400 or len(body) < 1_000_000)
    coding = b"x-own" if status >= 400 and coding == b"gzip" else coding  # see test_coded_error_arrives_byte_for_byte
    pairs = list(said)
    if content_type:
        pairs.append((b"Content-Type", content_type))
    if coding:
        pairs.append((b"Content-Encoding", coding))
    lines = [b"HTTP/1.1 %d %b" % (status, reason), *(name + b": " + value for name, value in pairs)]
    if framing == "length":
        data = b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body
    elif framing == "chunked":
        data = b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n" + in_chunks(body, chunks)
    else:
        data = b"\r\n".join(lines) + b"\r\n\r\n" + body
    provider.answer(*cut(data, writes), closes=framing == "close")

    answer = exchange(sidecar, [b"GET /v1/x-file HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip, br\r\n\r\n"])

    assert b"HTTP/1.1 %d %b" % (status, reason) == answer.first_line, answer
    ours = frozenset({b"x-request-id", b"server-timing"})
    assert pairs == free(answer.headers, ours)
    assert body == answer.body
    assert "whole" == answer.ended
    assert not ({name.lower() for name, _ in answer.headers} & _HOP_BY_HOP - {b"transfer-encoding", b"connection"})


@pytest.mark.parametrize(
    "body", [gzip.compress(b'{"error":{"message":"no"}}'), b"called gzip, but none"], ids=["gzip", "none"]
)
def test_coded_error_arrives_byte_for_byte(sidecar: Sidecar, provider: RawProvider, body: bytes) -> None:
    """There is nothing of ours to mask in it: this provider was sent the caller's own key."""
    provider.answer(b"HTTP/1.1 400 No\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    answer = exchange(sidecar, [b"GET /v1/x-file HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"])

    assert (400, "gzip", body) == (answer.status, answer.get("content-encoding"), answer.body)


_event_lines = st.sampled_from(
    ["data: {}", 'data:{"choices":[]}', ": comment", ":", "event: x", "id: 7", "retry: 10", "data", "unknown: y",
     'data: {"choices":[{"index":0,"delta":{"content":"h\u00e9 \U0001f600"}}]}', 'data: {"model":"m-9"}', "data: [1,", "data: 2]"]
)  # fmt: skip


def _is_readable(lines: list[str]) -> bool:
    """True when an event's data is one JSON object, or none: anything else ends a known stream as malformed."""
    data = "\n".join(line[5:].removeprefix(" ") for line in lines if line.startswith("data:"))
    try:
        return not data.strip() or isinstance(json.loads(data), dict)
    except ValueError:
        return False


_events = st.lists(st.lists(_event_lines, min_size=1, max_size=3), max_size=8)


@QUICK
@given(
    events=_events,
    eol=st.sampled_from(["\n", "\r\n", "\r"]),
    bom=st.booleans(),
    chunks=cuts(12),
    writes=cuts(12),
    known=st.booleans(),
)
def test_event_stream_arrives_byte_for_byte(
    sidecar: Sidecar, provider: RawProvider, events: list[list[str]], eol: str, bom: bool, chunks: list[float],
    writes: list[float], known: bool,
) -> None:  # fmt: skip
    """Comments, ids, CRLF, events cut anywhere: the same bytes, and the end only when the provider's end came."""
    text = (
        ("\ufeff" if bom else "") + "".join(eol.join(lines) + eol + eol for lines in events) + f"data: [DONE]{eol}{eol}"
    )
    body = text.encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    provider.answer(*cut(head + in_chunks(body, chunks), writes))
    asked = b'{"model":"m-1","messages":[],"stream":true}'
    is_known = known and all(_is_readable(lines) for lines in events)
    path = b"/v1/chat/completions" if is_known else b"/v1/x-stream"

    answer = exchange(
        sidecar,
        [
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (path, len(asked), asked)
        ],
    )

    assert (200, "whole") == (answer.status, answer.ended), answer
    assert body == answer.body


def test_length_of_a_head_answer_is_the_providers(sidecar: Sidecar, provider: RawProvider) -> None:
    """HEAD of a file says how large it is; 0 would be a lie (RFC 9110 section 8.6)."""
    provider.answer(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 12345\r\n\r\n")

    answer = exchange(sidecar, [b"HEAD /v1/x-file HTTP/1.1\r\nHost: localhost\r\n\r\n"], "HEAD")

    assert "12345" == answer.get("content-length")


def test_hop_by_hop_headers_of_an_answer_do_not_cross(sidecar: Sidecar, provider: RawProvider) -> None:
    """Neither the known ones nor those that Connection names."""
    provider.answer(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Private\r\nKeep-Alive: timeout=5\r\nX-Private: 1\r\nX-Public: 2\r\n"
        b"Proxy-Authenticate: Basic\r\nTrailer: x\r\nUpgrade: h2c\r\nX-Readygate-Id: forged\r\nContent-Length: 2\r\n\r\n{}"
    )

    answer = exchange(sidecar, [b"GET /v1/x-file HTTP/1.1\r\nHost: localhost\r\n\r\n"], "GET")

    names_seen = {name.lower() for name, _ in answer.headers}
    assert not names_seen & (_HOP_BY_HOP | {b"x-private"})
    assert b"x-public" in names_seen
    assert "forged" != answer.get("x-readygate-id")
