"""Bodies that policy cannot or must not trust: coded, odd, ambiguous, mislabelled (HT-10..12)."""

from __future__ import annotations

import gzip
import json
import time
import zlib

import pytest

from tests.support.rawhttp import chat_body, chunked, raw_request
from tests.support.sidecar import Stage, cases, check_refusal, resident_kib

pytestmark = pytest.mark.faults

JSON = b"Content-Type: application/json"
BODY = chat_body("framing")


def posting(*lines: bytes, body: bytes = b"") -> bytes:
    """Return a chat POST with exactly these lines behind Host."""
    return raw_request("POST", "/v1/chat/completions", *lines, length=False) + body


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip", b"x-gzip", b"GZIP"])
def test_encoded_body_is_refused_unread(ordinary: Stage, coding: bytes) -> None:
    """HT-10: policy cannot read it, and inflating it is how bombs go off."""
    bomb = gzip.compress(b"\0" * 50_000_000) if b"zip" in coding else zlib.compress(b"\0" * 1_000_000)
    before = resident_kib(ordinary)

    ordinary.refused(
        raw_request("POST", "/v1/chat/completions", JSON, b"Content-Encoding: " + coding, body=bomb), status=415
    )
    assert resident_kib(ordinary) - before < 4 * 1024


def test_encoded_upload_is_refused(ordinary: Stage) -> None:
    """HT-10: an upload streams, yet its coding must not reach a provider either."""
    ordinary.refused(
        raw_request("POST", "/v1/files", b"Content-Type: multipart/form-data; boundary=b", b"Content-Encoding: gzip",
                    body=gzip.compress(b"--b--")),
        status=415,
    )  # fmt: skip


def test_encoded_body_with_no_other_line_is_refused(ordinary: Stage) -> None:
    """HT-10: the shortest head that carries a coding is refused like any other."""
    ordinary.refused(posting(b"Content-Encoding: gzip", b"Content-Length: 2", body=b"{}"), status=415)
    ordinary.refused(
        b"POST /v1/chat/completions HTTP/1.0\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", status=415
    )


def test_mislabelled_gzip_body_is_unreadable(ordinary: Stage) -> None:
    """HT-10: bytes that are no JSON are refused whatever they are."""
    ordinary.refused(
        raw_request("POST", "/v1/chat/completions", JSON, body=gzip.compress(BODY)), status=400, closes=False
    )


def message(content: str) -> bytes:
    """Return a chat body whose content is this JSON text."""
    return b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":%b}]}' % content.encode(
        "utf-8", "surrogatepass"
    )


ODD_JSON = {
    "depth 100k": b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "depth 100k escaped": b'{"model":"m","x":"\\u0041","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "open depth": b'{"a":' * 50_000,
    "garbage tail": message('"hi"') + b"}",
    "two documents": message('"hi"') + message('"hi"'),
    "BOM": b"\xef\xbb\xbf" + message('"hi"'),
    "UTF-16": message('"hi"').decode().encode("utf-16"),
    "UTF-16 without BOM": message('"hi"').decode().encode("utf-16-le"),
    "UTF-32": message('"hi"').decode().encode("utf-32"),
    "CESU": message('"') [:-3] + b'\xed\xa0\xbd\xed\xb8\x80"}]}',
    "Latin-1": message('"caf') [:-3] + b'\xe9"}]}',
    "overlong": message('"') [:-3] + b'\xc0\xaf"}]}',
    "NUL": message('"a\x00b"'),
    "newline in string": message('"a\nb"'),
    "single quotes": b"{'model':'m'}",
    "comment": b'{"model":"m",/* x */"messages":[]}',
    "trailing comma": b'{"model":"m","messages":[],}',
    "empty": b"",
    "blank": b"  \r\n ",
    "truncated": message('"hi"')[:-2],
}  # fmt: skip


@pytest.mark.parametrize("body", cases(ODD_JSON))
def test_odd_json_is_refused_quickly(ordinary: Stage, body: bytes) -> None:
    """HT-11: what parsers disagree about is refused, without holding anybody else up."""
    data = raw_request("POST", "/v1/chat/completions", JSON, body=body, length=True)
    started_s = time.monotonic()
    with ordinary.caller() as caller:
        caller.send(data)
        status = caller.read().status
    taken_s = time.monotonic() - started_s

    assert 400 == status
    assert taken_s < 0.5, f"{taken_s:.3f} s"
    ordinary.refused(data, status=400, closes=False)


LAX_JSON = {
    "NaN": b'{"model":"m","temperature":NaN,"messages":[{"role":"user","content":"%E"}]}',
    "infinity": b'{"model":"m","temperature":-Infinity,"messages":[{"role":"user","content":"%E"}]}',
    "lone surrogate beside": b'{"model":"m","messages":[{"role":"user","content":"\\ud83d"},{"role":"user","content":"%E"}]}',
    "lone surrogate within": b'{"model":"m","messages":[{"role":"user","content":"cut \\ud83d %E \\ude00"}]}',
}


@pytest.mark.parametrize("body", cases(LAX_JSON))
def test_json_that_some_parsers_take_passes_where_nothing_is_found(ordinary: Stage, body: bytes) -> None:
    """JavaScript and Python clients send these; a policy that changes nothing has no reason to refuse."""
    asked = ordinary.asked
    body = body.replace(b"%E", b"nobody")
    ordinary.ask(raw_request("POST", "/v1/chat/completions", JSON, b"X-Readygate-App: pii", body=body))

    assert (asked + 1, body) == (ordinary.asked, ordinary.provider.last.body)


@pytest.mark.parametrize("body", cases(LAX_JSON))
def test_json_that_some_parsers_take_carries_no_personal_data_past_policy(ordinary: Stage, body: bytes) -> None:
    """I9: what has to be written anew and cannot be is refused; it never leaves as it came."""
    asked = ordinary.asked
    body = body.replace(b"%E", EMAIL.encode())
    answer = ordinary.ask(raw_request("POST", "/v1/chat/completions", JSON, b"X-Readygate-App: pii", body=body))

    if ordinary.asked == asked:
        assert 400 == answer.status
        check_refusal(answer, "body_unreadable")
    else:
        assert EMAIL.encode() not in ordinary.provider.last.body


@pytest.mark.parametrize(
    "content",
    ['"\\ud800"', '"\\udc00 tail"', '"a\\u0000b"', '"\\ud83d\\ude00"', "1e400", "-0", "9" * 5000, '"\u2028"', "1.0e2"],
    ids=["lone high", "lone low", "escaped NUL", "pair", "1e400", "-0", "5000 digits", "U+2028", "exponent"],
)
def test_odd_but_harmless_json_passes_as_it_is_or_is_refused(ordinary: Stage, content: str) -> None:
    """HT-11: never changed silently: refused, or the provider gets the caller's own bytes."""
    body = message(content)
    answer = ordinary.ask(raw_request("POST", "/v1/chat/completions", JSON, body=body))

    if answer.status == 400 and not answer.get("x-readygate-provider"):
        return
    assert body == ordinary.provider.last.body


def test_million_keys_do_not_hold_others_up(ordinary: Stage) -> None:
    """HT-11, I11: a big document is read beside the loop, so the probe stays quick."""
    body = (
        b'{"model":"gpt-4o-mini","messages":[],"metadata":{'
        + b",".join(b'"k%d":1' % n for n in range(1_000_000))
        + b"}}"
    )
    slowest_s = 0.0
    with ordinary.caller(15.0) as caller:
        caller.send(raw_request("POST", "/v1/chat/completions", JSON, body=body))
        for _ in range(20):
            started_s = time.monotonic()
            assert 200 == ordinary.sidecar.status("/livez")
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            time.sleep(0.02)  # noqa: TID251 - no event loop here
        status = caller.read().status

    assert status in (200, 400)
    assert slowest_s < 0.1, f"{slowest_s:.3f} s"


EMAIL = "ana.canary@example.com"
TWINS = {
    "messages, PII first": b'{"model":"m","messages":[{"role":"user","content":"%E"}],"messages":[{"role":"user","content":"hi"}]}',
    "messages, PII last": b'{"model":"m","messages":[{"role":"user","content":"hi"}],"messages":[{"role":"user","content":"%E"}]}',
    "messages, escaped key": b'{"model":"m","messages":[{"role":"user","content":"%E"}],"m\\u0065ssages":[{"role":"user","content":"hi"}]}',
    "content, PII first": b'{"model":"m","messages":[{"role":"user","content":"%E","content":"hi"}]}',
    "content, PII last": b'{"model":"m","messages":[{"role":"user","content":"hi","content":"%E"}]}',
    "content, escaped key": b'{"model":"m","messages":[{"role":"user","content":"%E","cont\\u0065nt":"hi"}]}',
    "content, escaped value first": b'{"model":"m","messages":[{"role":"user","content":"%U","content":"hi"}]}',
    "content, escaped value": b'{"model":"m","messages":[{"role":"user","content":"%U"}]}',
    "model twice": b'{"model":"m","model":"n","messages":[{"role":"user","content":"%E"}]}',
    "model, escaped key": b'{"model":"m","mod\\u0065l":"n","messages":[{"role":"user","content":"%E"}]}',
    "key holds it": b'{"model":"m","messages":[{"role":"user","content":"hi"}],"metadata":{"%E":"x"}}',
    "deep": b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":{"a":{"b":["%E"]}}}]}]}',
}


@pytest.mark.parametrize("body", cases(TWINS))
def test_repeated_keys_carry_no_personal_data_past_policy(ordinary: Stage, body: bytes) -> None:
    """HT-12, I9: parsers differ in which of two keys they obey, so neither may hold what policy replaces."""
    escaped = "".join(f"\\u{ord(c):04x}" for c in EMAIL).encode()
    body = body.replace(b"%E", EMAIL.encode()).replace(b"%U", escaped)
    asked = ordinary.asked
    answer = ordinary.ask(raw_request("POST", "/v1/chat/completions", JSON, b"X-Readygate-App: pii", body=body))

    if ordinary.asked == asked:
        assert 400 == answer.status
        return
    seen = ordinary.provider.last.body
    assert EMAIL.encode() not in seen
    assert EMAIL not in json.dumps(json.loads(seen), ensure_ascii=False)
    assert not any(key == "__twice__" for key in json.loads(seen, object_pairs_hook=_marked))


def _marked(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    return dict(pairs) if len(names) == len(set(names)) else {"__twice__": True}


TYPES = {
    "none": b"",
    "none, chunked": b"chunked",
    "octets": b"Content-Type: application/octet-stream",
    "multipart": b"Content-Type: multipart/form-data; boundary=x",
    "text": b"Content-Type: text/plain",
    "form": b"Content-Type: application/x-www-form-urlencoded",
    "image": b"Content-Type: image/png",
    "json in other letters": b"Content-Type: Application/JSON ; charset=utf-8",
}


@pytest.mark.parametrize("line", cases(TYPES))
def test_content_type_is_no_way_past_policy(ordinary: Stage, line: bytes) -> None:
    """I9: model servers read JSON whatever its label says, so a chat request is read or refused, never waved through."""
    body = chat_body(f"write to {EMAIL}")
    lines = [line] if line.startswith(b"C") else []
    if line == b"chunked":
        data = raw_request(
            "POST", "/v1/chat/completions", b"X-Readygate-App: pii", b"Transfer-Encoding: chunked"
        ) + chunked(body)
    else:
        data = raw_request("POST", "/v1/chat/completions", b"X-Readygate-App: pii", *lines, body=body)
    asked = ordinary.asked
    answer = ordinary.ask(data)

    if ordinary.asked == asked:
        assert answer.status in (400, 415)
        return
    assert EMAIL.encode() not in ordinary.provider.last.body


ELSEWHERE = {
    "other letters, JSON": ("/v1/Chat/Completions", JSON, b'{"x":"%E"}'),
    "other letters, text": ("/v1/Chat/Completions", b"Content-Type: text/plain", b'{"x":"%E"}'),
    "escaped slash, text": ("/v1/chat%2Fcompletions", b"Content-Type: text/plain", b'{"x":"%E"}'),
    "path parameter, form": ("/v1/chat/completions;x", b"Content-Type: application/x-www-form-urlencoded", b"x=%E"),
    "unknown path, JSON": ("/v1/unknown", JSON, b'{"x":"%E"}'),
    "unknown path, text": ("/v1/unknown", b"Content-Type: text/plain", b"write to %E"),
    "multipart text field": (
        "/v1/audio/transcriptions",
        b"Content-Type: multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n%E\r\n--b--\r\n',
    ),
}


@pytest.mark.parametrize(("path", "line", "body"), cases(ELSEWHERE))
def test_readable_body_of_any_path_is_read(ordinary: Stage, path: str, line: bytes, body: bytes) -> None:
    """I9: servers normalise paths and ignore labels; what is text is read, only what is opaque is ``unscanned``."""
    asked = ordinary.asked
    body = body.replace(b"%E", EMAIL.encode())
    ordinary.ask(raw_request("POST", path, b"X-Readygate-App: pii", line, body=body))

    assert not [entry for entry in ordinary.provider.entries if entry.number > asked and EMAIL.encode() in entry.body]
