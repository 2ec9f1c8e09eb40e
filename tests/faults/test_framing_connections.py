"""One caller connection over its life: order, reuse, limits, deadlines, expectations, old versions (HT-09, 19, 20)."""

from __future__ import annotations

import statistics
import time

import pytest

from tests.support.rawhttp import Broken, RawCaller, chat_body, chunked, raw_chat, raw_request
from tests.support.sidecar import Stage, check_refusal

pytestmark = pytest.mark.faults

JSON = b"Content-Type: application/json"
FORM = b"Content-Type: multipart/form-data; boundary=frontier"
UPLOAD = (
    b'--frontier\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{}\r\n--frontier--\r\n'
)


def gauge(running: Stage, name: str) -> float:
    return running.sidecar.metric(f"readygate_{name}")


def settled(running: Stage, live_before: float, within_s: float = 1.0) -> bool:
    """Wait until no more exchanges are live than before the test."""
    deadline_s = time.monotonic() + within_s
    while gauge(running, "live_exchanges") > live_before and time.monotonic() < deadline_s:
        time.sleep(0.02)  # noqa: TID251 - no event loop here
    return gauge(running, "live_exchanges") <= live_before


@pytest.fixture
def live(ordinary: Stage) -> float:
    """Exchanges of the ordinary stage that were live before the test (0, but for leaks of other tests)."""
    return gauge(ordinary, "live_exchanges")


# ---------------------------------------------------------------- HT-20: one behind the other


def test_thousand_pipelined_requests_are_answered_in_order(ordinary: Stage) -> None:
    """HT-20: the queue is bounded, nothing is answered out of turn, every request has its row."""
    rows, asked = ordinary.kept_rows(), ordinary.asked
    data = b"".join(raw_chat(f"echo: turn {n}") for n in range(1000))
    said: list[str] = []
    ids = set()
    with ordinary.caller(20.0) as caller:
        caller.sock.setblocking(True)
        sent = 0
        while sent < len(data):  # read as we send: neither side may have to hold everything
            sent += caller.sock.send(data[sent : sent + 32768])
            while len(said) < 1000 and len(said) * 200 < sent // 3:
                answer = caller.read()
                said.append(answer.json()["choices"][0]["message"]["content"])
                ids.add(answer.get("x-readygate-id"))
        while len(said) < 1000:
            answer = caller.read()
            said.append(answer.json()["choices"][0]["message"]["content"])
            ids.add(answer.get("x-readygate-id"))

    assert [f"turn {n}" for n in range(1000)] == said
    assert (1000, rows + 1000, asked + 1000) == (len(ids), ordinary.kept_rows(), ordinary.asked)


def test_unread_pipelined_requests_are_not_taken_without_end(ordinary: Stage, live: float) -> None:
    """HT-20, CVE-2026-54273: a caller that reads nothing cannot make us queue its requests for ever."""
    data = raw_chat("x" * 2000, model="bare-slow").replace(
        b"Host: localhost", b"Host: localhost\r\nX-Sim-Speech: latency=1s"
    )
    sent = 0
    with ordinary.caller(0.5) as caller:
        while sent < 64 * 1024 * 1024 and caller.try_send(data * 16):
            sent += 16 * len(data)
        caller.reset()

    assert sent < 32 * 1024 * 1024
    assert settled(ordinary, live)


def test_mixed_pipelined_requests_keep_their_order(ordinary: Stage) -> None:
    """HEAD, an upload, a chunked body, a refusal of policy, a stream: each answer is framed as its own request asks."""
    data = [
        ("POST", raw_chat("echo: one")),
        ("HEAD", raw_request("HEAD", "/v1/models")),
        ("POST", raw_request("POST", "/v1/files", FORM, body=UPLOAD)),
        (
            "POST",
            raw_request("POST", "/v1/chat/completions", JSON, b"Transfer-Encoding: chunked")
            + chunked(chat_body("echo: two")),
        ),
        ("POST", raw_request("POST", "/v1/chat/completions", JSON, body=b"{not json")),
        ("POST", raw_chat("echo: three", stream=True)),
        ("GET", raw_request("GET", "/v1/models")),
        ("POST", raw_chat("echo: four", b"Connection: close")),
    ]
    with ordinary.caller() as caller:
        caller.send(b"".join(one for _, one in data))
        answers = [caller.read(method) for method, _ in data]
        end, rest = caller.ending()

    assert [200, 200, 200, 200, 400, 200, 200, 200] == [answer.status for answer in answers]
    assert ["length", "none", "length", "length", "length", "chunked", "length", "length"] == [
        a.framing for a in answers
    ]
    assert "[DONE]" == answers[5].events[-1]
    assert (True, "eof", b"") == (answers[-1].closes, end, rest)


def test_connection_is_kept_after_every_refusal_of_policy(brittle: Stage) -> None:
    """Nothing about an unreadable body or a provider's error makes the connection unsafe."""
    with brittle.caller() as caller:
        for _ in range(3):
            caller.send(raw_request("POST", "/v1/chat/completions", JSON, body=b"{"))
            assert 400 == caller.read().status
            caller.send(raw_chat("x", b"X-Sim-Fault: 404"))
            assert 404 == caller.read().status
            caller.send(raw_chat("x", b"X-Sim-Fault: redirect", model="s28-x"))
            assert caller.read().status in (502, 503)
            caller.send(raw_chat("echo: still here"))
            assert "still here" == caller.read().json()["choices"][0]["message"]["content"]


# ---------------------------------------------------------------- callers that leave


def test_half_closed_caller_counts_as_gone_and_is_recorded(ordinary: Stage, live: float) -> None:
    """A FIN in the middle of an answer cannot be told from a caller that left: the provider is told at once."""
    rows = ordinary.kept_rows()
    with ordinary.caller() as caller:
        caller.send(raw_chat("half-closed", b"X-Sim-Speech: latency=3s"))
        time.sleep(0.1)  # noqa: TID251 - no event loop here
        caller.half_close()
        end, rest = caller.ending(1.0)
    (entry,) = ordinary.entries("half-closed")
    found = ordinary.sidecar.rows("status = 'cancelled' and model_asked = 'gpt-4o-mini'", count=1)

    assert (True, b"") == (end != "open", rest)
    assert settled(ordinary, live)
    assert (rows + 1, "client_cancelled") == (ordinary.kept_rows(), found[-1]["outcome"])
    assert "peer" == entry.closed_by


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_caller_that_leaves_with_its_request_leaves_nothing_running(ordinary: Stage, live: float, how: str) -> None:
    """I7: request and goodbye in the same moment: the exchange ends and is counted once."""
    for n in range(20):
        caller = ordinary.caller()
        caller.send(raw_chat(f"hit and run {n}", b"X-Sim-Speech: latency=200ms"))
        if how == "fin":
            caller.sock.close()
        else:
            caller.reset()

    assert settled(ordinary, live), f"{gauge(ordinary, 'live_exchanges') - live:.0f} exchanges never end"
    assert 0 == gauge(ordinary, "open_reservations")


def test_upload_broken_in_its_first_write_leaves_nothing_running(ordinary: Stage, live: float) -> None:
    """I7: an exchange that is cancelled before its first step must still end, be recorded and be let go."""
    rows = ordinary.kept_rows()
    with ordinary.caller(1.0) as caller:
        caller.send(raw_request("POST", "/v1/files", FORM, b"Transfer-Encoding: chunked") + b"5\r\nhello\r\nzz\r\n")
        caller.ending(1.0)

    assert (True, rows + 1) == (settled(ordinary, live), ordinary.kept_rows())


# ---------------------------------------------------------------- HT-09: deadlines


def test_dripping_and_stalling_callers_are_let_go_while_others_are_served(hasty: Stage) -> None:
    """HT-09: 200 connections that drip heads, drip bodies, stall bodies or say nothing are closed by their deadlines."""
    head, upload = (
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Drip: ",
        raw_request("POST", "/v1/files", FORM, b"Content-Length: 5000"),
    )
    body = raw_request("POST", "/v1/chat/completions", JSON, b"Content-Length: 5000")
    kinds = [head, upload, body, b""]
    crowd = [(kinds[n % 4], hasty.caller()) for n in range(200)]
    for opening, caller in crowd:
        caller.send(opening)
        caller.sock.setblocking(False)
    chats_s, probes_s, closed = list[float](), list[float](), [0.0] * len(crowd)
    started_s = time.monotonic()
    while time.monotonic() - started_s < 2.6:
        for number, (opening, caller) in enumerate(crowd):
            if closed[number]:
                continue
            if opening == head and not caller.try_send(b"a"):
                closed[number] = time.monotonic() - started_s
                continue
            try:
                if caller.sock.recv(4096):
                    closed[number] = time.monotonic() - started_s
            except BlockingIOError:
                continue
            except ConnectionError:
                pass
            closed[number] = closed[number] or time.monotonic() - started_s
        mark_s = time.monotonic()
        assert 200 == hasty.ask(raw_chat("normal")).status
        chats_s.append(time.monotonic() - mark_s)
        mark_s = time.monotonic()
        assert 200 == hasty.sidecar.status("/livez")
        probes_s.append(time.monotonic() - mark_s)
        time.sleep(0.1)  # noqa: TID251 - no event loop here
    for _, caller in crowd:
        caller.sock.close()

    left = {
        kind: sum(not at for (opening, _), at in zip(crowd, closed, strict=True) if opening == kind) for kind in kinds
    }
    assert dict.fromkeys(kinds, 0) == left
    assert statistics.median(chats_s) < 0.1
    assert statistics.median(probes_s) < 0.1
    assert settled(hasty, 0.0)


def test_dripped_body_does_not_last_for_ever(hasty: Stage) -> None:
    """HT-09: a byte every so often keeps a silence limit happy; only a rate or a total stops it."""
    with hasty.caller() as read_whole, hasty.caller() as streamed, hasty.caller() as known:
        # One whose head is known, and whose last body was large: that one speaks for nothing in this one.
        known.send(raw_request("POST", "/v1/chat/completions", JSON, b"Content-Length: 100000") + b"x" * 100_000)
        known.read()
        started_s = time.monotonic()
        read_whole.send(raw_request("POST", "/v1/chat/completions", JSON, b"Content-Length: 5000"))
        streamed.send(raw_request("POST", "/v1/files", FORM, b"Content-Length: 5000"))
        known.send(raw_request("POST", "/v1/chat/completions", JSON, b"Content-Length: 5000"))
        open_ones = [read_whole, streamed, known]
        while open_ones and time.monotonic() - started_s < 6.0:  # the limit, two seconds of grace, and two sweeps
            open_ones = [caller for caller in open_ones if caller.try_send(b"a")]
            time.sleep(0.2)  # noqa: TID251 - no event loop here

    assert [] == open_ones, "5 bytes a second go on for ever with a body limit of 1 s"


def test_dripped_body_is_told_that_it_was_too_slow(hasty: Stage) -> None:
    """HT-09: a caller that listens learns why it is let go, and one row says the same."""
    rows, asked, started_s = hasty.kept_rows(), hasty.asked, time.monotonic()
    with hasty.caller(0.2) as caller:
        caller.send(raw_request("POST", "/v1/chat/completions", JSON, b"Content-Length: 5000"))
        answer = None
        while answer is None and time.monotonic() - started_s < 4.0:
            caller.try_send(b"a")
            try:
                answer = caller.read()
            except Broken:
                continue

    assert answer is not None
    assert 408 == answer.status
    check_refusal(answer)
    assert (rows + 1, asked) == (hasty.kept_rows(), hasty.asked)


def test_late_request_is_told_so(hasty: Stage) -> None:
    """HT-09: a slow but honest caller learns why; SDKs retry a 408."""
    openings = (
        b"GET /v1/models HTTP/1.1\r\nHost: loc",
        raw_request("POST", "/v1/chat/completions", JSON, b"Content-Length: 50") + b"{",
        raw_request("POST", "/v1/chat/completions", JSON, b"Transfer-Encoding: chunked") + b"5\r\n{",
    )
    rows, asked = hasty.kept_rows(), hasty.asked
    with hasty.caller() as first, hasty.caller() as second, hasty.caller() as third:
        crowd = (first, second, third)
        for caller, opening in zip(crowd, openings, strict=True):
            caller.send(opening)
        answers = [caller.read() for caller in crowd]
        endings = [caller.ending() for caller in crowd]

    assert [408] * 3 == [answer.status for answer in answers]
    for answer in answers:
        check_refusal(answer)
    assert [("eof", b"")] * 3 == endings
    assert (rows + 3, asked) == (hasty.kept_rows(), hasty.asked)


def test_late_head_behind_a_whole_request_is_told_so(hasty: Stage) -> None:
    """HT-09: the clock of a head starts with its first byte, wherever that byte came."""
    with hasty.caller() as caller:
        caller.send(raw_chat("x") + b"GET /v1/mod")
        first = caller.read()
        try:
            second = caller.read().status
        except Broken:
            second = 0  # closed as if it had been idle

    assert (200, 408) == (first.status, second)


def test_stalled_upload_is_ended_and_recorded(hasty: Stage) -> None:
    """HT-09: the provider has begun to read it, so it is cut there too, and the row says who was at fault."""
    with hasty.caller() as caller:
        caller.send(raw_request("POST", "/v1/files/stalled-upload", FORM, b"Content-Length: 5000") + UPLOAD[:40])
        end, _ = caller.ending(3.5)
    found = hasty.sidecar.rows("path = '/v1/files/stalled-upload'", count=1)

    assert ("cancelled", True) == (found[0]["status"], end != "open")
    assert all(entry.closed_by == "peer" for entry in hasty.entries("stalled-upload"))


def test_idle_connection_is_closed_without_an_answer(hasty: Stage) -> None:
    """Nobody asked anything, so nothing is said, and nothing is recorded."""
    rows = hasty.kept_rows()
    with hasty.caller() as fresh, hasty.caller() as used:
        used.send(raw_request("GET", "/v1/models"))
        used.read()
        endings = [caller.ending(3.5) for caller in (fresh, used)]

    assert [("eof", b"")] * 2 == endings
    assert rows + 1 == hasty.kept_rows()


def test_caller_that_stops_reading_is_dropped(hasty: Stage) -> None:
    """HT-09: a full socket is no reason to hold a provider's answer in memory for ever; the row says it was cut."""
    data = raw_chat("write-stalled", b"X-Sim-Fault: huge:size=64MiB")
    with hasty.caller(receive_buffer=8192) as caller:
        caller.send(data)
        time.sleep(0.3)  # noqa: TID251 - no event loop here
        found = hasty.sidecar.rows("status = 'cancelled' and path = '/v1/chat/completions'", count=1, within_s=4.0)
    (entry,) = hasty.entries("write-stalled")

    assert 1 == len(found)
    assert ("client_cancelled", "peer") == (found[0]["outcome"], entry.closed_by)
    assert settled(hasty, 0.0)


def test_connections_above_the_limit_are_closed_and_the_rest_is_served(guarded: Stage, caller_key: str) -> None:
    """A flood of connections costs the newcomers, not those that are being served."""
    ask = raw_chat("x", b"Authorization: Bearer " + caller_key.encode())
    crowd = [guarded.caller() for _ in range(8)]
    for caller in crowd:
        caller.send(ask)
        assert 200 == caller.read().status
    with guarded.caller() as late:
        late.try_send(ask)
        end, rest = late.ending()
    crowd[0].send(ask)
    still = crowd[0].read().status
    for caller in crowd:
        caller.sock.close()
    time.sleep(0.05)  # noqa: TID251 - no event loop here

    assert (True, b"", 200) == (end != "open", rest, still)
    assert 200 == guarded.ask(ask).status


# ---------------------------------------------------------------- HTTP/1.0, HEAD, OPTIONS


@pytest.mark.parametrize("line", [b"Accept: */*", b"Connection: keep-alive", b"Connection: close"])
def test_http10_caller_gets_one_answer_and_the_end(ordinary: Stage, line: bytes) -> None:
    """Old probes and ApacheBench speak it; a length or the end of the connection is all they understand."""
    body = chat_body("echo: old", stream=False)
    data = raw_request("POST", "/v1/chat/completions", JSON, line, body=body, host=None, version=b"HTTP/1.0")
    with ordinary.caller() as caller:
        caller.send(data)
        answer = caller.read()
        if answer.closes:
            assert ("eof", b"") == caller.ending()

    assert (200, "length", "old") == (answer.status, answer.framing, answer.json()["choices"][0]["message"]["content"])
    assert answer.closes or line.endswith(b"keep-alive")


def test_http10_stream_ends_with_the_connection(ordinary: Stage) -> None:
    """There are no chunks in HTTP/1.0."""
    body = chat_body("echo: old stream", stream=True)
    with ordinary.caller() as caller:
        caller.send(raw_request("POST", "/v1/chat/completions", JSON, body=body, version=b"HTTP/1.0"))
        answer = caller.read()

    assert ("close", "[DONE]") == (answer.framing, answer.events[-1])


def test_head_is_answered_like_get_without_a_body(ordinary: Stage) -> None:
    """RFC 9110: the length of a HEAD answer is the one of GET, or it is left out; a wrong one misleads caches and tools."""
    with ordinary.caller() as caller:
        caller.send(
            raw_request("GET", "/v1/models") + raw_request("HEAD", "/v1/models") + raw_request("GET", "/v1/models")
        )
        get, head, again = caller.read(), caller.read("HEAD"), caller.read()

    assert (200, 200, 200) == (get.status, head.status, again.status)
    assert head.get("content-length") in (get.get("content-length"), "")


def test_options_passes_to_the_provider(ordinary: Stage) -> None:
    """A browser's preflight is the provider's to answer."""
    asked = ordinary.asked
    answer = ordinary.ask(raw_request("OPTIONS", "/v1/chat/completions", b"Origin: http://localhost:3000"))

    assert (asked + 1, "OPTIONS") == (ordinary.asked, ordinary.provider.last.method)
    assert answer.status < 500


def test_many_callers_are_forgotten_when_they_leave(ordinary: Stage) -> None:
    """I13: descriptors and connections return to where they were."""
    before = (ordinary.sidecar.descriptors(), gauge(ordinary, "caller_connections"))
    callers = [RawCaller(ordinary.sidecar.data_port) for _ in range(100)]
    for caller in callers:
        caller.send(raw_request("GET", "/v1/models"))
    for caller in callers:
        caller.read()
        caller.sock.close()
    time.sleep(0.1)  # noqa: TID251 - no event loop here
    after = (ordinary.sidecar.descriptors(), gauge(ordinary, "caller_connections"))

    # Connections to the provider are pooled for a while, so descriptors may rise by those.
    pooled = gauge(ordinary, "provider_connections")
    assert after[0] <= before[0] + pooled + 2
    assert after[1] <= before[1]
