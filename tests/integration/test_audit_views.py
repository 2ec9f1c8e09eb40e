"""The views that people and dashboards read: the same answers from SQLite and from PostgreSQL."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proxy.core.audit.payload import encode_end
from proxy.core.audit.row import Row, Stamp, merge
from proxy.stores.audit_stores import make_sink
from proxy.terms.exchange import AttemptFacts, Usage
from proxy.terms.outcomes import Outcome, Status
from tests.support.audit import TS_MS, typical_exchange

pytestmark = pytest.mark.integration
WRITER = "11111111-2222-4333-8444-555555555555"
DAY_MS = 86_400_000
View = Callable[[str], Awaitable[list[dict[str, Any]]]]


def rows() -> list[Row]:
    """Two days: a success without cost, a fallback that hid a failure, a rescue, a block, a caller's own mistake."""
    failed = [
        AttemptFacts("openai", "gpt-4o-mini", 0.5, Outcome.UPSTREAM_5XX, 503, 90.0),
        AttemptFacts("groq", "llama", 91.0, Outcome.OK, 200, 400.0),
    ]
    exchanges = [
        typical_exchange(1, cost_usd=0.25, usage=Usage(100, 50), latency_ms=100.0, findings={"EMAIL": 2, "CPF": 1},
                         sanitized={"EMAIL": 2}),
        typical_exchange(2, cost_usd=None, latency_ms=300.0, findings={}, sanitized={}),
        typical_exchange(3, cost_usd=0.5, attempts=failed, provider="groq", status=Status.FALLBACK, latency_ms=400.0,
                         findings={"EMAIL": 1}, sanitized={}, usage=None),
        typical_exchange(4, app="desk", attempts=[], provider="", status=Status.BLOCKED, cost_usd=None, latency_ms=1.0,
                         findings={"CREDIT_CARD": 1}, sanitized={}, usage=None),
        typical_exchange(5, app="desk", ts_ms=TS_MS + DAY_MS, status=Status.ERROR, cost_usd=0.0, findings={}, sanitized={},
                         attempts=[AttemptFacts("openai", "gpt-4o-mini", 0.5, Outcome.UPSTREAM_4XX, 400, 9.0)]),
        typical_exchange(6, app="desk", ts_ms=TS_MS + DAY_MS, status=Status.RESCUED, cost_usd=1.0, latency_ms=900.0,
                         findings={}, sanitized={}, attempts=failed, provider="groq"),
        typical_exchange(7, app="desk", ts_ms=TS_MS + DAY_MS, status=Status.ERROR, cost_usd=None, latency_ms=None,
                         findings={}, sanitized={},
                         attempts=[AttemptFacts("openai", "gpt-4o-mini", 0.5, Outcome.BREAKER_OPEN, 0, 0.6)]),
    ]  # fmt: skip
    return [merge(None, encode_end(facts), Stamp(WRITER, 1, seq)) for seq, facts in enumerate(exchanges, 1)]


@pytest.fixture(params=["sqlite", "postgres"])
async def view(request: pytest.FixtureRequest, tmp_path: Path) -> View:
    """Reads a view of a store that holds ``rows``, in the order of its columns."""
    path = tmp_path / "audit.db"
    url = f"sqlite:///{path}" if request.param == "sqlite" else request.getfixturevalue("database_url")
    sink = make_sink(url)
    await sink.open()
    await sink.insert(rows())
    await sink.close()

    async def read(name: str) -> list[dict[str, Any]]:
        sql = f"SELECT * FROM {name} ORDER BY 1, 2, 3"
        if request.param == "sqlite":
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.row_factory = sqlite3.Row
                return [dict(row) for row in connection.execute(sql)]
        connection = await asyncpg.connect(url)
        try:
            found = [dict(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()
        return [{key: str(value) if key in {"day", "id"} else value for key, value in row.items()} for row in found]

    return read


async def test_cost_by_app_and_day_says_what_has_no_price(view: View) -> None:
    """The bill of each app, and how much of it is not known."""
    assert [
        ("2026-11-21", "checkout", 3, 200, 100, 0.75, 1),
        ("2026-11-21", "desk", 1, 0, 0, 0.0, 1),
        ("2026-11-22", "desk", 3, 300, 150, 1.0, 1),
    ] == [tuple(row.values()) for row in await view("audit_cost_by_app_day")]


async def test_errors_count_against_the_provider_that_failed(view: View) -> None:
    """A failure that a fallback hid is one; a caller's mistake, and a target never asked, are none."""
    assert [
        ("2026-11-21", "groq", 1, 0, 0, 0.0),
        ("2026-11-21", "openai", 3, 1, 0, pytest.approx(1 / 3)),
        ("2026-11-22", "groq", 1, 0, 0, 0.0),
        ("2026-11-22", "openai", 2, 1, 1, 0.5),
    ] == [tuple(row.values()) for row in await view("audit_errors_by_provider_day")]


async def test_redactions_by_type_tell_found_from_replaced(view: View) -> None:
    """What policy only observed is not what it replaced."""
    assert [
        ("2026-11-21", "checkout", "CPF", 1, 0, 1),
        ("2026-11-21", "checkout", "EMAIL", 3, 2, 2),
        ("2026-11-21", "desk", "CREDIT_CARD", 1, 0, 1),
    ] == [tuple(row.values()) for row in await view("audit_redactions_by_type_day")]


async def test_slowest_of_a_day_come_first_and_unfinished_ones_not_at_all(view: View) -> None:
    """Where to look when somebody says that it is slow."""
    found = await view("audit_slowest_by_day")

    assert [("2026-11-21", 1, 400.0), ("2026-11-21", 2, 300.0)] == [tuple(row.values())[:3] for row in found[:2]]
    assert [1, 2] == [row["place"] for row in found if row["day"] == "2026-11-22"]


async def test_fallback_rate_of_a_route_leaves_out_what_reached_no_provider(view: View) -> None:
    """How often the first choice did not serve."""
    assert [
        ("2026-11-21", "fast", 3, 1, 0, pytest.approx(1 / 3), pytest.approx(4 / 3)),
        ("2026-11-22", "fast", 3, 0, 1, pytest.approx(1 / 3), pytest.approx(4 / 3)),
    ] == [tuple(row.values()) for row in await view("audit_fallbacks_by_route_day")]
