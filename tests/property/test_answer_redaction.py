"""Redacting streamed answers: any cut of a text, any order of its lanes, comes to the same."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadtest.score_detect import FILES, load_rows
from proxy.core.dialect import Dialect
from proxy.core.redaction import AnswerRedactor, Redacted, RequestRedactor, StreamObserver, StreamRestorer, Vault
from proxy.core.redaction.detect import build_detector
from proxy.core.redaction.sieve import Sieve
from proxy.terms.redaction import Action, DirectionPlan, RedactionPlan
from tests.property.test_stream_restoring import CUTS, pieces_of
from tests.unit.core.redaction.streams import DONE, arguments, chunk, texts

DETECTOR = build_detector()
ANSWERS = AnswerRedactor(RedactionPlan(response=DirectionPlan(default=Action.REDACT)), DETECTOR)
OBSERVING = AnswerRedactor(RedactionPlan(response=DirectionPlan(default=Action.OBSERVE)), DETECTOR)
REQUESTS = RequestRedactor(RedactionPlan(request=DirectionPlan(default=Action.RESTORE)), DETECTOR)
ROWS_PER_FILE = 60
FRAGMENTS = st.sampled_from([
    "ana@x.com", "bob.b+c@empresa.com.br", "529.982.247-25", "52998224725", "4111 1111 1111 1111", "+55 11 98765-4321", "(11) 98765-4321",
    "DE89 3704 0044 0532 0130 00", "password: ", "hunter2!Xy", "CPF", "born on 1980-02-29", "192.168.7.9", "https://u:p4ss!word@h.org/",
    "[EMAIL-1]", "[EMAIL_REDACTED]", "[", "]", '"', "\\", "{", "}", '{"cpf": ', ",", ":", " ", "\n", ". ", "@", "é", "\U0001f680", "the", "-", "+",
])  # fmt: skip
TEXTS = st.lists(FRAGMENTS, max_size=10).map(" ".join)


def sieved(pieces: list[str], *, is_json: bool = False) -> str:
    sieve = Sieve(ANSWERS.marks(), is_json=is_json)
    return "".join([sieve.feed(piece) for piece in pieces]) + sieve.finish()


@pytest.mark.parametrize("name", FILES)
def test_labelled_data_comes_out_the_same_however_it_is_cut(name: str) -> None:
    """Both data sets, as words and as arguments of a tool call, in random tokens and letter by letter."""
    rng = random.Random(name)
    differing = []
    for row in rng.sample(load_rows((name,)), ROWS_PER_FILE):
        for is_json in (False, True):
            text = (
                json.dumps({"note": row["text"], "n": 1}, ensure_ascii=rng.random() < 0.5) if is_json else row["text"]
            )
            cuts = [rng.randrange(len(text)) for _ in range(len(text) // 4)] if rng.random() < 0.7 else range(len(text))
            whole = sieved([text], is_json=is_json)
            if whole != sieved(pieces_of(text, list(cuts)), is_json=is_json):
                differing.append(row["id"])
            assert not is_json or json.loads(whole)

    assert [] == differing


@given(text=TEXTS, cuts=CUTS, is_json=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_cut_redacts_like_the_whole(text: str, cuts: list[int], is_json: bool) -> None:
    """Half JSON, half prose, marks of ours and values glued together."""
    assert sieved([text], is_json=is_json) == sieved(pieces_of(text, cuts), is_json=is_json)


@given(text=TEXTS)
@example(text="+ 192.168.7.9 529.982.247-25 192.168.7.9")
@example(text="password:  hunter2!Xy hunter2!Xy")
@example(text="password:  4111 1111 1111 1111[token= 111.222.333-44 ")
@example(text="token=  111.222.333-44 phone  192.168.7.9 password:  ")
@example(text="phone 4111 1111 1111 1111 ,    111.222.333-44 ")
@example(text='conn = "jdbc:oracle:thin:svc_reader/BBA5wxxRoYlFFh@//ora1:1521/PROD"')
@example(text="529.982.247-25 4111 1111 1111 1111 4111 1111 1111 1111")
@example(text="4111 1111 1111 1111 4111 1111 1111 1111 529.982.247-25")
@example(text="cpf: 529.982.247-25 111.222.333-44")
@example(text="529.982.247-25 111.222.333-44 (529.982.247-25)")
@settings(max_examples=200, deadline=None)
def test_redacting_twice_is_redacting_once(text: str) -> None:
    """An answer becomes the next request's history."""
    once = sieved([text])

    assert once == sieved([once])


@given(lanes=st.lists(st.tuples(TEXTS, CUTS), min_size=2, max_size=4), order=st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_any_interleaving_of_choices_redacts_each_like_the_whole(
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
    restorer = StreamRestorer(Vault(), Dialect.CHAT, ANSWERS.marks())
    read = texts(restorer.feed(stream + DONE) + restorer.finish())

    assert [sieved([text]) for text, _ in lanes] == [read.get((index, "content"), "") for index in range(len(lanes))]


@given(text=TEXTS, more=TEXTS, cuts=CUTS, is_json=st.booleans(), is_cut_off=st.booleans())
@settings(max_examples=200, deadline=None)
def test_observer_counts_what_would_have_been_replaced(
    text: str, more: str, cuts: list[int], is_json: bool, is_cut_off: bool
) -> None:
    """It judges in larger pieces; a long text, the arguments of a tool and a stream without its end come to the same."""
    long = f"{text} {more * 4} {text}"
    stream = [arguments(piece) if is_json else chunk({"content": piece}) for piece in pieces_of(long, cuts)]
    stream += [] if is_cut_off else [chunk({}, "stop"), DONE]
    seen, replaced = OBSERVING.marks(), ANSWERS.marks()
    observer, restorer = StreamObserver(Dialect.CHAT, seen), StreamRestorer(Vault(), Dialect.CHAT, replaced)
    for piece in stream:
        assert piece is observer.feed(piece)
        restorer.feed(piece)
    observer.finish()
    restorer.finish()

    assert (replaced.counts()[0], {}) == seen.counts()
    assert not observer.has_failed


@given(text=TEXTS, cuts=CUTS, byte_cuts=CUTS)
@settings(max_examples=200, deadline=None)
def test_repeated_prompt_comes_back_whole_while_answers_are_redacted(
    text: str, cuts: list[int], byte_cuts: list[int]
) -> None:
    """The application's own values are never taken for the model's, in any order of the two steps."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    verdict = REQUESTS.redact(body, Dialect.CHAT)
    if not isinstance(verdict, Redacted):
        return
    sent = verdict.document["messages"][0]["content"]
    if sieved([sent]) != sent:  # what stays in a request by its context may be found without it
        return
    stream = b"".join(chunk({"content": piece}) for piece in pieces_of(sent, cuts)) + chunk({}, "stop") + DONE
    restorer = StreamRestorer(verdict.vault, Dialect.CHAT, ANSWERS.marks())
    out = b"".join(restorer.feed(piece) for piece in pieces_of(stream, byte_cuts)) + restorer.finish()

    assert text == texts(out)[0, "content"]


@pytest.mark.parametrize(
    "text", ['{"cpf":  529.982.247-25 [more] of it', '["a", 529.982.247-25, "b"]', '{"cpf": 529.982.247-25']
)
@pytest.mark.parametrize("more", ["", " and prose, until it is longer than what tells JSON from prose"])
def test_value_where_only_a_number_may_stand_is_found(text: str, more: str) -> None:
    """What begins like JSON and goes on otherwise is prose, in one piece or in many."""
    whole = sieved([text + more])

    assert "529.982" not in whole
    assert {whole} == {sieved([(text + more)[:at], (text + more)[at:]]) for at in range(len(text + more))}
