"""`access` of a policy at the door: what is not allowed never reaches a provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.refusals import check, row_agrees
from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, chat, request, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: shop
access:
  models: ["gpt-4o-mini", "claude-*", late]
  paths: ["/chat/completions", "/models*", "/images/*"]
  methods: [GET, POST]
  regions: [eu]
  max_body: 2KiB
  max_tokens: 100
  over_max_tokens: clamp
  forbidden_params: [tools, "n"]
routes: [{match: {models: ["gpt-4o-mini", hidden, "*"]}, chain: [{provider: main}], retries: none}]
"""
WATCHED = """
version: 1
policy: watched
mode: observe
applies_to: {apps: [watched]}
access: {models: [other], max_tokens: 5}
routes: [{match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f'providers: {{main: {{base_url: "{provider.base_url}", region: eu}}}}'
    folder = tmp_path_factory.mktemp("access")
    (folder / "policies").mkdir()
    (folder / "policies" / "watched.yaml").write_text(WATCHED)
    with sidecar_for(folder, config, POLICY) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


def sent(provider: Simulator) -> Any:
    return json.loads(provider.last.body)


@pytest.mark.parametrize(
    ("data", "status", "code", "rule"),
    [
        (chat(model="hidden"), 404, "model_not_found", "models"),
        (chat(tools=[]), 403, "permission_denied", "forbidden_params"),
        (chat("x" * 3000), 413, "body_too_large", "max_body"),
        (chat(max_tokens="many"), 403, "permission_denied", "max_tokens"),
        (request("POST", "/v1/embeddings", b'{"model":"gpt-4o-mini","input":"x"}'), 403, "permission_denied", "paths"),
        (request("DELETE", "/v1/models/gpt-4o-mini"), 403, "permission_denied", "methods"),
        (request("GET", "/v1/models/hidden"), 404, "model_not_found", "models"),
        (request("POST", "/v1/images/generations", b'{"model":"hidden"}', {"Content-Type": "text/plain"}),
         403, "permission_denied", "models"),
    ],
    ids=["model", "param", "body", "length", "path", "method", "model-in-path", "unread-body"],
)  # fmt: skip
def test_what_is_not_allowed_is_refused_and_recorded(
    sidecar: Sidecar, provider: Simulator, data: bytes, status: int, code: str, rule: str
) -> None:
    """The app learns what is wrong and not to repeat it; the row says blocked, and by which rule."""
    answer = sidecar.ask(data)

    check(answer, status, code, "policy", "no")
    row = row_agrees(sidecar, answer, "blocked")
    assert f"access:{rule}" in row["notes"]
    assert [] == provider.entries


def test_allowed_request_leaves_with_the_limit_of_its_answer(sidecar: Sidecar, provider: Simulator) -> None:
    """A caller that names no length gets the policy's, so that the provider's default cannot exceed it."""
    answer = sidecar.ask(chat(model="claude-x"))

    assert 200 == answer.status
    assert 100 == sent(provider)["max_completion_tokens"]


def test_longer_answer_is_cut_to_the_limit_and_noted(sidecar: Sidecar, provider: Simulator) -> None:
    """`over_max_tokens: clamp` lets the request pass, shorter, under the name the caller wrote."""
    answer = sidecar.ask(chat(max_tokens=5000, max_completion_tokens=7))

    assert 200 == answer.status
    assert (100, 7) == (sent(provider)["max_tokens"], sent(provider)["max_completion_tokens"])
    assert "clamped:max_tokens" in sidecar.row(answer.get("x-readygate-id"))["notes"]


def test_length_written_twice_leaves_as_it_was_read(sidecar: Sidecar, provider: Simulator) -> None:
    """A provider that obeys the first of two equal keys must not see what we did not."""
    body = b'{"model":"gpt-4o-mini","max_tokens":9999,"messages":[],"max_tokens":7}'
    sidecar.ask(request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"}))

    assert b"9999" not in provider.last.body
    assert 7 == sent(provider)["max_tokens"]


def test_listing_shows_the_allowed_models_only(sidecar: Sidecar) -> None:
    """What may not be asked for is not offered; what a wildcard route takes is, where the policy spells it out."""
    answer = sidecar.ask(request("GET", "/v1/models"))

    assert ["gpt-4o-mini", "late"] == [row["id"] for row in answer.json()["data"]]


def test_observing_policy_refuses_nothing_and_notes_it(sidecar: Sidecar, provider: Simulator) -> None:
    """`mode: observe` is how an allowlist is tried before it bites."""
    answer = sidecar.ask(chat(headers={"x-readygate-app": "watched"}, max_tokens=50))

    assert 200 == answer.status
    assert 50 == sent(provider)["max_tokens"]
    row = sidecar.row(answer.get("x-readygate-id"))
    assert ("success", True) == (row["status"], "would_refuse:access:models" in row["notes"])
