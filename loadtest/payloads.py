"""The bytes of the bench: what a client sends and what the reference provider answers.

Owns sizes and shapes (a 1.1 KB chat request with the headers of openai-python, a 0.8 KB answer, streams of 60 events of
about 210 bytes). Knows no socket. The header ``x-bench-answer`` tells the provider which answer is wanted; every gateway
passes it on like any other header.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from loadtest.persons import person

REQUEST_BODY_BYTES = 1100
ANSWER_BODY_BYTES = 800
STREAM_EVENTS = 60
"""Events with a piece of text; ``[DONE]`` comes on top."""
VARIANTS = 512
"""Different requests per workload, so that no gateway may profit from seeing the same bytes again."""
LEAK_MARK = b".com.br"
"""In every request with findings and in no other: the provider counts the requests that still hold it."""


class Answer(StrEnum):
    """What the provider is asked for."""

    PLAIN = "plain"
    STREAM_FULL = "stream-full"
    """One event per turn of the provider's loop: as fast as it can without gathering them into one write."""
    STREAM_PACED = "stream-paced"
    """One event every ``PACE_S`` seconds, as from a model."""


PACE_S = 0.02
PACED_SLOTS = 100
"""Moments within ``PACE_S`` over which paced streams are spread: with as many streams, one event every 0.2 ms."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request ready to send, and a value that must stand in its answer (empty: nothing to look for)."""

    wire: bytes
    must_hold: bytes


_SYSTEM = (
    "You are the support assistant of a bookshop. Answer in two short paragraphs, in the language of the question, "
    "and never promise a delivery date. Quote the house rules when they matter: books may be returned unread within "
    "thirty days, signed copies are final, and gift cards do not expire."
)
_QUESTION = (
    "A reader wants to know whether the illustrated edition differs from the pocket edition, and which of the two "
    "suits a twelve year old who liked stories about ships, storms and maps. She has read the first volume twice."
)
_FILLER = (
    " Mention the translator, the binding and the paper; say whether the maps are in colour; compare the letter size "
    "of both editions; name one other title by the same author and one by somebody else, each with a reason."
)


def calls(answer: Answer, *, with_findings: bool, host: str) -> list[Call]:
    """Build ``VARIANTS`` different requests for one workload.

    Args:
        with_findings: Put five values (e-mail, phone, CPF, CNPJ, card) in the prompt, and expect the e-mail back.
        host: Value of the Host header.
    """
    return [_call(answer, variant, with_findings=with_findings, host=host) for variant in range(VARIANTS)]


def _call(answer: Answer, variant: int, *, with_findings: bool, host: str) -> Call:
    someone = person(variant)
    question = f"Ticket {_letters(variant)}. {_QUESTION}"
    if with_findings:
        question += (
            f" Contact {someone.email}, phone {someone.phone}, CPF {someone.cpf}, invoice to CNPJ {someone.cnpj},"
            f" paid with card {someone.card}."
        )
    body = _request_body(question, is_stream=answer is not Answer.PLAIN)
    head = "\r\n".join(
        (
            "POST /v1/chat/completions HTTP/1.1",
            f"Host: {host}",
            "Accept-Encoding: gzip, deflate",
            "Connection: keep-alive",
            "Accept: application/json",
            "Content-Type: application/json",
            "User-Agent: OpenAI/Python 3.2.0",
            "X-Stainless-Lang: python",
            "X-Stainless-Package-Version: 3.2.0",
            "X-Stainless-OS: Linux",
            "X-Stainless-Arch: x64",
            "X-Stainless-Runtime: CPython",
            "X-Stainless-Runtime-Version: 3.11.7",
            "Authorization: Bearer sk-bench-not-a-real-key",
            "X-Stainless-Async: false",
            "x-stainless-retry-count: 0",
            "x-stainless-read-timeout: 600",
            f"x-bench-answer: {answer}{'+findings' if with_findings else ''}",
            f"Content-Length: {len(body)}",
        )
    )
    return Call(head.encode() + b"\r\n\r\n" + body, someone.email.encode() if with_findings else b"")


def _letters(number: int) -> str:
    """Four letters for a number below 26**4: varied text in which no detector can see a number."""
    return "".join(chr(97 + number // 26**place % 26) for place in range(4))


def _request_body(question: str, *, is_stream: bool) -> bytes:
    document: dict[str, object] = {
        "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}],
        "model": "gpt-4o-mini",
        "temperature": 0.2,
        "max_tokens": 300,
    }
    if is_stream:
        document["stream"] = True
        document["stream_options"] = {"include_usage": True}
    padding = (_FILLER * 4)[: REQUEST_BODY_BYTES - len(_compact(document))]
    document["messages"] = [
        {"role": "system", "content": _SYSTEM + padding},
        {"role": "user", "content": question},
    ]
    return _compact(document)


_ANSWER_TEXT = (
    "The illustrated edition has the same text as the pocket edition, with forty drawings and two folded maps in "
    "colour, on heavier paper. The pocket edition is lighter and set in smaller letters. For a reader of twelve who "
    "enjoys storms and maps the illustrated one is the better gift."
)
_FINDINGS_TEXT = " A copy of this answer goes to [EMAIL-1], filed under [CPF-1]."
_PROVIDER_HEADERS = (
    b"date: Sat, 21 Nov 2026 10:00:00 GMT\r\nserver: reference\r\nopenai-organization: org-bench\r\n"
    b"openai-processing-ms: 412\r\nopenai-version: 2020-10-01\r\nx-ratelimit-limit-requests: 100000\r\n"
    b"x-ratelimit-remaining-requests: 99999\r\nx-ratelimit-reset-requests: 1ms\r\n"
    b"x-request-id: req_0123456789abcdef0123456789abcdef\r\n"
)


def plain_answer(*, with_findings: bool) -> bytes:
    """The whole plain answer, head and body; with findings its text holds the placeholders ``[EMAIL-1]``, ``[CPF-1]``."""
    text = _ANSWER_TEXT + (_FINDINGS_TEXT if with_findings else "")
    document = {
        "id": "chatcmpl-bench0123456789",
        "object": "chat.completion",
        "created": 1795255200,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 230, "completion_tokens": 70, "total_tokens": 300},
        "system_fingerprint": "fp_",
    }
    document["system_fingerprint"] = "fp_" + "b" * max(0, ANSWER_BODY_BYTES - len(_compact(document)))
    body = _compact(document)
    return (
        b"HTTP/1.1 200 OK\r\n%scontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % (_PROVIDER_HEADERS, len(body))
        + body
    )


def stream_answer(*, with_findings: bool) -> list[bytes]:
    """The head of a streamed answer, then its events, each a chunk of its own; the last one is ``[DONE]`` and the end.

    With findings the placeholders are cut in two between events, as tokens of a model do it.
    """
    pieces = [f" word{index:02d}" for index in range(STREAM_EVENTS - 1)]
    if with_findings:
        pieces[20:22] = [" mail [EMA", "IL-1] and"]
        pieces[40:42] = [" number [CPF", "-1] too"]
    events = [_event(piece) for piece in pieces]
    usage = {"prompt_tokens": 230, "completion_tokens": 59, "total_tokens": 289}
    events.append(_sse({**_frame(), "choices": [], "usage": usage}))
    head = (
        b"HTTP/1.1 200 OK\r\n%scontent-type: text/event-stream; charset=utf-8\r\n"
        b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n" % _PROVIDER_HEADERS
    )
    return [head, *(_chunk(event) for event in events), _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"]


def _compact(document: dict[str, object]) -> bytes:
    # As openai-python and the providers write it: no spaces, no escapes.
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _frame() -> dict[str, object]:
    return {
        "id": "chatcmpl-bench0123456789",
        "object": "chat.completion.chunk",
        "created": 1795255200,
        "model": "gpt-4o-mini-2024-07-18",
    }


def _event(piece: str) -> bytes:
    choice = {"index": 0, "delta": {"content": piece}, "logprobs": None, "finish_reason": None}
    return _sse({**_frame(), "choices": [choice]})


def _sse(document: dict[str, object]) -> bytes:
    return b"data: " + _compact(document) + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
