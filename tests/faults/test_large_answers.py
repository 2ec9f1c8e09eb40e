"""Large whole answers: read in the process for large bodies, and no different from small ones."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.canned_provider import canned_provider, whole
from tests.support.wire import Message, Sidecar, eventually, request, sidecar_for

pytestmark = pytest.mark.faults

POLICIES = {
    "restores.yaml": """
version: 1
policy: restores
applies_to: {apps: ["restores"]}
redaction: {request: {default: restore}}
routes:
  - {name: renamed, match: {models: ["alias"]}, chain: [{provider: main, model: large}], retries: none}
  - {name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}
""",
    "redacts.yaml": """
version: 1
policy: redacts
applies_to: {apps: ["redacts"]}
redaction: {request: {default: restore}, response: {default: redact, rules: [{types: [credit_card], action: block}]}}
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
""",
    "counts.yaml": """
version: 1
policy: counts
applies_to: {apps: ["counts"]}
redaction: {request: {default: "off"}, response: {default: observe}}
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
""",
}
WORDS = "The quick brown fox jumps over the lazy dog while nobody looks at the clock on the wall. " * 7000
MINE, THEIRS = "ana.canary@example.com", "bob@example.org"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answers")


@pytest.fixture(scope="module")
def sidecar(answers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with canned_provider(answers) as base_url:
        config = f'providers: {{main: {{base_url: "{base_url}"}}}}\n'
        with sidecar_for(tmp_path_factory.mktemp("large"), config, POLICIES) as running:
            yield running


def completion(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return json.dumps({"id": "c", "object": "chat.completion", "model": "served", "choices": [choice], "usage": usage, **more}).encode()  # fmt: skip


def ask(sidecar: Sidecar, app: str, content: str = f"write to {MINE}", model: str = "large") -> Message:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": content}]}).encode()
    headers = {"Content-Type": "application/json", "x-readygate-app": app}
    return sidecar.ask(request("POST", "/v1/chat/completions", body, headers), 30.0)


def said(answer: Message) -> str:
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def test_values_come_back_with_usage_and_the_callers_name(sidecar: Sidecar, answers: Path) -> None:
    """All that a small answer gets."""
    (answers / "large").write_bytes(whole(completion(f"{WORDS}[EMAIL-1] and {THEIRS}")))
    answer = ask(sidecar, "restores", model="alias")
    row = sidecar.row(answer.get("x-readygate-id"))

    assert f"{WORDS}{MINE} and {THEIRS}" == said(answer)
    assert "alias" == answer.json()["model"]
    assert (11, 7, "success") == (row["tokens_in"], row["tokens_out"], row["status"])


def test_new_findings_go_and_own_values_stay(sidecar: Sidecar, answers: Path) -> None:
    """Redacted first, restored after; counted in the row."""
    (answers / "large").write_bytes(whole(completion(f"{WORDS}[EMAIL-1] and {THEIRS}")))
    answer = ask(sidecar, "redacts")
    row = sidecar.row(answer.get("x-readygate-id"))

    assert f"{WORDS}{MINE} and [EMAIL_REDACTED]" == said(answer)
    assert {"email": 1} == {k.lower(): v for k, v in json.loads(row["response_findings"]).items()}


def test_coded_answer_is_inflated_first(sidecar: Sidecar, answers: Path) -> None:
    """Some providers compress whatever they were asked for."""
    coded = gzip.compress(completion(f"{WORDS}[EMAIL-1] and {THEIRS}"))
    (answers / "large").write_bytes(whole(coded, more="content-encoding: gzip\r\n"))
    answer = ask(sidecar, "redacts")

    assert not answer.has("content-encoding")
    assert f"{WORDS}{MINE} and [EMAIL_REDACTED]" == said(answer)


def test_blocked_type_ends_the_answer(sidecar: Sidecar, answers: Path) -> None:
    """Whatever its size, and its tokens are accounted for."""
    (answers / "large").write_bytes(whole(completion(f"{WORDS} card 4111 1111 1111 1111")))
    answer = ask(sidecar, "redacts")
    row = sidecar.row(answer.get("x-readygate-id"))

    assert b"4111" not in answer.body
    assert ("content_policy_violation", "blocked", 7) == (answer.error["code"], row["status"], row["tokens_out"])


def test_answer_that_was_cut_is_no_success(sidecar: Sidecar, answers: Path) -> None:
    """A length that fits and a document that does not end."""
    cut = completion(f"[EMAIL-1] {WORDS}").rpartition(b', "usage"')[0] + b"}"
    (answers / "large").write_bytes(whole(cut.replace(b'"choices": [', b'"choices": [[')))

    assert "upstream_truncated" == ask(sidecar, "restores").error["code"]


def test_answer_that_is_only_counted_goes_on_byte_for_byte(sidecar: Sidecar, answers: Path) -> None:
    """Observed: nothing changes."""
    body = completion(f"{WORDS} {THEIRS}", odd=1.50)
    (answers / "large").write_bytes(whole(body))
    answer = ask(sidecar, "counts")
    row = sidecar.row(answer.get("x-readygate-id"))

    assert body == answer.body
    assert 1 == sum(json.loads(row["response_findings"]).values())


def test_many_values_come_back(sidecar: Sidecar, answers: Path) -> None:
    """The vault crosses to the process in pieces."""
    values = [f"user.{n}@example.com" for n in range(2500)]
    tags = " ".join(f"[EMAIL-{n + 1}]" for n in range(2500))
    (answers / "large").write_bytes(whole(completion(f"{WORDS}{tags}")))
    answer = ask(sidecar, "restores", " ".join(values))

    assert WORDS + " ".join(values) == said(answer)


def test_error_of_megabytes_keeps_its_status_and_loses_its_words(sidecar: Sidecar, answers: Path) -> None:
    """Errors are read on the event loop, so they are read up to a bound; below it they pass as they are."""
    for size, expected in ((400_000, True), (5_000_000, False)):
        error = {
            "error": {
                "message": f"[EMAIL-1] {'x' * size}",
                "type": "invalid_request_error",
                "param": None,
                "code": "odd",
            }
        }
        (answers / "large").write_bytes(whole(json.dumps(error).encode()).replace(b"200 OK", b"400 Bad Request", 1))
        answer = ask(sidecar, "restores")

        assert 400 == answer.status
        assert expected is (MINE.encode() in answer.body)
        assert b"[EMAIL-1]" not in answer.body


def test_process_that_dies_fails_what_needs_it_and_no_more(sidecar: Sidecar, answers: Path) -> None:
    """An answer with placeholders must not go on unrestored; one that is only counted may."""
    (answers / "large").write_bytes(whole(completion(f"{WORDS}[EMAIL-1]")))
    ask(sidecar, "restores")
    outcomes = {}
    for app in ("restores", "counts"):
        worker = worker_of(sidecar)
        os.kill(worker, signal.SIGSTOP)
        got: list[Message] = []
        thread = threading.Thread(target=lambda app=app, got=got: got.append(ask(sidecar, app)))  # type: ignore[misc]
        thread.start()
        time.sleep(0.4)  # noqa: TID251 - the answer has to be on its way; no event loop here
        os.kill(worker, signal.SIGKILL)
        thread.join(10)
        outcomes[app] = got[0].status
        assert 200 == ask(sidecar, "restores").status

    assert {"restores": 500, "counts": 200} == outcomes


def worker_of(sidecar: Sidecar) -> int:
    """Return the process id of the sidecar's one child."""
    path = Path(f"/proc/{sidecar.process.pid}/task/{sidecar.process.pid}/children")
    eventually(lambda: bool(path.read_text().split()), "there is no process for large bodies")
    return int(path.read_text().split()[0])
