"""What rides behind a running exchange on the same connection: heard in order, or refused and then nothing (HT-04, HT-20)."""

from __future__ import annotations

import pytest

from tests.support.rawhttp import Answer, Broken, chat_body, raw_chat, raw_request
from tests.support.sidecar import Stage, cases, check_refusal

pytestmark = pytest.mark.faults

JSON = b"Content-Type: application/json"
FORM = b"Content-Type: multipart/form-data; boundary=frontier"


@pytest.mark.parametrize(
    "bad",
    cases(
        {
            "not v1": raw_request("GET", "/nowhere"),
            "two hosts": raw_request("GET", "/v1/models", b"Host: twice"),
            "encoded": raw_request("POST", "/v1/files", FORM, b"Content-Encoding: gzip", body=b"x"),
            "garbage": b"\x00\x01\x02 garbage\r\n\r\n",
        },
    ),
)
def test_bad_request_behind_a_good_one_does_not_take_its_answer(ordinary: Stage, bad: bytes) -> None:
    """The good request has been paid for at the provider; the bad one may be refused or left unheard."""
    rows = ordinary.kept_rows()
    with ordinary.caller() as caller:
        caller.send(raw_chat("echo: good", b"X-Sim-Speech: latency=50ms") + bad)
        first = caller.read()
        try:
            second: Answer | None = caller.read()
        except Broken:
            second = None
        end, _ = caller.ending()

    assert (200, "good") == (first.status, first.json()["choices"][0]["message"]["content"])
    assert end != "open"
    if second is not None:
        check_refusal(second)
    assert rows + (1 if second is None else 2) == ordinary.kept_rows()
    assert "success" == ordinary.row(first)["status"]


GATED = {
    "not v1": raw_request("GET", "/nowhere"),
    "encoded": raw_request("POST", "/v1/chat/completions", JSON, b"Content-Encoding: gzip", body=chat_body("x")),
    "foreign host": raw_request("GET", "/v1/files").replace(b"Host: localhost", b"Host: evil.example"),
    "odd expectation": raw_request("GET", "/v1/files", b"Expect: the-unexpected"),
}


@pytest.mark.parametrize("bad", cases(GATED))
def test_refused_request_behind_a_good_one_reaches_no_provider(ordinary: Stage, bad: bytes) -> None:
    """HT-04: two requests get two answers at most, and what the gate refuses leaves by no side door."""
    asked = ordinary.asked
    answers: list[Answer] = []
    with ordinary.caller(2.0) as caller:
        caller.send(raw_chat("echo: good", b"X-Sim-Speech: latency=50ms") + bad)
        try:
            while True:
                answers.append(caller.read())
        except Broken:
            pass

    assert 200 == answers[0].status
    assert len(answers) <= 2, [answer.status for answer in answers]
    assert asked + 1 == ordinary.asked
    for refusal in answers[1:]:
        check_refusal(refusal)
