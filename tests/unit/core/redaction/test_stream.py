"""Putting values back while an answer streams: every case that has bitten somebody."""

import json
from typing import Any

import pytest

from proxy.core.dialect import Dialect
from proxy.core.redaction import StreamRestorer, Vault
from proxy.core.redaction.lane import restore_whole
from proxy.core.sse import EventTooLarge
from tests.unit.core.redaction.doubles import vault_of
from tests.unit.core.redaction.streams import DONE, arguments, chunk, documents, event, events, restored, texts

STOP = chunk({}, "stop")
USAGE = event({"id": "c1", "choices": [], "usage": {"total_tokens": 3}})


def said(vault: Vault, *pieces: str) -> str:
    """Return what a client reads when the answer's text comes in these pieces."""
    return texts(restored(vault, *(chunk({"content": piece}) for piece in pieces), STOP, DONE))[0, "content"]


@pytest.mark.parametrize(
    "text",
    [
        "see [EMAIL-1]!", "[EMAIL-1][EMAIL-2]", "[EMAIL-1] beside [EMAIL-12]", "[[EMAIL-1]]", "end [EMAIL-1", "[EMAIL-99]",
        "[mail](mailto:[EMAIL-1]) ```[EMAIL-2]```", "\\[EMAIL\\-1\\]", "\uff3bemail-1\uff3d", "[EMAIL -1 ] [", "\\", "x\\\\[a",
        "[x\\u005bEMAIL-1\\u005d", "[EMAIL-1\\u005", "[EM[EMAIL-2]AIL-1]", "a[b]c[1] [EMAIL-] [ EMAIL-3 ]",
    ],
)  # fmt: skip
def test_every_split_restores_like_the_whole(text: str) -> None:
    """Tokens end anywhere; the client must not notice."""
    vault = vault_of(*(f"user{at}@x.com" for at in range(1, 13)))
    whole = restore_whole(vault, text, is_json=False)

    assert whole == vault.restore_text(text)
    for at in range(len(text) + 1):
        assert whole == said(vault, text[:at], text[at:]), at
    for size in (1, 2, 3):
        assert whole == said(vault, *(text[at : at + size] for at in range(0, len(text), size)))


def test_only_what_may_become_a_placeholder_is_held_back() -> None:
    """First tokens are not delayed by brackets of the model's own."""
    restorer = StreamRestorer(vault_of("ana@x.com"), Dialect.CHAT)
    pieces = ("a [", "1] [x] [E", "x [EMAIL-7", " b")
    out = [texts(restorer.feed(chunk({"content": piece}))).get((0, "content")) for piece in pieces]

    assert ["a ", "[1] [x] ", "[Ex [EMAIL-7", " b"] == out


def test_events_without_placeholders_pass_byte_for_byte() -> None:
    """Spaces, escapes, line ends, comments, ids and unknown fields are the provider's."""
    stream = (
        b": ping\n\n"
        b'data:{ "choices" : [ {"index":0,"delta":{"content":"caf\\u00e9 [x] \\ud83d"}} ], "x": 1.0e2 }\r\n\r\n'
        b'event: e\nid: 4\ndata: {"choices":[{"index":0,"delta":{"content":"\\ude80"}}]}\n\n'
        b"data: not json [EMAIL-9]\n\n"
        b'data: {"choices":[],"usage":{"n":12345678901234567890123}}\n\n'
    )
    for at in range(len(stream)):
        assert stream == restored(vault_of("ana@x.com"), stream[:at], stream[at:]), at


def test_half_a_surrogate_pair_beside_a_placeholder_is_restored() -> None:
    """Strict parsers refuse such an event; the user still gets the value."""
    first = b'data: {"choices":[{"index":0,"delta":{"content":"[EMAIL-1] \\ud83d"}}]}\n\n'
    second = b'data: {"choices":[{"index":0,"delta":{"content":"\\ude80 [EMAIL-1]"}}]}\n\n'

    assert first.replace(b"[EMAIL-1]", b"ana@x.com") + second.replace(b"[EMAIL-1]", b"ana@x.com") == restored(
        vault_of("ana@x.com"), first, second
    )


def test_held_text_goes_out_in_its_own_event_before_the_end() -> None:
    """Order at the end: text, finish reason, usage, [DONE]."""
    stream = restored(vault_of("ana@x.com"), chunk({"content": "a [EMAIL-"}), STOP, USAGE, DONE)
    first, extra, stop, usage, done = events(stream)

    assert (b"a ", b"[EMAIL-") == tuple(
        json.loads(found.data or b"")["choices"][0]["delta"]["content"].encode() for found in (first, extra)
    )
    made = json.loads(extra.data or b"")
    assert ("c1", 7, "m", 0, None) == (
        made["id"], made["created"], made["model"], made["choices"][0]["index"], made["choices"][0]["finish_reason"],
    )  # fmt: skip
    assert (STOP, USAGE, DONE) == (stop.raw, usage.raw, done.raw)


@pytest.mark.parametrize("ending", [(STOP, USAGE, DONE), (USAGE,), (DONE,), (), (DONE[:-2],), (STOP[:-2],)])
def test_held_text_is_never_lost(ending: tuple[bytes, ...]) -> None:
    """No finish reason, no [DONE], no last blank line: the text still arrives, before what ends the stream."""
    stream = restored(vault_of("ana@x.com"), chunk({"content": "a [EMAIL-1"}), *ending)

    assert "a [EMAIL-1" == texts(stream)[0, "content"]
    assert stream.endswith(b"".join(ending))


def test_last_event_may_carry_text_and_finish_reason_together() -> None:
    """Some servers save the extra event; the held text then joins that text."""
    stream = restored(vault_of("ana@x.com"), chunk({"content": "[EMAIL"}), chunk({"content": "-1] [EMA"}, "stop"))

    assert "ana@x.com [EMA" == texts(stream)[0, "content"]
    assert 1 == len(documents(stream))


def test_event_that_became_empty_is_dropped_unless_it_says_something_else() -> None:
    """Role, finish reason, usage and a tool call's name must arrive."""
    vault = vault_of("ana@x.com")
    assert b"" == StreamRestorer(vault, Dialect.CHAT).feed(chunk({"content": "[EMAIL"}))
    kept: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"role": "assistant", "content": "[EMAIL"}, {}),
        ({"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "["}}]}, {}),
    ]
    for delta, more in kept:
        (document,) = documents(StreamRestorer(vault, Dialect.CHAT).feed(chunk(delta, **more)))
        assert document["choices"]


def test_three_choices_and_two_tool_calls_interleave_without_crosstalk() -> None:
    """Each lane waits for itself alone."""
    vault = vault_of("ana@x.com", "bob@y.org")
    stream = restored(
        vault,
        chunk({"content": "0 [EMA"}), chunk({"content": "1 [EMAIL-"}, index=1), arguments('{"a":"[EMAIL', 0, 2),
        chunk({"content": "IL-1]"}), arguments('{"b":"[EM', 1, 2), chunk({"content": "2]"}, index=1),
        chunk({"reasoning_content": "[EMAIL-2"}), arguments('-1]"}', 0, 2), chunk({}, "stop"), arguments('AIL-2]"}', 1, 2),
        chunk({"content": " [EMAIL-1"}, index=1), chunk({}, "stop", index=1), chunk({}, "tool_calls", index=2), DONE,
    )  # fmt: skip

    assert {
        (0, "content"): "0 ana@x.com", (1, "content"): "1 bob@y.org [EMAIL-1", (0, "reasoning_content"): "[EMAIL-2",
        (2, "tool_calls", 0): '{"a":"ana@x.com"}', (2, "tool_calls", 1): '{"b":"bob@y.org"}',
    } == texts(stream)  # fmt: skip


def test_lane_that_ended_does_not_end_the_other_choice() -> None:
    """Two choices with different finish reasons."""
    stream = restored(
        vault_of("ana@x.com"),
        chunk({"content": "[EMAIL"}), chunk({"content": "[EMAIL"}, index=1), chunk({}, "length"),
        chunk({"content": "-1]"}, index=1), chunk({}, "stop", index=1),
    )  # fmt: skip

    assert {(0, "content"): "[EMAIL", (1, "content"): "ana@x.com"} == texts(stream)


SPECIALS = ('a"b\\c', "-----BEGIN KEY-----\nAb+/\n-----END KEY-----", "O'Neil \u00e9 \U0001f680", "tab\there", "\u2028")


@pytest.mark.parametrize("value", SPECIALS)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_argument_values_are_escaped_for_their_depth_at_every_split(value: str, levels: int) -> None:
    """The value lands inside JSON inside JSON; the client's parsers must get it back exactly."""
    vault = vault_of(value, kind="PASSWORD")
    source: Any = {"before": 'say "hi" \\ {[', "p": "[PASSWORD-1]", "after": "caf\u00e9 \U0001f680"}
    for _ in range(levels):
        source = json.dumps(source) if isinstance(source, dict) else json.dumps({"inner": source})

    for at in range(len(source)):
        made = texts(restored(vault, arguments(source[:at]), arguments(source[at:]), chunk({}, "tool_calls")))
        read: Any = json.loads(made[0, "tool_calls", 0])
        for _ in range(levels - 1):
            read = json.loads(read["inner"])
        assert value == read["p"], at


def test_json_answer_as_content_gets_escaped_values_and_prose_does_not() -> None:
    """Structured output must stay valid JSON; a key quoted in prose must stay a key."""
    vault = vault_of('a"b', kind="PASSWORD")

    assert {"p": 'a"b'} == json.loads(said(vault, '{"p"', ': "[PASS', 'WORD-1]"}'))
    assert 'Use {"p": "a"b"}' == said(vault, "Use ", '{"p": "[PASSWORD-1]"}')
    assert 'Use "a"b" now' == said(vault, 'Use "[PASSWORD', '-1]" now')


@pytest.mark.parametrize(
    "source", ["", "{", '{"a": tru', '{"a":"[EMAIL-1]', '{"n": [EMAIL-1]}', '"[EMAIL-1]"', "\\", "null"]
)
def test_arguments_that_never_become_json_are_passed_on(source: str) -> None:
    """Models stop in the middle; the client decides what that means."""
    vault = vault_of("ana@x.com")
    made = texts(restored(vault, *(arguments(c) for c in source), chunk({}, "length")))

    assert source.replace("[EMAIL-1]", "ana@x.com") == made.get((0, "tool_calls", 0), "")


def test_ids_names_and_types_of_calls_pass_verbatim() -> None:
    """They are names, not text."""
    first = chunk(
        {"tool_calls": [{"index": 0, "id": "[EMAIL-1]", "type": "function", "function": {"name": "[EMAIL-1]"}}]}
    )

    assert first == restored(vault_of("ana@x.com"), first)


def test_restored_text_cannot_forge_an_event() -> None:
    """A value may hold line breaks and a whole event of its own."""
    value = 'x\n\ndata: {"choices":[]}\n\n\r\u2028'
    stream = restored(vault_of(value), chunk({"content": "[EMAIL-1]"}), DONE)

    assert value == texts(stream)[0, "content"]
    assert 2 == len(events(stream))

    plain = restored(vault_of(value), b"event: e\ndata: say [EMAIL-1]\n\n")
    (only,) = events(plain)
    assert (b"e", True) == (only.name, b'data: {"choices"' in (only.data or b""))


def test_log_probabilities_go_when_their_text_changed() -> None:
    """They would disagree with the text, token by token."""
    changed, same = documents(restored(
        vault_of("ana@x.com"),
        chunk({"content": "[EMAIL-1]"}, logprobs={"content": [{"token": "["}]}),
        chunk({"content": "[x]"}, logprobs={"content": [{"token": "["}]}),
    ))  # fmt: skip

    assert (None, {"content": [{"token": "["}]}) == (changed["choices"][0]["logprobs"], same["choices"][0]["logprobs"])


def test_legacy_completions_are_restored() -> None:
    """Their text stands beside the index."""
    pieces = [event({"id": "c", "choices": [{"index": 1, "text": text}]}) for text in ("a [EMAIL", "-1] [")]
    stream = restored(vault_of("ana@x.com"), *pieces, DONE, dialect=Dialect.COMPLETIONS)

    assert {(1, "text"): "a ana@x.com ["} == texts(stream)


def responses(kind: str, number: int, **more: Any) -> bytes:
    return event({"type": f"response.{kind}", "sequence_number": number, **more}, f"response.{kind}")


def test_responses_deltas_their_repeats_and_event_names_are_restored() -> None:
    """Every text comes three times: as deltas, in .done and in the completed response; all must agree."""
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    call = {"item_id": "fc_1", "output_index": 1}
    item = {"id": "fc_1", "type": "function_call", "arguments": '{"p":"[EMAIL-2]"}'}
    stream = restored(
        vault_of("ana@x.com", 'a"b'),
        responses("output_text.delta", 1, **at, delta="to [EMAIL"),
        responses("function_call_arguments.delta", 2, **call, delta='{"p":"[EMA'),
        responses("output_text.delta", 3, **at, delta="-1] ["),
        responses("output_text.done", 4, **at, text="to [EMAIL-1] ["),
        responses("function_call_arguments.delta", 5, **call, delta='IL-2]"}'),
        responses("function_call_arguments.done", 6, **call, arguments='{"p":"[EMAIL-2]"}'),
        responses("output_item.done", 7, output_index=1, item=item),
        responses("completed", 8, response={"output": [{"content": [{"type": "output_text", "text": "to [EMAIL-1] ["}]}, item]}),
        dialect=Dialect.RESPONSES,
    )  # fmt: skip
    found = documents(stream)
    deltas: dict[str, str] = {}
    for document in found:
        if document["type"].endswith(".delta"):
            deltas[document["item_id"]] = deltas.get(document["item_id"], "") + document["delta"]
    by_type = {document["type"]: document for document in found}

    assert {"msg_1": "to ana@x.com [", "fc_1": '{"p":"a\\"b"}'} == deltas
    assert deltas["msg_1"] == by_type["response.output_text.done"]["text"]
    assert deltas["fc_1"] == by_type["response.function_call_arguments.done"]["arguments"]
    assert deltas["fc_1"] == by_type["response.output_item.done"]["item"]["arguments"]
    assert deltas["msg_1"] == by_type["response.completed"]["response"]["output"][0]["content"][0]["text"]
    assert all(found.name.decode() == json.loads(found.data or b"")["type"] for found in events(stream))
    kinds = [document["type"] for document in found]
    assert kinds.index("response.output_text.done") > max(
        at for at, kind in enumerate(kinds) if kind == "response.output_text.delta"
    )


def test_anthropic_blocks_are_restored_and_flushed_before_their_stop() -> None:
    """Blocks have an index and their own end."""

    def delta(index: int, **members: str) -> bytes:
        return event({"type": "content_block_delta", "index": index, "delta": members}, "content_block_delta")

    stream = restored(
        vault_of("ana@x.com", 'a"b'),
        delta(0, type="text_delta", text="hi [EMAIL"), delta(0, type="text_delta", text="-1] [EM"),
        event({"type": "content_block_stop", "index": 0}, "content_block_stop"),
        delta(1, type="input_json_delta", partial_json='{"p":"[EMAIL'), delta(1, type="input_json_delta", partial_json='-2]"}'),
        event({"type": "content_block_stop", "index": 1}, "content_block_stop"),
        event({"type": "message_stop"}, "message_stop"), dialect=Dialect.MESSAGES,
    )  # fmt: skip
    found = documents(stream)
    text = "".join(d["delta"].get("text", "") for d in found if d["type"] == "content_block_delta")
    source = "".join(d["delta"].get("partial_json", "") for d in found if d["type"] == "content_block_delta")

    assert ("hi ana@x.com [EM", {"p": 'a"b'}) == (text, json.loads(source))
    assert [
        "content_block_delta", "content_block_delta", "content_block_delta", "content_block_stop",
        "content_block_delta", "content_block_delta", "content_block_stop", "message_stop",
    ] == [d["type"] for d in found]  # fmt: skip


def test_in_band_error_follows_the_held_text_and_is_restored_itself() -> None:
    """Providers quote the prompt in their errors."""
    error = event({"error": {"message": "bad value [EMAIL-1]", "code": None}})
    stream = restored(vault_of("ana@x.com"), chunk({"content": "x [EMAIL"}), error)
    *_, held, last = documents(stream)

    assert "[EMAIL" == held["choices"][0]["delta"]["content"]
    assert "bad value ana@x.com" == last["error"]["message"]


def test_cut_stream_drops_half_an_event_and_keeps_held_text() -> None:
    """What follows on the wire is our error event; half an event in front would swallow it."""
    half = chunk({"content": "never"})[:-20]
    stream = restored(vault_of("ana@x.com"), chunk({"content": "x [EMAIL-1"}), half, broken=True)
    assert "x [EMAIL-1" == texts(stream)[0, "content"]
    assert b"never" not in stream
    assert stream.endswith(b"\n\n")

    whole = restored(vault_of("ana@x.com"), chunk({"content": "[EMAIL-1]"})[:-2], broken=True)
    assert "ana@x.com" == texts(whole)[0, "content"]
    assert whole.endswith(b"\n\n")


def test_event_beyond_the_limit_is_refused() -> None:
    """Memory per stream is bounded."""
    restorer = StreamRestorer(vault_of("a"), Dialect.CHAT, max_event_bytes=1000)

    for _ in range(10):
        restorer.feed(b"data: " + b"x" * 94)
    with pytest.raises(EventTooLarge):
        restorer.feed(b"x")


def test_event_of_almost_one_megabyte_is_restored() -> None:
    """Large events are rare, and legal."""
    text = "x" * 900_000 + "[EMAIL-1]"
    assert (
        text.replace("[EMAIL-1]", "ana@x.com")
        == texts(restored(vault_of("ana@x.com"), chunk({"content": text})))[0, "content"]
    )


@pytest.mark.parametrize(
    "odd",
    [b"data: 7\n\n", b'data: ["[EMAIL-9]"]\n\n', b'data: {"choices":[null,5,{"index":{},"delta":[],"text":3}]}\n\n',
     b'data: {"choices":[{"delta":{"content":null,"tool_calls":null}}]}\n\n', b'data: {"type":5}\n\n', b"data:\n\n"],
)  # fmt: skip
def test_odd_events_pass_byte_for_byte(odd: bytes) -> None:
    """Whatever a provider invents, nobody falls over it."""
    assert odd == restored(vault_of("ana@x.com"), odd)


def test_citations_move_with_text_that_came_events_before() -> None:
    """Their offsets count from the beginning of the text, most of which held no placeholder."""
    restorer = StreamRestorer(vault_of("ana@example.com"), Dialect.CHAT, keeps_places=True)
    cited = [{"start_index": start, "end_index": end} for start, end in ((0, 5), (13, 22), (26, 30))]
    stream = [chunk({"content": piece}) for piece in ("Hello world, ", "[EMAIL-1] is ", "here")]
    read = documents(b"".join([restorer.feed(piece) for piece in (*stream, chunk({"annotations": cited}))]))

    assert [(0, 5), (13, 28), (32, 36)] == [
        (note["start_index"], note["end_index"]) for note in read[-1]["choices"][0]["delta"]["annotations"]
    ]


def test_members_that_come_complete_are_no_lanes() -> None:
    """A citation's title that ends in a bracket must not wait for the next one."""
    one = chunk({"content": "x", "annotations": [{"url_citation": {"title": "see ["}}]})
    two = chunk({"annotations": [{"url_citation": {"title": "[EMAIL-1]"}}]})

    assert one + two.replace(b"[EMAIL-1]", b"ana@x.com") == restored(vault_of("ana@x.com"), one, two)


def test_foreign_event_in_between_does_not_break_a_placeholder() -> None:
    """Keep-alives come as JSON too."""
    stream = restored(
        vault_of("ana@x.com"),
        chunk({"content": "[EMA"}), event({"ping": 1}), event({"type": "ping"}), chunk({"content": "IL-1]"}),
    )  # fmt: skip

    assert "ana@x.com" == texts(stream)[0, "content"]
