"""Requests made to cost: work must grow like the body, whatever its shape."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from proxy.core.dialect import Dialect
from proxy.core.redaction import Redacted, RequestRedactor
from proxy.core.redaction.detect import build_detector
from proxy.flow.intake import takes_long
from proxy.terms.redaction import Action, DirectionPlan, RedactionPlan

REDACT = RequestRedactor(RedactionPlan(request=DirectionPlan(default=Action.REDACT)), build_detector())
RESTORE = RequestRedactor(RedactionPlan(request=DirectionPlan(default=Action.RESTORE)), build_detector())


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **fields}


SHAPES: dict[str, Callable[[int], dict[str, Any]]] = {
    "names of members": lambda n: user("x", metadata={f"k{at}@example.org": 1 for at in range(n)}),
    "parts with values over their seams": lambda n: user([{"type": "text", "text": "a1ana@example.org"}] * n),
    "a chain of values that overlap": lambda n: user("a1ana@example.org" * n),
    "parts with many values": lambda n: user([{"type": "text", "text": f"u{at}@x.org, "} for at in range(n)]),
}


def seconds(redactor: RequestRedactor, document: dict[str, Any]) -> float:
    """Return the CPU seconds of one redaction, the best of three."""
    body = json.dumps(document).encode()

    def once() -> float:
        begun = time.thread_time()
        assert isinstance(redactor.redact(body, Dialect.CHAT), Redacted)
        return time.thread_time() - begun

    return min(once() for _ in range(3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("redactor", [REDACT, RESTORE], ids=["redact", "restore"])
def test_eight_times_the_body_is_no_more_than_some_eight_times_the_work(redactor: RequestRedactor, shape: str) -> None:
    """A body of 240 KB stood for 46 seconds in the event loop because each name was written one by one."""
    make = SHAPES[shape]

    assert seconds(redactor, make(4800)) < 24 * seconds(redactor, make(600))


def test_members_whose_names_become_one_keep_apart_and_in_order() -> None:
    """Nothing of the application's data may be lost to a stand-in."""
    body = json.dumps(
        user("x", metadata={"a@x.org": 1, "[EMAIL_REDACTED]": 2, "b@x.org": 3, "z": 4, "c@x.org": 5})
    ).encode()
    verdict = REDACT.redact(body, Dialect.CHAT)

    assert isinstance(verdict, Redacted)
    assert [
        ("[EMAIL_REDACTED] (2)", 1), ("[EMAIL_REDACTED]", 2), ("[EMAIL_REDACTED] (3)", 3), ("z", 4), ("[EMAIL_REDACTED] (4)", 5),
    ] == list(verdict.document["metadata"].items())  # fmt: skip


@pytest.mark.parametrize(
    ("body", "is_long"),
    [
        (b"x" * 200_000, False),
        (b"4" * 20_000, False),
        (b"4539 1488 0343 6467 " * 2000, True),
        (b"x" * 300_000, True),
        (b"In 2026 we met three times, and wrote down what was said of the plan and the budget. " * 2000, False),
    ],
)
def test_body_is_judged_elsewhere_when_it_is_large_or_dense(body: bytes, is_long: bool) -> None:
    """The process for large bodies costs more than an ordinary body of the same size."""
    assert is_long is takes_long(body)
