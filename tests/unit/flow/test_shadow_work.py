"""The shadow's queue is bounded, and next to nothing is done for an exchange that would end alike."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy.core.config.load import parse_settings
from proxy.core.config.settings import Settings
from proxy.core.dialect import Dialect
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.flow.catalog import Catalog, Snapshot
from proxy.flow.exchange import Exchange
from proxy.flow.redactors import Redactors
from proxy.flow.reload import compile_snapshot
from proxy.flow.shadow import Shadow
from proxy.terms.exchange import ExchangeFacts
from tests.support.wire import chat

CONFIG = 'version: 1\nproviders: {one: {base_url: "http://127.0.0.1:1/v1"}}\n'
LIVE = """version: 1
policy: default
redaction: {request: {default: restore}}
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: one}]}]
"""
BODY = chat("write to ana.souza@example.com").partition(b"\r\n\r\n")[2]


def settings() -> Settings:
    found = parse_settings(CONFIG, "config.yaml", Path("/x")).settings
    assert found is not None
    return found


def snapshot(text: str) -> Snapshot:
    made = Redactors(b"key")
    compiled, problems = compile_snapshot(
        [("a.yaml", text)], [], settings(), KNOWN_KINDS, made.build, made.build_answers
    )
    assert compiled is not None, problems
    return compiled


def shadow_of(live: str, candidate: str, **options: Any) -> tuple[Shadow, str]:
    catalog = Catalog(settings().providers)
    catalog.accept(snapshot(live))
    shadow = Shadow(catalog, lambda: None, lambda: 0.0, lambda: 0, **options)
    shadow.accept(snapshot(candidate))
    assert catalog.snapshot is not None
    return shadow, catalog.snapshot.revision


def ended(revision: str, **facts: Any) -> Exchange:
    said = ExchangeFacts("id", 0, "POST", "/v1/chat/completions", policy="default", policy_revision=revision)
    said.model_asked = "gpt"
    for name, value in facts.items():
        setattr(said, name, value)
    head = SimpleNamespace(fields={b"content-type": b"application/json"})
    inbound = SimpleNamespace(head=head, body=BODY)
    return cast("Exchange", SimpleNamespace(facts=said, inbound=inbound, dialect=Dialect.CHAT))


def test_a_full_queue_drops_and_counts() -> None:
    """Memory is bounded however long the loop has no idle time."""
    shadow, revision = shadow_of(LIVE, LIVE, max_waiting=2)

    for _ in range(5):
        shadow.ended(ended(revision))

    assert (2, 3) == (shadow.document()["waiting"], shadow.dropped)


LARGE = BODY[:-4] + b" " * 300_000 + BODY[-4:]


@pytest.mark.parametrize("body", [LARGE, object()], ids=["large", "upload"])
def test_what_is_not_read_again_is_compared_by_its_facts_and_counted(body: Any) -> None:
    """A report must say how many of its exchanges might hold more than was looked for."""
    shadow, revision = shadow_of(LIVE, LIVE.replace("default: restore", "default: block"))
    for one in (body, BODY):
        exchange = ended(revision, findings={"EMAIL": 1})
        exchange.inbound.body = one
        shadow.ended(exchange)
    shadow.work(1.0)
    shadow.work(1.0)
    report = shadow.document()

    assert (2, 2, 1, 1) == (report["exchanges"], report["changed"], report["partly_known"], report["unread"])


@pytest.mark.parametrize(
    ("limits", "said", "changed"),
    [
        ("forbidden_params: [logit_bias]", {"logit_bias": {}}, ["refused"]),
        ("forbidden_params: [logit_bias]", {}, []),
        ("max_tokens: 10", {"max_tokens": 11}, ["refused"]),
        ("max_tokens: 10", {"max_tokens": 9}, []),
    ],
)
def test_parameters_that_the_candidate_limits_are_read_from_the_body(
    limits: str, said: dict[str, Any], changed: list[str]
) -> None:
    """The live policy never looked at them, so no note tells."""
    shadow, revision = shadow_of(LIVE, LIVE + f"access: {{{limits}}}\n")
    exchange = ended(revision)
    exchange.inbound.body = chat("hello", **said).partition(b"\r\n\r\n")[2]
    shadow.ended(exchange)
    shadow.work(1.0)
    report = shadow.document()

    assert (changed, 0) == ([one["what"] for one in report["changes"]], report["partly_known"])


def test_what_the_live_policy_refused_before_it_looked_is_read_by_the_candidate() -> None:
    """A request that access refused was never redacted; whoever lets it in would find what it holds."""
    shadow, revision = shadow_of(
        LIVE + "access: {models: [other]}\n", LIVE.replace("default: restore", "default: block")
    )
    shadow.ended(ended(revision, error_code="model_not_found"))
    shadow.work(1.0)

    assert [("refusal", "model_not_found", "content_policy_violation")] == [
        (one["what"], one["before"], one["after"]) for one in shadow.document()["changes"]
    ]


def test_an_exchange_of_another_revision_is_not_compared() -> None:
    """What began before a reload was decided by other policies."""
    shadow, _ = shadow_of(LIVE, LIVE)
    shadow.ended(ended("before"))

    shadow.work(0.0)

    assert (0, 1) == (shadow.changes.exchanges, shadow.dropped)


def test_the_candidates_own_redactor_finds_what_the_live_policy_allows() -> None:
    """Facts of the live policy say nothing about values that it lets pass."""
    live = LIVE.replace("default: restore", "default: restore, allow: {domains: [example.com]}")
    shadow, revision = shadow_of(live, LIVE.replace("restore", "block"))
    shadow.ended(ended(revision))

    shadow.work(0.0)

    (change,) = shadow.document()["changes"]
    assert ("refused", "default/any: email", 1) == (change["what"], change["rule"], change["count"])


def test_an_exchange_that_would_end_alike_costs_microseconds() -> None:
    """Measured 2 to 3 µs where 5 are allowed; the bound here leaves room for a busy machine and catches a blow-up."""
    shadow, revision = shadow_of(LIVE, LIVE + "readiness: {settle: 3s}\n")
    exchange = ended(revision)
    best_us = 1e9
    for _ in range(7):
        began = time.process_time()
        for _ in range(1000):
            shadow.ended(exchange)
            shadow.work(0.0)
        best_us = min(best_us, (time.process_time() - began) * 1e3)

    print(f"{best_us:.2f} us per exchange")
    assert best_us < 15
    assert 7000 == shadow.changes.exchanges
