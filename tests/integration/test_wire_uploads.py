"""Uploads through the front door: fields and lines are redacted, sound is counted or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, request, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

EMAIL = "ana.canary@example.com"
SOUND = bytes(range(256)) * 400
POLICIES = {
    f"{app}.yaml": f"""
version: 1
policy: {app}
applies_to: {{apps: [{app}]}}
redaction: {{request: {{default: restore}}, unscanned: {unscanned}}}
routes: [{{name: {app}, match: {{models: ["*"]}}, chain: [{{provider: main{served}}}], retries: none}}]
"""
    for app, unscanned, served in (("lax", "pass", ", model: whisper-1"), ("strict", "refuse", ""))
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\n'
    with sidecar_for(tmp_path_factory.mktemp("uploads"), config, POLICIES, server="max_body: 1MiB") as running:
        yield running


def upload(sidecar: Sidecar, path: str, app: str, *parts: tuple[str, bytes]) -> Message:
    body = b"".join(
        b"--cut\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    ) + b"--cut--\r\n"  # fmt: skip
    headers = {"Content-Type": "multipart/form-data; boundary=cut", "x-readygate-app": app}
    return sidecar.ask(request("POST", path, body, headers))


def test_prompt_of_a_transcription_is_redacted_and_its_sound_counted(sidecar: Sidecar, provider: Simulator) -> None:
    """Names go into the prompt so that they are spelled right; the served model replaces the alias."""
    answer = upload(
        sidecar, "/v1/audio/transcriptions", "lax",
        ('name="model"', b"whisper"), ('name="prompt"', f"mail {EMAIL}".encode()), ('name="file"; filename="a.mp3"', SOUND),
    )  # fmt: skip
    sent = provider.last.body
    row = sidecar.row(answer.get("x-readygate-id"))

    assert 200 == answer.status
    assert EMAIL.encode() not in sent
    assert b"mail [EMAIL-1]\r\n" in sent
    assert b"\r\nwhisper-1\r\n" in sent
    assert SOUND in sent
    assert (len(SOUND), {"EMAIL": 1}) == (row["unscanned_bytes"], json.loads(row["findings"]))
    assert len(SOUND) <= sidecar.metric("readygate_unscanned_bytes_total")


def test_lines_of_a_batch_leave_without_values(sidecar: Sidecar, provider: Simulator) -> None:
    """A batch is thousands of requests in one file; none of them may slip by, strict policy or not."""
    line = {"custom_id": "1", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": EMAIL}]}}
    answer = upload(
        sidecar, "/v1/files", "strict",
        ('name="purpose"', b"batch"), ('name="file"; filename="batch.jsonl"', json.dumps(line).encode() + b"\n"),
    )  # fmt: skip

    assert 200 == answer.status
    assert EMAIL.encode() not in provider.last.body
    assert b'"content":"[EMAIL-1]"' in provider.last.body


def test_sound_is_refused_where_policy_says_so(sidecar: Sidecar, provider: Simulator) -> None:
    """What cannot be read does not leave under a strict policy."""
    before = len(provider.entries)
    answer = upload(sidecar, "/v1/audio/transcriptions", "strict", ('name="file"; filename="a.mp3"', SOUND))

    assert (400, "unscanned_content") == (answer.status, answer.error["code"])
    assert before == len(provider.entries)


@pytest.mark.parametrize(("app", "status"), [("lax", 200), ("strict", 400)])
def test_upload_too_large_to_be_read_is_passed_or_refused(
    sidecar: Sidecar, provider: Simulator, app: str, status: int
) -> None:
    """Beyond ``max_body`` an upload streams by, counted; nothing is lost of it on the way."""
    content = b"x" * (3 << 20)
    answer = upload(
        sidecar, "/v1/files", app, ('name="purpose"', b"batch"), ('name="file"; filename="b.jsonl"', content)
    )

    assert status == answer.status
    if status == 200:
        assert provider.last.body_bytes > len(content)
        assert sidecar.row(answer.get("x-readygate-id"))["unscanned_bytes"] > len(content)
