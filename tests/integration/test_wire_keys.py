"""Which key reaches which provider: ours where settings say so, the caller's only where nobody else's is in play."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, chat, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

THEIRS = {"Authorization": "Bearer caller-own-secret-key"}

POLICY = """
version: 1
policy: default
applies_to: {apps: ["*"]}
routes:
  - {match: {models: ["mixed"]}, chain: [{provider: unset}, {provider: keyed}], retries: none}
  - {match: {models: ["alone"]}, chain: [{provider: unset}], retries: none}
  - {match: {models: ["onward"]}, chain: [{provider: keyed}, {provider: open}], retries: none}
  - {match: {models: ["open"]}, chain: [{provider: open}], retries: none}
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f"""
providers:
  unset: {{base_url: "{provider.base_url}", api_key: {{env: NOBODY_SETS_THIS}}}}
  keyed: {{base_url: "{provider.base_url}", api_key: {{env: KEYED_KEY}}}}
  open: {{base_url: "{provider.base_url}"}}
"""
    with sidecar_for(
        tmp_path_factory.mktemp("keys"), config, POLICY, env={"KEYED_KEY": "sk-ours-0123456789"}
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


def test_provider_without_its_key_is_passed_over(sidecar: Sidecar, provider: Simulator) -> None:
    """Its owner has not paid for it, and the caller's key is not meant for it."""
    answer = sidecar.ask(chat(model="mixed", headers=THEIRS))

    assert (200, "keyed") == (answer.status, answer.get("x-readygate-provider"))
    assert ["Bearer sk-ours-0123456789"] == [entry.header("authorization") for entry in provider.entries]


def test_chain_of_providers_without_keys_is_refused_unasked(sidecar: Sidecar, provider: Simulator) -> None:
    """Nobody is dialled, and nobody sees the caller's key."""
    answer = sidecar.ask(chat(model="alone", headers=THEIRS))

    assert (503, "all_targets_unavailable") == (answer.status, answer.json()["error"]["code"])
    assert [] == provider.entries


def test_callers_key_does_not_go_from_one_vendor_to_another(sidecar: Sidecar, provider: Simulator) -> None:
    """A keyless link behind a keyed one gets no key at all."""
    provider.script("500")

    answer = sidecar.ask(chat(model="onward", headers=THEIRS))

    assert (200, "open") == (answer.status, answer.get("x-readygate-provider"))
    assert ["Bearer sk-ours-0123456789", None] == [entry.header("authorization") or None for entry in provider.entries]


def test_callers_key_goes_on_where_no_key_of_ours_is_in_play(sidecar: Sidecar, provider: Simulator) -> None:
    """The app keeps its own key, as if the sidecar were not there."""
    assert 200 == sidecar.ask(chat(model="open", headers=THEIRS)).status
    assert [THEIRS["Authorization"]] == [entry.header("authorization") for entry in provider.entries]


@pytest.mark.parametrize("fault", ["http10:after=30", "clean_end:after=40"])
def test_answer_that_ends_in_mid_json_is_no_answer(sidecar: Sidecar, provider: Simulator, fault: str) -> None:
    """A body that ends with its connection is whole only if it says so: the chain walks on."""
    provider.script(fault)

    answer = sidecar.ask(chat("echo: whole", model="onward"))

    assert (200, "open", "whole") == (
        answer.status,
        answer.get("x-readygate-provider"),
        answer.json()["choices"][0]["message"]["content"],
    )
