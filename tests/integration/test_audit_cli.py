"""``readygate audit``: what an operator sees of the store, in all three formats, from SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.cli.audit import parse_moment
from proxy.core.audit.row import Row, Stamp, encode_end, merge
from proxy.flow.audit_ports import Sink
from proxy.stores.audit_stores import make_sink
from tests.support.audit import typical_exchange

WRITER = "11111111-2222-4333-8444-555555555555"
Show = Callable[..., str]


def rows() -> list[Row]:
    exchanges = [
        typical_exchange(1, app="shop", ts_ms=1_795_000_000_000),
        typical_exchange(2, app="shop", user="eve\x1b[2J\nforged", ts_ms=1_795_000_001_000),
        typical_exchange(3, app="desk", status="blocked", provider="", http_status=400, ts_ms=1_795_000_002_000),
    ]
    return [merge(None, encode_end(facts), Stamp(WRITER, 1, seq)) for seq, facts in enumerate(exchanges, 1)]


@pytest.fixture(params=["sqlite", "postgres"])
def show(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Show:
    url = f"sqlite:///{tmp_path / 'audit.db'}" if request.param == "sqlite" else request.getfixturevalue("database_url")
    (tmp_path / "policies").mkdir()
    config = tmp_path / "config.yaml"
    config.write_text(
        "version: 1\nserver: {data: {host: 127.0.0.1, port: 8080}, admin: {host: 127.0.0.1, port: 8081}}\n"
        'policies: policies/\nproviders:\n  local: {base_url: "http://127.0.0.1:9100/v1"}\n'
        f'audit: {{store: "{url}", spool: var/spool}}\n'
    )  # fmt: skip
    asyncio.run(_store(make_sink(url)))

    def run(*arguments: str) -> str:
        code = main(["audit", arguments[0], "-c", str(config), *arguments[1:]])
        captured = capsys.readouterr()
        assert 0 == code, captured.err
        return captured.out

    return run


async def _store(sink: Sink) -> None:
    await sink.open()
    await sink.insert(rows())
    await sink.close()


def test_query_filters_and_shows_newest_first(show: Show) -> None:
    """The first question of every incident."""
    found = [json.loads(line) for line in show("query", "--app", "shop", "--format", "json").splitlines()]

    assert [2, 1] == [int(record["id"][-12:], 16) for record in found]
    assert {"EMAIL": 1} == found[0]["findings"]
    assert "2026-11-18T11:06:41Z" == found[0]["ts"][:19] + "Z"


def test_table_cannot_be_forged_by_what_callers_send(show: Show) -> None:
    """A user name must not clear the screen or fake a second row (SE-15)."""
    table = show("query")

    assert 4 == len(table.splitlines())
    assert "\x1b" not in table


def test_csv_has_one_head_and_every_column(show: Show) -> None:
    """For the spreadsheet of whoever asks."""
    table = list(csv.DictReader(io.StringIO(show("query", "--format", "csv"))))

    assert 3 == len(table)
    assert set(Row._fields) == set(table[0])


def test_tail_shows_the_last_rows_oldest_first(show: Show) -> None:
    """As tail does."""
    found = [json.loads(line) for line in show("tail", "-n", "2", "--format", "json").splitlines()]

    assert [2, 3] == [int(record["id"][-12:], 16) for record in found]


def test_stats_count_by_provider_model_and_status(show: Show) -> None:
    """Cost and errors at a glance."""
    found = json.loads(show("stats", "--format", "json"))

    assert [("openai", "success", 2, 200), ("", "blocked", 1, 100)] == [
        (line["provider"], line["status"], line["exchanges"], line["tokens_in"]) for line in found["sums"]
    ]
    assert "3 exchanges" in show("stats")


def test_since_and_status_narrow_the_rows(show: Show) -> None:
    """Filters combine."""
    assert "" == show("query", "--since", "1s", "--format", "json")
    assert 1 == len(show("query", "--status", "blocked", "--since", "2026-11-01", "--format", "json").splitlines())


def test_migrate_may_be_run_again(show: Show) -> None:
    """A deployment hook runs it on every release."""
    assert "up to date" in show("migrate")


def test_moments_are_read_as_people_write_them() -> None:
    """15m is before now; a bare date is UTC."""
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)

    assert now - timedelta(minutes=15) == parse_moment("15m", now)
    assert datetime(2026, 11, 20, tzinfo=UTC) == parse_moment("2026-11-20", now)
    with pytest.raises(ValueError, match="expected 15m"):
        parse_moment("yesterday", now)


def test_missing_store_and_missing_config_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A newcomer gets a sentence, not a traceback."""
    assert 2 == main(["audit", "query", "-c", str(tmp_path / "none.yaml")])
    assert "none.yaml" in capsys.readouterr().err
