"""Refusals as bytes: the OpenAI-shaped error body and the headers that tell a client what to do.

Owns the HTTP reason phrases of our own answers. The decision and its code come from core; nothing here
decides.
"""

from __future__ import annotations

from http import HTTPStatus

from proxy.core.dialect import Dialect, dialect_of
from proxy.core.routing.problems import Dialect as ErrorDialect
from proxy.core.routing.problems import Problem, render
from proxy.flow.headers import refusal_lines


def reason_of(status: int) -> bytes:
    """Return the standard reason phrase of a status."""
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Unknown"


def render_refusal(refusal: Problem, exchange_id: str, lines: bytes, path: str) -> tuple[int, bytes, bytes, bytes]:
    """Return status, reason, header lines and body of a refusal made before any exchange ran."""
    headers = b"content-type: application/json\r\n" + lines + refusal_lines(refusal)
    shape = ErrorDialect.ANTHROPIC if dialect_of(path) is Dialect.MESSAGES else ErrorDialect.OPENAI
    return refusal.status, reason_of(refusal.status), headers, render(refusal, exchange_id, shape)
