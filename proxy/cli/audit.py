"""``readygate audit``: read the audit store (tail, query, stats) and bring its schema up to date (migrate).

Owns the verb's arguments and its output. The store is the one ``config.yaml`` names; a running sidecar is
not needed and not disturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.core.config.settings import SecretRef
from proxy.core.config.texts import parse_store_url
from proxy.sources.files import read_config
from proxy.sources.secrets import Secrets
from proxy.stores.audit_reader import AuditReader, Record, RowFilter, open_reader
from proxy.stores.audit_stores import make_sink
from proxy.terms.errors import SinkUnavailable
from proxy.terms.outcomes import Status

EXIT_GOOD, EXIT_FINDING, EXIT_UNUSABLE = 0, 1, 2
_TABLE: Final = (
    "time", "status", "http", "provider", "model", "app", "user", "tokens", "cost", "latency", "pii", "id",
)  # fmt: skip
_SUM_COLUMNS: Final = (
    "provider", "model_served", "status", "exchanges", "tokens_in", "tokens_out", "cost_usd", "mean_latency_ms",
    "with_pii",
)  # fmt: skip
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FOLLOW_EVERY_S: Final = 1.0
_FOLLOW_BACK: Final = timedelta(hours=1)
_FOLLOW_ROWS: Final = 1000


class Unusable(Exception):
    """What was asked cannot be done as it stands; the message says what to change."""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "audit", help="read the audit store: tail, query, stats, migrate",
        description="Read the audit store that config.yaml names. Exit code: 0 done, 1 the store is not reachable, "
        "2 wrong usage or configuration.",
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="audit_verb", metavar="VERB", required=True)
    tail = _verb(verbs, "tail", "show the newest rows")
    tail.add_argument("-n", "--lines", type=_count, default=20, metavar="N", help="rows to show (%(default)s)")
    tail.add_argument("-f", "--follow", action="store_true", help="go on showing rows as they arrive")
    query = _verb(verbs, "query", "show the rows that match, newest first")
    query.add_argument("--limit", type=_count, default=100, metavar="N", help="at most so many rows (%(default)s)")
    stats = _verb(verbs, "stats", "count exchanges, tokens and cost by provider, model and status")
    for reading in (tail, query, stats):
        _add_filters(reading)
    migrate = verbs.add_parser("migrate", help="make or update the tables of the store")
    migrate.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run one audit verb; return the exit code."""
    try:
        store_url = find_store(Path(args.config))
        if args.audit_verb == "migrate":
            return asyncio.run(_migrate(store_url))
        return asyncio.run(_read(args, store_url))
    except Unusable as exc:
        print(f"readygate audit: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    except SinkUnavailable as exc:
        print(f"readygate audit: {exc}", file=sys.stderr)
        return EXIT_FINDING


def find_store(config: Path) -> str:
    """Return the URL of the audit store a config names. Raises Unusable."""
    result = read_config(config)
    if result.settings is None:
        problems = "\n".join(f"  {problem}" for problem in result.problems)
        raise Unusable(f"{config} cannot be used:\n{problems}")
    store = result.settings.audit.store
    if not isinstance(store, SecretRef):
        return store
    secrets = Secrets()
    secrets.load([store])
    text = secrets.current(store)
    if text is None:
        raise Unusable(f"audit.store: {secrets.trouble(store)}")
    try:
        return parse_store_url(text.reveal(), config.absolute().parent)
    except ValueError as exc:
        raise Unusable(f"audit.store: {exc}") from None


def parse_moment(text: str, now: datetime) -> datetime:
    """Return the moment of ``15m``, ``24h``, ``7d`` (before now) or an ISO date or time, UTC unless it says otherwise.

    Raises:
        ValueError: Neither.
    """
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if ago is not None:
        return now - timedelta(seconds=float(ago[1]) * _UNITS_S[ago[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected 15m, 24h, 7d or a date like 2026-11-21T08:00, got {text!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _verb(verbs: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=help_text)
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument(
        "--format", choices=("table", "json", "csv"), default="table", help="json is one object a line (%(default)s)"
    )
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--app", help="only this app")
    parser.add_argument("--user", help="only this user")
    parser.add_argument("--status", choices=[status.value for status in Status], help="only this status")
    parser.add_argument("--provider", help="only this provider")
    parser.add_argument("--model", help="only this model, as served")
    parser.add_argument("--since", metavar="WHEN", help="15m, 24h, 7d, or a date or time (UTC)")
    parser.add_argument("--until", metavar="WHEN", help="the same; rows before this moment")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1000000, got {text!r}")
    return int(text)


def _filter(args: argparse.Namespace, limit: int) -> RowFilter:
    now = _now()
    try:
        since = parse_moment(args.since, now) if args.since else None
        until = parse_moment(args.until, now) if args.until else None
    except ValueError as exc:
        raise Unusable(str(exc)) from None
    return RowFilter(since, until, args.app, args.user, args.status, args.provider, args.model, limit)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time_ns() / 1e9, UTC)


async def _migrate(store_url: str) -> int:
    try:
        sink = make_sink(store_url)
    except ValueError as exc:
        raise Unusable(str(exc)) from None
    await sink.open()
    await sink.close()
    print("the audit store is up to date")
    return EXIT_GOOD


async def _read(args: argparse.Namespace, store_url: str) -> int:
    try:
        reader = open_reader(store_url)
    except ValueError as exc:
        raise Unusable(str(exc)) from None
    try:
        if args.audit_verb == "stats":
            await _stats(args, reader)
        elif args.audit_verb == "query":
            _Printer(args.format).rows(await reader.rows(_filter(args, args.limit)))
        else:
            await _tail(args, reader)
    finally:
        await reader.close()
    return EXIT_GOOD


async def _tail(args: argparse.Namespace, reader: AuditReader) -> None:
    wanted = _filter(args, args.lines)
    printer = _Printer(args.format)
    found = await reader.rows(wanted)
    printer.rows(found[::-1])
    seen = {record["id"] for record in found}
    # A long exchange is written when it ends, under the time it began: look back, and skip what was shown.
    if args.follow:
        recent = await reader.rows(_recent(args))
        seen.update(record["id"] for record in recent)
    while args.follow:
        await asyncio.sleep(_FOLLOW_EVERY_S)
        recent = await reader.rows(_recent(args))
        printer.rows([record for record in recent[::-1] if record["id"] not in seen])
        seen = {record["id"] for record in recent}


def _recent(args: argparse.Namespace) -> RowFilter:
    wanted = _filter(args, _FOLLOW_ROWS)
    return RowFilter(
        _now() - _FOLLOW_BACK, None, wanted.app, wanted.user, wanted.status, wanted.provider, wanted.model, _FOLLOW_ROWS
    )


async def _stats(args: argparse.Namespace, reader: AuditReader) -> None:
    sums = await reader.sums(_filter(args, 1))
    missing = await reader.shed_rows()
    if args.format == "json":
        sys.stdout.write(orjson.dumps({"sums": sums, "missing_rows": missing}, default=str).decode() + "\n")
        return
    lines = [tuple(_cell(record[name]) for name in _SUM_COLUMNS) for record in sums]
    if args.format == "csv":
        _write_csv([_SUM_COLUMNS, *lines])
        return
    _write_table([_SUM_COLUMNS, *lines])
    exchanges = sum(record["exchanges"] for record in sums)
    cost = sum(float(record["cost_usd"]) for record in sums)
    print(f"{exchanges} exchanges, {cost:.4f} USD" + (f", {missing} rows known to be missing" if missing else ""))


class _Printer:
    """Prints rows as they come; the head of a table or CSV once."""

    def __init__(self, style: str) -> None:
        self._style = style
        self._has_head = False

    def rows(self, records: Sequence[Record]) -> None:
        if self._style == "json":
            for record in records:
                sys.stdout.write(orjson.dumps(record, option=orjson.OPT_UTC_Z).decode() + "\n")
        elif self._style == "csv":
            lines = [[_cell(value) for value in record.values()] for record in records]
            _write_csv([*self._head(list(records[0]) if records else []), *lines])
        else:
            _write_table([*self._head(_TABLE), *(_line(record) for record in records)])
        sys.stdout.flush()

    def _head(self, names: Sequence[str]) -> list[Sequence[str]]:
        if self._has_head or not names:
            return []
        self._has_head = True
        return [names]


def _line(record: Record) -> tuple[str, ...]:
    tokens = "" if record["tokens_in"] is None else f"{record['tokens_in']}/{record['tokens_out']}"
    return (
        f"{record['ts']:%Y-%m-%d %H:%M:%S}", record["status"], _cell(record["http_status"] or ""),
        record["provider"], record["model_served"] or record["model_asked"], record["app"], record["user_id"],
        tokens, "" if record["cost_usd"] is None else f"{record['cost_usd']:.6f}",
        "" if record["latency_ms"] is None else f"{record['latency_ms']:.0f} ms",
        ",".join(f"{kind.lower()}={count}" for kind, count in record["findings"].items()), record["id"],
    )  # fmt: skip


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return str(value)


def _write_table(lines: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; what callers put into names cannot move the cursor or start a new line."""
    shown = [[_printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for line in shown:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:80])


def _write_csv(lines: Sequence[Sequence[str]]) -> None:
    csv.writer(sys.stdout, lineterminator="\n").writerows(lines)
