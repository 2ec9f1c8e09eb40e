"""``readygate audit``: read the audit store (tail, query, stats, export) and bring its schema up to date (migrate).

Owns the verb's arguments and its output. The store is the one ``config.yaml`` names; a running sidecar is
not needed and not disturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from proxy.cli import audit_people, audit_prune, audit_verify, audit_words
from proxy.cli.audit_output import FORMATS, Printer, Progress, open_export, write_sums
from proxy.cli.audit_store import EXIT_FINDING, EXIT_GOOD, EXIT_UNUSABLE, Unusable, find_store
from proxy.core.audit.query import (
    FILTERS,
    GROUPS,
    RowFilter,
    parse_cursor,
    parse_filter,
    parse_groups,
)
from proxy.core.audit.render import json_line
from proxy.flow.audit_reading import PAGE_ROWS, AuditReader, Record, cursor_of, pages
from proxy.stores.audit_reader import open_reader
from proxy.stores.audit_stores import make_sink
from proxy.terms.errors import QueryTooSlow, SinkUnavailable

_FOLLOW_EVERY_S: Final = 1.0
_FOLLOW_BACK: Final = timedelta(hours=1)
_FOLLOW_ROWS: Final = 1000


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "audit", help="read the audit store: tail, query, show, stats, export, verify, erase, prune, migrate",
        description="Read, prove and keep the audit store that config.yaml names. Exit code: 0 done, 1 a finding or no store, "
        "2 wrong usage or configuration.",
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="audit_verb", metavar="VERB", required=True)
    tail = _verb(verbs, "tail", "show the newest rows")
    tail.add_argument("-n", "--lines", type=_count, default=20, metavar="N", help="rows to show (%(default)s)")
    tail.add_argument("-f", "--follow", action="store_true", help="go on showing rows as they arrive")
    query = _verb(verbs, "query", "show the rows that match, newest first")
    query.add_argument("--limit", type=_count, default=100, metavar="N", help="at most so many rows (%(default)s)")
    query.add_argument("--after", metavar="CURSOR", help="go on behind the page that named this cursor")
    stats = _verb(verbs, "stats", "count exchanges, errors, latency, tokens, cost and redactions")
    stats.add_argument(
        "--by", default="provider,model,status", metavar="X,Y", help=f"some of {', '.join(GROUPS)} (%(default)s)"
    )
    export = _verb(verbs, "export", "write every row that matches, oldest first", default="jsonl")
    export.add_argument("-o", "--output", metavar="FILE", help="instead of standard output; .gz compresses")
    export.add_argument(
        "--proof", action="store_true", help="with JSON lines: add gaps and checkpoints, for `verify --file`"
    )
    for reading in (tail, query, stats, export):
        _add_filters(reading)
    migrate = verbs.add_parser("migrate", help="make or update the tables of the store")
    migrate.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    audit_words.add_verb(verbs)
    audit_verify.add_verb(verbs)
    audit_people.add_verb(verbs)
    audit_prune.add_verb(verbs)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run one audit verb; return the exit code."""
    try:
        if args.audit_verb in _OWN_STORES:
            return _OWN_STORES[args.audit_verb](args)
        store_url = find_store(Path(args.config))
        if args.audit_verb == "migrate":
            return asyncio.run(_migrate(store_url))
        if args.audit_verb == "export":
            asyncio.run(audit_people.note_export(store_url, args.filter_user))
        return asyncio.run(_read(args, store_url))
    except Unusable as exc:
        print(f"readygate audit: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    except (SinkUnavailable, QueryTooSlow) as exc:
        print(f"readygate audit: {exc}", file=sys.stderr)
        return EXIT_FINDING


def _verb(verbs: Any, name: str, help_text: str, default: str = "table") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=help_text)
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument(
        "--format", choices=FORMATS, default=default, help="json and jsonl: one object a line (%(default)s)"
    )
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters (all of them must hold)")
    for field in FILTERS.values():
        group.add_argument(
            f"--{field.name.replace('_', '-')}", dest=f"filter_{field.name}", metavar="X", help=field.what
        )


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1000000, got {text!r}")
    return int(text)


def _filter(args: argparse.Namespace) -> RowFilter:
    given = {name: getattr(args, f"filter_{name}") for name in FILTERS}
    try:
        return parse_filter({name: text for name, text in given.items() if text is not None}, _now())
    except ValueError as exc:
        raise Unusable(f"--{str(exc).replace('_', '-', 1)}") from None


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
        await _READINGS[args.audit_verb](args, reader)
    finally:
        await reader.close()
    return EXIT_GOOD


async def _query(args: argparse.Namespace, reader: AuditReader) -> None:
    """Print up to ``--limit`` rows, and on standard error how to go on when there are more."""
    wanted, printer = _filter(args), Printer(args.format, sys.stdout)
    after = None
    if args.after:
        try:
            after = parse_cursor(args.after)
        except ValueError as exc:
            raise Unusable(str(exc)) from None
    last: Record | None = None
    left = args.limit
    bar = Progress(left, sys.stderr, time.monotonic)
    async for page in pages(reader, wanted, after=after, page_rows=min(left, PAGE_ROWS)):
        printer.rows(page[:left])
        last = page[:left][-1]
        left -= len(page)
        if left <= 0:
            break
        if not sys.stdout.isatty():
            bar.show(args.limit - left)
    bar.end()
    if last is not None and await reader.rows(wanted, 1, cursor_of(last)):
        print(f"more rows match: --after {cursor_of(last).text()}", file=sys.stderr)


async def _tail(args: argparse.Namespace, reader: AuditReader) -> None:
    wanted, printer = _filter(args), Printer(args.format, sys.stdout)
    found = await reader.rows(wanted, args.lines)
    printer.rows(found[::-1])
    seen = {record["id"] for record in found}
    # A long exchange is written when it ends, under the time it began: look back, and skip what was shown.
    if args.follow:
        seen.update(record["id"] for record in await reader.rows(_recent(wanted), _FOLLOW_ROWS))
    while args.follow:
        await asyncio.sleep(_FOLLOW_EVERY_S)
        recent = await reader.rows(_recent(wanted), _FOLLOW_ROWS)
        printer.rows([record for record in recent[::-1] if record["id"] not in seen])
        seen = {record["id"] for record in recent}


def _recent(wanted: RowFilter) -> RowFilter:
    return wanted.but("ts", ">=", _now() - _FOLLOW_BACK)


async def _stats(args: argparse.Namespace, reader: AuditReader) -> None:
    wanted = _filter(args)
    try:
        by = parse_groups(args.by)
    except ValueError as exc:
        raise Unusable(f"--{exc}") from None
    sums = await reader.sums(wanted, by)
    redactions = await reader.redactions(wanted)
    missing = await reader.shed_rows()
    if args.format in {"json", "jsonl"}:
        sys.stdout.write(json_line({"sums": sums, "redactions": redactions, "missing_rows": missing}))
        return
    write_sums(sums, args.format, sys.stdout)
    if args.format == "csv":
        return
    exchanges = sum(record["exchanges"] for record in sums)
    cost = sum(float(record["cost_usd"]) for record in sums)
    print(f"{exchanges} exchanges, {cost:.4f} USD" + (f", {missing} rows known to be missing" if missing else ""))
    if redactions:
        print()
        write_sums(redactions, args.format, sys.stdout)


async def _export(args: argparse.Namespace, reader: AuditReader) -> None:
    """Write every matching row, oldest first, in pages; a file appears under its name only when it is whole."""
    wanted = _filter(args)
    total = await reader.count(wanted)
    bar = Progress(total, sys.stderr, time.monotonic)
    is_personal = args.filter_user is not None and args.format in {"json", "jsonl"}
    contents = audit_words.contents_of(Path(args.config)) if is_personal else None
    try:
        proof = await audit_verify.proof_lines(args) if args.proof else []
        with open_export(args.output) as out:
            printer = Printer(args.format, out)
            done = 0
            out.writelines(proof)
            async for page in pages(reader, wanted, oldest_first=True):
                printer.rows(page if contents is None else await audit_words.with_words(page, contents))
                done += len(page)
                bar.show(done)
    except OSError as exc:
        raise Unusable(f"{args.output}: {exc.strerror}") from exc
    finally:
        bar.end()
    if args.output:
        print(f"{done} rows in {args.output}", file=sys.stderr)


_OWN_STORES: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "verify": audit_verify.run, "erase": audit_people.run, "prune": audit_prune.run,
    "show": audit_words.run,
}  # fmt: skip

_READINGS: Final[dict[str, Callable[[argparse.Namespace, AuditReader], Coroutine[Any, Any, None]]]] = {
    "tail": _tail, "query": _query, "stats": _stats, "export": _export,
}  # fmt: skip
