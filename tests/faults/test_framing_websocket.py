"""Websockets as a tunnel: frames, close codes and ends cross both ways; a handshake that fails stays HTTP."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterator

import pytest

from tests.support.raw_provider import RawProvider, raw_provider
from tests.support.rawhttp import Answer, Broken, RawCaller, raw_chat, raw_request
from tests.support.sidecar import GOOG_KEY, OWN_KEY, Stage, cases, stage

pytestmark = pytest.mark.faults

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
OFFER = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def offer(
    *lines: bytes, target: str = "/v1/realtime?model=gpt-realtime%2Fx", headers: tuple[bytes, ...] = OFFER
) -> bytes:
    """Return a handshake."""
    return raw_request("GET", target, *headers, *lines)


def frame(opcode: int, payload: bytes, *, is_final: bool = True) -> bytes:
    """Return one masked frame."""
    mask = os.urandom(4)
    size = len(payload)
    head = bytes([(0x80 if is_final else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", size)
    repeated = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big") if size else b""
    return head + mask + masked


def next_frame(caller: RawCaller) -> tuple[int, bytes]:
    """Read one unmasked frame."""
    first, second = caller.read_exactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", caller.read_exactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", caller.read_exactly(8))
    return first & 0x0F, caller.read_exactly(size)


def greeted(running: Stage, *lines: bytes) -> tuple[RawCaller, Answer]:
    """Open a websocket; its greeting is read."""
    caller = running.caller()
    caller.send(offer(*lines))
    answer = caller.read()
    assert 101 == answer.status, answer.text
    opcode, payload = next_frame(caller)
    assert (TEXT, "session.created") == (opcode, json.loads(payload)["type"])
    return caller, answer


def test_handshake_crosses_with_query_protocol_and_key(ordinary: Stage) -> None:
    """The query keeps its escapes, the subprotocol is the provider's choice, the key is ours."""
    caller, answer = greeted(ordinary, b"Sec-WebSocket-Protocol: realtime, other", b"Authorization: Bearer sk-callers")
    with caller:
        entry = ordinary.provider.last

    assert (ACCEPT, "realtime") == (answer.get("sec-websocket-accept"), answer.get("sec-websocket-protocol"))
    assert ("websocket", "upgrade") == (answer.get("upgrade").lower(), answer.get("connection").lower())
    assert answer.get("x-readygate-id")
    assert ("/v1/realtime?model=gpt-realtime%2Fx", [f"Bearer {OWN_KEY}"]) == (
        entry.target,
        entry.header_values("authorization"),
    )


def test_frames_cross_byte_for_byte(ordinary: Stage) -> None:
    """Text, binary, a ping, fragments, and 5 MiB in one frame: nothing is parsed on the way."""
    caller, _ = greeted(ordinary)
    big = os.urandom(5 * 1024 * 1024)
    with caller:
        caller.send(
            frame(BINARY, b"\x00\xff"), frame(PING, b"p"), frame(TEXT, b'"caf', is_final=False), frame(0, b'\xc3\xa9"')
        )
        small = [next_frame(caller) for _ in range(3)]
        caller.send(frame(BINARY, big))
        opcode, echoed = next_frame(caller)

    assert [(BINARY, b"\x00\xff"), (PONG, b"p")] == small[:2]
    assert "caf\u00e9" == json.loads(small[2][1])["json"]
    assert (BINARY, True) == (opcode, echoed == big)


def test_first_frame_may_ride_behind_the_handshake(ordinary: Stage) -> None:
    """A hasty caller's bytes wait for the answer and then go first."""
    with ordinary.caller() as caller:
        caller.send(offer() + frame(BINARY, b"hasty"))
        assert 101 == caller.read().status
        frames = [next_frame(caller), next_frame(caller)]

    assert (BINARY, b"hasty") in frames


def test_first_frame_may_ride_behind_the_answer(ordinary: Stage) -> None:
    """The provider speaks first in one write with its 101."""
    for _ in range(5):
        caller, _ = greeted(ordinary)
        caller.sock.close()


@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (4001, "app says no"), (1011, "")])
def test_close_code_of_the_provider_reaches_the_caller(ordinary: Stage, code: int, reason: str) -> None:
    """Apps decide by the code whether to connect again."""
    caller, answer = greeted(ordinary)
    with caller:
        caller.send(frame(TEXT, json.dumps({"type": "sim.close", "code": code, "reason": reason}).encode()))
        opcode, payload = next_frame(caller)
        caller.send(frame(CLOSE, payload))
        end, rest = caller.ending(2.0)

    assert (CLOSE, struct.pack("!H", code) + reason.encode()) == (opcode, payload)
    assert ("eof", b"") == (end, rest)
    assert ("success", 101) == tuple(ordinary.row(answer)[key] for key in ("status", "http_status"))


@pytest.mark.parametrize("code", [1000, 4002])
def test_close_code_of_the_caller_reaches_the_provider_and_comes_back(ordinary: Stage, code: int) -> None:
    """The closing handshake is between the two ends."""
    caller, answer = greeted(ordinary)
    with caller:
        caller.send(frame(CLOSE, struct.pack("!H", code) + b"done"))
        opcode, payload = next_frame(caller)
        end, _ = caller.ending(2.0)
    entry = ordinary.provider.last

    assert (CLOSE, struct.pack("!H", code) + b"done", "eof") == (opcode, payload, end)
    assert entry.is_complete
    assert 101 == ordinary.row(answer)["http_status"]


def test_provider_that_resets_ends_the_caller(ordinary: Stage) -> None:
    """No close frame is made up: an abnormal end stays abnormal (1006 in the app)."""
    caller, _ = greeted(ordinary)
    with caller:
        caller.send(frame(TEXT, b'{"type":"sim.reset"}'))
        end, rest = caller.ending(2.0)

    assert (True, b"") == (end != "open", rest)


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_caller_that_vanishes_is_told_to_the_provider(ordinary: Stage, how: str) -> None:
    """A session that goes on alone is paid for by the minute."""
    live = ordinary.sidecar.metric("readygate_live_exchanges")
    caller, answer = greeted(ordinary)
    entry = ordinary.provider.last
    if how == "fin":
        caller.sock.close()
    else:
        caller.reset()
    deadline_s = time.monotonic() + 1.0
    while (
        not (entry.is_ended and live >= ordinary.sidecar.metric("readygate_live_exchanges"))
        and time.monotonic() < deadline_s
    ):
        time.sleep(0.01)  # noqa: TID251 - no event loop here

    assert (True, "peer") == (entry.is_ended, entry.closed_by)
    assert 101 == ordinary.row(answer)["http_status"]
    assert live >= ordinary.sidecar.metric("readygate_live_exchanges")


def test_refused_handshake_is_passed_and_the_connection_stays_http(ordinary: Stage) -> None:
    """Codex falls back to POST by itself when it gets an HTTP error."""
    with ordinary.caller() as caller:
        caller.send(offer(b"X-Sim-Fault: 426"))
        refused = caller.read()
        if not refused.closes:
            caller.send(raw_chat("echo: fallback"))
            assert "fallback" == caller.read().json()["choices"][0]["message"]["content"]

    assert 426 == refused.status
    assert not refused.all("upgrade")


def test_bytes_behind_a_refused_handshake_are_never_a_request(ordinary: Stage) -> None:
    """CVE-2024-23326: what was meant for a tunnel that never came must not be read as HTTP, then or later."""
    rider = b"GET /v1/files/tunnel-rider HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ordinary.caller() as caller:
        caller.send(offer(b"X-Sim-Fault: 404") + rider)
        first = caller.read()
        end, rest = caller.ending(0.3)
        if end == "open":
            assert caller.try_send(raw_request("GET", "/v1/models"))
            after = caller.read()
            assert "list" == after.json()["object"]

    assert (404, b"") == (first.status, rest)
    assert not ordinary.entries("tunnel-rider")


def test_bytes_held_for_a_refused_handshake_do_not_enter_a_later_tunnel(ordinary: Stage) -> None:
    """One connection, two handshakes: what rode behind the first belongs to nobody."""
    with ordinary.caller() as caller:
        caller.send(offer(b"X-Sim-Fault: 404") + frame(BINARY, b"stale"))
        assert 404 == caller.read().status
        try:
            caller.send(offer())
            second = caller.read()
        except (Broken, ConnectionError):
            return  # closed: as good
        assert 101 == second.status
        caller.send(frame(BINARY, b"fresh"))
        frames = [next_frame(caller), next_frame(caller)]

    assert (BINARY, b"stale") not in frames
    assert (BINARY, b"fresh") in frames


@pytest.mark.parametrize(
    "lines",
    [
        (b"Connection: Upgrade", b"Upgrade: websocket"),
        (b"Connection: Upgrade", b"Upgrade: h2c, websocket"),
        (b"Connection: keep-alive", b"Upgrade: websocket"),
        (b"Upgrade: websocket",),
    ],
    ids=["no key", "a list", "not in Connection", "no Connection"],
)
def test_half_an_offer_never_opens_a_tunnel(ordinary: Stage, lines: tuple[bytes, ...]) -> None:
    """Only a whole handshake that the provider accepts may turn HTTP into bytes."""
    with ordinary.caller(2.0) as caller:
        caller.send(raw_request("GET", "/v1/realtime", *lines))
        answer = caller.read()

    assert 101 != answer.status


def test_wrong_caller_key_never_opens_a_tunnel(guarded: Stage, caller_key: str) -> None:
    """A handshake is authenticated like any request, also with a browser's key in the subprotocol."""
    asked = guarded.asked
    wrong = guarded.ask(offer(b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.wrong"))
    none = guarded.ask(offer())
    seen = guarded.asked
    right = guarded.ask(offer(b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key." + caller_key.encode()))

    assert (401, 401, asked, 101) == (wrong.status, none.status, seen, right.status)


def test_caller_key_in_a_subprotocol_stays_here(guarded: Stage, caller_key: str) -> None:
    """I8: the key that opens this sidecar is no business of any provider's."""
    guarded.ask(offer(b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key." + caller_key.encode()))
    entry = guarded.provider.last

    assert "realtime" in (entry.header("sec-websocket-protocol") or "")
    assert caller_key not in str(entry.headers)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, RawProvider]]:
    """A sidecar in front of a provider of raw bytes."""
    with raw_provider() as provider:
        config = 'providers:\n  odd: {{base_url: "' + provider.base_url + '"}}\n'
        policy = (
            'version: 1\npolicy: raw\nroutes: [{match: {models: ["*"]}, chain: [{provider: odd}], retries: none}]\n'
        )
        with stage(tmp_path_factory.mktemp("odd"), config=config, policies={"raw.yaml": policy}) as running:
            yield running, provider


SWITCHED = b"HTTP/1.1 101 Switching Protocols"


@pytest.mark.parametrize(
    ("head", "status"),
    cases(
        {
            "websocket": (
                SWITCHED + b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + ACCEPT.encode(),
                (101,),
            ),
            "another protocol": (SWITCHED + b"\r\nConnection: Upgrade\r\nUpgrade: h2c", (502, 503)),
            "no protocol": (SWITCHED, (502, 503)),
        },
    ),
)
def test_only_a_switch_to_websocket_opens_the_tunnel(
    odd: tuple[Stage, RawProvider], head: bytes, status: tuple[int, ...]
) -> None:
    """A provider that switches to something nobody asked for has lost its mind; its bytes stay there."""
    running, provider = odd
    provider.answer(head + b"\r\n\r\n", b"poison", gap_s=0.05)
    with running.caller(2.0) as caller:
        caller.send(offer())
        answer = caller.read()
        _, rest = caller.ending(0.3)

    assert answer.status in status
    assert (b"poison" if answer.status == 101 else b"") == rest
    assert GOOG_KEY not in answer.text
