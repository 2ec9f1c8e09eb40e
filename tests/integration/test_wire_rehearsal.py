"""Rehearsed faults look like real ones to everything behind them, leave their mark, and exist only where policy says so."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.sidecar_process import ROOT
from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, chat, sidecar_for, stream_text, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
routes:
  - name: staging
    match: {models: [staging]}
    chain: [{provider: a, model: m}, {provider: b, model: m}]
    timeouts: {first_byte: 400ms, idle: 300ms, total: 5s}
    retries: none
    inject: {header: true}
  - name: always
    match: {models: [always]}
    chain: [{provider: a, model: often}, {provider: b, model: often}]
    retries: none
    inject: {fault: "status=500;target=a", share: 0.5}
  - name: resumes
    match: {models: [resumes]}
    chain: [{provider: a, model: r}, {provider: b, model: r}]
    timeouts: {idle: 300ms}
    retries: none
    rescue: resume
    inject: {header: true}
  - {name: live, match: {models: [live]}, chain: [{provider: a, model: l}], retries: none}
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def running(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = "providers:\n" + "".join(f'  {n}: {{base_url: "{provider.origin}/{n}/v1"}}\n' for n in "ab")
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), config, POLICY) as sidecar:
        yield sidecar


@pytest.fixture
def sidecar(running: Sidecar, provider: Simulator) -> Sidecar:
    """The one sidecar, with what earlier rehearsals taught its breakers forgotten."""
    for row in running.admin("/api/v1/breakers").json()["breakers"]:
        name = row["deployment"].replace(":", "%3A")
        assert 200 == running.admin(f"/api/v1/breakers/{name}/reset", "POST", {"x-readygate-admin": "1"}).status
    provider.reset()
    return running


def ask(sidecar: Sidecar, model: str, fault: str, **fields: object) -> Message:
    headers = {"x-readygate-fault-inject": fault, "x-sim-speech": "rate=80"}
    return sidecar.ask(chat(model=model, headers=headers, **fields), 10.0)


@pytest.mark.parametrize(
    ("fault", "asked", "outcome"),
    [
        ("status=503", ["b"], "upstream_5xx"),
        ("status=429", ["b"], "rate_limited"),
        ("refuse", ["b"], "connect_error"),
        ("latency=2s", ["b"], "ttfb_timeout"),
        ("cut", ["a", "b"], "truncated"),
        ("stall", ["a", "b"], "stalled"),
    ],
)
def test_fault_at_the_first_link_walks_the_chain(
    provider: Simulator, sidecar: Sidecar, fault: str, asked: list[str], outcome: str
) -> None:
    """The app gets its answer from the second link, and row and metric say that it was a rehearsal."""
    answer = ask(sidecar, "staging", fault)

    assert (200, "b", "2") == (answer.status, answer.get("x-readygate-provider"), answer.get("x-readygate-attempts"))
    assert asked == [entry.provider for entry in provider.entries]
    row = sidecar.row(answer.get("x-readygate-id"))
    assert outcome in str(row["attempts"])
    assert f"injected:{fault.partition('=')[0]}:a" in str(row)
    assert 1.0 <= sidecar.metric("readygate_injected_faults_total", kind=fault.partition("=")[0], provider="a")
    assert "x-readygate-fault-inject" not in str([entry.headers for entry in provider.entries])


def test_latency_below_the_limit_is_only_slow(sidecar: Sidecar) -> None:
    """A slow provider is not a broken one."""
    began_s = time.monotonic()
    answer = ask(sidecar, "staging", "latency=200ms")

    assert (200, "a") == (answer.status, answer.get("x-readygate-provider"))
    assert time.monotonic() - began_s >= 0.2


def test_fault_at_every_link_shows_the_app_what_it_would_see(sidecar: Sidecar) -> None:
    """The honest error at the end of a chain can be rehearsed as well."""
    answer = ask(sidecar, "staging", "status=503;target=all")

    assert 503 == answer.status
    assert "2 attempts" in answer.error["message"]


def test_cut_stream_ends_in_band_or_is_rescued(sidecar: Sidecar) -> None:
    """After the first token: no silent end where nothing rescues, the whole text where `resume` does."""
    cut = ask(sidecar, "staging", "cut=4000", stream=True, content="echo: " + "word " * 40)
    rescued = ask(sidecar, "resumes", "cut=4000", stream=True, content="echo: " + "word " * 40)

    assert 200 == cut.status
    assert "[DONE]" not in cut.events
    assert '"error"' in cut.events[-1]
    assert ("word " * 40).strip() == stream_text(rescued).strip()
    assert "[DONE]" == rescued.events[-1]


def test_unreadable_header_says_how_to_write_it(provider: Simulator, sidecar: Sidecar) -> None:
    """A rehearsal that silently does nothing would be taken for a chain that works."""
    answer = ask(sidecar, "staging", "explode")

    assert 400 == answer.status
    assert "Injected" in answer.error["message"]
    assert [] == provider.entries


def test_route_that_does_not_allow_it_pays_no_heed(provider: Simulator, sidecar: Sidecar) -> None:
    """Production must not be broken by a header."""
    answer = ask(sidecar, "live", "status=503")

    assert (200, "a") == (answer.status, answer.get("x-readygate-provider"))
    assert "fault-inject" not in str([entry.headers for entry in provider.entries])


def test_share_of_a_routes_fault_is_about_kept(provider: Simulator, sidecar: Sidecar) -> None:
    """Half of the attempts, by dice, without the app asking."""
    before = sidecar.metric("readygate_injected_faults_total", kind="status", provider="a")
    answers = [sidecar.ask(chat(model="always")) for _ in range(30)]

    assert {200} == {answer.status for answer in answers}
    hit = sidecar.metric("readygate_injected_faults_total", kind="status", provider="a") - before
    assert 4 <= hit <= 26


def test_inject_verb_tells_what_came_of_it(sidecar: Sidecar) -> None:
    """One command on a staging machine shows whether the chain holds."""
    command = [sys.executable, "-m", "proxy", "inject", "--fault", "status=503", "--model", "staging", "--url"]
    url = f"http://127.0.0.1:{sidecar.data_port}/v1"
    done = subprocess.run(
        [*command, url], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=30, check=False
    )

    assert 0 == done.returncode, done.stderr
    assert "answered by b" in done.stdout
    assert "2 attempts" in done.stdout
