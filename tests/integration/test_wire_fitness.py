"""Targets that cannot take a request, or may not have it, are passed over, and the row says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, chat, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
redaction: {request: {default: 'off', rules: [{types: [email], action: observe}, {types: [cpf], action: restore}]}}
routes:
  - match: {models: [long]}
    chain: [{provider: one, model: s, context: 1000}, {provider: two, model: m, context: 2000}, {provider: three, model: l, context: 9000}]
    retries: none
  - match: {models: [seen]}
    chain: [{provider: one, model: text, modalities: [text]}, {provider: two, model: eyes, modalities: [text, image]}]
    retries: none
  - match: {models: [private]}
    chain: [{provider: one, model: foreign, personal_data: none}, {provider: two, model: own}]
    retries: none
  - match: {models: [params]}
    chain: [{provider: one, model: odd, drop_params: [seed, logit_bias], rename_params: {max_tokens: max_completion_tokens}}]
"""
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.invalid/a.png"}}]}]
AUDIO = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}]


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    rows = "".join(f'  {name}: {{base_url: "{provider.origin}/{name}/v1"}}\n' for name in ("one", "two", "three"))
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), f"providers:\n{rows}", POLICY) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


def ask(sidecar: Sidecar, model: str, content: str = "hi", **fields: Any) -> Message:
    return sidecar.ask(chat(content, model=model, **fields))


def asked(provider: Simulator) -> list[str]:
    return [entry.provider for entry in provider.entries]


def notes_of(sidecar: Sidecar, answer: Message) -> list[str]:
    notes: list[str] = json.loads(sidecar.row(answer.get("x-readygate-id"))["notes"])
    return notes


@pytest.mark.parametrize(("size", "calls"), [(100, ["one"]), (6000, ["two"]), (20000, ["three"])])
def test_request_goes_to_the_first_target_that_can_read_it(
    sidecar: Sidecar, provider: Simulator, size: int, calls: list[str]
) -> None:
    """By the size of its text."""
    answer = ask(sidecar, "long", "a " * (size // 2))

    assert (200, calls) == (answer.status, asked(provider))
    skipped = {"one": [], "two": ["skipped:one:context"], "three": ["skipped:one:context", "skipped:two:context"]}
    assert skipped[calls[0]] == notes_of(sidecar, answer)


def test_request_too_long_for_every_target_is_refused(sidecar: Sidecar, provider: Simulator) -> None:
    """Before anybody is asked."""
    answer = ask(sidecar, "long", "a " * 30000)

    assert (400, "no_suitable_target", []) == (answer.status, answer.error["code"], asked(provider))
    assert ("policy", "false") == (answer.get("x-readygate-fault"), answer.get("x-should-retry"))


def test_context_error_walks_to_larger_targets_only(sidecar: Sidecar, provider: Simulator) -> None:
    """The provider counts better than we do; its own words are shown when nobody is larger."""
    provider.fault_for_provider("one", "400:code=context_length_exceeded,message=too many")
    answer = ask(sidecar, "long")
    assert (200, ["one", "two"]) == (answer.status, asked(provider))

    provider.reset()
    for name in ("one", "two", "three"):
        provider.fault_for_provider(name, "400:code=context_length_exceeded,message=too many")
    refused = ask(sidecar, "long")
    assert (400, "context_length_exceeded") == (refused.status, refused.error["code"])
    assert ["one", "two", "three"] == asked(provider)


def test_other_refusals_of_declared_targets_do_not_walk(sidecar: Sidecar, provider: Simulator) -> None:
    """A context is declared, but the caller's error is another one."""
    provider.fault_for_provider("one", "400:code=bad_temperature,message=no")
    answer = ask(sidecar, "long")

    assert (400, ["one"]) == (answer.status, asked(provider))


@pytest.mark.parametrize(("messages", "calls", "status"), [(IMAGE, ["two"], 200), (AUDIO, [], 400)])
def test_content_goes_to_targets_that_can_read_it(
    sidecar: Sidecar, provider: Simulator, messages: list[Any], calls: list[str], status: int
) -> None:
    """An image to the one with eyes, a recording to nobody."""
    answer = ask(sidecar, "seen", messages=messages)

    assert (status, calls) == (answer.status, asked(provider))
    assert "skipped:one:modality" in notes_of(sidecar, answer)


@pytest.mark.parametrize(
    ("text", "calls"),
    [("hello", ["one"]), ("my CPF is 529.982.247-25", ["one"]), ("I am jane.doe@example.org", ["two"])],
    ids=["nothing", "replaced", "seen-and-left"],
)
def test_values_that_stay_go_only_where_they_may(
    sidecar: Sidecar, provider: Simulator, text: str, calls: list[str]
) -> None:
    """Replaced values bother nobody; a value that is only observed passes the strict target over."""
    ask(sidecar, "private", text)

    assert calls == asked(provider)


def test_parameters_are_left_out_and_renamed_with_a_note(sidecar: Sidecar, provider: Simulator) -> None:
    """Declared, done, and in the row."""
    answer = ask(sidecar, "params", seed=3, max_tokens=9, temperature=0.5)

    sent = provider.last.json()
    assert (9, 0.5) == (sent["max_completion_tokens"], sent["temperature"])
    assert {"seed", "max_tokens"}.isdisjoint(sent)
    assert ["dropped:one:seed", "renamed:one:max_tokens"] == notes_of(sidecar, answer)
