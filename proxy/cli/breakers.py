"""``readygate breakers``: list the breakers of a running sidecar, or reset one.

Owns the verb's arguments and its output; the sidecar does the rest.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from proxy.cli.admin_client import AdminRefused, AdminUnreachable, add_arguments, connect, quoted

EXIT_GOOD, EXIT_FINDING, EXIT_UNUSABLE = 0, 1, 2
_COLUMNS = ("deployment", "state", "retry_in_s", "success_ratio", "attempts", "p95_ms", "last_outcome")


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "breakers",
        help="list the breakers of a running sidecar, or reset one",
        description="Exit code of list: 0 all closed, 1 some are not. Of reset: 0 done, 1 refused. 2: nobody answers.",
    )
    verbs = parser.add_subparsers(dest="breakers_verb", metavar="VERB")
    parser.set_defaults(breakers_verb="list", format="table")
    add_arguments(parser)
    listing = verbs.add_parser("list", help="show every breaker")
    reset = verbs.add_parser("reset", help="close a breaker and forget its failures")
    reset.add_argument("name", help="as the list shows it, such as openai:gpt-4o-mini")
    for verb in (listing, reset):
        add_arguments(verb)
        verb.add_argument("--format", choices=("table", "json"), default="table", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """List or reset; return the exit code."""
    try:
        client = connect(args)
        if args.breakers_verb == "reset":
            rows = [client.call("POST", f"/api/v1/breakers/{quoted(args.name)}/reset")]
        else:
            rows = client.get("/api/v1/breakers")["breakers"]
    except AdminUnreachable as exc:
        print(f"readygate breakers: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    except AdminRefused as exc:
        print(f"readygate breakers: {exc}", file=sys.stderr)
        return EXIT_FINDING
    if args.format == "json":
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows)
    is_well = args.breakers_verb == "reset" or all(row["state"] == "closed" for row in rows)
    return EXIT_GOOD if is_well else EXIT_FINDING


def _print_table(rows: list[dict[str, Any]]) -> None:
    lines = [_COLUMNS, *(tuple(_cell(row.get(name)) for name in _COLUMNS) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    """Show a value; models are named by callers, so nothing of them may move the cursor."""
    if value is None:
        return "-"
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return "".join(char if char.isprintable() else "?" for char in text[:100])
