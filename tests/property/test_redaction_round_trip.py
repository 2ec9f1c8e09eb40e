"""Redaction: what leaves holds no value, restoring undoes redacting, doing it twice changes nothing."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.dialect import Dialect
from proxy.core.redaction import AnswerRestorer, Redacted, Untouched
from proxy.terms.redaction import Placeholders
from tests.unit.core.redaction.doubles import chat, redactor

EMAILS = ["ana@x.com", "Ana@X.com", "bob.b+c@y.org", "z@z.net"]
NUMBERS = ["529.982.247-25", "52998224725", "4111 1111 1111 1111"]
FRAGMENTS = st.sampled_from([
    *EMAILS, *NUMBERS, "[EMAIL-1]", "[email-2]", "[CPF-1b]", "\\[EMAIL-1\\]", "[EMAIL_REDACTED]", "[", "]", '"', "\\", "{", "}",
    " ", "\n", ",", ":", "\u00e9", "\U0001f680", "\u2028", '{"a": "', "\\u0040", "\ud83d", "text",
])  # fmt: skip
TEXTS = st.lists(FRAGMENTS, max_size=10).map(" ".join)
PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
DOCUMENTS = st.recursive(
    PLAIN | TEXTS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)


def ascii_body(document: Any) -> bytes:
    return json.dumps(document).encode()


@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
@settings(max_examples=400, deadline=None)
def test_restoring_undoes_redacting(texts: list[str]) -> None:
    """A model that repeats the prompt repeats it exactly."""
    body = ascii_body({"model": "m", "messages": [{"role": "user", "content": text} for text in texts]})
    verdict = redactor().redact(body, Dialect.CHAT)
    if not isinstance(verdict, Redacted):
        assert isinstance(verdict, Untouched)
        return

    read = [message["content"] for message in json.loads(verdict.body)["messages"]]
    assert texts == [verdict.vault.restore_text(text) for text in read]


@given(texts=st.lists(TEXTS, min_size=2, max_size=5), cut=st.integers(0, 4))
@settings(max_examples=200, deadline=None)
def test_keyed_placeholders_survive_a_cut_history_and_come_back(texts: list[str], cut: int) -> None:
    """An application that forgets its oldest messages sends the rest as it was."""
    keyed = redactor(placeholders=Placeholders.KEYED)
    bodies = [ascii_body({"messages": [{"role": "user", "content": text} for text in texts[at:]]}) for at in (0, cut)]
    verdicts = [keyed.redact(body, Dialect.CHAT) for body in bodies]
    said = [
        [message["content"] for message in verdict.document["messages"]]
        if isinstance(verdict, Redacted)
        else texts[at:]
        for verdict, at in zip(verdicts, (0, cut), strict=True)
    ]

    assert said[0][cut:] == said[1]
    if isinstance(verdicts[0], Redacted):
        vault = verdicts[0].vault
        assert texts == [vault.restore_text(text) for text in said[0]]
        assert isinstance(keyed.redact(verdicts[0].body, Dialect.CHAT), Untouched) or vault.is_empty


@given(document=DOCUMENTS)
@settings(max_examples=400, deadline=None)
def test_any_document_goes_out_without_values_and_comes_back_whole(document: Any) -> None:
    """Keys, numbers and nesting included; restoring the echo gives the document again."""
    verdict = redactor().redact(ascii_body({"mine": document}), Dialect.OTHER)
    if not isinstance(verdict, Redacted):
        return
    for value in (*EMAILS, *NUMBERS):
        assert value.encode() not in verdict.body

    echo = json.loads(AnswerRestorer(verdict.vault, Dialect.OTHER).whole(verdict.body))
    assert texts_of({"mine": document}) == texts_of(echo)


@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_redacting_twice_is_redacting_once(texts: list[str]) -> None:
    """Histories come back with our stand-ins in them."""
    once = redactor().redact(
        ascii_body({"messages": [{"role": "user", "content": text} for text in texts]}), Dialect.CHAT
    )
    if isinstance(once, Redacted) and not once.vault.is_empty:
        assert isinstance(redactor().redact(once.body, Dialect.CHAT), Untouched)


@given(history=st.lists(TEXTS, min_size=2, max_size=6))
@settings(max_examples=200, deadline=None)
def test_placeholders_are_stable_while_a_conversation_grows(history: list[str]) -> None:
    """A growing history keeps its prefix, unless new text claims a number that was in use."""
    if any("[EMAIL-" in text or "[email-" in text or "[CPF-" in text for text in history):
        return
    seen: list[list[str]] = []
    for size in range(1, len(history) + 1):
        verdict = redactor().redact(chat(*(text.replace("\ud83d", "") for text in history[:size])), Dialect.CHAT)
        document = verdict.document if isinstance(verdict, Redacted) else None
        if document is not None:
            seen.append([message["content"] for message in document["messages"]])
    for earlier, later in pairwise(seen):
        assert earlier == later[: len(earlier)]


def texts_of(document: Any) -> Any:
    """Reduce a document to what redaction may not change: numbers that were values come back as strings."""
    if isinstance(document, dict):
        return {key: texts_of(value) for key, value in document.items()}
    if isinstance(document, list):
        return [texts_of(item) for item in document]
    return document if document is None or isinstance(document, bool) else str(document)
