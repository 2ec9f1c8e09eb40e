"""Values of a conversation that outlive its turns, through two sidecars that share a real Redis; the provider keeps the history."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.canned_provider import streamed, whole
from tests.support.raw_provider import RawProvider, raw_provider
from tests.support.redis import RedisServer
from tests.support.wire import Message, Sidecar, chat, eventually, request, sidecar_for

pytestmark = pytest.mark.integration

ANA, BEA = "ana.canary@example.org", "bea.canary@example.org"
POLICY = """
version: 2
policy: all
applies_to: {apps: ["*"]}
redaction: {request: {default: restore, keep_values: 1h}}
routes: [{name: all, match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[RawProvider]:
    with raw_provider() as running:
        yield running


def start(stack: ExitStack, folder: Path, provider: RawProvider, store: str, key: str = "k" * 32) -> Sidecar:
    folder.mkdir()
    (folder / "redaction.key").write_text(key)
    config = (
        f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\nredaction_key: {{file: redaction.key}}\n'
        f'budgets: {{store: "{store}"}}\n'
    )
    return stack.enter_context(sidecar_for(folder, config, POLICY))


@pytest.fixture
def pair(provider: RawProvider, own_redis: RedisServer, tmp_path: Path) -> Iterator[tuple[Sidecar, Sidecar]]:
    with ExitStack() as stack:
        yield tuple(start(stack, tmp_path / name, provider, own_redis.url) for name in "ab")  # type: ignore[misc]


def turn(
    sidecar: Sidecar, provider: RawProvider, answer: bytes, said: str, app: str = "", **more: Any
) -> tuple[Message, str]:
    """Return the answer, and what the provider was told."""
    provider.seen.clear()
    provider.answer(answer)
    body = json.dumps({"model": "m", "input": said, **more}).encode()
    kind = {"Content-Type": "application/json", **({"x-readygate-app": app} if app else {})}
    came = sidecar.ask(request("POST", "/v1/responses", body, kind))
    return came, json.loads(provider.seen[-1].body)["input"]


def saying(text: str, name: str) -> bytes:
    part = {"type": "output_text", "text": text, "annotations": []}
    return whole(
        json.dumps({"id": name, "object": "response", "output": [{"type": "message", "content": [part]}]}).encode()
    )


def streaming(text: str, name: str) -> bytes:
    response = {"id": name, "object": "response", "output": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": response}]
    events += [
        {"type": "response.output_text.delta", "delta": text[at : at + 3], **place} for at in range(0, len(text), 3)
    ]
    events += [
        {"type": "response.output_text.done", "text": text, **place},
        {"type": "response.completed", "response": response},
    ]
    return streamed([f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events])


def text_of(answer: Message) -> str:
    said: str = answer.json()["output"][0]["content"][0]["text"]
    return said


def kept(server: RedisServer) -> list[bytes]:
    """Return the names under which the store keeps something."""
    return redis.Redis.from_url(server.url).keys("readygate:*values:*")  # type: ignore[return-value]


def test_answer_about_an_earlier_turn_has_its_value_whichever_sidecar_carries_it(
    pair: tuple[Sidecar, Sidecar], provider: RawProvider
) -> None:
    """Each turn names the answer before it only; the third speaks of the first one's person."""
    _, ana = turn(pair[0], provider, saying("noted", "resp_1"), f"write to {ANA}")
    _, bea = turn(pair[1], provider, saying("noted", "resp_2"), f"and {BEA}", previous_response_id="resp_1")
    both = f"both {ana.split()[-1]} {bea.split()[-1]}"
    answer, left = turn(pair[0], provider, saying(both, "resp_3"), "to whom?", previous_response_id="resp_2")

    assert "canary" not in ana + bea + left
    assert f"both {ANA} {BEA}" == text_of(answer)


def test_streams_keep_and_recall_values_too(
    pair: tuple[Sidecar, Sidecar], provider: RawProvider, own_redis: RedisServer
) -> None:
    """The id stands in the first event, and placeholders are cut by every third character."""
    _, ana = turn(pair[0], provider, streaming("noted", "resp_1"), f"write to {ANA}", stream=True)
    eventually(lambda: len(kept(own_redis)) == 1, "the first turn's value is kept")
    answer, _ = turn(
        pair[1],
        provider,
        streaming(f"so {ana.split()[-1]}.", "resp_2"),
        "whom?",
        stream=True,
        previous_response_id="resp_1",
    )

    events = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]
    said = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert f"so {ANA}." == said
    eventually(lambda: len(kept(own_redis)) == 2, "and is handed on with the second answer's id")


def test_conversation_is_known_by_its_id_and_by_the_callers_header(
    pair: tuple[Sidecar, Sidecar], provider: RawProvider
) -> None:
    """An app that sends the last words only names its conversation."""
    _, said = turn(pair[0], provider, saying("ok", "resp_1"), ANA, conversation={"id": "conv_7"})
    answer, _ = turn(pair[1], provider, saying(said, "resp_2"), "who?", conversation="conv_7")
    assert ANA == text_of(answer)

    headers = {"x-readygate-conversation": "chat-9"}
    done = whole(json.dumps({"id": "c", "choices": [{"index": 0, "message": {"content": said}}]}).encode())
    provider.answer(done)
    pair[0].ask(chat(ANA, headers))
    assert ANA == pair[1].ask(chat("who?", headers)).json()["choices"][0]["message"]["content"]


def test_other_apps_and_other_conversations_get_nothing(pair: tuple[Sidecar, Sidecar], provider: RawProvider) -> None:
    """Whoever guesses the id of an answer still has to be who asked."""
    _, said = turn(pair[0], provider, saying("ok", "resp_1"), ANA, app="shop")
    own, _ = turn(pair[1], provider, saying(said, "resp_2"), "who?", app="shop", previous_response_id="resp_1")
    other, _ = turn(pair[1], provider, saying(said, "resp_3"), "who?", app="bank", previous_response_id="resp_1")
    later, _ = turn(pair[1], provider, saying(said, "resp_4"), "who?", app="shop")

    assert [ANA, said, said] == [text_of(own), text_of(other), text_of(later)]


def test_store_holds_nothing_that_can_be_read_and_forgets_in_time(
    pair: tuple[Sidecar, Sidecar], provider: RawProvider, own_redis: RedisServer
) -> None:
    """Whoever reads the store learns neither a value nor whose conversation it was."""
    turn(pair[0], provider, saying("ok", "resp_secret"), ANA, conversation="conv_secret", app="shop")
    client, names = redis.Redis.from_url(own_redis.url), kept(own_redis)
    dump = repr([(name, client.hgetall(name)) for name in names])

    assert not [word for word in ("canary", "EMAIL", "secret", "shop") if word in dump]
    assert 2 == len(names)
    assert all(0 < client.pttl(name) <= 3_600_000 for name in names)  # type: ignore[operator]


def test_store_that_is_away_costs_a_note_and_a_moment_but_no_answer(
    pair: tuple[Sidecar, Sidecar], provider: RawProvider, own_redis: RedisServer
) -> None:
    """Placeholders of earlier turns come back as they are; this turn's own values come back as ever."""
    _, said = turn(pair[0], provider, saying("ok", "resp_1"), ANA)
    own_redis.stop()
    _, bea = turn(pair[1], provider, saying("ok", "resp_2"), BEA)
    began_s = time.monotonic()
    answer, _ = turn(pair[1], provider, saying(f"{said} {bea}", "resp_3"), BEA, previous_response_id="resp_1")

    assert f"{said} {BEA}" == text_of(answer)
    assert time.monotonic() - began_s < 1.0
    assert "values_not_recalled" in pair[1].row(answer.get("x-readygate-id"))["notes"]


def test_sidecar_without_a_shared_store_keeps_values_itself(provider: RawProvider, tmp_path: Path) -> None:
    """One sidecar needs no Redis for its own conversations."""
    with ExitStack() as stack:
        alone = start(stack, tmp_path / "alone", provider, "memory")
        _, said = turn(alone, provider, saying("ok", "resp_1"), ANA)
        answer, _ = turn(alone, provider, saying(said, "resp_2"), "who?", previous_response_id="resp_1")

        assert ANA == text_of(answer)
