"""The simulated provider as a provider: endpoints, pace, journal, admin doors, websockets, its process."""

import asyncio
import base64
import hashlib
import json
import struct
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from proxy.simulator import Settings, SimulatedProvider
from tests.support.simulator import (
    Simulator,
    chat_request,
    raw_exchange,
    read_answer,
    running_simulator,
    simulator_process,
)

ECHO = [{"role": "user", "content": "echo: Olá, Zoë 🎉"}]


async def post(sim: Simulator, path: str, data: object, base: str = "/v1", **headers: str) -> tuple[int, object]:
    url = f"{sim.origin}{base}{path}"
    async with aiohttp.ClientSession() as session, session.post(url, json=data, headers=headers) as answer:
        text = await answer.text()
        return answer.status, text if "event-stream" in answer.content_type else json.loads(text)


def said(stream: object, *keys: str | int) -> str:
    """The text of a stream: what the keys lead to in each event that has it."""
    texts = []
    for line in str(stream).split("\n"):
        if line.startswith("data: {"):
            value = json.loads(line[6:])
            for key in keys:
                value = (value[key] if value else None) if isinstance(key, int) else (value or {}).get(key)
            texts.append(value or "")
    return "".join(texts)


async def test_echo_comes_back_exactly_plain_and_streamed() -> None:
    """Tests see what reached the provider by what it says."""
    async with running_simulator() as sim:
        _, plain = await post(sim, "/chat/completions", {"model": "m", "messages": ECHO})
        _, stream = await post(sim, "/chat/completions", {"model": "m", "messages": ECHO, "stream": True})
        _, responses = await post(sim, "/responses", {"model": "m", "input": ECHO, "stream": True})
        _, messages = await post(sim, "/messages", {"model": "m", "messages": ECHO, "stream": True, "max_tokens": 9})
        _, text = await post(sim, "/completions", {"model": "m", "prompt": ECHO[0]["content"], "stream": True})

    assert "Olá, Zoë 🎉" == plain["choices"][0]["message"]["content"]  # type: ignore[index]
    assert "Olá, Zoë 🎉" == said(stream, "choices", 0, "delta", "content")
    assert "Olá, Zoë 🎉" == said(responses.split("event: response.output_text.done")[0], "delta")  # type: ignore[attr-defined]
    assert "Olá, Zoë 🎉" == said(messages, "delta", "text")
    assert "Olá, Zoë 🎉" == said(text, "choices", 0, "text")


async def test_default_text_is_the_same_each_time_and_as_long_as_told() -> None:
    """Deterministic answers can be compared whole."""
    async with running_simulator(tokens=7) as sim:
        first = (await post(sim, "/chat/completions", {"messages": [{"role": "user", "content": "a"}]}))[1]
        second = (await post(sim, "/chat/completions", {"messages": [{"role": "user", "content": "b"}]}))[1]

    words = first["choices"][0]["message"]["content"]  # type: ignore[index]
    assert words == second["choices"][0]["message"]["content"]  # type: ignore[index]
    assert 7 == len(words.split())
    assert first["id"] != second["id"]  # type: ignore[index]


async def test_tool_calls_carry_the_arguments_spelled_out() -> None:
    """Restoring inside tool arguments needs arguments the test chose."""
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
    prompt = 'call get_weather {"city":"Paris"}\ncall get_weather {"city":"Oslo"}'
    data = {"messages": [{"role": "user", "content": prompt}], "tools": tools}
    async with running_simulator() as sim:
        _, plain = await post(sim, "/chat/completions", data)
        _, stream = await post(sim, "/chat/completions", {**data, "stream": True})

    calls = plain["choices"][0]["message"]["tool_calls"]  # type: ignore[index]
    assert ['{"city":"Paris"}', '{"city":"Oslo"}'] == [call["function"]["arguments"] for call in calls]
    assert "tool_calls" == plain["choices"][0]["finish_reason"]  # type: ignore[index]
    joined = said(stream, "choices", 0, "delta", "tool_calls", 0, "function", "arguments")
    assert '{"city":"Paris"}{"city":"Oslo"}' == joined


async def test_several_choices_and_usage_chunk() -> None:
    """N answers, and the usage chunk with no choices at the end when asked for."""
    async with running_simulator(prompt_tokens=11, completion_tokens=22) as sim:
        data = {"messages": ECHO, "n": 3, "stream": True, "stream_options": {"include_usage": True}}
        _, stream = await post(sim, "/chat/completions", data)

    events = [json.loads(line[6:]) for line in str(stream).split("\n") if line.startswith("data: {")]
    assert {0, 1, 2} == {choice["index"] for event in events for choice in event["choices"]}
    assert ([], 33) == (events[-1]["choices"], events[-1]["usage"]["total_tokens"])


async def test_embeddings_are_decided_by_the_text_in_both_formats() -> None:
    """Float and base64 hold the same numbers."""
    async with running_simulator() as sim:
        _, floats = await post(sim, "/embeddings", {"model": "e", "input": ["one", "two"], "dimensions": 8})
        _, coded = await post(
            sim, "/embeddings", {"model": "e", "input": "one", "dimensions": 8, "encoding_format": "base64"}
        )

    first, second = (row["embedding"] for row in floats["data"])  # type: ignore[index]
    assert first == list(struct.unpack("<8f", base64.b64decode(coded["data"][0]["embedding"])))  # type: ignore[index]
    assert first != second


async def test_files_come_back_byte_for_byte() -> None:
    """Upload, list, read, delete."""
    blob = bytes(range(256)) * 1000 + b"\r\n--not-a-boundary\r\n"
    async with running_simulator() as sim, aiohttp.ClientSession() as session:
        form = aiohttp.FormData()
        form.add_field("purpose", "user_data")
        form.add_field("file", blob, filename="räw.bin", content_type="application/x-raw")
        async with session.post(f"{sim.base_url}/files", data=form) as answer:
            made = await answer.json()
        async with session.get(f"{sim.base_url}/files/{made['id']}/content") as answer:
            back, kind = await answer.read(), answer.content_type
        async with session.delete(f"{sim.base_url}/files/{made['id']}") as answer:
            gone = await answer.json()
        async with session.get(f"{sim.base_url}/files/{made['id']}") as answer:
            status = answer.status

    assert (len(blob), "application/x-raw") == (made["bytes"], kind)
    assert blob == back
    assert (True, 404) == (gone["deleted"], status)


@pytest.mark.parametrize(
    ("path", "data", "key"),
    [
        ("/moderations", {"input": "a cat"}, "results"),
        ("/images/generations", {"prompt": "a cat"}, "data"),
        ("/batches", {"input_file_id": "f", "endpoint": "/v1/chat/completions", "completion_window": "24h"}, "status"),
        ("/messages/count_tokens", {"messages": ECHO}, "input_tokens"),
    ],
)
async def test_other_endpoints_answer_in_shape(path: str, data: object, key: str) -> None:
    """The rest of the API is thin, but there."""
    async with running_simulator() as sim:
        status, answer = await post(sim, path, data)

    assert 200 == status
    assert key in answer  # type: ignore[operator]


@pytest.mark.parametrize(
    "base", ["/v1", "/openai/v1", "/api/v1", "/v1beta/openai", "/groq/openai/v1", "/gemini/v1beta/openai"]
)
async def test_every_provider_prefix_leads_to_the_same_api(base: str) -> None:
    """One simulator plays the seven sample providers."""
    async with running_simulator() as sim:
        status, answer = await post(sim, "/chat/completions", {"messages": ECHO}, base)

    assert (200, "chat.completion") == (status, answer["object"])  # type: ignore[index]
    assert {"groq": "groq", "gemini": "gemini"}.get(base.split("/")[1], "") == sim.last.provider


async def test_azure_deployment_names_the_model() -> None:
    """Azure has its own paths and key header."""
    async with running_simulator(api_keys=("azure-key",)) as sim:
        path = "/gpt-4o/chat/completions?api-version=2024-10-21"
        refused = await post(sim, path, {"messages": ECHO}, "/openai/deployments")
        status, answer = await post(sim, path, {"messages": ECHO}, "/openai/deployments", **{"api-key": "azure-key"})

    assert 401 == refused[0]
    assert (200, "gpt-4o") == (status, answer["model"])  # type: ignore[index]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\ncontent-length: 4\r\n\r\n{bad", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\ncontent-length: 0\r\n\r\n", 400),
        (b"POST /v1/no/such/path HTTP/1.1\r\nhost: s\r\ncontent-length: 2\r\n\r\n{}", 404),
        (b"GET /v1/chat/completions HTTP/1.1\r\nhost: s\r\n\r\n", 405),
        (b"GET /elsewhere HTTP/1.1\r\nhost: s\r\n\r\n", 404),
        (b"GET /v1/__sim__/journal HTTP/1.1\r\nhost: s\r\n\r\n", 404),
        (b"GET /v1/../__sim__/journal HTTP/1.1\r\nhost: s\r\n\r\n", 404),
        (b"GET /v1/models/nobody HTTP/1.1\r\nhost: s\r\n\r\n", 404),
        (b"total nonsense\r\n\r\n", 400),
    ],
)
async def test_bad_questions_get_openai_errors(request_bytes: bytes, status: int) -> None:
    """Admin doors are below no API path, and every refusal has the usual shape."""
    async with running_simulator() as sim:
        answer = await raw_exchange(sim.port, request_bytes)

    assert status == answer.status
    assert "message" in json.loads(answer.rest)["error"]


async def test_requests_arrive_in_any_framing() -> None:
    """Chunked, Expect: 100-continue, HTTP/1.0, split anywhere, pipelined, HEAD."""
    body = json.dumps({"messages": ECHO}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\n"
    async with running_simulator() as sim:
        chunked = await raw_exchange(
            sim.port, head + b"transfer-encoding: chunked\r\n\r\n5\r\n" + body[:5] + b"\r\n%x\r\n" % (len(body) - 5)
            + body[5:] + b"\r\n0\r\n\r\n")  # fmt: skip
        waiting = await raw_exchange(sim.port, head + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body))
        old = await raw_exchange(sim.port, chat_request(stream=True).replace(b"HTTP/1.1", b"HTTP/1.0"))
        pipelined = await raw_exchange(sim.port, chat_request("echo: one") + chat_request("echo: two"))
        headed = await raw_exchange(sim.port, b"HEAD /v1/models HTTP/1.1\r\nhost: s\r\n\r\n")

    assert "Olá" in json.loads(chunked.rest)["choices"][0]["message"]["content"]
    assert b"HTTP/1.1 100 Continue\r\n\r\n" == waiting.data
    assert (b"data: [DONE]\n\n", "eof") == (old.data[-14:], old.ended)
    assert pipelined.data.index(b'"one"') < pipelined.data.index(b'"two"')
    assert (200, b"") == (headed.status, headed.rest)


async def test_stream_keeps_its_pace() -> None:
    """First token and rate are what tests measure gateways against."""
    async with running_simulator(first_token=0.1, rate=100.0, tokens=11) as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        started_s = time.monotonic()
        writer.write(chat_request(stream=True))
        await reader.readuntil(b'"role":"assistant"')
        head_s = time.monotonic() - started_s
        await reader.readuntil(b'"content":"Lorem"')
        first_s = time.monotonic() - started_s
        await reader.readuntil(b"[DONE]")
        whole_s = time.monotonic() - started_s
        writer.close()

    assert head_s < 0.08
    assert 0.095 <= first_s < 0.3
    assert 0.19 <= whole_s < 0.6


@pytest.mark.parametrize("split", [1, 7, 64])
@pytest.mark.parametrize("eol", ["lf", "crlf", "cr"])
async def test_wire_may_be_cut_anywhere(split: int, eol: str) -> None:
    """Cut every byte, in every line end, the bytes are the same in the end."""
    data = {"messages": ECHO, "stream": True}
    async with (
        running_simulator(split=split, eol=eol, comments=True, bom=True) as sim,
        aiohttp.ClientSession() as session,
        session.post(f"{sim.base_url}/chat/completions", json=data) as answer,
    ):
        body = await answer.read()

    assert body.startswith(b"\xef\xbb\xbf: ping 0")
    assert body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").endswith(b"data: [DONE]\n\n")
    assert "Zoë".encode() in body


async def test_journal_writes_down_the_bytes_that_came() -> None:
    """Raw target, header order, spelling and repeats, digest of the body, times in order."""
    body = json.dumps({"model": "m", "messages": ECHO}).encode()
    raw = (
        b"POST /v1/chat/completions?a=%%2Fb&a=2 HTTP/1.1\r\nHoSt: s\r\nX-Two: 1\r\nx-two: 2\r\nx-high: \xe9\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    ) + body
    async with running_simulator() as sim:
        await raw_exchange(sim.port, raw)
        entry = sim.last

    assert "/v1/chat/completions?a=%2Fb&a=2" == entry.target
    assert [("HoSt", "s"), ("X-Two", "1"), ("x-two", "2"), ("x-high", "é")] == entry.headers[:4]
    assert (hashlib.sha256(body).hexdigest(), body) == (entry.sha256, entry.body)
    assert entry.started_s <= entry.received_s <= entry.first_byte_s <= entry.ended_s
    assert (200, True, "", "m") == (entry.status, entry.is_complete, entry.closed_by, entry.model)


async def test_client_that_leaves_is_seen_at_once() -> None:
    """UF-21 and AU-12 read the moment of the close from here."""
    async with running_simulator(rate=50.0, tokens=500) as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(chat_request(stream=True))
        await reader.readuntil(b"Lorem")
        left_s = time.monotonic()
        writer.transport.abort()
        entry = (await sim.wait_until_ended(1))[0]

    assert ("peer", False) == (entry.closed_by, entry.is_complete)
    assert 0 <= entry.ended_s - left_s < 0.2
    assert 0 < entry.events_sent < 500


async def test_script_takes_precedence_and_is_used_up() -> None:
    """Exactly the next requests that match, in order; then health."""
    async with running_simulator() as sim:
        sim.script(
            "503", {"fault": "429", "times": 2}, {"path": "/embeddings", "fault": "500"}, {"content": "scripted"}
        )
        statuses = [(await raw_exchange(sim.port, chat_request())).status for _ in range(3)]
        scripted = await raw_exchange(sim.port, chat_request())
        embedded = await post(sim, "/embeddings", {"input": "x"})
        healed = await raw_exchange(sim.port, chat_request())

    assert [503, 429, 429] == statuses
    assert "scripted" == json.loads(scripted.rest)["choices"][0]["message"]["content"]
    assert (500, 200) == (embedded[0], healed.status)


async def test_fault_comes_by_marker_model_provider_and_for_all() -> None:
    """Five ways in, and every_nth thins the last."""
    async with running_simulator(fault="504:every_nth=2") as sim:
        sim.fault_for_model("bad", "502")
        sim.board.by_provider["groq"] = sim.provider.board.by_model["bad"]
        marked = await raw_exchange(sim.port, chat_request("[[sim 418]] hello"))
        named = await raw_exchange(sim.port, chat_request(model="sim/422"))
        by_model = await raw_exchange(sim.port, chat_request(model="bad"))
        by_provider = await post(sim, "/chat/completions", {"messages": ECHO}, "/groq/openai/v1")
        for_all = [(await raw_exchange(sim.port, chat_request())).status for _ in range(4)]

    assert [418, 422, 502, 502] == [marked.status, named.status, by_model.status, by_provider[0]]
    assert [200, 504, 200, 504] == for_all


async def test_idle_connections_are_closed_on_demand_and_by_time() -> None:
    """Stale pooled connections, both kinds."""
    async with running_simulator(keepalive_s=0.2) as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(chat_request())
        await read_answer(reader, 0.2)
        closed = sim.provider.close_idle()
        demanded = await read_answer(reader, 0.5)
        timed = await raw_exchange(sim.port, chat_request().replace(b"host", b"Host"), 0.1)
        reader2, writer2 = await asyncio.open_connection("127.0.0.1", sim.port)
        idle = await read_answer(reader2, 1.0)
        for one in (writer, writer2):
            one.close()

    assert (1, "eof") == (closed, demanded.ended)
    assert 200 == timed.status
    assert "eof" == idle.ended
    assert "simulator" == sim.journal.connections[-1].closed_by


async def test_realtime_socket_talks_echoes_and_closes() -> None:
    """Subprotocol, events, binary echo, ping, close code both ways."""
    async with running_simulator() as sim, aiohttp.ClientSession() as session:
        url = f"{sim.base_url}/realtime?model=gpt-realtime"
        async with session.ws_connect(url, protocols=("realtime", "other")) as socket:
            created = await socket.receive_json()
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "echo: hi there"}]}
            await socket.send_json({"type": "conversation.item.create", "item": item})
            await socket.send_json({"type": "response.create"})
            heard = []
            while not heard or heard[-1]["type"] != "response.done":
                heard.append(await socket.receive_json())
            await socket.send_bytes(bytes(70_000))
            binary = await socket.receive_bytes()
            await socket.ping(b"x")
            await socket.send_json({"type": "sim.close", "code": 4001, "reason": "enough"})
            closing = await socket.receive()
        entry = (await sim.wait_until_ended(1))[0]

    assert ("session.created", "realtime") == (created["type"], socket.protocol)
    assert "hi there" == "".join(event.get("delta", "") for event in heard)
    assert 70_000 == len(binary)
    assert (4001, "enough") == (closing.data, closing.extra)
    assert 101 == entry.status


async def test_responses_socket_serves_several_turns_and_refusal_is_http() -> None:
    """Codex falls back to POST when the upgrade is refused with an HTTP error."""
    async with running_simulator() as sim, aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{sim.base_url}/responses") as socket:
            for turn in ("one", "two"):
                await socket.send_json({"type": "response.create", "model": "m", "input": f"echo: {turn}"})
                texts = []
                while (event := await socket.receive_json())["type"] != "response.completed":
                    texts.append(event.get("delta", ""))
                assert turn == "".join(texts)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{sim.base_url}/responses", headers={"x-sim-fault": "503"})

    assert 503 == refused.value.status


async def test_big_streams_do_not_pile_up_for_a_slow_reader() -> None:
    """Back-pressure: a reader that does not read stops the writer."""
    async with running_simulator(tokens=60_000) as sim:
        _, writer = await asyncio.open_connection("127.0.0.1", sim.port, limit=1024)
        writer.write(chat_request(stream=True))
        sent, later = -1, 0
        while sent != later:
            sent = later
            await asyncio.sleep(0.3)
            later = sim.last.bytes_sent if len(sim.journal) else -2
        is_ended = sim.last.is_ended
        writer.transport.abort()

    assert 0 < later < 10_000_000
    assert not is_ended


async def test_bench_answers_are_fixed_and_counted() -> None:
    """About 0.8 KB plain, N events streamed, admin doors still there."""
    async with running_simulator(bench=True, bench_events=10) as sim, aiohttp.ClientSession() as session:
        _, plain = await post(sim, "/chat/completions", {"messages": ECHO})
        _, stream = await post(sim, "/chat/completions", {"messages": ECHO, "stream": True})
        async with session.get(f"{sim.origin}/__sim__/stats") as answer:
            stats = await answer.json()

    assert 750 < len(json.dumps(plain, separators=(",", ":"))) < 900
    assert 10 == str(stream).count("data: ")
    assert (2, 10) == (stats["bench_requests"], stats["bench_events"])


async def test_own_admin_port_hides_the_doors() -> None:
    """With a port of their own the doors are gone from the API port."""
    async with SimulatedProvider(Settings(admin_port=0)) as provider:
        on_api = await raw_exchange(provider.port, b"GET /__sim__/stats HTTP/1.1\r\nhost: s\r\n\r\n")
        on_admin = await raw_exchange(provider.admin_port or 0, b"GET /__sim__/stats HTTP/1.1\r\nhost: s\r\n\r\n")

    assert (404, 200) == (on_api.status, on_admin.status)


def ask_process(origin: str, request: bytes) -> int:
    return asyncio.run(raw_exchange(int(origin.rpartition(":")[2]), request)).status


def test_process_is_steered_through_its_doors(tmp_path: Path) -> None:
    """Tests in other processes read the journal and set faults; the file has a line per request."""
    journal = tmp_path / "journal.jsonl"
    with simulator_process("--journal", str(journal), "--tokens", "3") as sim:
        first = ask_process(sim.origin, chat_request())
        sim.script("503")
        second = ask_process(sim.origin, chat_request())
        sim.fault("429")
        third = ask_process(sim.origin, chat_request())
        entries, stats = sim.journal(after=1), sim.stats()
        sim.reset()
        emptied = sim.journal()

    assert [200, 503, 429] == [first, second, third]
    assert ["503", "429"] == [entry["fault"] for entry in entries]
    assert (3, []) == (stats["requests"], emptied)
    assert 3 == len(journal.read_text().splitlines())
    assert 0 == sim.process.returncode


@pytest.mark.parametrize(
    ("arguments", "said_so"),
    [
        (["--port", "{busy}"], "is taken by another process"),
        (["--fault", "stal"], "did you mean 'stall'"),
        (["--latency", "soon"], "expected a duration"),
        (["--say", "eol=x"], "expected lf, crlf or cr"),
        (["--journal", "/no/such/folder/j", "--port", "0"], "cannot write the journal /no/such/folder/j"),
    ],
)
def test_wrong_usage_gets_a_sentence_and_exit_code_2(arguments: list[str], said_so: str) -> None:
    """No traceback for a newcomer."""
    with simulator_process() as running:
        words = [word.format(busy=running.port) for word in arguments]
        command = [sys.executable, "-m", "proxy", "simulate", "provider", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    assert 2 == done.returncode
    assert said_so in done.stderr
    assert "Traceback" not in done.stderr


async def test_journal_says_what_was_billed_even_when_the_answer_does_not() -> None:
    """Budgets are judged by what the provider counts, not by what it tells."""
    async with running_simulator(prompt_tokens=7, completion_tokens=5) as simulator:
        await raw_exchange(simulator.port, chat_request())
        await raw_exchange(simulator.port, chat_request(stream=True))
        await raw_exchange(simulator.port, chat_request("[[sim ok:usage=no,completion_tokens=40]]"))
        await raw_exchange(simulator.port, chat_request("[[sim 503]]"))

        assert [(7, 5), (7, 5), (7, 40), (0, 0)] == [(e.tokens_in, e.tokens_out) for e in simulator.entries]
