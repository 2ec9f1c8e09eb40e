"""Watching a stream: begun, ended, failed, counted, whatever the split."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.dialect import Dialect, StreamWatch
from proxy.core.sse import EventDecoder, EventTooLarge
from proxy.terms.exchange import Usage

DONE = b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    event = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice], "usage": None, **more}
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


CHAT = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": 'He said "usage" and "error": fine'}),
    chunk({"content": "lo"}),
    chunk({}, "stop"),
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n',
    DONE,
]


def seen(dialect: Dialect, *pieces: bytes, **options: Any) -> StreamWatch:
    watch = StreamWatch(dialect, **options)
    for piece in pieces:
        watch.feed(piece)
    return watch


def test_role_alone_is_no_content_and_text_is() -> None:
    """First-token time and the commit point hang on this."""
    assert not seen(Dialect.CHAT, CHAT[0]).saw_content
    assert seen(Dialect.CHAT, *CHAT[:2]).saw_content
    assert seen(Dialect.CHAT, chunk({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]})).saw_content
    assert seen(Dialect.CHAT, chunk({"reasoning_content": "hm"})).saw_content


def test_chat_stream_ends_with_its_finish_reason_and_reports_usage() -> None:
    """[DONE] is not sent by everyone; usage comes after the end."""
    watch = seen(Dialect.CHAT, *CHAT[:3])
    assert (False, None) == (watch.is_finished, watch.usage)

    watch = seen(Dialect.CHAT, *CHAT[:4])
    assert (True, False) == (watch.is_finished, watch.saw_done)

    watch = seen(Dialect.CHAT, *CHAT)
    assert (True, Usage(3, 2), 6, False) == (watch.saw_done, watch.usage, watch.events, watch.error)


def test_any_cut_gives_the_same_facts() -> None:
    """Reads end anywhere."""
    stream = b"".join(CHAT)
    crlf = stream.replace(b"\n", b"\r\n")
    for data in (stream, crlf):
        for at in range(0, len(data), 7):
            watch = seen(Dialect.CHAT, data[:at], data[at:])
            assert (True, True, Usage(3, 2), 6) == (watch.saw_content, watch.is_finished, watch.usage, watch.events), at
        watch = seen(Dialect.CHAT, *(data[at : at + 1] for at in range(len(data))))
        assert (True, True, Usage(3, 2), 6) == (watch.saw_content, watch.is_finished, watch.usage, watch.events)


def test_stream_of_two_choices_ends_with_the_second() -> None:
    """A cut between the two ends is a cut stream."""
    first = (chunk({"content": "a"}), chunk({}, "stop", index=0))
    assert not seen(Dialect.CHAT, *first, expected_choices=2).is_finished
    assert seen(Dialect.CHAT, *first, chunk({}, "length", index=1), expected_choices=2).is_finished


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete", "response.failed"])
def test_responses_stream_ends_with_its_last_event(kind: str) -> None:
    """Responses never send [DONE]."""
    watch = seen(
        Dialect.RESPONSES,
        b'event: response.created\ndata: {"type":"response.created","response":{"error":null,"usage":null}}\n\n',
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n',
    )
    assert (True, False, False) == (watch.saw_content, watch.is_finished, watch.error)

    watch.feed(b'data: {"type":"%s","response":{"usage":{"input_tokens":4,"output_tokens":1}}}\n\n' % kind.encode())

    assert (True, Usage(4, 1), kind == "response.failed") == (watch.is_finished, watch.usage, watch.error)


def test_anthropic_stream_ends_with_message_stop() -> None:
    """Its usage comes in two parts, the later completes the earlier."""
    watch = seen(
        Dialect.MESSAGES,
        b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}}\n\n',
    )
    assert (True, False) == (watch.saw_content, watch.is_finished)

    watch.feed(b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":5}}\n\n')
    watch.feed(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')

    assert (True, Usage(9, 5)) == (watch.is_finished, watch.usage)


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":{"message":"boom"}}\n\n',
        b'data: {"error": {"message":"boom"}, "choices": []}\n\n',
        b'event: error\ndata: {"message":"boom"}\n\n',
        b'data: {"type":"error","message":"boom"}\n\n',
    ],
)
def test_error_event_is_seen_before_and_after_content(event: bytes) -> None:
    """Before content it is retried, after content it is told."""
    assert seen(Dialect.CHAT, event).error
    assert seen(Dialect.CHAT, *CHAT[:3], event).error
    assert seen(Dialect.RESPONSES, event).error


def test_text_estimate_is_near_the_text() -> None:
    """It stands in for usage when a provider reports none."""
    words = [f"word{at} " for at in range(200)]
    watch = seen(Dialect.CHAT, *(chunk({"content": word}) for word in words))

    assert len("".join(words)) * 0.9 <= watch.text_bytes_estimate <= len("".join(words)) * 1.1


def test_half_a_surrogate_pair_is_content_and_no_failure() -> None:
    """Emoji streamers cut pairs in two; strict parsers refuse the halves."""
    watch = seen(Dialect.CHAT, b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n')

    assert (True, False, 1) == (watch.saw_content, watch.error, watch.events)


def test_event_without_end_is_bounded() -> None:
    """An upstream that never sends a blank line must not fill the memory."""
    watch = StreamWatch(Dialect.CHAT, max_event_bytes=1000)

    for _ in range(10):
        watch.feed(b"x" * 100)
    with pytest.raises(EventTooLarge):
        watch.feed(b"x")


def test_event_that_looks_like_the_last_one_is_bounded_as_well() -> None:
    """What spares reading an event must not spare its bound."""
    watch = StreamWatch(Dialect.CHAT, max_event_bytes=1000)
    for text in ("a", "b", "c"):
        watch.feed(chunk({"content": text}))

    with pytest.raises(EventTooLarge):
        watch.feed(chunk({"content": "d" * 1000}))


def test_last_event_without_blank_line_counts_when_the_stream_closes() -> None:
    """Some servers close right behind [DONE]."""
    watch = seen(Dialect.CHAT, CHAT[1], b"data: [DONE]")
    watch.finish()

    assert watch.saw_done


TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'


@pytest.mark.parametrize(
    "broken", [b'{"choices":[{"index":0,"del', b'["surprise"]', b"{bad json}", b"no json", b'{"a":"\xff"}']
)
@pytest.mark.parametrize("before", [0, 1, 8])
def test_event_that_is_no_object_makes_the_stream_malformed(before: int, broken: bytes) -> None:
    """Whether it comes first or among others, in one read or alone: nothing behind it can be trusted."""
    watch = StreamWatch(Dialect.CHAT)
    watch.feed(TOKEN)
    watch.feed(TOKEN * before + b"data: " + broken + b"\n\n")

    assert watch.is_malformed


@pytest.mark.parametrize(
    "fine", [b"data: {}\n\n", b": ping\n\n", b"data\n\n", b"event: x\ndata: {}\n\n", b'data: {"t":"\\ud83d"}\n\n']
)
def test_odd_but_lawful_events_are_not_malformed(fine: bytes) -> None:
    """Comments, empty data and half a surrogate pair are what real providers send."""
    watch = StreamWatch(Dialect.CHAT)
    watch.feed(TOKEN)
    watch.feed(TOKEN + fine + TOKEN)

    assert not watch.is_malformed


ODD_TEXTS = [
    "",
    "a",
    "word",
    "\u00e9",
    '"',
    "\\",
    "\n",
    "\x01",
    "[DONE]",
    '"finish_reason":"stop"',
    "error",
    "\ud83d\ude00",
]
ODD_EVENTS = [
    b": ping\n\n",
    b"\n",
    b"data: [DONE]\n\n",
    b'data: {"error":{"message":"x"}}\n\n',
    b'event: error\ndata: {"x":1}\n\n',
    b"data: no JSON\n\n",
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n',
    b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
]
RAW_TEXTS = [b"\x01", b"\xff", b"\xc3\xa9", b'a"b', b"a\\", b"\n", b"\n\n", b'","role":"x', b'"},"finish_reason":"stop']


def with_raw_text(text: bytes) -> bytes:
    """Return an ordinary event whose text is these bytes, whether that is JSON or not."""
    return chunk({"content": "here"}).replace(b"here", text)


EVENTS = (
    st.sampled_from(ODD_EVENTS)
    | st.builds(chunk, st.builds(dict, content=st.sampled_from(ODD_TEXTS) | st.text(max_size=5)))
    | st.builds(with_raw_text, st.sampled_from(RAW_TEXTS) | st.binary(max_size=4))
)


@given(st.lists(EVENTS, max_size=12), st.lists(st.integers(0, 400), max_size=4), st.integers(1, 2))
@example([with_raw_text(b"a"), with_raw_text(b"b"), with_raw_text(b"\xff")], [], 1)
@example([with_raw_text(b"a"), with_raw_text(b"b"), with_raw_text(b"\x01")], [], 1)
def test_facts_are_those_of_reading_every_event(events: list[bytes], cuts: list[int], choices: int) -> None:
    """Events that look like one before are not read again; what is told must not depend on that, nor on the cuts."""
    stream = b"".join(events)
    at = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    quick = StreamWatch(Dialect.CHAT, expected_choices=choices)
    thorough = StreamWatch(Dialect.CHAT, expected_choices=choices)
    thorough._decoder = EventDecoder()

    for begin, end in pairwise(at):
        for watch in (quick, thorough):
            watch.feed(stream[begin:end])
    for watch in (quick, thorough):
        watch.finish()

    for fact in ("usage", "saw_content", "is_finished", "saw_done", "error", "error_data", "is_malformed", "events"):
        assert getattr(thorough, fact) == getattr(quick, fact), fact


def test_event_whose_type_is_no_text_is_only_an_event() -> None:
    """A provider may say anything there, and a stream must not end as a fault of ours because of it."""
    watch = seen(Dialect.CHAT, b'data: {"type": ["error"], "choices": []}\n\n', chunk({"content": "a"}))

    assert watch.saw_content
    assert not watch.is_malformed
