"""Which header lines cross, and how ours are written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.budget.dimensions import Dimension
from proxy.core.budget.ledger import Account, Reservation
from proxy.core.routing.problems import Code, Retry, problem
from proxy.flow.budgets import Denied, Granted
from proxy.flow.headers import (
    budget_lines,
    denial_lines,
    naming_lines,
    our_lines,
    redactions_value,
    refusal_lines,
    to_caller,
    to_provider,
)
from proxy.terms.exchange import AttemptFacts, ExchangeFacts
from proxy.terms.http import AnswerHead, Header, RequestHead
from proxy.terms.redaction import Counts

ID = "01a1fdca-5b7e-7b94-8cb9-129506ccea74"
NONE: frozenset[bytes] = frozenset()


def asked(*headers: Header) -> RequestHead:
    return RequestHead("POST", b"/v1/x", "/v1/x", list(headers), {name.lower(): value for name, value in headers})


def said(*headers: Header) -> AnswerHead:
    return AnswerHead(200, b"OK", b"".join(b"\r\n%b: %b" % header for header in headers))


def test_end_to_end_headers_keep_order_spelling_and_repeats() -> None:
    """Bytes in, the same bytes out."""
    head = asked((b"X-B", b"1"), (b"x-a", b"\xe9"), (b"X-B", b"2"), (b"Cookie", b""))

    assert b"X-B: 1\r\nx-a: \xe9\r\nX-B: 2\r\nCookie: \r\n" == to_provider(
        head, wants_identity=False, hides_keys=False, owned=NONE
    )


@pytest.mark.parametrize(
    "name",
    [b"Host", b"Content-Length", b"TRANSFER-ENCODING", b"Connection", b"Keep-Alive", b"TE", b"Trailer", b"Upgrade", b"Expect",
     b"Proxy-Authorization", b"Authorization", b"X-ReadyGate-App", b"x-readygate-whatever", b"HTTP2-Settings"],
)  # fmt: skip
def test_hop_by_hop_framing_and_ours_do_not_go_to_a_provider(name: bytes) -> None:
    """In any spelling; what the upstream needs of these it writes itself."""
    assert b"" == to_provider(asked((name, b"x")), wants_identity=False, hides_keys=False, owned=NONE)


def test_connection_takes_named_headers_with_it_but_never_the_vital_ones() -> None:
    """``Connection: content-type`` would make a body unreadable for one of two parsers: an attack, not hygiene."""
    head = asked((b"Connection", b"close, X-Private , content-type"), (b"X-Private", b"1"), (b"Content-Type", b"a/b"))

    assert b"Content-Type: a/b\r\n" == to_provider(head, wants_identity=False, hides_keys=False, owned=NONE)


@pytest.mark.parametrize("hides_keys", [False, True])
def test_other_credentials_stay_here_when_our_key_goes(hides_keys: bool) -> None:
    """A caller's x-api-key beside our Authorization would let the provider choose."""
    head = asked((b"X-Api-Key", b"k"), (b"api-key", b"k"), (b"OpenAI-Organization", b"org"), (b"X-Other", b"o"))
    lines = to_provider(head, wants_identity=False, hides_keys=hides_keys, owned=NONE)

    assert b"X-Other: o\r\n" in lines
    assert hides_keys != (b"X-Api-Key" in lines)
    assert hides_keys != (b"OpenAI-Organization" in lines)


def test_names_that_the_provider_sets_itself_stay_here() -> None:
    """A caller's value beside ours would let the provider choose; another provider's lines are its own."""
    head = asked((b"X-Goog-Api-Key", b"callers"), (b"X", b"1"))

    assert b"X: 1\r\n" == to_provider(
        head, wants_identity=False, hides_keys=False, owned=frozenset({b"x-goog-api-key"})
    )
    assert b"X-Goog-Api-Key: callers\r\nX: 1\r\n" == to_provider(
        head, wants_identity=False, hides_keys=False, owned=NONE
    )


def test_key_in_a_subprotocol_stays_here_and_the_protocol_goes_on() -> None:
    """Browsers hand over a key as a subprotocol; a line that held nothing else goes with it."""
    key = b"openai-insecure-api-key.sk-1"
    both = asked((b"Sec-WebSocket-Protocol", b"realtime, " + key))

    assert b"Sec-WebSocket-Protocol: realtime\r\n" == to_provider(
        both, wants_identity=False, hides_keys=True, owned=NONE
    )
    assert b"" == to_provider(
        asked((b"sec-websocket-protocol", key)), wants_identity=False, hides_keys=True, owned=NONE
    )
    assert key in to_provider(both, wants_identity=False, hides_keys=False, owned=NONE)


def test_identity_is_asked_for_where_the_answer_has_to_be_read() -> None:
    """The caller's own wish for a coding is replaced, once."""
    head = asked((b"Accept-Encoding", b"gzip"), (b"X", b"1"))

    assert b"X: 1\r\naccept-encoding: identity\r\n" == to_provider(
        head, wants_identity=True, hides_keys=False, owned=NONE
    )
    assert b"Accept-Encoding: gzip\r\nX: 1\r\n" == to_provider(head, wants_identity=False, hides_keys=False, owned=NONE)


def test_remembered_lines_are_apart_for_each_kind_of_provider() -> None:
    """A fallback from a provider with our key to one without must not reuse the first one's lines."""
    head = asked((b"x-api-key", b"k"))

    assert b"" == to_provider(head, wants_identity=False, hides_keys=True, owned=NONE)
    assert b"x-api-key: k\r\n" == to_provider(head, wants_identity=False, hides_keys=False, owned=NONE)
    assert b"" == to_provider(head, wants_identity=False, hides_keys=True, owned=NONE)


def test_many_spellings_of_a_name_are_decided_alike() -> None:
    """The table of spellings is bounded; beyond its bound the answer is the same."""
    for number in range(3000):
        assert b"" == to_provider(
            asked((b"x-readygate-%d" % number, b"1")), wants_identity=False, hides_keys=False, owned=NONE
        )
        assert to_provider(asked((b"x-free-%d" % number, b"1")), wants_identity=False, hides_keys=False, owned=NONE)


def test_answer_headers_cross_without_framing_and_forgeries() -> None:
    """Nobody but us says x-readygate-*."""
    head = said(
        (b"Set-Cookie", b"a"), (b"set-cookie", b"b"), (b"Content-Length", b"9"), (b"Connection", b"x-hop"), (b"X-Hop", b"1"),
        (b"X-Readygate-Id", b"forged"), (b"Transfer-Encoding", b"chunked"), (b"Content-Encoding", b"gzip"),
    )  # fmt: skip

    assert b"Set-Cookie: a\r\nset-cookie: b\r\nContent-Encoding: gzip\r\n" == to_caller(head)
    assert b"Set-Cookie: a\r\nset-cookie: b\r\n" == to_caller(head, is_decoded=True)


def test_providers_limits_go_where_ours_apply_and_our_accounts_stay_here() -> None:
    """Two sets of x-ratelimit-* would contradict each other; the account behind our key is nobody's business."""
    head = said(
        (b"x-ratelimit-limit-requests", b"9"),
        (b"X-RateLimit-Reset-Tokens", b"1s"),
        (b"OpenAI-Organization", b"org"),
        (b"x", b"y"),
    )

    assert b"OpenAI-Organization: org\r\nx: y\r\n" == to_caller(head, is_governed=True)
    assert b"x: y\r\n" == to_caller(head, is_governed=True, is_own_key=True)
    assert b"OpenAI" not in to_caller(head, is_own_key=True)
    assert b"x-ratelimit-limit-requests: 9\r\n" in to_caller(head)


def test_our_lines_name_the_exchange() -> None:
    """Id, attempts, timings, policy, provider and model; never a line break from a name."""
    facts = ExchangeFacts(
        ID, 0, policy_revision="abc", provider="main", model_served="m\r\nx: y\u00e9", upstream_ms=30.0
    )
    facts.attempts.append(AttemptFacts("main", "m", 0.0))
    lines = our_lines(facts, 31.5, False).decode("ascii").split("\r\n")

    assert [
        f"x-readygate-id: {ID}", "x-readygate-attempts: 1", "server-timing: gateway;dur=1.50, upstream;dur=30.00",
        f"x-request-id: {ID}", "x-readygate-policy: abc", "x-readygate-provider: main", "x-readygate-model: m??x: y?", "",
    ] == lines  # fmt: skip


def test_providers_request_id_is_not_doubled() -> None:
    """Two x-request-id would make support look for the wrong one."""
    assert b"x-request-id" not in our_lines(ExchangeFacts(ID, 0), 1.0, True)


def test_own_time_is_never_negative() -> None:
    """Two clocks read one after the other may disagree by a little."""
    assert b"gateway;dur=0.00" in our_lines(ExchangeFacts(ID, 0, upstream_ms=2.0), 1.0, True)


def test_redactions_are_sorted_and_lower_case() -> None:
    """The same findings give the same header."""
    shared = Counts({"EMAIL": 1, "CPF": 2})

    assert "cpf=2,email=1" == redactions_value({"EMAIL": 1, "CPF": 2})
    assert "cpf=2,email=1" == redactions_value(shared) == redactions_value(shared)


@pytest.mark.parametrize(
    ("code", "wait_s", "expected"),
    [
        (Code.RATE_LIMIT_EXCEEDED, 1.2, "x-readygate-fault: policy\r\nretry-after: 2\r\nretry-after-ms: 1200\r\n"),
        (Code.RATE_LIMIT_EXCEEDED, 0.0004, "x-readygate-fault: policy\r\nretry-after: 1\r\nretry-after-ms: 1\r\n"),
        (Code.INSUFFICIENT_QUOTA, 9.0, "x-readygate-fault: policy\r\nx-should-retry: false\r\n"),
        (Code.UPSTREAM_ERROR, None, "x-readygate-fault: provider\r\n"),
        (Code.BODY_TIMEOUT, None, "x-readygate-fault: client\r\n"),
    ],
)
def test_refusal_tells_when_to_come_back(code: Code, wait_s: float | None, expected: str) -> None:
    """Rounded up, so that nobody comes a moment too soon; no wait where waiting does not help."""
    assert expected.encode() == refusal_lines(problem(code, retry_after_s=wait_s))


@pytest.mark.parametrize("code", list(Code))
def test_no_refusal_says_both_wait_and_do_not_retry(code: Code) -> None:
    """SDKs obey x-should-retry above all; a wait beside it would be noise."""
    refusal = problem(code, retry_after_s=3.0)
    lines = refusal_lines(refusal)

    assert not (b"x-should-retry" in lines and b"retry-after" in lines)
    assert (refusal.retry is Retry.NO) == (b"x-should-retry: false" in lines)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0ms"), (0.12, "120ms"), (7.5, "7.5s"), (60.0, "1m0s"), (359.6, "5m59s"), (3661.0, "1h1m1s")],
)
def test_resets_are_written_as_openai_does(seconds: float, shown: str) -> None:
    """Clients parse ``6m0s``, not ``360``."""
    granted = Granted(Reservation("", Account(()), 0, 0.0, None), 30, -2, seconds)

    assert (
        f"x-ratelimit-limit-requests: 30\r\nx-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: {shown}\r\n".encode()
        == budget_lines(granted)
    )


@pytest.mark.parametrize(
    ("dimension", "what"),
    [(Dimension.REQUESTS_PER_MINUTE, "requests"), (Dimension.REQUESTS_PER_DAY, "requests"), (Dimension.TOKENS_PER_MINUTE, "tokens")],
)  # fmt: skip
def test_denial_shows_the_limit_that_bound_it(dimension: Dimension, what: str) -> None:
    """Nothing is left, and the reset is the wait that is told."""
    expected = f"x-ratelimit-limit-{what}: 30\r\nx-ratelimit-remaining-{what}: 0\r\nx-ratelimit-reset-{what}: 7.5s\r\n"

    assert expected.encode() == denial_lines(Denied("b", dimension, 7.5, False, "refuse", 30))


def test_denial_for_want_of_a_slot_shows_no_limit() -> None:
    """No x-ratelimit-* speaks of concurrency, and a request limit it is not."""
    assert b"" == denial_lines(Denied("b", Dimension.CONCURRENT, 1.0, False, "refuse", 8))


def test_names_at_hand_are_written_as_they_are() -> None:
    """Rendered once for a deployment, they stand in an answer's lines like those made anew."""
    facts = ExchangeFacts(ID, 0, policy_revision="abc", provider="main", model_served="m", upstream_ms=1.0)

    assert our_lines(facts, 2.0, False) == our_lines(facts, 2.0, False, naming_lines("abc", "main", "m"))
    assert b"" == naming_lines("", "", "m")


def test_no_limit_of_ours_writes_nothing() -> None:
    """Where no budget applies there is nothing to say."""
    assert b"" == budget_lines(Granted(Reservation("", Account(()), 0, 0.0, None)))


@given(
    most=st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)),
    left=st.tuples(st.integers(-5, 10**9), st.integers(-5, 10**9)),
    seconds=st.tuples(st.floats(0.0, 90000.0), st.floats(0.0, 90000.0)),
)
def test_both_limits_are_written_as_each_alone(
    most: tuple[int, int], left: tuple[int, int], seconds: tuple[float, float]
) -> None:
    """Lines that are remembered but for what is left say what they would say made anew."""
    held = Reservation("", Account(()), 0, 0.0, None)
    requests = Granted(held, most[0], left[0], seconds[0])
    tokens = Granted(held, limit_tokens=most[1], remaining_tokens=left[1], reset_tokens_s=seconds[1])
    both = Granted(held, most[0], left[0], seconds[0], most[1], left[1], seconds[1])

    assert budget_lines(requests) + budget_lines(tokens) == budget_lines(both)


@given(own=st.floats(-1.0, 1e6), upstream=st.floats(0.0, 1e6))
def test_times_are_told_to_the_hundredth_of_a_millisecond(own: float, upstream: float) -> None:
    """What was spent, and never less than nothing."""
    lines = our_lines(ExchangeFacts(ID, 0, upstream_ms=upstream), upstream + own, True).decode("ascii")
    told = re.search(r"gateway;dur=(\d+\.\d\d), upstream;dur=(\d+\.\d\d)\r\n", lines)

    assert told is not None
    assert (max(0.0, own), upstream) == (
        pytest.approx(float(told[1]), abs=0.006),
        pytest.approx(float(told[2]), abs=0.006),
    )
