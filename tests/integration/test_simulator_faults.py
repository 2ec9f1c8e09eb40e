"""Each fault of the simulated provider, read from a raw socket: the tests of others stand on these."""

import asyncio
import gzip
import json
import zlib

import pytest

from tests.support.simulator import (
    RawAnswer,
    Simulator,
    black_hole,
    chat_request,
    raw_exchange,
    read_answer,
    refused_origin,
    running_simulator,
)


async def ask(sim: Simulator, fault: str, stream: bool = False, content: str = "hello", wait_s: float = 0.3,
              **body: object) -> RawAnswer:  # fmt: skip
    return await raw_exchange(sim.port, chat_request(content, stream, {"x-sim-fault": fault}, **body), wait_s)


def events_of(answer: RawAnswer) -> list[str]:
    """The data lines of a stream, chunk framing ignored."""
    lines = answer.rest.replace(b"\r\n", b"\n").split(b"\n")
    return [line[6:].decode() for line in lines if line.startswith(b"data: ")]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 425, 429, 500, 502, 503, 504, 529])
async def test_status_fault_answers_an_openai_error(status: int) -> None:
    """Every error status has the four-key object and a request id, as official SDKs expect."""
    async with running_simulator() as sim:
        answer = await ask(sim, str(status))

    assert status == answer.status
    assert {"message", "type", "param", "code"} == set(json.loads(answer.rest)["error"])
    assert b"x-request-id: req_sim" in answer.head


async def test_retry_after_is_told_in_seconds_as_a_date_and_in_milliseconds() -> None:
    """Gateways must read all three forms."""
    async with running_simulator() as sim:
        seconds = await ask(sim, "429:retry_after=2")
        date = await ask(sim, "429:retry_after_date=60s")
        milliseconds = await ask(sim, "429:retry_after_ms=250,retry=no")

    assert b"\r\nretry-after: 2" in seconds.head
    assert b" GMT" in date.head.partition(b"retry-after: ")[2][:40]
    assert b"\r\nretry-after-ms: 250\r\nx-should-retry: false" in milliseconds.head
    assert b"x-ratelimit-remaining-requests: 0" in seconds.head


async def test_error_body_echoes_the_key_when_told() -> None:
    """The canary that a sidecar masks what providers echo."""
    async with running_simulator() as sim:
        request = chat_request(headers={"x-sim-fault": "401:echo_key=1", "authorization": "Bearer sk-canary-1"})
        answer = await raw_exchange(sim.port, request)

    assert b"Bearer sk-canary-1" in answer.rest
    assert b"key=sk-canary-1" in answer.rest


async def test_silence_never_answers_and_sees_the_peer_leave() -> None:
    """Accept then silence (UF-04): the journal says who ended it."""
    async with running_simulator() as sim:
        answer = await ask(sim, "silence", wait_s=0.1)
        entry = (await sim.wait_until_ended(1))[0]

    assert (b"", "open") == (answer.data, answer.ended)
    assert ("peer", 0, False) == (entry.closed_by, entry.status, entry.is_complete)


async def test_stall_stops_after_the_told_number_of_content_events() -> None:
    """Stall after five events (UF-09): role chunk and five words, then nothing."""
    async with running_simulator() as sim:
        answer = await ask(sim, "stall:after=5", stream=True, wait_s=0.1)

    assert 6 == len(events_of(answer))
    assert "open" == answer.ended


@pytest.mark.parametrize(
    ("fault", "events", "ended"),
    [
        ("reset:after=nothing", 0, "reset"),
        ("reset:after=head", 0, "reset"),
        ("reset:after=prelude", 1, "reset"),
        ("reset:after=2", 3, "reset"),
        ("cut:after=nothing", 0, "eof"),
        ("cut:after=head", 0, "eof"),
        ("cut:after=2", 3, "eof"),
    ],
)
async def test_stream_is_broken_exactly_where_told(fault: str, events: int, ended: str) -> None:
    """Before and after the first content are different cases for a gateway (UF-10, UF-11)."""
    async with running_simulator() as sim:
        answer = await ask(sim, fault, stream=True)
        entry = (await sim.wait_until_ended(1))[0]

    assert (events, ended) == (len(events_of(answer)), answer.ended)
    assert not answer.data.endswith(b"0\r\n\r\n")
    assert ("simulator", False) == (entry.closed_by, entry.is_complete)


async def test_cut_may_fall_inside_an_event() -> None:
    """A cut need not respect events."""
    async with running_simulator() as sim:
        answer = await ask(sim, "cut:after=1,partial=20", stream=True)

    assert answer.data.endswith(b'\r\n14\r\ndata: {"id":"chatcmp\r\n')


async def test_plain_cut_leaves_the_content_length_unmet() -> None:
    """A short Content-Length: fewer bytes than promised, then FIN."""
    async with running_simulator() as sim:
        answer = await ask(sim, "cut:after=10")

    promised = int(answer.head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert 10 == len(answer.rest) < promised
    assert "eof" == answer.ended


async def test_clean_end_closes_the_framing_without_finish_or_done() -> None:
    """The truncation no SDK notices: a proper last chunk, no finish mark."""
    async with running_simulator() as sim:
        answer = await ask(sim, "clean_end:after=3", stream=True)

    assert 4 == len(events_of(answer))
    assert answer.data.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in answer.data


async def test_done_and_finish_can_be_left_out() -> None:
    """Two marks, each missing alone."""
    async with running_simulator() as sim:
        no_done = events_of(await ask(sim, "no_done", stream=True))
        no_finish = events_of(await ask(sim, "no_finish", stream=True))

    assert '"finish_reason":"stop"' in no_done[-1]
    assert "[DONE]" == no_finish[-1]
    assert not any('"finish_reason":"stop"' in event for event in no_finish)


@pytest.mark.parametrize("kind", ["json", "utf8", "field", "truncated", "not_object"])
async def test_malformed_event_is_followed_by_the_rest(kind: str) -> None:
    """Only one event is broken; a gateway may not pass it on as good."""
    async with running_simulator() as sim:
        answer = await ask(sim, f"malformed:kind={kind}", stream=True)

    assert b"[DONE]" in answer.data
    assert "open" == answer.ended


@pytest.mark.parametrize("shape", ["openai", "vllm", "openrouter", "anthropic"])
async def test_error_event_comes_first_or_midway(shape: str) -> None:
    """Providers report trouble under a 200, each in its own shape (UF-12)."""
    async with running_simulator() as sim:
        first = events_of(await ask(sim, f"error_event:shape={shape},status=503", stream=True))
        midway = events_of(await ask(sim, f"error_event:shape={shape},after=4", stream=True))

    assert 1 == len(first)
    assert "error" in first[0]
    assert 6 == len(midway)
    assert "error" in midway[-1]


async def test_answers_under_200_that_are_none() -> None:
    """Errors, pages and nothing at all, all with status 200 (UF-14, UF-15, UF-26)."""
    async with running_simulator() as sim:
        error = await ask(sim, "error_in_200")
        page = await ask(sim, "html")
        nothing = await ask(sim, "empty")
        untyped = await ask(sim, "content_type:value=none")
        plain = await ask(sim, "no_stream", stream=True)
        stream = await ask(sim, "only_stream")

    assert (200, "error") == (error.status, next(iter(json.loads(error.rest))))
    assert b"content-type: text/html" in page.head
    assert (200, b"") == (nothing.status, nothing.rest)
    assert b"content-type" not in untyped.head
    assert b"application/json" in plain.head
    assert b"text/event-stream" in stream.head


@pytest.mark.parametrize("status", [204, 304])
async def test_bodiless_statuses_have_no_length(status: int) -> None:
    """204 and 304 end with their head."""
    async with running_simulator() as sim:
        answer = await ask(sim, f"empty:status={status}")

    assert (status, b"", "open") == (answer.status, answer.rest, answer.ended)
    assert b"content-length" not in answer.head


def joined_chunks(framed: bytes) -> bytes:
    body = b""
    while framed:
        size, _, framed = framed.partition(b"\r\n")
        body += framed[: int(size, 16)]
        framed = framed[int(size, 16) + 2 :]
    return body


async def test_coded_bodies_decode_to_the_plain_ones() -> None:
    """Gzip in one or several members, deflate, and gzip flushed after every event (UF-16)."""
    async with running_simulator() as sim:
        plain = json.loads((await ask(sim, "ok")).rest)["choices"]
        once = await ask(sim, "encode:as=gzip")
        twice = await ask(sim, "encode:as=gzip,members=2")
        deflated = await ask(sim, "encode:as=deflate,label=br")
        stream = await ask(sim, "encode:as=gzip", stream=True)

    assert plain == json.loads(gzip.decompress(once.rest))["choices"]
    assert plain == json.loads(gzip.decompress(twice.rest))["choices"]
    assert plain == json.loads(zlib.decompress(deflated.rest))["choices"]
    assert b"content-encoding: br" in deflated.head
    assert gzip.decompress(joined_chunks(stream.rest)).endswith(b"data: [DONE]\n\n")


async def test_bomb_is_small_on_the_wire() -> None:
    """20 MiB in about 20 KB."""
    async with running_simulator() as sim:
        answer = await ask(sim, "bomb:size=20MiB")

    body = joined_chunks(answer.rest)
    assert len(body) < 64 * 1024
    assert 20 * 1024 * 1024 == len(gzip.decompress(body))


async def test_large_things_have_the_size_told() -> None:
    """Bodies, events, lines and heads beyond any limit."""
    async with running_simulator() as sim:
        huge = await ask(sim, "huge:size=1MiB")
        event = await ask(sim, "big_event:size=300KiB", stream=True)
        line = await ask(sim, "endless_line:size=1MiB")
        head = await ask(sim, "big_head:count=3,size=9000")

    assert 1024 * 1024 <= len(json.loads(joined_chunks(huge.rest))["choices"][0]["message"]["content"])
    assert 300 * 1024 < max(len(data) for data in events_of(event))
    assert 1024 * 1024 <= len(line.rest)
    assert len(head.head) > 27_000


async def test_interim_answers_come_first() -> None:
    """Any number of 1xx may precede the answer."""
    async with running_simulator() as sim:
        answer = await ask(sim, "informational:count=3,status=102")
        switched = await ask(sim, "switch")

    assert 3 == answer.data.count(b"HTTP/1.1 102 ")
    assert 1 == answer.data.count(b"HTTP/1.1 200 OK")
    assert (101, "eof") == (switched.status, switched.ended)


async def test_http10_ends_with_the_connection() -> None:
    """No length, no chunks: only EOF says it is over, and a cut looks the same (UF-23)."""
    async with running_simulator() as sim:
        whole = await ask(sim, "http10", stream=True)
        cut = await ask(sim, "http10:after=2", stream=True)

    assert whole.data.startswith(b"HTTP/1.0 200 OK")
    assert (b"", "eof") == (whole.rest.partition(b"data: [DONE]\n\n")[2], whole.ended)
    assert (3, "eof") == (len(events_of(cut)), cut.ended)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_names_another_origin(status: int) -> None:
    """A proxy must not follow these with the key in hand."""
    async with running_simulator() as sim:
        answer = await ask(sim, f"redirect:status={status},to=http://127.0.0.1:9/x")

    assert status == answer.status
    assert b"\r\nlocation: http://127.0.0.1:9/x" in answer.head


async def test_early_answer_does_not_wait_for_the_body() -> None:
    """The refusal comes while the body is still on its way; the connection is dropped."""
    async with running_simulator() as sim:
        head = b"POST /v1/files HTTP/1.1\r\nhost: s\r\nx-sim-fault: early:status=413\r\ncontent-length: 99999\r\n\r\n"
        answer = await raw_exchange(sim.port, head + b"some")

    assert 413 == answer.status
    assert answer.ended in ("eof", "reset")


async def test_idle_connection_closes_after_its_answer() -> None:
    """Keep-alive was promised, then the connection goes away unasked."""
    async with running_simulator() as sim:
        answer = await ask(sim, "close_after:delay=20ms")

    assert b"connection: close" not in answer.head
    assert (200, "eof") == (answer.status, answer.ended)


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_race_kills_the_connection_as_the_next_request_arrives(how: str) -> None:
    """The keep-alive race (UF-19): journalled as a request without an answer."""
    async with running_simulator() as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(chat_request(headers={"x-sim-fault": f"race:how={how}"}))
        first = await read_answer(reader, 0.1)
        writer.write(chat_request())
        second = await read_answer(reader, 0.3)
        entries = await sim.wait_until_ended(2)
        writer.close()

    assert (200, "open") == (first.status, first.ended)
    assert b"" == second.data
    assert second.ended in ("eof", "reset")
    assert ("race", 0, "simulator") == (entries[1].fault, entries[1].status, entries[1].closed_by)


async def test_refuse_resets_and_closes_the_listener_for_a_while() -> None:
    """A provider that dies and comes back (UF-01, flapping)."""
    async with running_simulator() as sim:
        answer = await ask(sim, "refuse:for=200ms")
        with pytest.raises(ConnectionRefusedError):
            await raw_exchange(sim.port, chat_request())
        await asyncio.sleep(0.3)
        healed = await ask(sim, "ok")

    assert "reset" == answer.ended
    assert 200 == healed.status


async def test_drip_sends_a_few_bytes_at_a_time() -> None:
    """Every piece on its own, so that parsers meet every split."""
    async with running_simulator(tokens=1) as sim:
        started = asyncio.get_running_loop().time()
        answer = await ask(sim, "drip:bytes=200,every=20ms,of=all")
        took = asyncio.get_running_loop().time() - started

    assert 200 == answer.status
    assert json.loads(answer.rest)
    assert took >= 5 * 0.02


@pytest.mark.parametrize(
    ("kind", "mark"),
    [
        ("cl_te", b"transfer-encoding: chunked"),
        ("two_lengths", b"content-length: "),
        ("garbage", b"this is not HTTP"),
        ("version", b"HTTP/3.7"),
        ("bad_chunk", b"\r\nzz\r\n"),
        ("negative", b"content-length: -5"),
        ("status", b"HTTP/1.1 2000"),
        ("lf", b"HTTP/1.1 200 OK\ncontent-type"),
        ("extra", b"poisoned"),
    ],
)
async def test_bad_framing_is_on_the_wire(kind: str, mark: bytes) -> None:
    """Answers after which no connection may be used again."""
    async with running_simulator() as sim:
        answer = await ask(sim, f"bad_framing:kind={kind}")

    assert mark in answer.data


async def test_prefill_is_refused_or_continued() -> None:
    """Rescue needs both kinds of target."""
    messages = [{"role": "user", "content": "echo: one two three"}, {"role": "assistant", "content": "one two"}]
    async with running_simulator() as sim:
        refused = await ask(sim, "no_prefill", messages=messages)
        continued = await ask(sim, "ok", messages=messages)

    assert 400 == refused.status
    assert " three" == json.loads(continued.rest)["choices"][0]["message"]["content"]


async def test_trailers_and_cookies_are_sent() -> None:
    """Things a gateway must not let through to another tenant."""
    async with running_simulator() as sim:
        trailers = await ask(sim, "trailers")
        cookie = await ask(sim, "ok:set_cookie=a=b")

    assert trailers.data.endswith(b"authorization: Bearer sk-from-a-trailer\r\n\r\n")
    assert b"\r\nset-cookie: a=b" in cookie.head


async def test_black_hole_and_refusal_are_what_they_say() -> None:
    """Two addresses for connect timeouts and refused connections."""
    with black_hole() as origin, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.open_connection("127.0.0.1", int(origin.rpartition(":")[2]))
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(refused_origin().rpartition(":")[2]))
