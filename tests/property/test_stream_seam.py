"""What holds for every seam: the two streams read as one answer, to the unit, or the verdict is that they do not join."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dialect.seam import Aligner, Seam, StreamRecord, Unaligned, may_resume, with_prefill
from proxy.core.sse import EventDecoder
from proxy.terms.exchange import Usage

TEXT = st.text(st.sampled_from('ab \n😀é"\\[EMAIL-1]'), max_size=60)


def _units(text: str) -> list[int]:
    raw = text.encode("utf-16-le", "surrogatepass")
    return [int.from_bytes(raw[at : at + 2], "little") for at in range(0, len(raw), 2)]


def _of_units(units: list[int]) -> str:
    return b"".join(unit.to_bytes(2, "little") for unit in units).decode("utf-16-le", "surrogatepass")


@st.composite
def _cut_text(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    """A text, a beginning of it cut anywhere (within a character too), and all of it in pieces cut anywhere."""
    units = _units(draw(TEXT))
    at = draw(st.integers(0, len(units)))
    cuts = sorted(draw(st.lists(st.integers(0, len(units)), max_size=6)))
    edges = [0, *cuts, len(units)]
    pieces = [_of_units(units[a:b]) for a, b in pairwise(edges)]
    return _of_units(units), _of_units(units[:at]), pieces


def _fed(aligner: Aligner, pieces: list[str]) -> str:
    return "".join([aligner.feed(piece) for piece in pieces]) + aligner.finish()


@given(_cut_text())
def test_repeated_text_is_left_out_to_the_unit(case: tuple[str, str, list[str]]) -> None:
    """However the provider cuts its text, the caller reads it once."""
    text, said, pieces = case
    rest = _fed(Aligner(said, None), pieces)

    assert _units(text) == _units(said) + _units(rest)


@given(_cut_text(), TEXT)
def test_other_text_never_joins(case: tuple[str, str, list[str]], other: str) -> None:
    """A second answer joins only when it begins with all that was said."""
    _, said, _ = case
    if _units(other)[: len(_units(said))] == _units(said):
        return
    with pytest.raises(Unaligned):
        _fed(Aligner(said, None), [other])


@given(_cut_text(), st.booleans())
def test_prefilled_rest_is_joined_to_the_unit(case: tuple[str, str, list[str]], repeats_space: bool) -> None:
    """White space that had to be left off the prefill comes once, whether the model repeats it or not."""
    text, said, _ = case
    record = StreamRecord()
    record.feed(_event({"content": said}))
    prefill = record.prefill
    surplus = _units(said)[len(_units(prefill)) :]
    rest = _units(text)[len(_units(said)) :]
    if not repeats_space and rest[: len(surplus)] == surplus:
        return  # cannot be told from a model that repeats it
    if not prefill or _starts_like(surplus, rest):
        return
    answer = _of_units([*surplus, *rest] if repeats_space else rest)

    assert rest == _units(_fed(Aligner(said, prefill), [answer[:1], answer[1:]]))


def _starts_like(surplus: list[int], rest: list[int]) -> bool:
    """A rest that is itself only a part of the white space left off is ambiguous too."""
    return bool(surplus) and surplus[: len(rest)] == rest


def test_target_that_begins_anew_in_spite_of_its_prefill_is_aligned() -> None:
    """A declaration may be wrong, or true of one model only; a long repetition is no coincidence."""
    said = "The quick brown fox jumps over the lazy dog and goes on."
    answer = said + " And on."

    assert " And on." == _fed(Aligner(said, said), [answer[i : i + 7] for i in range(0, len(answer), 7)])


def test_half_characters_count_as_the_character_they_make() -> None:
    """Providers send an emoji in two halves; the prefill has it whole."""
    record = StreamRecord()
    for piece in ("ok \ud83d", "\ude00 "):
        record.feed(b'data: {"choices":[{"delta":{"content":%b}}]}\n\n' % json.dumps(piece).encode())

    assert "ok 😀" == record.prefill
    assert "and" == _fed(Aligner(record.text, record.prefill), [" and"])


def test_short_repetition_behind_a_prefill_is_the_continuation() -> None:
    """Ha ha ha is what models say."""
    assert "ha ha" == _fed(Aligner("ha ", "ha"), [" ha ", "ha"])


def _event(delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
    document = {"id": "one", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def _said(events: bytes) -> str:
    documents = [json.loads(e.data) for e in EventDecoder().feed(events) if e.data not in (None, b"[DONE]")]
    return "".join(c["delta"].get("content") or "" for d in documents for c in d.get("choices", []))


@given(_cut_text(), st.booleans())
def test_joined_events_read_as_one_answer(case: tuple[str, str, list[str]], is_prefilled: bool) -> None:
    """One id, one model, no second role, no thoughts, and the whole text."""
    text, said, pieces = case
    record = StreamRecord()
    first = record.feed(_event({"role": "assistant", "content": said}))
    prefill = record.prefill if is_prefilled else None
    if is_prefilled and (not prefill or prefill != said):
        return
    later = _units(text)[len(_units(said)) :]
    told = [_of_units(later)] if prefill else pieces
    if prefill and len(later) >= 32 and _units(said)[: len(later)] == later:
        return
    events = [_event({"role": "assistant", "content": "", "reasoning_content": "hm"}, id="two", model="n")]
    events += [_event({"content": piece}, id="two", model="n") for piece in told]
    events += [_event({}, id="two", model="n", finish_reason="stop"), b"data: [DONE]\n\n"]
    seam = Seam(record, prefill, None)
    rest = b"".join([record.feed(seam.feed(event)) for event in events])

    assert _units(text) == _units(_said(first + rest))
    assert b"two" not in rest
    assert b"hm" not in rest
    assert b"role" not in rest
    assert rest.endswith(b"data: [DONE]\n\n")
    assert (_units(text), True) == (_units(record.text), record.is_finished)


def test_usage_of_the_rest_is_told_as_the_sum() -> None:
    """The bill has both parts, so the answer's usage has."""
    record = StreamRecord()
    record.feed(_event({"content": "a"}))
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    out = Seam(record, None, Usage(7, 3)).feed(_event({"content": "ab"}, finish_reason="stop", usage=usage))

    assert {"prompt_tokens": 17, "completion_tokens": 7, "total_tokens": 24} == json.loads(out[6:])["usage"]


@pytest.mark.parametrize("delta", [{"tool_calls": [{"index": 0}]}, {"refusal": "no"}])
def test_what_is_not_plain_text_is_neither_recorded_nor_joined(delta: dict[str, Any]) -> None:
    """Half a tool call cannot be continued, nor can a text go on as one."""
    record = StreamRecord()
    record.feed(_event(delta))

    assert not record.is_plain
    with pytest.raises(Unaligned):
        Seam(StreamRecord(), None, None).feed(_event(delta))


PLAIN = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    "more",
    [{"tools": [{}]}, {"functions": [{}]}, {"n": 2}, {"response_format": {"type": "json_object"}}, {"logprobs": True},
     {"modalities": ["text", "audio"]}, {"messages": "x"}],
)  # fmt: skip
def test_only_plain_text_of_one_choice_may_be_resumed(more: dict[str, Any]) -> None:
    """Everything else ends with the error."""
    assert may_resume({**PLAIN, "tools": [], "n": 1, "response_format": {"type": "text"}})
    assert not may_resume({**PLAIN, **more})


def test_prefill_goes_on_from_an_assistant_message_of_the_callers_own() -> None:
    """Two assistant messages in a row are refused by some providers."""
    document = {**PLAIN, "messages": [*PLAIN["messages"], {"role": "assistant", "content": "{"}], "max_tokens": 10}
    asked = with_prefill(document, '"a": 1', 4)

    assert {"role": "assistant", "content": '{"a": 1'} == asked["messages"][-1]
    assert (2, 6) == (len(asked["messages"]), asked["max_tokens"])
    assert 10 == document["max_tokens"]
