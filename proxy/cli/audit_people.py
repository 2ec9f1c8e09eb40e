"""``readygate audit erase``: take a person's name out of the record; and the entry that an export of one leaves.

Owns the verb's arguments and its output.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
import time
from pathlib import Path
from typing import Any

from proxy.cli.audit_store import EXIT_GOOD, Unusable, find_store
from proxy.core.audit.render import json_line
from proxy.stores.people import open_people


def add_verb(verbs: Any) -> None:
    """Add the verb to ``readygate audit``."""
    parser = verbs.add_parser(
        "erase",
        help="take a person's name out of every row, also of those still to come",
        description="Empty what names a person in every row that began before now, destroy the keys of their content, "
        "and do the same to rows that arrive late from a spool. The chain still verifies. Cannot be undone.",
    )
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument("--user", required=True, help="the user as the rows have it")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="(%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Erase one person; return the exit code. Raises Unusable, SinkUnavailable."""
    try:
        people = open_people(find_store(Path(args.config)))
    except ValueError as exc:
        raise Unusable(str(exc)) from None
    if not args.user:
        raise Unusable("--user: expected a name")
    if not args.yes and not _is_confirmed():
        raise Unusable("nothing was erased; --yes erases without asking")
    done = asyncio.run(people.erase(args.user, before_ms=_now_ms(), actor=actor()))
    if args.format == "json":
        sys.stdout.write(json_line({"subject": done.subject, "rows": done.rows, "content_parts": done.content_parts}))
    else:
        print(f"{done.rows} rows and {done.content_parts} pieces of content erased; subject {done.subject}")
    return EXIT_GOOD


async def note_export(store_url: str, user: str | None) -> None:
    """Write the entry of an export, when it is one of a single person. Raises SinkUnavailable."""
    if user is not None and not store_url.startswith("stdout:"):
        await open_people(store_url).note_export(user, actor=actor(), now_ms=_now_ms())


def actor() -> str:
    """Return who runs this command, as the entries name them."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"


def _is_confirmed() -> bool:
    if not sys.stdin.isatty():
        return False
    return input("Erase this person from the record? This cannot be undone. [y/N] ").strip().lower() in {"y", "yes"}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
