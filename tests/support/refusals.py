"""What every refusal on the wire owes a caller, and what its row owes the operator."""

from __future__ import annotations

from typing import Any

from tests.support.wire import Message, Sidecar


def check(
    answer: Message, status: int, code: str, fault: str, retry: str, *, shape: set[str] | None = None
) -> dict[str, Any]:
    """Hold a refusal to every convention; ``retry`` is ``yes`` (a wait is told), ``no`` or ``untold``."""
    assert (status, code) == (answer.status, answer.error.get("code")), answer
    error = answer.error
    assert (shape or {"message", "type", "param", "code", "request_id"}) == set(error)
    assert error["request_id"] == answer.get("x-readygate-id")
    assert error["message"]
    assert "application/json" == answer.get("content-type")
    assert fault == answer.get("x-readygate-fault")
    if retry == "yes":
        seconds, milliseconds = answer.get("retry-after"), answer.get("retry-after-ms")
        assert seconds is not None
        assert milliseconds is not None
        assert int(seconds) - 1 < int(milliseconds) / 1000 <= int(seconds)
        assert None is answer.get("x-should-retry")
    else:
        assert None is answer.get("retry-after")
        assert None is answer.get("retry-after-ms")
        assert ("false" if retry == "no" else None) == answer.get("x-should-retry")
    for name in ("x-request-id", "x-readygate-id", "x-readygate-attempts"):
        assert answer.has(name), name
    return error


def row_agrees(sidecar: Sidecar, answer: Message, status: str) -> dict[str, Any]:
    """Hold the audit row to what the caller saw."""
    row = sidecar.row(answer.get("x-readygate-id"))
    assert (status, answer.status, answer.error["code"]) == (row["status"], row["http_status"], row["error_code"])
    return row
