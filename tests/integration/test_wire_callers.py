"""Caller keys at the door, and the record that cannot be kept: refused before any provider is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.refusals import check
from tests.support.simulator import Simulator, refused_origin
from tests.support.wire import Sidecar, ask, caller, chat, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

OUR_KEY = "sk-main-0123456789abcdef0123456789"


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


# ---------------------------------------------------------------- caller keys

SHOP_KEY = "caller-key-of-the-shop"

KEYED_POLICY = """
version: 1
policy: shop
applies_to: {apps: ["shop"]}
budgets: [{id: shop, provider: main, requests_per_minute: 1000}]
routes: [{match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""


@pytest.fixture(scope="module")
def keyed(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    def digest(key: str) -> str:
        return hashlib.sha256(key.encode()).hexdigest()

    config = f"""
providers: {{main: {{base_url: "{provider.base_url}", api_key: {{env: MAIN_KEY}}}}}}
callers:
  - {{name: shop-prod, app: shop, sha256: "{digest(SHOP_KEY)}"}}
  - {{name: other-prod, app: other, sha256: "{digest("other-key")}"}}
"""
    with sidecar_for(tmp_path_factory.mktemp("keyed"), config, KEYED_POLICY, env={"MAIN_KEY": OUR_KEY}) as running:
        yield running


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {SHOP_KEY}"}, {"Authorization": "Bearer "},
     {"Authorization": f"Bearer {SHOP_KEY}x"}, {"x-api-key": "wrong"}, {"Authorization": f"Bearer {OUR_KEY}"}],
    ids=["none", "wrong", "basic", "empty", "longer", "x-api-key", "provider-key"],
)  # fmt: skip
def test_bad_caller_key_is_401_and_repeats_nothing(
    keyed: Sidecar, provider: Simulator, headers: dict[str, str]
) -> None:
    """The same answer for every wrong key, so that nothing can be learnt from it."""
    answer = keyed.ask(chat(headers=headers))

    error = check(answer, 401, "invalid_api_key", "client", "no")
    assert "The API key is missing or not valid here." == error["message"]
    assert [] == provider.entries


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "api-key"])
def test_good_caller_key_is_recorded_and_replaced_by_ours(keyed: Sidecar, provider: Simulator, name: str) -> None:
    """The caller's key opens our door and goes no further; the row names it."""
    answer = keyed.ask(chat(headers={name: f"Bearer {SHOP_KEY}" if name == "Authorization" else SHOP_KEY}))

    assert 200 == answer.status
    assert [f"Bearer {OUR_KEY}"] == provider.last.header_values("authorization")
    assert SHOP_KEY not in str(provider.last.headers)
    row = keyed.row(answer.get("x-readygate-id"))
    assert ("shop-prod", "shop") == (row["caller"], row["app"])


def test_app_without_a_policy_is_403(keyed: Sidecar, provider: Simulator) -> None:
    """A good key whose app no policy names may do nothing."""
    answer = keyed.ask(chat(headers={"Authorization": "Bearer other-key"}))

    check(answer, 403, "permission_denied", "policy", "no")
    assert [] == provider.entries


def test_identity_header_cannot_change_the_app_of_a_key(keyed: Sidecar) -> None:
    """With caller keys the key says who calls; a header does not."""
    answer = keyed.ask(chat(headers={"Authorization": "Bearer other-key", "x-readygate-app": "shop"}))

    assert 403 == answer.status


def test_expected_body_is_refused_before_100_continue(keyed: Sidecar) -> None:
    """A bad key gets its final status without being asked for the body (HT-19)."""
    with caller(keyed.data_port) as wire:
        head, _, _ = chat(headers={"Expect": "100-continue", "Authorization": "Bearer wrong"}).partition(b"\r\n\r\n")
        wire.send(head + b"\r\n\r\n")
        answer = wire.message()

    assert 401 == answer.status


# ---------------------------------------------------------------- the record cannot be kept


def test_full_spool_refuses_before_any_provider_call(provider: Simulator, tmp_path: Path) -> None:
    """No row, no exchange: with the store away and the spool full, 503 with a wait, health says why, then it heals not by itself."""
    config = f"""
providers: {{main: {{base_url: "{provider.base_url}"}}}}
audit: {{store: "postgresql://nobody@127.0.0.1:{refused_origin().rpartition(":")[2]}/none", spool: spool, spool_max: 1MiB}}
"""
    policy = (
        'version: 1\npolicy: default\nroutes: [{match: {models: ["*"]}, chain: [{provider: main}], retries: none}]\n'
    )
    server = "drain: {grace: 0s, deadline: 1s}"
    with sidecar_for(tmp_path, config, policy, server=server) as running, caller(running.data_port) as wire:
        long = {"x-readygate-conversation": "c" * 200, "x-readygate-user": "u" * 200}  # a shorter row might still fit
        for _ in range(3000):
            wire.send(chat(headers=long))
            answer = wire.message()
            if answer.status != 200:
                break
        asked = len(provider.entries)
        again = ask(running.data_port, chat("refused-marker", headers=long))

        check(answer, 503, "audit_backpressure", "gateway", "yes")
        check(again, 503, "audit_backpressure", "gateway", "yes")
        assert "0" == again.get("x-readygate-attempts")
        assert asked == len(provider.entries)
        health = running.health()
        assert "ok" != health["components"]["spool"]["state"]
        assert "degraded" == health["components"]["audit_store"]["state"]
        assert "ok" != health["status"]
        assert running.metric("readygate_refusals_total", code="audit_backpressure") >= 2
        assert running.metric("readygate_component_ok", component="spool") == 0.0
