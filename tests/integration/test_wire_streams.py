"""How streams end: whole, with an error event after the first token, or cut as the provider cut them; never falsely whole."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import (
    Message,
    Sidecar,
    caller,
    chat,
    eventually,
    request,
    sidecar_for,
    stream_text,
    threaded_simulator,
)

pytestmark = pytest.mark.integration

PACED = {"x-sim-speech": "rate=100"}
"""Events come one by one, so that the first has left before the break."""

BEFORE_THE_FIRST_TOKEN = ["503", "html", "reset:after=head", "cut:after=prelude", "error_event:after=0"]


def _routes() -> str:
    """One route per mode, each a deployment of its own so that their breakers do not meet."""
    rows = [
        ("auto-one", "retries: none", "{provider: main, model: served}"),
        ("auto-retry", "retries: once", "{provider: main, model: served-r}"),
        ("auto-two", "retries: none", "{provider: main, model: served-a}, {provider: second, model: served-b}"),
        ("event", "retries: none, broken_stream: event", "{provider: main, model: served-e}"),
        ("cut", "retries: once, broken_stream: cut", "{provider: main, model: served-c}"),
        ("quick", "retries: none, broken_stream: event, timeouts: {idle: 250ms}", "{provider: main, model: served-q}"),
        ("silent", "retries: none, timeouts: {idle: 250ms}", "{provider: main, model: served-s}"),
    ]
    pair = "{provider: main, model: first-%d}, {provider: second, model: second-%d}"
    rows += [(f"fallback-{i}", "retries: none", pair % (i, i)) for i in range(len(BEFORE_THE_FIRST_TOKEN))]
    return "".join(
        f"  - {{name: {name}, match: {{models: ['{name}*']}}, chain: [{chain}], {rest}}}\n"
        for name, rest, chain in rows
    )


POLICY = f"""
version: 1
policy: default
routes:
{_routes()}
  - {{name: any, match: {{models: ["*"]}}, chain: [{{provider: main}}], retries: none}}
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def stream_sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f"""
providers:
  main: {{base_url: "{provider.base_url}"}}
  second: {{base_url: "{provider.origin}/second/v1"}}
"""
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), config, POLICY) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


def is_error_end(answer: Message, code: str) -> dict[str, str]:
    """Hold a broken stream to its convention: text, then one error event, no [DONE], and a connection cut short."""
    assert 200 == answer.status
    assert "[DONE]" not in answer.events
    last = json.loads(answer.events[-1])
    assert {"error"} == set(last)
    assert {"message", "type", "param", "code", "request_id"} == set(last["error"])
    assert code == last["error"]["code"]
    assert answer.get("x-readygate-id") == last["error"]["request_id"]
    assert answer.body.endswith(b"\n\n"), "a half-sent event stands before the end"
    assert answer.ended == "eof", "the framing was closed, so a client takes the partial text for whole"
    error: dict[str, str] = last["error"]
    return error


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("reset:after=5", "upstream_reset"),
        ("cut:after=5", "upstream_truncated"),
        ("clean_end:after=5", "upstream_truncated"),
        ("stall:after=5", "upstream_stalled"),
        ("malformed:after=5,kind=json", "upstream_bad_stream"),
    ],
)
def test_break_after_the_first_token_is_an_error_event(
    stream_sidecar: Sidecar, provider: Simulator, fault: str, code: str
) -> None:
    """With ``broken_stream: event`` the SDK raises, and says what happened."""
    model = "quick-" + re.sub(r"\W", "-", fault)
    provider.script(fault)
    answer = stream_sidecar.ask(chat("echo: one two three four five six seven eight", PACED, model=model, stream=True))

    is_error_end(answer, code)
    assert "one two three" in stream_text(answer)
    row = stream_sidecar.row(answer.get("x-readygate-id"))
    assert ("error", 200, code) == (row["status"], row["http_status"], row["error_code"])
    assert 1 == row["attempt_count"]


@pytest.mark.parametrize("model", ["auto-retry", "auto-two"])
@pytest.mark.parametrize("fault", ["reset:after=5", "cut:after=5"])
def test_auto_says_it_in_band_where_the_route_does_more_than_pass(
    stream_sidecar: Sidecar, provider: Simulator, model: str, fault: str
) -> None:
    """A route with retries or a chain is not a wire; its caller is told in the stream."""
    provider.script(fault)
    answer = stream_sidecar.ask(chat("echo: one two three four five six seven eight", PACED, model=model, stream=True))

    assert "error" in json.loads(answer.events[-1])
    assert "eof" == answer.ended


@pytest.mark.parametrize(
    ("model", "fault"), [("auto-one", "reset:after=5"), ("auto-one", "cut:after=5"), ("cut", "cut:after=5")]
)
def test_cut_mirrors_the_break_of_the_wire(
    stream_sidecar: Sidecar, provider: Simulator, model: str, fault: str
) -> None:
    """A route of one target without retries is transparent: what the provider cut is cut, with nothing added."""
    provider.script(fault)
    answer = stream_sidecar.ask(chat("echo: one two three four five six seven eight", PACED, model=model, stream=True))

    assert answer.ended in ("eof", "reset")
    assert b'"error"' not in answer.body
    assert "[DONE]" not in answer.events
    assert "one two three" in stream_text(answer)
    assert "error" == stream_sidecar.row(answer.get("x-readygate-id"))["status"]


def test_event_is_kept_even_on_a_transparent_route(stream_sidecar: Sidecar, provider: Simulator) -> None:
    """``broken_stream: event`` means what it says."""
    provider.script("cut:after=5")

    is_error_end(
        stream_sidecar.ask(chat("echo: a b c d e f g", PACED, model="event", stream=True)), "upstream_truncated"
    )


def test_stall_on_a_transparent_route_is_still_told(stream_sidecar: Sidecar, provider: Simulator) -> None:
    """Silence is no break of the wire: cutting would hide that it was our deadline that ended it."""
    provider.script("stall:after=3")
    answer = stream_sidecar.ask(chat("echo: a b c d e f g", PACED, model="silent", stream=True))

    is_error_end(answer, "upstream_stalled")


def test_providers_own_error_event_passes_and_is_not_doubled(stream_sidecar: Sidecar, provider: Simulator) -> None:
    """The provider said it in band already: its words stand, ours do not follow, [DONE] neither."""
    provider.script("error_event:after=3,message=overload")
    answer = stream_sidecar.ask(chat("echo: a b c d e f g", PACED, model="event-own", stream=True))

    errors = [event for event in answer.events if '"error"' in event]
    assert 1 == len(errors)
    assert "overload" in errors[0]
    assert "[DONE]" not in answer.events
    assert "error" == stream_sidecar.row(answer.get("x-readygate-id"))["status"]


@pytest.mark.parametrize("fault", BEFORE_THE_FIRST_TOKEN)
def test_break_before_the_first_token_falls_back_unseen(
    stream_sidecar: Sidecar, provider: Simulator, fault: str
) -> None:
    """Nothing was sent yet, so the caller sees one whole stream from the next target."""
    number = BEFORE_THE_FIRST_TOKEN.index(fault)
    provider.fault_for_model(f"first-{number}", fault)
    answer = stream_sidecar.ask(chat("echo: whole text", model=f"fallback-{number}", stream=True))

    assert ("whole", "[DONE]") == (answer.ended, answer.events[-1])
    assert "whole text" == stream_text(answer)
    assert ("second", "2") == (answer.get("x-readygate-provider"), answer.get("x-readygate-attempts"))
    assert "fallback" == stream_sidecar.row(answer.get("x-readygate-id"))["status"]


def test_break_before_the_first_token_without_a_chain_is_a_plain_refusal(
    stream_sidecar: Sidecar, provider: Simulator
) -> None:
    """No 200 was sent: the caller gets a real status, and the SDK may retry."""
    provider.script("cut:after=prelude")
    answer = stream_sidecar.ask(chat(model="event-early", stream=True))

    assert (502, "upstream_truncated") == (answer.status, answer.error["code"])


def test_responses_stream_ends_with_its_own_error_event(stream_sidecar: Sidecar, provider: Simulator) -> None:
    """The Responses API names its events; its SDK reads ``event: error``."""
    provider.script("cut:after=5")
    body = json.dumps({"model": "event-r", "input": "echo: a b c d e f g", "stream": True}).encode()
    answer = stream_sidecar.ask(request("POST", "/v1/responses", body, {"Content-Type": "application/json", **PACED}))

    assert b"event: error\ndata: " in answer.body
    last = json.loads(answer.events[-1])
    assert ("error", "upstream_truncated") == (last["type"], last["code"])
    assert "eof" == answer.ended


def test_anthropic_stream_ends_with_its_own_error_event(stream_sidecar: Sidecar, provider: Simulator) -> None:
    """The Anthropic SDK reads ``event: error`` with ``type: error``."""
    provider.script("cut:after=5")
    messages = [{"role": "user", "content": "echo: a b c d e f g"}]
    body = json.dumps({"model": "event-m", "max_tokens": 50, "messages": messages, "stream": True}).encode()
    answer = stream_sidecar.ask(request("POST", "/v1/messages", body, {"Content-Type": "application/json", **PACED}))

    assert answer.body.rstrip().split(b"\n")[-2] == b"event: error"
    assert "error" == json.loads(answer.events[-1])["type"]


@pytest.mark.parametrize(
    "speech",
    ["eol=crlf", "eol=cr", "bom=yes", "comments=yes", "nospace=yes", "multiline=yes", "fields=yes",
     "split=1", "split=7,gap=1ms", "utf16=yes,chars=1", "usage=no"],
)  # fmt: skip
def test_odd_but_lawful_streams_arrive_byte_for_byte(stream_sidecar: Sidecar, provider: Simulator, speech: str) -> None:
    """What a provider may say about framing of events is passed as it said it, whatever the split."""
    headers = {"x-sim-speech": speech}
    data = chat("echo: h\u00e9llo \U0001f600 world", headers, model="gpt-same", stream=True)
    through = stream_sidecar.ask(data)
    with caller(provider.port) as wire:
        wire.send(data)
        direct = wire.message()

    number = re.compile(rb"sim[0-9a-f]+")
    assert "whole" == through.ended
    assert number.sub(b"sim", direct.body) == number.sub(b"sim", through.body)


def test_last_event_without_a_blank_line_arrives_byte_for_byte(stream_sidecar: Sidecar, provider: Simulator) -> None:
    """Nothing touches this stream, so nothing is added to it."""
    test_odd_but_lawful_streams_arrive_byte_for_byte(stream_sidecar, provider, "tight_end=yes")


def test_stream_passes_as_it_comes(stream_sidecar: Sidecar) -> None:
    """The first token must not wait for the last: ten events a second arrive ten a second."""
    with caller(stream_sidecar.data_port) as wire:
        wire.send(chat("echo: a b c d e f", {"x-sim-speech": "rate=10"}, model="gpt-paced", stream=True))
        seen_s = []
        for letter in "abcdef":
            assert "" == wire.until(
                f'"content":"{letter}'.encode() if letter == "a" else f'"content":" {letter}'.encode()
            )
            seen_s.append(time.monotonic())

    gaps = [later - sooner for sooner, later in pairwise(seen_s)]
    assert min(gaps) > 0.03, gaps
    assert max(gaps) < 0.4, gaps


@pytest.mark.parametrize("when", ["before_the_head", "in_mid_stream"])
def test_caller_that_leaves_cancels_the_provider_within_a_second(
    stream_sidecar: Sidecar, provider: Simulator, when: str
) -> None:
    """Nobody pays for tokens that nobody reads, and the row says who left."""
    speech = "latency=20s" if when == "before_the_head" else "rate=20,tokens=2000"
    conversation = f"leaves-{when}"
    with caller(stream_sidecar.data_port) as wire:
        wire.send(
            chat(
                model="gpt-leave",
                stream=True,
                headers={"x-sim-speech": speech, "x-readygate-conversation": conversation},
            )
        )
        if when == "in_mid_stream":
            wire.until(b"content")
        else:
            eventually(lambda: bool(provider.entries), "the provider was not asked")
    left_s = time.monotonic()

    eventually(lambda: provider.entries[0].is_ended, "the provider still works", within_s=2.0)
    assert time.monotonic() - left_s < 1.0
    assert "peer" == provider.entries[0].closed_by
    row = stream_sidecar.rows("conversation = ?", conversation, count=1)[0]
    assert ("cancelled", "client_cancelled") == (row["status"], row["outcome"])


def test_slow_reader_holds_the_provider_back(stream_sidecar: Sidecar, provider: Simulator) -> None:
    """Back-pressure: 40 MB are not gathered in the sidecar for a caller that does not read."""
    with caller(stream_sidecar.data_port) as wire:
        wire.send(request("GET", "/v1/files/none", headers={"x-sim-fault": "huge:size=40MiB"}))
        time.sleep(1.0)  # noqa: TID251 - the caller does nothing, on purpose
        sent = provider.entries[0].bytes_sent
        got = len(wire.message().body)

    assert sent < 20 * 1024 * 1024
    assert 40 * 1024 * 1024 <= got
