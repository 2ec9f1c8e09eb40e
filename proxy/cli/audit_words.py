"""``readygate audit show``: one row, and with ``--content`` the words that policy had kept of it.

Owns the verb's arguments and its output, and how an export of one person gets their words. Reading words leaves an
entry in ``audit_actions``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.cli.audit_people import actor
from proxy.cli.audit_store import EXIT_FINDING, EXIT_GOOD, Unusable, find_keys, find_settings, find_store
from proxy.core.audit.query import parse_filter
from proxy.core.audit.render import json_line
from proxy.flow.audit_reading import Record
from proxy.flow.content import ContentStore
from proxy.flow.people import with_content
from proxy.stores.audit_keys import AuditKeys, content_keys
from proxy.stores.audit_reader import open_reader
from proxy.stores.content_keys import ContentKeys
from proxy.stores.content_store import open_contents
from proxy.stores.people import open_people


def add_verb(verbs: Any) -> None:
    """Add the verb to ``readygate audit``."""
    parser = verbs.add_parser(
        "show",
        help="show one row, with --content the words kept of it",
        description="Show one row as JSON. With --content also what was asked and answered, where policy had it kept and "
        "audit.key opens it; that leaves an entry in audit_actions. Exit code: 0 shown, 1 no such row, 2 no key.",
    )
    parser.add_argument("id", metavar="ID", help="the exchange's id, as in x-request-id")
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument("--content", action="store_true", help="with the words kept of it")
    parser.add_argument("--key-file", metavar="PATH", help="a former audit.key, for words sealed with it")


def run(args: argparse.Namespace) -> int:
    """Show one row; return the exit code. Raises Unusable, SinkUnavailable."""
    return asyncio.run(_show(args))


def contents_of(config: Path, key_file: str | None = None) -> ContentStore:
    """Return the kept words of the store a config names. Raises Unusable."""
    try:
        return open_contents(find_store(config), _keys(config, key_file))
    except ValueError as exc:
        raise Unusable(str(exc)) from None


def _keys(config: Path, key_file: str | None) -> ContentKeys | None:
    if key_file is not None:
        try:
            return content_keys(Path(key_file).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as exc:
            raise Unusable(f"{key_file}: {exc}") from exc
    keys = find_keys(find_settings(config))
    return ContentKeys(keys.wrapping) if isinstance(keys, AuditKeys) else None


async def _show(args: argparse.Namespace) -> int:
    config = Path(args.config)
    try:
        wanted = parse_filter({"id": args.id}, _now())
        reader = open_reader(find_store(config))
    except ValueError as exc:
        raise Unusable(str(exc)) from None
    try:
        rows = await reader.rows(wanted, 1)
    finally:
        await reader.close()
    if not rows:
        print("readygate audit: there is no row with this id", file=sys.stderr)
        return EXIT_FINDING
    if args.content:
        now_ms = round(_now().timestamp() * 1000)
        await open_people(find_store(config)).note_content(rows[0]["id"], actor=actor(), now_ms=now_ms)
        rows = await with_words(rows, contents_of(config, args.key_file))
    sys.stdout.write(json_line(rows[0]))
    return EXIT_GOOD


def _now() -> datetime:
    return datetime.fromtimestamp(time.time_ns() / 1e9, UTC)


async def with_words(rows: list[Record], contents: ContentStore) -> list[Record]:
    """Return rows with ``content`` where words of them are kept; say so when the key does not open them."""
    shown = await with_content(rows, contents)
    pieces = [piece for row in shown for piece in row.get("content", {}).values()]
    sealed = {piece["key"] for piece in pieces if "sealed" in piece}
    if sealed:
        print(
            f"readygate audit: words sealed with key {', '.join(sorted(sealed))}, not with audit.key", file=sys.stderr
        )
    return shown
