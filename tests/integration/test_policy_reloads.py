"""Reloads under load: every exchange sees one revision from its head to its row, and callers do not notice."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.support.wire import Sidecar, caller, chat, eventually, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = """version: 1
policy: default
redaction: {request: {default: ACTION}}
routes: [{name: NAME, match: {models: ["*"]}, chain: [{provider: one, model: NAME}], retries: none}]
"""
SIDES = {
    "model-a": POLICY.replace("ACTION", "redact").replace("NAME", "model-a"),
    "model-b": POLICY.replace("ACTION", "mask").replace("NAME", "model-b"),
}
STANDS_IN = {"model-a": "[EMAIL_REDACTED]", "model-b": "*"}


class Load(threading.Thread):
    """One caller that asks until it is told to stop."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self._port, self._number = port, number
        self.is_over = threading.Event()
        self.answers: list[tuple[str, str, str, float]] = []
        """Id, revision, model served, seconds."""

    def run(self) -> None:
        count = 0
        with caller(self._port, 20) as wire:
            while not self.is_over.is_set():
                count += 1
                began_s = time.perf_counter()
                wire.send(chat(f"mark-{self._number}-{count}. write to ana.souza@example.com"))
                answer = wire.message()
                assert 200 == answer.status
                told = [str(answer.get(f"x-readygate-{name}")) for name in ("id", "policy", "model")]
                self.answers.append((told[0], told[1], told[2], time.perf_counter() - began_s))


def p99_ms(answers: list[tuple[str, str, str, float]]) -> float:
    ordered = sorted(answer[3] for answer in answers)
    return ordered[int(len(ordered) * 0.99)] * 1000


def play(sidecar: Sidecar, reloads: int) -> tuple[list[tuple[str, str, str, float]], float]:
    """Ask from two connections, first in peace, then while the policy goes to and fro; return answers and the p99 before."""
    callers = [Load(sidecar.data_port, number) for number in range(2)]
    for one in callers:
        one.start()
    until_s = time.monotonic() + min(10.0, 0.5 + reloads * 0.2)
    while time.monotonic() < until_s:  # a time of peace to compare with; the metrics are asked for as often as later
        sidecar.metric("readygate_policy_generation")
        time.sleep(0.05)  # noqa: TID251 - no event loop here
    calm = p99_ms([answer for one in callers for answer in one.answers])
    began = [len(one.answers) for one in callers]
    for number in range(reloads):
        text = SIDES["model-b" if number % 2 == 0 else "model-a"]
        generation = sidecar.metric("readygate_policy_generation")
        (sidecar.folder / "policies" / "default.yaml").write_text(text)
        eventually(lambda g=generation: sidecar.metric("readygate_policy_generation") > g, "no reload")  # type: ignore[misc]
    for one in callers:
        one.is_over.set()
        one.join(20)
    return [answer for one, first in zip(callers, began, strict=True) for answer in one.answers[first:]], calm


@pytest.mark.parametrize("reloads", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_no_exchange_sees_two_revisions(tmp_path: Path, reloads: int) -> None:
    """What the provider got, what the caller was told and what the row says belong to one revision."""
    with threaded_simulator() as provider:
        config = f'providers: {{one: {{base_url: "{provider.base_url}"}}}}\n'
        with sidecar_for(tmp_path, config, SIDES["model-a"]) as sidecar:
            answers, calm_ms = play(sidecar, reloads)
            rows = {row["id"]: row for row in sidecar.rows(count=len(answers), within_s=60)}
            eventually(lambda: {a[0] for a in answers} <= {r["id"] for r in sidecar.rows()}, "rows are missing", 30)
            rows = {row["id"]: row for row in sidecar.rows()}
        bodies = [entry.body.decode() for entry in provider.entries if b"mark-" in entry.body]

    revisions = {model: {revision for _, revision, served, _ in answers if served == model} for model in SIDES}
    assert [1, 1] == [len(found) for found in revisions.values()]
    for exchange_id, revision, model, _ in answers:
        row = rows[exchange_id]
        assert (revision, model, model) == (row["policy_revision"], row["route"], row["model_served"])
    for model, stand_in in STANDS_IN.items():
        sent = [body for body in bodies if f'"{model}"' in body]
        assert sent
        assert all(stand_in in body for body in sent)
        assert not [body for body in sent if "ana.souza" in body]
    print(f"{len(answers)} exchanges, p99 {calm_ms:.1f} ms in peace, {p99_ms(answers):.1f} ms over {reloads} reloads")
    assert p99_ms(answers) <= 3 * calm_ms + 20
