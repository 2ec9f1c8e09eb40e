"""Large bodies: read and redacted beside everybody else, and refused when that fails."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, eventually, request, sidecar_for, stream_text, threaded_simulator

pytestmark = pytest.mark.faults

POLICY = """
version: 1
policy: default
redaction: {request: {default: restore}}
budgets: [{provider: counted, tokens_per_minute: 90000000, when_exhausted: refuse}]
routes:
  - {name: counted, match: {models: ["counted"]}, chain: [{provider: counted}], retries: none}
  - {name: other, match: {models: ["other"]}, chain: [{provider: claude, model: served}], retries: none}
  - name: fitting
    match: {models: ["fitting"]}
    chain: [{provider: main, model: served, modalities: [text, image], drop_params: [seed], rename_params: {top_p: nucleus}}]
    retries: none
  - name: deaf
    match: {models: ["deaf"]}
    chain: [{provider: main, model: served, modalities: [text]}]
    retries: none
  - {name: renamed, match: {models: ["alias"]}, chain: [{provider: main, model: served}], retries: none}
  - {name: capped, match: {models: ["capped"]}, chain: [{provider: main}], retries: none, output_cap: 77}
  - {name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}
"""
WORDS = "The quick brown fox jumps over the lazy dog while nobody looks at the clock on the wall. "
EMAIL = "ana.canary@example.com"


def config_of(provider: Simulator) -> str:
    counted = f'counted: {{base_url: "{provider.origin}/counted/v1"}}'
    claude = f'claude: {{kind: anthropic, base_url: "{provider.origin}/anthropic/v1"}}'
    return f'providers: {{main: {{base_url: "{provider.base_url}"}}, {counted}, {claude}}}\n'


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator(journal_body_bytes=32 << 20, journal_total_bytes=256 << 20) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with sidecar_for(
        tmp_path_factory.mktemp("large"), config_of(provider), POLICY, server="max_body: 32MiB"
    ) as running:
        yield running


def ask(sidecar: Sidecar, *contents: str, model: str = "m", **fields: Any) -> Message:
    messages = [{"role": "user", "content": content} for content in contents]
    body = json.dumps({"model": model, "messages": messages, **fields}).encode()
    return sidecar.ask(request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"}), 60.0)


def worker_of(sidecar: Sidecar) -> int:
    """Return the process id of the sidecar's one child, 0 when it has none."""
    children = Path(f"/proc/{sidecar.process.pid}/task/{sidecar.process.pid}/children").read_text().split()
    return int(children[0]) if children else 0


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param([f"{WORDS * 220_000} {EMAIL}"], id="one string"),
        pytest.param([f"{WORDS * 2} {EMAIL}"] * 100_000, id="100,000 strings", marks=pytest.mark.slow),
    ],
)
def test_twenty_megabytes_are_read_to_their_end(sidecar: Sidecar, provider: Simulator, contents: list[str]) -> None:
    """No value leaves, however far behind it stands; that nobody waits meanwhile is for test_loop_stalls to say."""
    answer = ask(sidecar, *contents)

    assert (200, "email=1") == (answer.status, answer.get("x-readygate-redactions"))
    assert EMAIL.encode() not in provider.last.body
    assert b"[EMAIL-1]" in provider.last.body


def test_values_of_a_large_body_come_back(sidecar: Sidecar, provider: Simulator) -> None:
    """The vault crosses from the process that found them; the alias is replaced in the outgoing body."""
    answer = ask(sidecar, WORDS * 5000, f"echo: write to {EMAIL}", model="alias")

    assert f"write to {EMAIL}" == answer.json()["choices"][0]["message"]["content"]
    assert "served" == json.loads(provider.last.body)["model"]


def test_large_form_goes_under_the_targets_name(sidecar: Sidecar, provider: Simulator) -> None:
    """The field alone is replaced."""
    fields = [("model", "alias"), ("prompt", WORDS * 5000 + EMAIL)]
    lines = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields]
    form = "".join([*lines, "--b--\r\n"]).encode()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    sidecar.ask(request("POST", "/v1/audio/transcriptions", form, headers), 30.0)

    assert form.replace(b"alias", b"served").replace(EMAIL.encode(), b"[EMAIL-1]") == provider.last.body


def test_rules_that_read_the_request_hold_for_large_ones(sidecar: Sidecar, provider: Simulator) -> None:
    """A body must not slip past a cap because it was read elsewhere."""
    answer = ask(sidecar, WORDS * 5000, EMAIL, model="capped", max_tokens=5000)
    sent = json.loads(provider.last.body)

    assert 200 == answer.status
    assert (77, "[EMAIL-1]") == (sent["max_tokens"], sent["messages"][1]["content"])


def test_parameters_of_large_ones_follow_the_target(sidecar: Sidecar, provider: Simulator) -> None:
    """Left out and renamed as of small ones, with the notes of the row, after redaction."""
    answer = ask(sidecar, WORDS * 5000, EMAIL, model="fitting", seed=7, top_p=0.5)
    sent = json.loads(provider.last.body)

    assert ("served", 0.5, "[EMAIL-1]") == (sent["model"], sent["nucleus"], sent["messages"][1]["content"])
    assert not {"seed", "top_p"} & set(sent)
    notes = str(sidecar.row(answer.get("x-readygate-id")))
    assert "dropped:main:seed" in notes
    assert "renamed:main:top_p" in notes


def test_target_that_takes_no_pictures_is_passed_over_by_large_ones(sidecar: Sidecar) -> None:
    """What a body holds is told by the process that read it."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * 100_000}}
    body = {"model": "deaf", "messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, picture]}]}
    headers = {"Content-Type": "application/json"}
    answer = sidecar.ask(request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers), 30.0)

    assert "skipped:main:modality" in str(sidecar.row(answer.get("x-readygate-id")))
    assert answer.status != 200
    assert 200 == ask(sidecar, WORDS * 5000, model="deaf").status


@pytest.mark.parametrize("stream", [False, True])
def test_large_chat_is_translated_for_a_messages_target(sidecar: Sidecar, provider: Simulator, stream: bool) -> None:
    """Asked in its dialect and answered in ours, values and all."""
    answer = ask(sidecar, WORDS * 5000, f"echo: write to {EMAIL}", model="other", stream=stream)
    sent = json.loads(provider.last.body)

    assert ("served", WORDS * 5000) == (sent["model"], flat(sent["messages"][0]["content"])[: len(WORDS) * 5000])
    text = stream_text(answer) if stream else answer.json()["choices"][0]["message"]["content"]
    assert f"write to {EMAIL}" in text


def flat(content: Any) -> str:
    """Return the text of a message, in one string or in parts."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def test_usage_is_asked_for_and_hidden_in_large_ones_too(sidecar: Sidecar, provider: Simulator) -> None:
    """A budget needs it, the caller did not ask for it; every other byte stays."""
    answer = ask(sidecar, WORDS * 5000, model="counted", stream=True)
    row = sidecar.row(answer.get("x-readygate-id"))
    document = {"model": "counted", "messages": [{"role": "user", "content": WORDS * 5000}], "stream": True}

    asked = json.dumps(document).encode()[:-1] + b',"stream_options":{"include_usage":true}}'
    assert asked == provider.last.body
    assert b'"usage"' not in answer.body
    assert (False, True) == (bool(row["tokens_estimated"]), row["tokens_in"] > 0)


def test_large_body_without_findings_goes_untouched(sidecar: Sidecar, provider: Simulator) -> None:
    """Byte for byte, as small ones do."""
    ask(sidecar, WORDS * 5000)
    sent = json.dumps({"model": "m", "messages": [{"role": "user", "content": WORDS * 5000}]}).encode()

    assert sent == provider.last.body


def test_large_body_that_is_no_json_is_refused(sidecar: Sidecar) -> None:
    """The same answer as for a small one."""
    body = b'{"model": "m", ' + b"x" * 300_000
    answer = sidecar.ask(request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"}))

    assert (400, "body_unreadable") == (answer.status, answer.error["code"])


def test_death_of_the_reading_process_refuses_one_request_and_no_more(sidecar: Sidecar, provider: Simulator) -> None:
    """Killed for memory, say: nothing unread leaves, and the next body finds a new process."""
    ask(sidecar, WORDS * 5000)
    before = len(provider.entries)
    old = worker_of(sidecar)
    os.kill(old, signal.SIGSTOP)
    answers: list[Message] = []
    thread = threading.Thread(target=lambda: answers.append(ask(sidecar, WORDS * 50_000, EMAIL)))
    thread.start()
    time.sleep(0.3)  # noqa: TID251 - the body has to be on its way; no event loop here
    os.kill(old, signal.SIGKILL)
    thread.join(10)

    assert (500, "redaction_failed") == (answers[0].status, answers[0].error["code"])
    assert before == len(provider.entries)
    assert 200 == ask(sidecar, WORDS * 5000, EMAIL).status
    assert worker_of(sidecar) not in (0, old)


def test_reading_process_ends_with_the_sidecar(provider: Simulator, tmp_path: Path) -> None:
    """No process is left behind."""
    with sidecar_for(tmp_path, config_of(provider), POLICY) as running:
        assert 0 == worker_of(running)
        ask(running, WORDS * 5000)
        worker = worker_of(running)
        assert worker

    eventually(lambda: not Path(f"/proc/{worker}").exists(), "the process is still there")
