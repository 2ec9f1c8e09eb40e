"""Streams: any split at any byte and any interleaving of choices restore like the whole; framing keeps every byte."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.core.dialect import Dialect, StreamWatch
from proxy.core.redaction import AnswerRestorer, StreamRestorer, Vault
from proxy.core.redaction.lane import restore_whole
from proxy.core.sse import EventDecoder, encode
from tests.unit.core.redaction.doubles import vault_of
from tests.unit.core.redaction.streams import DONE, arguments, chunk, events, texts

VALUES = ("ana@x.com", 'q"uo\\te', "line\nbreak", "[EMAIL-1]", "\u00e9\U0001f680", "o'neil@x.com") + ("z@x.com",) * 6
FRAGMENTS = st.sampled_from([
    "[EMAIL-1]", "[EMAIL-2]", "[EMAIL-12]", "[email-3]", "[EMAIL\\-4]", "\uff3bEMAIL-5\uff3d", "\\[EMAIL-6\\]", "[EMAIL -1]",
    "[", "]", "\\", "[EM", "EMAIL-1", "-1]", "\\u005b", "\\u005d", "\\u00", "[\u00a0EMAIL-3]", "[EMAIL\u20112]", '"', '\\"', "{", "}", ":", " ", "\n", "a", "\u00e9",
    "\U0001f680", "[x]", "[1]", "\uff3b", '{"a":"', '\\\\\\"', "AIL-2]",
])  # fmt: skip
TEXTS = st.lists(FRAGMENTS, max_size=12).map("".join) | st.text(max_size=20)
CUTS = st.lists(st.integers(0, 1 << 16), max_size=12)


def pieces_of(text: Any, cuts: list[int]) -> list[Any]:
    """Cut text or bytes at the given places (modulo its length)."""
    places = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)]


def vault() -> Vault:
    made = vault_of(*(f"user{at}@x.com" for at in range(1, 13)))
    made.close()
    for at, value in enumerate(VALUES):
        made.tag("EMAIL", f"{value}{at}")
    return made


@given(text=TEXTS, cuts=CUTS, byte_cuts=CUTS, is_json=st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_split_restores_like_the_whole(text: str, cuts: list[int], byte_cuts: list[int], is_json: bool) -> None:
    """Where tokens and TCP reads end must not matter."""
    whole = restore_whole(vault(), text, is_json=is_json)
    pieces = pieces_of(text, cuts)
    stream = b"".join(arguments(piece) if is_json else chunk({"content": piece}) for piece in pieces)
    stream += chunk({}, "stop") + DONE
    restorer = StreamRestorer(vault(), Dialect.CHAT)
    out = b"".join(restorer.feed(piece) for piece in pieces_of(stream, byte_cuts)) + restorer.finish()

    key = (0, "tool_calls", 0) if is_json else (0, "content")
    assert whole == texts(out).get(key, "")


@given(text=TEXTS, cuts=CUTS, together=CUTS, is_json=st.booleans(), is_ascii=st.booleans())
@settings(max_examples=400, deadline=None)
def test_whole_events_restore_like_the_whole_text(
    text: str, cuts: list[int], together: list[int], is_json: bool, is_ascii: bool
) -> None:
    """Events without a trace of a placeholder pass unread; none may pass that the next event completes."""
    plain = vault_of(*(f"us\u00e9r{at}@x.com" for at in range(1, 13)))
    stream = []
    for piece in pieces_of(text, cuts):
        said = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} if is_json else {"content": piece}
        document = {"id": "c1", "choices": [{"index": 0, "delta": said, "finish_reason": None}]}
        stream.append(encode(json.dumps(document, ensure_ascii=is_ascii, separators=(",", ":")).encode()))
    stream += [chunk({}, "stop"), DONE]
    restorer = StreamRestorer(plain, Dialect.CHAT)
    out = b"".join([restorer.feed(b"".join(read)) for read in pieces_of(stream, together)]) + restorer.finish()

    key = (0, "tool_calls", 0) if is_json else (0, "content")
    assert restore_whole(plain, text, is_json=is_json) == texts(out).get(key, "")


LINES = st.sampled_from([
    *(chunk({"content": piece}) for piece in ("plain", "see [EMAIL-1]", "[EM", "AIL-2]", "[x]", "a \\", "u005bEMAIL-3]", "")),
    encode('{"choices":[{"index":0,"delta":{"content":"\uff3bEMAIL-1\uff3d"}}]}'.encode()),
    *(chunk({"content": piece}, index=1) for piece in ("[EMAIL", "-1]")), chunk({}, "stop"), b": ping\n\n", b"\n", b"\r\n", b"\n\n\n",
    b"event: x\n", b"id: 7\n", b"data: [EMAIL-1]\n\n", b'data: {"a":"[EMAIL-1]"}\r\n\r\n', b'data: {"choices":[\ndata: ]}\n\n', DONE,
])  # fmt: skip


@given(lines=st.lists(LINES, max_size=10), cuts=CUTS, is_cut=st.booleans())
@settings(max_examples=400, deadline=None)
def test_what_passes_unread_is_what_reading_would_have_passed(
    lines: list[bytes], cuts: list[int], is_cut: bool
) -> None:
    """However events, comments and blank lines come together; blank lines too many may go with an event that changes."""
    stream = b"".join(lines)
    told = []
    for keeps_places in (True, False):
        restorer = StreamRestorer(vault_of("a@x.com", "b@x.com", "c@x.com"), Dialect.CHAT, keeps_places=keeps_places)
        out = [restorer.feed(piece) for piece in (pieces_of(stream, cuts) if is_cut else [stream])]
        told.append(b"".join(out) + restorer.finish())
    read = [[found[1:] for found in events(stream)] for stream in told]

    assert read[0] == read[1]
    assert told[0].count(b": ping") == told[1].count(b": ping")


@given(written=st.lists(TEXTS, min_size=1, max_size=4), is_ascii=st.booleans(), has_quote=st.booleans())
@settings(max_examples=400, deadline=None)
def test_whole_answers_are_restored_alike_whatever_way_is_taken(
    written: list[str], is_ascii: bool, has_quote: bool
) -> None:
    """Values without escapes go into the bytes as they are; no text may come out otherwise than through a parser."""
    plain = vault_of(*(f"us\u00e9r{at}@x.com" for at in range(1, 3)), 'q"uo' if has_quote else "z@x.com", "y@x.com")
    document = {"choices": [{"message": {"content": text}} for text in written], "more": [written, {"a": written[0]}]}
    for indent in (None, 2):
        body = json.dumps(document, ensure_ascii=is_ascii, indent=indent).encode("utf-8", "surrogatepass")
        read = json.loads(AnswerRestorer(plain, Dialect.CHAT).whole(body).decode("utf-8", "surrogatepass"))
        wanted = [restore_whole(plain, text, is_json=False) for text in written]

        assert wanted == [choice["message"]["content"] for choice in read["choices"]]
        assert [wanted, {"a": wanted[0]}] == read["more"]


@given(lanes=st.lists(st.tuples(TEXTS, CUTS), min_size=2, max_size=4), order=st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_any_interleaving_of_choices_restores_each_like_the_whole(
    lanes: list[tuple[str, list[int]]], order: Any
) -> None:
    """Nothing crosses from one choice to another."""
    waiting = [(index, pieces_of(text, cuts)) for index, (text, cuts) in enumerate(lanes)]
    stream = b""
    while waiting:
        at = order.randrange(len(waiting))
        index, pieces = waiting[at]
        if pieces:
            stream += chunk({"content": pieces.pop(0)}, index=index)
        else:
            stream += chunk({}, "stop", index=index)
            waiting.pop(at)
    restorer = StreamRestorer(vault(), Dialect.CHAT)
    read = texts(restorer.feed(stream) + restorer.finish())

    assert [restore_whole(vault(), text, is_json=False) for text, _ in lanes] == [
        read.get((index, "content"), "") for index in range(len(lanes))
    ]


@given(text=TEXTS)
@settings(max_examples=300, deadline=None)
def test_streamed_and_whole_answers_agree(text: str) -> None:
    """An application that switches streaming on must read the same."""
    body = json.dumps({"choices": [{"index": 0, "message": {"content": text}}]}).encode()
    restorer = StreamRestorer(vault(), Dialect.CHAT)
    stream = restorer.feed(chunk({"content": text})) + restorer.finish()

    assert json.loads(AnswerRestorer(vault(), Dialect.CHAT).whole(body))["choices"][0]["message"]["content"] == texts(
        stream
    ).get((0, "content"), "")


LINES = st.sampled_from([
    b"data: x", b"data:y", b'data: {"a":1}', b": c", b"event: e", b"id: 1", b"retry: 5", b"data", b"\xef\xbb\xbfdata: z", b"", b"foo: 1",
])  # fmt: skip
STREAMS = st.lists(
    st.tuples(LINES, st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r"])), max_size=12
).map(lambda lines: b"".join(line + end for line, end in lines))


@given(stream=STREAMS | st.binary(max_size=60), cuts=CUTS)
@example(stream=b"\n\xef\xbb\xbfdata: z\n", cuts=[1])
@settings(max_examples=500, deadline=None)
def test_any_split_decodes_alike_and_keeps_every_byte(stream: bytes, cuts: list[int]) -> None:
    """Framing is exact for all line endings, split anywhere."""

    def read(pieces: list[bytes]) -> tuple[bytes, list[tuple[bytes, bytes | None, bytes | None]]]:
        decoder = EventDecoder()
        events = [event for piece in pieces for event in decoder.feed(piece)] + decoder.flush()
        return b"".join(event.raw for event in events), [
            (event.name, event.data, event.id) for event in events if event.data is not None
        ]

    raw, events = read(pieces_of(stream, cuts))

    assert stream == raw
    assert read([stream])[1] == events


@given(data=st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_encoded_data_is_always_one_event(data: bytes) -> None:
    """No text can forge a boundary."""
    (event,) = EventDecoder().feed(encode(data))

    assert data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") == event.data


@given(texts=st.lists(TEXTS, max_size=6), cuts=CUTS)
@settings(max_examples=200, deadline=None)
def test_watch_sees_the_same_whatever_the_split(texts: list[str], cuts: list[int]) -> None:
    """First token, end and count must not hang on TCP."""
    stream = b"".join(chunk({"content": text}) for text in texts) + chunk({}, "stop") + DONE
    watch = StreamWatch(Dialect.CHAT)
    for piece in pieces_of(stream, cuts):
        watch.feed(piece)

    assert (any(texts), True, True, len(texts) + 2) == (
        watch.saw_content, watch.is_finished, watch.saw_done, watch.events,
    )  # fmt: skip
