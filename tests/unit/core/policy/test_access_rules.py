"""What access rules say of a request, without a sidecar around them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.policy.access import LENGTH_KEYS, AccessPlan, Asked, Over, Patterns, clamped, judge

CHAT = "/chat/completions"
ONE_MODEL = AccessPlan(models=Patterns(["gpt-4o*", "fast"]))


def refusal(plan: AccessPlan, asked: Asked) -> tuple[int, str, str] | None:
    """Return status, code and the rule that refuses."""
    denied = judge(plan, asked)
    if denied is None or denied.refusal is None:
        return None
    return denied.refusal.status, denied.refusal.code, denied.key


def posted(model: str | None = None, path: str = CHAT, **document: Any) -> Asked:
    return Asked("POST", path, model, body_bytes=10, document=document)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (posted("gpt-4o-mini"), None),
        (posted("fast"), None),
        (posted("o3"), (404, "model_not_found", "models")),
        (posted(None), (403, "permission_denied", "models")),
        (posted(None, "/audio/transcriptions"), (403, "permission_denied", "models")),
        (posted(None, "/chat/completions")._replace(query="model=fast"), (403, "permission_denied", "models")),
        (Asked("GET", "/responses", None, "model=fast", is_readable=False), (403, "permission_denied", "models")),
        (Asked("GET", "/realtime", None, "model=fast", is_readable=False), None),
        (Asked("POST", "/responses/r_1/cancel", None), None),
        (posted(None, "/batches"), (403, "permission_denied", "models")),
        (posted(None, "/files"), None),
        (Asked("GET", "/models/o3", None), (404, "model_not_found", "models")),
        (Asked("DELETE", "/models/ft%3Ao3", None), (404, "model_not_found", "models")),
        (Asked("GET", "/models/gpt-4o", None), None),
        (Asked("POST", "/engines/o3/completions", None, body_bytes=9), (404, "model_not_found", "models")),
        (Asked("GET", "/realtime", None, "model=o3"), (404, "model_not_found", "models")),
        (Asked("GET", "/realtime", None, "mod%65l=o3"), (404, "model_not_found", "models")),
        (Asked("GET", "/realtime", None, "model=fast&model=o3"), (404, "model_not_found", "models")),
        (Asked("GET", "/realtime", None, "model=fast"), None),
        (Asked("GET", "/realtime", None), (403, "permission_denied", "models")),
        (Asked("POST", CHAT, "fast", "model=o3", 9), (404, "model_not_found", "models")),
    ],
)  # fmt: skip
def test_models_are_held_wherever_a_request_names_them(asked: Asked, expected: tuple[int, str, str] | None) -> None:
    """A list of models that a query, a path or an unread body gets around is no list."""
    assert expected == refusal(ONE_MODEL, asked)


@pytest.mark.parametrize(
    ("plan", "asked", "expected"),
    [
        (AccessPlan(methods=frozenset({"POST"})), Asked("GET", CHAT, None), (403, "permission_denied", "methods")),
        (AccessPlan(paths=Patterns(["/chat/*"])), posted("m", "/files"), (403, "permission_denied", "paths")),
        (AccessPlan(paths=Patterns(["/chat/*"])), posted("m"), None),
        (AccessPlan(max_body_bytes=9), posted("m"), (413, "body_too_large", "max_body")),
        (AccessPlan(max_body_bytes=10), posted("m"), None),
        (AccessPlan(max_body_bytes=10), Asked("POST", CHAT, "m", "", None), (413, "body_too_large", "max_body")),
        (AccessPlan(forbidden_params=frozenset({"n"})), posted("m", n=2), (403, "permission_denied", "forbidden_params")),
        (AccessPlan(params=frozenset({"n"})), posted("m", n=2, messages=[], stream=True), None),
        (AccessPlan(params=frozenset({"n"})), posted("m", tools=[]), (403, "permission_denied", "params")),
        (AccessPlan(max_tokens=5), posted("m", max_tokens=5), None),
        (AccessPlan(max_tokens=5), posted("m", max_tokens=1, max_completion_tokens=6), (403, "permission_denied", "max_tokens")),
        (AccessPlan(max_tokens=5), posted("m", max_tokens="6"), (403, "permission_denied", "max_tokens")),
        (AccessPlan(max_tokens=5), posted("m", max_tokens=True), (403, "permission_denied", "max_tokens")),
        (AccessPlan(max_tokens=5, over_max_tokens=Over.CLAMP), posted("m", max_tokens=9), None),
        (AccessPlan(max_tokens=5), Asked("GET", "/realtime", None, is_readable=False), (403, "permission_denied", "max_tokens")),
    ],
)  # fmt: skip
def test_each_rule_refuses_what_it_names_and_nothing_else(
    plan: AccessPlan, asked: Asked, expected: tuple[int, str, str] | None
) -> None:
    """The code and the rule's name are what operators search for."""
    assert expected == refusal(plan, asked)


@given(
    st.dictionaries(st.sampled_from([*LENGTH_KEYS, "temperature"]), st.integers(1, 10_000), max_size=4),
    st.integers(1, 9_999),
)
def test_a_clamped_request_is_one_that_refusing_would_allow(document: dict[str, int], limit: int) -> None:
    """Cutting and refusing agree on what is too long, and cutting touches nothing else."""
    cut = clamped(AccessPlan(max_tokens=limit, over_max_tokens=Over.CLAMP), document)

    assert (cut is None) == (judge(AccessPlan(max_tokens=limit), posted("m", **document)) is None)
    after = document if cut is None else cut
    assert judge(AccessPlan(max_tokens=limit), posted("m", **after)) is None
    assert set(document) == set(after)
    assert document.get("temperature") == after.get("temperature")
