"""The audit through the admin API: pages, one row, figures, an export; by role, bounded, beside the shipping of rows."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proxy.core.audit.query import RowFilter, parse_filter
from proxy.stores import audit_reader
from proxy.stores.audit_reader import open_reader
from proxy.stores.audit_stores import make_sink
from proxy.terms.errors import QueryTooSlow
from tests.support.postgres import fresh_database
from tests.support.wire import Message, Sidecar, ask, chat, eventually, request, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration
TOKENS = {"VIEWER": "viewer-token-1", "ADMIN": "admin-token-3"}
POLICY = """
version: 1
policy: default
redaction: {request: {default: "off", rules: [{types: [email], action: restore}]}}
routes: [{match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""
ASKED = 25


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def sidecar(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    folder = tmp_path_factory.mktemp("api")
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{folder}/audit.db"
        if request.param == "postgres":
            url = stack.enter_context(fresh_database(request.getfixturevalue("postgres")))
        provider = stack.enter_context(threaded_simulator())
        config = f"""
providers: {{main: {{base_url: "{provider.base_url}"}}}}
audit: {{store: {{env: AUDIT_URL}}, spool: spool, batch_wait: 20ms}}
admin_token: {{env: ADMIN}}
admin_tokens: [{{name: grafana, role: viewer, token: {{env: VIEWER}}}}]
"""
        running = stack.enter_context(sidecar_for(folder, config, POLICY, env={**TOKENS, "AUDIT_URL": url}))
        for number in range(ASKED):
            headers = {"x-readygate-app": f"app-{number % 2}", "x-readygate-user": f"u-{number % 5}"}
            assert 200 == running.ask(chat("mail ana@example.com", headers)).status
        eventually(lambda: delivered(running) == ASKED, "rows are missing", 10)
        yield running


def delivered(sidecar: Sidecar) -> int:
    answer = get(sidecar, "/audit/stats")
    return sum(one["exchanges"] for one in answer.json()["sums"]) if answer.status == 200 else 0


def get(sidecar: Sidecar, path: str, who: str = "ADMIN") -> Message:
    headers = {"Authorization": f"Bearer {TOKENS[who]}", "Connection": "close"}
    return ask(sidecar.admin_port, request("GET", f"/api/v1{path}", headers=headers), 15.0)


def test_pages_cover_every_row_once_newest_first(sidecar: Sidecar) -> None:
    """A dashboard walks the whole record without missing or repeating anything."""
    rows: list[dict[str, Any]] = []
    cursor, sizes = "", []
    while cursor is not None:
        page = get(sidecar, f"/audit?limit=10&pii=yes{f'&cursor={cursor}' if cursor else ''}").json()
        rows += page["rows"]
        sizes.append(len(page["rows"]))
        cursor = page["next_cursor"]

    assert [10, 10, 5] == sizes
    assert ASKED == len({row["id"] for row in rows})
    assert [row["ts"] for row in rows] == sorted((row["ts"] for row in rows), reverse=True)


def test_one_row_is_found_by_the_id_the_caller_was_given(sidecar: Sidecar) -> None:
    """x-readygate-id is what a caller quotes in a ticket."""
    answer = sidecar.ask(chat("hello", {"x-readygate-app": "ticket"}))
    key = answer.get("x-readygate-id")
    eventually(lambda: get(sidecar, f"/audit/{key}").status == 200, "the row does not come")
    row = get(sidecar, f"/audit/{key}").json()

    assert ("ticket", "success", key) == (row["app"], row["status"], row["id"])
    assert 404 == get(sidecar, "/audit/01a1fdbe-0000-7000-8000-000000000000").status


def test_figures_are_grouped_as_asked(sidecar: Sidecar) -> None:
    """What the command line says, the API says."""
    found = get(sidecar, "/audit/stats?by=app&pii=yes").json()

    assert {"app-0": 13, "app-1": 12} == {one["app"]: one["exchanges"] for one in found["sums"]}
    assert [("EMAIL", ASKED, ASKED)] == [(one["type"], one["found"], one["replaced"]) for one in found["redactions"]]
    assert all(one["p50_latency_ms"] <= one["p95_latency_ms"] for one in found["sums"])


def test_export_streams_every_row_as_lines_or_csv(sidecar: Sidecar) -> None:
    """For whoever keeps another copy."""
    lines = get(sidecar, "/audit/export?pii=yes")
    table = get(sidecar, "/audit/export?pii=yes&format=csv")

    assert ASKED == len([json.loads(line) for line in lines.body.splitlines()])
    assert ASKED == len(list(csv.DictReader(io.StringIO(table.body.decode()))))
    assert 'attachment; filename="audit.csv"' == table.get("content-disposition")


@pytest.mark.parametrize(
    ("path", "who", "status"),
    [
        ("/audit", "VIEWER", 403),
        ("/audit/export", "VIEWER", 403),
        ("/audit/stats", "VIEWER", 200),
        ("/audit/stats?by=user", "VIEWER", 403),
        ("/audit/stats?user=u-1", "VIEWER", 403),
        ("/audit/stats?by=user", "ADMIN", 200),
        ("/audit?limit=0", "ADMIN", 400),
        ("/audit?limit=501", "ADMIN", 400),
        ("/audit?limit=1e3", "ADMIN", 400),
        ("/audit?cursor=%27%20OR%201=1", "ADMIN", 400),
        ("/audit?status=nonsense", "ADMIN", 400),
        ("/audit?since=yesterday", "ADMIN", 400),
        ("/audit?order=ts;DROP", "ADMIN", 400),
        ("/audit/stats?by=hash", "ADMIN", 400),
        ("/audit/not-an-id", "ADMIN", 400),
        ("/audit?app=%27%3B%20DROP%20TABLE%20audit%3B--", "ADMIN", 200),
    ],
)  # fmt: skip
def test_roles_and_questions_are_checked(sidecar: Sidecar, path: str, who: str, status: int) -> None:
    """People's rows need the role admin; what cannot be asked is refused before the store hears of it."""
    answer = get(sidecar, path, who)

    assert status == answer.status, answer.body


async def test_question_that_takes_too_long_is_given_up_by_the_store(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wide question must not hold the store, nor a connection, for ever."""
    monkeypatch.setattr(audit_reader, "_STEPS_BETWEEN_LOOKS", 1)
    for url in (database_url, f"sqlite:///{tmp_path / 'audit.db'}"):
        sink = make_sink(url)
        await sink.open()
        await sink.close()
    holder = await asyncpg.connect(database_url)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("LOCK TABLE audit IN ACCESS EXCLUSIVE MODE")
    for url, limit_s in ((database_url, 0.2), (f"sqlite:///{tmp_path / 'audit.db'}", -1.0)):
        reader = open_reader(url, limit_s=limit_s)
        with pytest.raises(QueryTooSlow):
            async with asyncio.timeout(5):
                await reader.sums(RowFilter())
        await reader.close()
    await transaction.rollback()
    await holder.close()


async def test_question_about_one_user_or_status_uses_its_index(tmp_path: Path) -> None:
    """In a store of a million rows the difference is milliseconds or seconds."""
    path = tmp_path / "audit.db"
    sink = make_sink(f"sqlite:///{path}")
    await sink.open()
    await sink.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for asked, index in (({"user": "u"}, "audit_user_ts"), ({"status": "error"}, "audit_failed_ts")):
            wanted = parse_filter(asked, datetime.now(UTC))  # noqa: TID251
            sql, values = audit_reader._select("sqlite", wanted, 10, None, oldest_first=False)
            plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
            assert index in str(plan)
