"""Leaving: SIGTERM with streams running, a second SIGTERM, and SIGKILL followed by a start (LC-01 to LC-03, AU-02 in small)."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import (
    Message,
    Sidecar,
    Wire,
    caller,
    chat,
    eventually,
    serving,
    sidecar_for,
    threaded_simulator,
)

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
routes: [{match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@contextlib.contextmanager
def running(provider: Simulator, folder: Path, grace: str, deadline: str) -> Iterator[Sidecar]:
    config = f"providers: {{main: {{base_url: '{provider.base_url}'}}}}"
    with sidecar_for(folder, config, POLICY, server=f"drain: {{grace: {grace}, deadline: {deadline}}}") as sidecar:
        yield sidecar


@contextlib.contextmanager
def streams(sidecar: Sidecar, count: int, speech: str, words: int = 20) -> Iterator[list[Wire]]:
    """Open so many streams and wait until each has said something."""
    with contextlib.ExitStack() as stack:
        wires = []
        for number in range(count):
            wire = stack.enter_context(caller(sidecar.data_port, 10))
            text = "echo: " + "word " * words
            wire.send(chat(text, {"x-sim-speech": speech, "x-readygate-conversation": f"s-{number}"}, stream=True))
            wires.append(wire)
        for wire in wires:
            assert "" == wire.until(b'"word')
        yield wires


def test_streams_shorter_than_the_deadline_end_in_order(provider: Simulator, tmp_path: Path) -> None:
    """Not ready at once, every stream whole, exit 0, every row in the store (LC-01)."""
    with running(provider, tmp_path, "0s", "8s") as sidecar, streams(sidecar, 20, "rate=20") as wires:
        sidecar.signal()
        told_s = time.monotonic()
        eventually(lambda: sidecar.status("/readyz") == 503, "still ready", 1)
        not_ready_s = time.monotonic() - told_s
        live = sidecar.status("/livez")
        answers = [wire.message() for wire in wires]
        code = sidecar.wait()

        assert not_ready_s < 0.5
        assert 200 == live
        assert {("whole", "[DONE]")} == {(answer.ended, answer.events[-1]) for answer in answers}
        assert 0 == code
        rows = sidecar.rows("conversation LIKE 's-%'")
        assert (20, {"success"}) == (len(rows), {row["status"] for row in rows})


def test_new_requests_are_served_during_the_grace_and_refused_after(provider: Simulator, tmp_path: Path) -> None:
    """The load balancer needs a moment to look away; within it nobody is turned away (LC-02)."""
    with running(provider, tmp_path, "1s", "4s") as sidecar, streams(sidecar, 1, "rate=10", 25) as wires:
        sidecar.signal()
        time.sleep(0.3)  # noqa: TID251 - within the grace
        during = sidecar.ask(chat())
        eventually(lambda: _is_refused(sidecar), "new connections are still taken after the grace", 3)
        last = wires[0].message()

        assert 200 == during.status
        assert "close" == during.get("connection")
        assert "whole" == last.ended
        assert 0 == sidecar.wait()


def _is_refused(sidecar: Sidecar) -> bool:
    try:
        return sidecar.ask(chat(), 1.0).status == 0
    except OSError:
        return True


def test_streams_longer_than_the_deadline_are_told(provider: Simulator, tmp_path: Path) -> None:
    """An error event instead of silence, one row each, gone by the deadline (LC-03)."""
    with running(provider, tmp_path, "0s", "1s") as sidecar, streams(sidecar, 5, "rate=20", 2000) as wires:
        began_s = time.monotonic()
        sidecar.signal()
        answers = [wire.message() for wire in wires]
        code = sidecar.wait()

        assert time.monotonic() - began_s < 2.5
        assert 0 == code
        for answer in answers:
            _is_told_of_the_end(answer)
        rows = sidecar.rows("conversation LIKE 's-%'")
        assert (5, {"shutting_down"}) == (len(rows), {row["error_code"] for row in rows})
        assert "interrupted" not in {row["status"] for row in rows}


def _is_told_of_the_end(answer: Message) -> None:
    last = json.loads(answer.events[-1])
    assert "shutting_down" == last["error"]["code"]
    assert "[DONE]" not in answer.events
    assert answer.ended in ("eof", "reset")


def test_request_without_an_answer_yet_gets_503_at_the_deadline(provider: Simulator, tmp_path: Path) -> None:
    """Nothing was sent, so an honest status is still possible, and the client should come back."""
    with running(provider, tmp_path, "0s", "1s") as sidecar, caller(sidecar.data_port, 10) as wire:
        wire.send(chat("waits", {"x-sim-speech": "latency=30s", "x-readygate-conversation": "waits"}))
        eventually(lambda: any(b"waits" in entry.body for entry in provider.entries), "the provider was not asked")
        sidecar.signal()
        answer = wire.message()
        sidecar.wait()

        assert (503, "shutting_down") == (answer.status, answer.error["code"])
        assert answer.has("retry-after")
        assert "gateway" == answer.get("x-readygate-fault")
        assert ["shutting_down"] == [row["error_code"] for row in sidecar.rows("conversation = 'waits'")]


def test_second_sigterm_hurries(provider: Simulator, tmp_path: Path) -> None:
    """An operator who asks twice does not want to wait; rows and the in-band error are kept all the same."""
    with running(provider, tmp_path, "10s", "30s") as sidecar, streams(sidecar, 3, "rate=20", 2000) as wires:
        sidecar.signal()
        time.sleep(0.2)  # noqa: TID251 - two signals, not one
        began_s = time.monotonic()
        sidecar.signal()
        answers = [wire.message() for wire in wires]
        code = sidecar.wait()

        assert time.monotonic() - began_s < 3.0
        assert 0 == code
        for answer in answers:
            _is_told_of_the_end(answer)
        assert 3 == len(sidecar.rows("conversation LIKE 's-%'"))


def test_sigkill_leaves_one_row_each_and_the_cut_ones_are_interrupted(provider: Simulator, tmp_path: Path) -> None:
    """Killed in mid-stream under load, then started again: nobody who got a byte is missing (AU-02 in small)."""
    config = f"providers: {{main: {{base_url: '{provider.base_url}'}}}}"
    with sidecar_for(tmp_path, config, POLICY) as sidecar, streams(sidecar, 8, "rate=20", 2000):
        seen: list[str] = []
        stop = threading.Event()

        def keep_asking() -> None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                while not stop.is_set():
                    answer = sidecar.ask(chat())
                    if answer.status == 200:
                        seen.append(answer.get("x-readygate-id") or "")

        thread = threading.Thread(target=keep_asking)
        thread.start()
        time.sleep(0.6)  # noqa: TID251 - some traffic
        sidecar.signal(signal.SIGKILL)
        sidecar.wait()
        stop.set()
        thread.join(5)

    with serving(tmp_path) as again:
        rows = again.rows(count=len(seen) + 8)
        eventually(lambda: again.metric("readygate_audit_waiting_rows") == 0, "rows still wait")
        rows = again.rows()
        by_id = {row["id"]: row["status"] for row in rows}

        assert len(rows) == len(by_id)
        assert len(seen) > 10
        assert set() == set(seen) - set(by_id)
        assert {"success"} == {by_id[exchange_id] for exchange_id in seen}
        cut = [row for row in rows if row["conversation"].startswith("s-")]
        assert (8, {"interrupted"}) == (len(cut), {row["status"] for row in cut})
        assert {("main", "gpt-4o-mini")} == {(row["provider"] or "main", row["model_asked"]) for row in cut}
        assert 200 == again.ask(chat()).status
