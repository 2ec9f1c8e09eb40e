"""``readygate budgets``: what is left of every budget of a running sidecar, and who used it.

Owns the verb's arguments and its output; the sidecar does the rest. With a caller key as ``READYGATE_TOKEN`` it shows
that app's budgets alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any
from urllib.parse import urlencode

from proxy.cli.admin_client import AdminRefused, AdminUnreachable, add_arguments, connect

EXIT_GOOD, EXIT_FINDING, EXIT_UNUSABLE = 0, 1, 2
_COLUMNS = ("budget", "for", "counts", "limit", "used", "reserved", "remaining", "resets in")


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "budgets",
        help="show what is left of every budget of a running sidecar",
        description="Exit code 0: something is left of everything, 1: some limit is exhausted or the sidecar said no, "
        "2: nobody answers. READYGATE_TOKEN may be an admin token or, for an app's own budgets, its caller key.",
    )
    add_arguments(parser)
    parser.add_argument("--budget", metavar="ID", help="only this one, such as default/groq")
    parser.add_argument("--provider", metavar="NAME", help="only those on this provider")
    parser.add_argument(
        "--who", metavar="TIME", help="also who used it since then, by the audit: 10m, 24h, at most 31d"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Ask, print, return the exit code."""
    asked = {name: value for name in ("budget", "provider", "who") if (value := getattr(args, name)) is not None}
    try:
        document = connect(args).get("/api/v1/budgets" + (f"?{urlencode(asked)}" if asked else ""))
    except AdminUnreachable as exc:
        print(f"readygate budgets: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    except AdminRefused as exc:
        print(f"readygate budgets: {exc}", file=sys.stderr)
        return EXIT_FINDING
    if args.format == "json":
        print(json.dumps(document, indent=2))
    else:
        _print_tables(document)
    is_left = all(limit["remaining"] > 0 for row in document["budgets"] for limit in row["limits"])
    return EXIT_GOOD if is_left else EXIT_FINDING


def _print_tables(document: dict[str, Any]) -> None:
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for budget in document["budgets"]:
        whose = ", ".join(f"{name} {value or '(none)'}" for name, value in budget["for"].items()) or "all"
        for limit in budget["limits"]:
            figures = (limit["limit"], limit["used"], limit["reserved"], limit["remaining"])
            shown = [_figure(one) for one in figures]
            reset = f"{limit['reset_s']:.0f} s" if limit["reset_s"] else "-"
            rows.append((_safe(budget["budget"]), _safe(whose), limit["dimension"], *shown, reset))
    if len(rows) == 1:
        print("no budgets")
    else:
        _print_aligned(rows, right_from=3)
    if document["not_shown"]:
        print(f"and {document['not_shown']} more: ask for one with --budget or --provider")
    _print_users(document["budgets"])
    store = document.get("store")
    if store and store["kind"] == "shared":
        trouble = f" ({store['reason']})" if store["reason"] else ""
        print(f"\nstore: {store['state']}{_safe(trouble)}, {store['members']} sidecars of {store['max_sidecars']}")


def _print_users(budgets: list[dict[str, Any]]) -> None:
    rows: list[tuple[str, ...]] = [("used by", "app", "requests", "tokens", "USD")]
    for budget in budgets:
        rows += [
            (_safe(budget["budget"]), _safe(one["app"]) or "(none)", str(one["requests"]), str(one["tokens"]),
             f"{one['cost_usd']:.4f}")
            for one in budget.get("used_by", ())
        ]  # fmt: skip
    if len(rows) > 1:
        print()
        _print_aligned(rows, right_from=2)


def _print_aligned(rows: list[tuple[str, ...]], right_from: int) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if place >= right_from else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _figure(value: int | float) -> str:  # noqa: PYI041 - whole numbers are shown whole
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _safe(text: str) -> str:
    """Show text that callers choose; nothing of it may move the cursor."""
    return "".join(char if char.isprintable() else "?" for char in text[:80])
