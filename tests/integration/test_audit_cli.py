"""``readygate audit``: what an operator sees of the store, in all three formats, from SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.cli.audit_output import Progress
from proxy.core.audit.payload import encode_end
from proxy.core.audit.query import parse_moment
from proxy.core.audit.row import Row, Stamp, merge
from proxy.flow.audit_ports import Sink
from proxy.stores.audit_stores import make_sink
from tests.support.audit import typical_exchange

WRITER = "11111111-2222-4333-8444-555555555555"
Show = Callable[..., str]


def rows() -> list[Row]:
    exchanges = [
        typical_exchange(1, app="shop", ts_ms=1_795_000_000_000),
        typical_exchange(2, app="shop", user="eve\x1b[2J\nforged", ts_ms=1_795_000_001_000),
        typical_exchange(
            3, app="desk", user="=HYPERLINK(1)", status="blocked", provider="", http_status=400, ts_ms=1_795_000_002_000
        ),
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


def test_every_filter_chooses_rows_and_none_of_them_is_sql(show: Show) -> None:
    """Each filter reaches its column; what looks like SQL is only text that no row holds."""
    chosen = {
        "--app": "desk", "--status": "blocked", "--http-status": "400", "--since": "2026-11-18T11:06:42", "--provider": "",
    }  # fmt: skip
    for option, value in chosen.items():
        found = [json.loads(line) for line in show("query", option, value, "--format", "json").splitlines()]
        assert [3] == [int(record["id"][-12:], 16) for record in found], option
    everything = {
        "--user": "user-1", "--conversation": "conversation-9", "--model": "gpt-4o-mini", "--model-asked": "fast",
        "--route": "fast", "--policy": "default", "--revision": "9f31ab20", "--pii": "yes", "--min-cost": "0.0001",
        "--max-cost": "1", "--min-latency": "500", "--until": "2026-11-18T11:06:40.5",
        "--id": rows()[0].id,
    }  # fmt: skip
    options = [word for pair in everything.items() for word in pair]
    assert 1 == len(show("query", *options, "--format", "json").splitlines())
    for hostile in ("' OR 1=1 --", "x'; DROP TABLE audit; --", "$1", "%", "/*where*/", "\x1b[2J"):
        assert "" == show("query", "--app", hostile, "--format", "json")
    assert 3 == len(show("query", "--format", "json").splitlines())


@pytest.mark.parametrize(
    "option",
    ["--status=nonsense", "--http-status=99999", "--min-cost=nan", "--min-cost=1;", "--pii=maybe", "--id=42", "--since=never",
     "--since=99999999w", "--after=AAAA", "--app=a\x00b"],
)  # fmt: skip
def test_filter_of_the_wrong_kind_says_what_was_expected(
    show: Show, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """Exit code 2 and a sentence, before the store is asked anything."""
    assert 2 == main(["audit", "query", "-c", str(tmp_path / "config.yaml"), option])
    assert "expected" in capsys.readouterr().err


def test_pages_are_joined_by_the_cursor_and_miss_nothing(
    show: Show, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What arrives between two pages neither repeats a row nor hides one."""
    seen: list[int] = []
    more: list[str] = []
    for _ in range(3):
        assert 0 == main(
            ["audit", "query", "-c", str(tmp_path / "config.yaml"), "--limit", "1", "--format", "json", *more]
        )
        printed = capsys.readouterr()
        seen += [int(json.loads(line)["id"][-12:], 16) for line in printed.out.splitlines()]
        more = printed.err.removeprefix("more rows match: ").split()

    assert [3, 2, 1] == seen
    assert [] == more


def test_stats_have_percentiles_errors_and_redactions_by_any_group(show: Show) -> None:
    """Who is slow, who fails, what was found."""
    found = json.loads(show("stats", "--by", "app", "--format", "json"))

    assert ["shop", "desk"] == [line["app"] for line in found["sums"]]
    assert (2, 0, 0.0, 512.25, 512.25) == tuple(
        found["sums"][0][name] for name in ("exchanges", "errors", "error_rate", "p50_latency_ms", "p95_latency_ms")
    )
    assert [{"type": "EMAIL", "found": 3, "replaced": 3, "exchanges": 3}] == found["redactions"]
    assert "EMAIL" in show("stats")
    assert "p95_latency_ms" in show("stats", "--format", "csv")


def test_export_writes_every_row_once_oldest_first(show: Show, tmp_path: Path) -> None:
    """A file that is there is whole, private, and holds what the store holds."""
    target = tmp_path / "rows.jsonl.gz"
    show("export", "--output", str(target))
    with gzip.open(target, "rt") as packed:
        found = [json.loads(line) for line in packed]

    assert [1, 2, 3] == [int(record["id"][-12:], 16) for record in found]
    assert "eve\x1b[2J\nforged" == found[1]["user_id"]
    assert 0o600 == target.stat().st_mode & 0o777
    assert not list(tmp_path.glob("*.partial"))
    assert show("export", "--app", "desk").count("\n") == 1


def test_no_output_can_act_on_a_terminal_or_in_a_spreadsheet(show: Show) -> None:
    """Names come from callers: no escape sequence, no forged line, no formula (SE-15)."""
    for style in ("table", "json", "csv"):
        text = show("query", "--format", style)
        assert not [char for char in text if ord(char) < 32 and char != "\n"], style
        assert 3 == len([line for line in text.splitlines() if "gpt-4o-mini" in line]), style
    assert ",'=HYPERLINK(1)," in show("query", "--format", "csv")


def test_progress_is_shown_only_on_terminals_and_only_when_it_takes_long() -> None:
    """Nobody wants a bar in a log file, or for a tenth of a second."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(out: io.StringIO) -> str:
        moments = iter((0.0, 1.9, 4.0))
        bar = Progress(1000, out, lambda: next(moments))
        bar.show(100)
        assert "" == out.getvalue()
        bar.show(250)
        text = out.getvalue()
        bar.end()
        return text

    assert "" == shown(io.StringIO())
    assert " 25% 250 of 1,000, 12 s left" in shown(Terminal())
