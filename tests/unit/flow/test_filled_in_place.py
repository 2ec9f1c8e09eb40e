"""What is made without its constructor has to be what the constructor makes."""

from __future__ import annotations

from proxy.core.dialect import Dialect
from proxy.flow.attempt_result import Result, judged
from proxy.flow.booking import Booking
from proxy.flow.intake import Request, read_json
from proxy.flow.ports import Answer, Inbound, answer_of, inbound_of
from proxy.terms.exchange import AttemptFacts, ExchangeFacts, attempt_of, facts_of
from proxy.terms.http import AnswerHead, RequestHead
from proxy.terms.outcomes import OK


def test_facts_filled_in_place_are_those_of_the_class() -> None:
    """A field added to the class and forgotten here would fail an exchange at its end."""
    assert ExchangeFacts("id", 7, "POST", "/v1/x") == facts_of("id", 7, "POST", "/v1/x")
    assert AttemptFacts("p", "m", 1.5) == attempt_of("p", "m", 1.5)


def test_two_exchanges_share_no_list() -> None:
    """Defaults that change must be each exchange's own."""
    first, second = facts_of("a", 0, "", ""), facts_of("b", 0, "", "")
    first.notes.append("x")
    first.attempts.append(attempt_of("p", "m", 0.0))

    assert ([], []) == (second.notes, second.attempts)


def test_a_request_filled_in_place_is_that_of_the_class() -> None:
    """The common request and the constructor agree on every field."""
    body = b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}'

    read = read_json(body, Dialect.CHAT)

    assert isinstance(read, Request)
    assert Request(body, read.document, "m", False, 1, 5, 1, "") == read


def test_a_judged_result_is_that_of_the_class() -> None:
    """Every attribute, by its slot."""
    answer, booking = Answer(AnswerHead(200, b"OK", b""), b"{}"), Booking()
    made, called = judged(OK, answer, booking), Result(OK, answer, booking)

    assert [getattr(called, name) for name in Result.__slots__] == [getattr(made, name) for name in Result.__slots__]


def test_both_halves_of_an_exchange_filled_in_place_are_those_of_the_classes() -> None:
    """What the caller sent and what the provider said."""
    asked, said = RequestHead("POST", b"/v1/x", "/v1/x", [], {}), AnswerHead(200, b"OK", b"")

    assert Inbound(asked, b"{}", 1.5, "127.0.0.1") == inbound_of(asked, b"{}", 1.5, "127.0.0.1")
    assert Answer(said, b"{}", None, True) == answer_of(said, b"{}", True)
