"""Load sharing through the front door, with the providers' journals as the judge: shares, stickiness, keys, failures."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, chat, eventually, serving, sidecar_for, threaded_simulator, write_files

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
routes:
  - name: weighted
    match: {models: [weighted]}
    chain: [{split: [{provider: a, model: m, weight: 3}, {provider: b, model: m}]}, {provider: c, model: m}]
    retries: none
  - name: sticky
    match: {models: [sticky]}
    chain: [{split: [{provider: a, model: s}, {provider: b, model: s}], sticky: conversation}]
    retries: none
  - name: busy
    match: {models: [busy]}
    chain: [{split: [{provider: a, model: l}, {provider: b, model: l}], by: least_busy}]
    retries: none
  - name: quick
    match: {models: [quick]}
    chain: [{split: [{provider: a, model: q}, {provider: b, model: q}], by: latency}]
    retries: none
  - {name: keys, match: {models: [keys]}, chain: [{provider: k, model: k}], retries: none}
"""
KEYS = {"KEY_1": "sk-first-key-000001", "KEY_2": "sk-second-key-00002"}


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    origin = provider.origin
    config = "providers:\n" + "".join(f'  {name}: {{base_url: "{origin}/{name}/v1"}}\n' for name in "abc")
    config += f'  k: {{base_url: "{origin}/k/v1", api_keys: {{first: {{env: KEY_1}}, second: {{env: KEY_2}}}}}}\n'
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), config, POLICY, env=KEYS) as running:
        provider.reset()
        yield running
        provider.reset()


def asked(provider: Simulator) -> Counter[str]:
    return Counter(entry.provider for entry in provider.entries)


def test_weights_are_kept_exactly(provider: Simulator, sidecar: Sidecar) -> None:
    """Three to one means 30 of 40, not about 30."""
    answers = [sidecar.ask(chat(model="weighted")) for _ in range(40)]

    assert {200} == {answer.status for answer in answers}
    assert {"a": 30, "b": 10} == asked(provider)
    assert {"1"} == {answer.get("x-readygate-attempts") for answer in answers}


def test_member_that_fails_hands_on_to_its_fellow_before_the_next_step(provider: Simulator, sidecar: Sidecar) -> None:
    """A step is used up before the chain walks on, and a member with an open breaker is no longer asked first."""
    provider.fault_for_provider("a", "500")
    answers = [sidecar.ask(chat(model="weighted")) for _ in range(20)]
    failed = asked(provider)["a"]
    provider.fault_for_provider("b", "500")
    last = sidecar.ask(chat(model="weighted"))

    assert {200} == {answer.status for answer in answers}
    assert 5 <= failed <= 7
    assert (200, "c") == (last.status, last.get("x-readygate-provider"))


def test_conversation_stays_where_it_began(provider: Simulator, sidecar: Sidecar) -> None:
    """Named or recognised by how it begins: every turn finds the same prompt cache."""
    places: dict[str, set[str]] = {}
    for number in range(12):
        for turn in range(3):
            messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": f"question {number}"}]
            messages += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "more"}] * turn
            answer = sidecar.ask(chat(model="sticky", messages=messages))
            places.setdefault(f"begins-{number}", set()).add(answer.get("x-readygate-provider") or "")
            named = sidecar.ask(chat(f"turn {turn}", {"x-readygate-conversation": f"c{number}"}, model="sticky"))
            places.setdefault(f"named-{number}", set()).add(named.get("x-readygate-provider") or "")

    assert {1} == {len(found) for found in places.values()}
    assert {"a", "b"} == set().union(*places.values())


def test_least_busy_evens_out_what_is_under_way(provider: Simulator, sidecar: Sidecar) -> None:
    """A slow member holds its requests; the others go elsewhere."""
    provider.fault_for_provider("a", "ok:latency=1500ms")

    async def many() -> None:
        async def one(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            await asyncio.to_thread(sidecar.ask, chat(model="busy"), 10.0)

        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(one(0.05 * number))

    asyncio.run(many())
    counts = asked(provider)

    assert 20 == counts.total()
    assert counts["a"] <= 4


def test_latency_sends_most_to_the_quick_one(provider: Simulator, sidecar: Sidecar) -> None:
    """A slow provider is asked now and then, to hear whether it is well again."""
    provider.fault_for_provider("a", "ok:latency=150ms")
    for _ in range(30):
        sidecar.ask(chat(model="quick"))

    assert asked(provider)["b"] >= 25


def test_keys_of_one_provider_share_and_fail_apart(provider: Simulator, sidecar: Sidecar) -> None:
    """A limited key rests while the other works; no key is shown to anyone."""
    for _ in range(10):
        assert 200 == sidecar.ask(chat(model="keys")).status
    used = Counter(dict(entry.headers).get("authorization") for entry in provider.entries)
    provider.script("429:retry_after=30")
    limited = sidecar.ask(chat(model="keys"))
    after = [sidecar.ask(chat(model="keys")) for _ in range(6)]

    assert {f"Bearer {KEYS['KEY_1']}": 5, f"Bearer {KEYS['KEY_2']}": 5} == used
    assert (200, "2") == (limited.status, limited.get("x-readygate-attempts"))
    assert {200} == {answer.status for answer in after}
    assert 1 == len({dict(entry.headers).get("authorization") for entry in provider.entries[-6:]})
    shown = {row["deployment"]: row["state"] for row in sidecar.admin("/api/v1/breakers").json()["breakers"]}
    assert {"cooling", "closed"} == {shown["k/first:k"], shown["k/second:k"]}
    assert ["k"] == [name for name in sidecar.admin("/providers").json()["providers"] if name.startswith("k")]
    assert not any(key in json.dumps(sidecar.admin("/providers").json()) + sidecar.log() for key in KEYS.values())


def test_loads_return_to_nothing(provider: Simulator, sidecar: Sidecar) -> None:
    """A counter that drifts would starve a member for ever: after failures turns are even again."""
    provider.fault_for_provider("b", "reset:after=nothing")
    for _ in range(3):
        sidecar.ask(chat(model="busy"))
    provider.reset()
    eventually(lambda: sidecar.metric("readygate_live_exchanges") == 0, "exchanges are left over")
    provider.reset()
    for _ in range(10):
        sidecar.ask(chat(model="busy"))

    assert {"a": 5, "b": 5} == asked(provider)


def test_several_keys_that_are_not_set_are_simulated(tmp_path: Path) -> None:
    """A keyless first run works for such a provider as for any other."""
    config = (
        'providers: {k: {base_url: "https://k.invalid/v1", api_keys: {a: {env: NOT_SET_A}, b: {env: NOT_SET_B}}}}\n'
    )
    policy = 'version: 1\npolicy: p\nroutes: [{match: {models: ["*"]}, chain: [{provider: k}]}]\n'
    write_files(tmp_path, config, {"default.yaml": policy})
    with serving(tmp_path, simulate="auto") as running:
        answer = running.ask(chat())

        assert (200, "k") == (answer.status, answer.get("x-readygate-provider"))
        assert "latency_ms" in running.health()["components"]["provider:k"]


def test_key_that_is_not_set_is_not_asked_for(provider: Simulator, tmp_path: Path) -> None:
    """Half a configuration works like a whole one with one key: no exchange is called a fallback for it."""
    provider.reset()
    config = f'providers: {{k: {{base_url: "{provider.base_url}", api_keys: {{a: {{env: NOT_SET_A}}, b: {{env: KEY_2}}}}}}}}\n'
    policy = 'version: 1\npolicy: p\nroutes: [{match: {models: ["*"]}, chain: [{provider: k}]}]\n'
    with sidecar_for(tmp_path, config, policy, env=KEYS) as running:
        answers = [running.ask(chat()) for _ in range(4)]
        rows = running.rows(count=4)

    assert [(200, "1")] * 4 == [(answer.status, answer.get("x-readygate-attempts")) for answer in answers]
    assert {"success"} == {row["status"] for row in rows}
    assert {f"Bearer {KEYS['KEY_2']}"} == {dict(entry.headers).get("authorization") for entry in provider.entries}
