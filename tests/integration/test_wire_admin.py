"""The admin door tells the truth: probes, components, breakers, metrics and the status page, in good times and bad."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.simulator import Simulator, refused_origin
from tests.support.wire import Sidecar, ask, chat, eventually, message_of, request, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
budgets: [{id: main-rpm, provider: main, requests_per_minute: 1000, when_exhausted: refuse}]
routes:
  - {name: any, match: {models: ["gpt-*"]}, chain: [{provider: main}], retries: none}
  - {name: dead, match: {models: ["dead"]}, chain: [{provider: dead}], retries: none}
"""
PROBES = {
    "/livez": "live",
    "/healthz": "live",
    "/readyz": "ready",
    "/ready": "ready",
    "/startupz": "started",
    "/startup": "started",
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


def config(provider: Simulator) -> str:
    return f"""
providers:
  main: {{base_url: "{provider.base_url}"}}
  dead: {{base_url: "{refused_origin()}/v1"}}
"""


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), config(provider), POLICY) as running:
        yield running


@pytest.mark.parametrize(("path", "status"), PROBES.items())
def test_probes_of_a_well_sidecar_say_yes(sidecar: Sidecar, path: str, status: str) -> None:
    """Kubernetes asks these; each has its alias."""
    answer = sidecar.admin(path)

    assert (200, status) == (answer.status, answer.json()["status"])
    assert "application/json" in (answer.get("content-type") or "")


def test_health_names_every_component(sidecar: Sidecar) -> None:
    """Policy, spool, both stores and each provider, each with state and since when."""
    eventually(lambda: sidecar.health()["components"]["audit_store"]["state"] == "ok", "the store does not open", 10)
    health = sidecar.health()

    assert {"policy", "spool", "audit_store", "budget_store", "event_loop", "provider:main", "provider:dead"} == set(
        health["components"]
    )
    for name in ("policy", "spool", "audit_store", "budget_store", "provider:main"):
        assert "ok" == health["components"][name]["state"], name
    assert all("for_s" in row for row in health["components"].values())
    assert health["components"]["policy"]["revision"] == sidecar.ask(chat()).get("x-readygate-policy")


def test_provider_that_is_down_shows_as_an_open_breaker(sidecar: Sidecar) -> None:
    """Breaker, last outcome and when it will be tried again; the others and readiness are not touched."""
    for _ in range(12):
        refused = sidecar.ask(chat(model="dead"))
        if refused.error["code"] == "all_targets_unavailable":
            break

    row = sidecar.admin("/providers").json()["providers"]["dead"]
    health = sidecar.health()
    assert "open" == row["state"]
    assert "connect_error" == row["last_outcome"]
    assert 0.0 == row["success_ratio"]
    assert row["deployments"][0]["retry_in_s"] > 0
    assert int(refused.get("retry-after-ms") or 0) / 1000 <= row["deployments"][0]["retry_in_s"] + 1.5
    assert ("degraded", "failed") == (health["status"], health["components"]["provider:dead"]["state"])
    assert "breaker" in health["components"]["provider:dead"]["reason"]
    assert 1.0 == sidecar.metric("readygate_breaker_open", deployment="dead:*")
    assert 0.0 == sidecar.metric("readygate_breaker_open", deployment="main:*")
    assert 1.0 == sidecar.metric("readygate_breaker_opened_total", deployment="dead:*")
    assert [200, 200, 200] == [sidecar.status(path) for path in ("/readyz", "/livez", "/startupz")]


def test_providers_page_shows_what_is_left_of_budgets(sidecar: Sidecar) -> None:
    """Limit, used and remaining move with traffic."""
    before = sidecar.admin("/providers").json()["providers"]["main"]["budgets"][0]
    sidecar.ask(chat())
    after = sidecar.admin("/providers").json()["providers"]["main"]["budgets"][0]

    assert ("default/main-rpm", "requests_per_minute", 1000) == (after["budget"], after["dimension"], after["limit"])
    assert 1 == after["used"] - before["used"]
    assert 1000 == after["used"] + after["remaining"]


def test_metrics_count_what_happened(sidecar: Sidecar) -> None:
    """One exchange is one exchange, one attempt, one row and one latency, in Prometheus text."""
    names = (
        "readygate_exchanges_total",
        "readygate_attempts_total",
        "readygate_audit_rows_kept_total",
        "readygate_own_seconds_count",
    )
    before = [sidecar.metric(name) for name in names]
    sidecar.ask(chat())
    after = [sidecar.metric(name) for name in names]

    assert [1.0] * 4 == [b - a for a, b in zip(before, after, strict=True)]
    answer = sidecar.admin("/metrics")
    assert (answer.get("content-type") or "").startswith("text/plain")
    for line in answer.body.decode().splitlines():
        assert line.startswith(("#", "readygate_")), line


def test_callers_cannot_make_series(sidecar: Sidecar) -> None:
    """A thousand model names must not be a thousand series (SE-08 in small)."""

    def series() -> int:
        return sum(not line.startswith("#") for line in sidecar.admin("/metrics").body.decode().splitlines())

    sidecar.ask(chat(model="gpt-first", headers={"x-readygate-app": "first"}))
    sidecar.ask(chat(model="unknown-first"))
    before = series()
    for number in range(30):
        sidecar.ask(
            chat(model=f"gpt-{number}", headers={"x-readygate-app": f"app-{number}", "x-readygate-user": f"u{number}"})
        )
        sidecar.ask(chat(model=f"unknown-{number}"))
        sidecar.ask(request("GET", f"/v1/path-{number}"))

    # the first 404 for a path makes one series of its own
    assert series() - before <= 2


def test_status_page_loads_without_anything_from_elsewhere(sidecar: Sidecar) -> None:
    """A page for people, its parts from here, under a policy that forbids the rest."""
    page = sidecar.admin("/")

    assert 200 == page.status
    assert "text/html" in (page.get("content-type") or "")
    assert "default-src 'none'" in (page.get("content-security-policy") or "")
    assert b"http://" not in page.body.replace(b"http://www.w3.org", b"")
    assert [200, 200] == [sidecar.status("/status.js"), sidecar.status("/status.css")]
    about = sidecar.admin("/summary").json()
    assert "policy revision" in about["about"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("POST", "/livez", 405), ("GET", "/v1/models", 404)]
)
def test_unknown_admin_pages_have_the_error_shape(sidecar: Sidecar, method: str, path: str, status: int) -> None:
    """The admin port serves no provider API, and its errors are JSON too."""
    answer = sidecar.admin(path, method)

    assert status == answer.status
    assert {"message", "type", "param", "code"} <= set(answer.error)
    assert "nosniff" == answer.get("x-content-type-options")


def test_admin_page_for_a_strange_host_is_refused(sidecar: Sidecar) -> None:
    """A Host that is no host name is refused; DNS rebinding gets no further than that."""
    data = request("GET", "/health").replace(b"Host: localhost", b"Host: a/b")
    assert 400 == ask(sidecar.admin_port, data).status


def test_probes_answer_while_fifty_streams_run(sidecar: Sidecar) -> None:
    """Load on the data port must not look like death to the kubelet."""

    async def stream(number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.data_port)
        writer.write(
            chat(
                f"echo: {number} " + "w " * 60,
                {"x-sim-speech": "rate=60", "Connection": "close"},
                model="gpt-s",
                stream=True,
            )
        )
        data = await reader.read()
        writer.close()
        return data

    async def probe() -> tuple[list[float], float]:
        times, most = [], 0.0
        for _ in range(15):
            began_s = time.monotonic()
            assert [200, 200] == [await asyncio.to_thread(sidecar.status, path) for path in ("/livez", "/readyz")]
            times.append((time.monotonic() - began_s) / 2)
            most = max(most, await asyncio.to_thread(sidecar.metric, "readygate_live_exchanges"))
        return times, most

    async def both() -> tuple[list[bytes], list[float], float]:
        async with asyncio.TaskGroup() as tasks:
            streams = [tasks.create_task(stream(number)) for number in range(50)]
            await asyncio.sleep(0.2)
            times, most = await tasks.create_task(probe())
        return [task.result() for task in streams], times, most

    streams, times, most = asyncio.run(both())

    assert 50 == most
    assert max(times) < 0.5
    assert all(message_of(data).events[-1] == "[DONE]" for data in streams)
    eventually(lambda: sidecar.metric("readygate_live_exchanges") == 0, "exchanges are left over")


def test_admin_token_guards_all_but_the_probes(provider: Simulator, tmp_path: Path) -> None:
    """The kubelet has no token; everybody else needs it."""
    text = config(provider) + "admin_token: {env: ADMIN_TOKEN}\n"
    with sidecar_for(tmp_path, text, POLICY, env={"ADMIN_TOKEN": "the-admin-token"}) as running:
        pages = ("/health", "/providers", "/metrics", "/summary", "/api/v1/breakers")

        assert [200] * 3 == [running.status(path) for path in ("/livez", "/readyz", "/startupz")]
        assert [401] * 5 == [running.status(path) for path in pages]
        wrong = running.admin("/health", headers={"Authorization": "Bearer the-admin-toke"})
        right = running.admin("/health", headers={"Authorization": "Bearer the-admin-token"})
        assert [401, 200] == [wrong.status, right.status]
        assert b"the-admin" not in wrong.body


def test_broken_policy_keeps_the_old_one_and_says_where(provider: Simulator, tmp_path: Path) -> None:
    """A bad edit is shown with file, line and column, changes nothing, and heals when it is mended."""
    with sidecar_for(tmp_path, config(provider), POLICY) as running:
        file = tmp_path / "policies" / "default.yaml"
        revision = running.ask(chat()).get("x-readygate-policy")

        file.write_text(POLICY.replace("retries: none", "retries: nonne", 1))
        eventually(
            lambda: running.health()["components"]["policy"]["state"] == "degraded", "the edit was not noticed", 6
        )
        component = running.health()["components"]["policy"]
        assert "default.yaml:6:" in component["reason"]
        assert revision == component["revision"] == running.ask(chat()).get("x-readygate-policy")
        assert ("degraded", 200) == (running.health()["status"], running.status("/readyz"))

        file.write_text(POLICY.replace("gpt-*", "new-*"))
        eventually(
            lambda: running.health()["components"]["policy"]["state"] == "ok", "the mended policy was not taken", 6
        )
        assert [404, 200] == [running.ask(chat()).status, running.ask(chat(model="new-1")).status]
        assert 2.0 == running.metric("readygate_policy_generation")


def test_misspelt_key_is_shown_as_what_it_is(provider: Simulator, tmp_path: Path) -> None:
    """The reason an operator reads must be the cause, not its consequence."""
    with sidecar_for(tmp_path, config(provider), POLICY) as running:
        (tmp_path / "policies" / "default.yaml").write_text(POLICY.replace("routes:", "rutes:"))
        eventually(
            lambda: running.health()["components"]["policy"]["state"] == "degraded", "the edit was not noticed", 6
        )

        assert "rutes" in running.health()["components"]["policy"]["reason"]


def test_store_that_is_away_is_degraded_and_serving_goes_on(provider: Simulator, tmp_path: Path) -> None:
    """Rows wait in the spool; readiness does not depend on a database (LC-06 in small)."""
    port = refused_origin().rpartition(":")[2]
    text = (
        config(provider)
        + f'audit: {{store: "postgresql://nobody@127.0.0.1:{port}/none", spool: spool, batch_wait: 20ms}}\n'
    )
    with sidecar_for(tmp_path, text, POLICY, server="drain: {grace: 0s, deadline: 1s}") as running:
        assert 200 == running.ask(chat()).status
        eventually(
            lambda: running.health()["components"]["audit_store"]["state"] == "degraded", "the outage is not shown"
        )
        component = running.health()["components"]["audit_store"]

        assert component["reason"]
        assert component["waiting_rows"] >= 1
        assert [200, 200] == [running.status("/readyz"), running.status("/livez")]
        assert running.metric("readygate_audit_waiting_rows") >= 1
        assert 0.0 == running.metric("readygate_component_ok", component="audit_store")
        assert json.dumps(running.health()).count("nobody@") == 0
