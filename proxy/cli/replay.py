"""``readygate replay``: what other policies would have done with the exchanges of the last hours or days.

Owns the verb's arguments, its progress bar and its output. Decides from audit rows, so it needs no prompt; the comparison
itself is ``core/policy/replay``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from proxy.cli.audit_output import Progress
from proxy.cli.audit_store import EXIT_FINDING, EXIT_GOOD, EXIT_UNUSABLE, Unusable, find_settings, find_store
from proxy.core.audit.query import RowFilter, parse_filter
from proxy.core.audit.render import json_line
from proxy.core.config.settings import Settings
from proxy.core.policy.load import parse_policies
from proxy.core.policy.policy_set import PolicySet
from proxy.core.policy.replay import Replay
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.flow.audit_reading import pages
from proxy.sources.files import prices_of, read_policies
from proxy.sources.policy_history import PolicyHistory
from proxy.stores.audit_reader import open_reader
from proxy.terms.errors import QueryTooSlow, SinkUnavailable

_FILTERS: Final = ("since", "until", "app", "user", "policy", "route", "revision")
_QUERY_S: Final = 120.0


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "replay",
        help="decide audited exchanges again under other policies and list what would change",
        description="Decide audited exchanges again from their rows: route, targets, refusals, redaction by type. Budgets and "
        "the health of providers are not replayed. Exit code: 0 nothing would change, 1 something would, 2 unusable.",
    )
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument("--policies", metavar="FOLDER", help="the policies in question; left out: the config's")
    parser.add_argument("--enforce", action="store_true", help="take policies of `mode: observe` as if they acted")
    parser.add_argument(
        "--since", default="24h", metavar="X", help="rows from 15m, 24h, 7d ago or a date (%(default)s)"
    )
    for name in _FILTERS[1:]:
        parser.add_argument(f"--{name}", metavar="X", help=f"only this {name}" if name != "until" else "before this")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output (%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay; return the exit code."""
    try:
        settings = find_settings(Path(args.config))
        policies = _policies(settings, Path(args.policies) if args.policies else settings.policies)
        replay = Replay(policies, _known(settings, policies), prices_of(settings), enforce=args.enforce)
        asyncio.run(_read(replay, find_store(Path(args.config)), _filter(args)))
    except Unusable as exc:
        print(f"readygate replay: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    except (SinkUnavailable, QueryTooSlow) as exc:
        print(f"readygate replay: the audit store: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    document = replay.document()
    print(json_line(document) if args.format == "json" else "\n".join(report_lines(document)), end="")
    if args.format != "json":
        print()
    return EXIT_FINDING if replay.changes.changed else EXIT_GOOD


async def _read(replay: Replay, store_url: str, wanted: RowFilter) -> None:
    try:
        reader = open_reader(store_url, limit_s=_QUERY_S)
    except ValueError as exc:
        raise Unusable(str(exc)) from None
    try:
        bar, done = Progress(await reader.count(wanted), sys.stderr, time.monotonic), 0
        async for page in pages(reader, wanted, oldest_first=True):
            for row in page:
                replay.take(row)
            done += len(page)
            bar.show(done)
        bar.end()
    finally:
        await reader.close()


def _policies(settings: Settings, folder: Path) -> PolicySet:
    found = read_policies(folder)
    result = parse_policies(found.files, settings, KNOWN_KINDS)
    problems = [str(problem) for problem in (*found.problems, *result.problems) if problem.is_error]
    if result.policies is None or problems:
        raise Unusable("the policies cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))
    return result.policies


def _known(settings: Settings, policies: PolicySet) -> Any:
    """Return what finds the policies of a revision: among those in question, in the config's folder, in the history."""
    history = PolicyHistory(settings.history_folder)
    sets = {policies.revision: policies}
    current = parse_policies(read_policies(settings.policies).files, settings, KNOWN_KINDS).policies
    if current is not None:
        sets[current.revision] = current

    @lru_cache(maxsize=100)
    def find(revision: str) -> PolicySet | None:
        if revision in sets:
            return sets[revision]
        kept = history.find(revision)
        found = None if kept is None else parse_policies(kept.files, settings, KNOWN_KINDS).policies
        return found if found is not None and found.revision == revision else None

    return find


def _filter(args: argparse.Namespace) -> RowFilter:
    given = {name: getattr(args, name) for name in _FILTERS if getattr(args, name) is not None}
    try:
        return parse_filter(given, datetime.fromtimestamp(time.time_ns() / 1e9, UTC))
    except ValueError as exc:
        raise Unusable(f"--{exc}") from None


def report_lines(document: dict[str, Any]) -> list[str]:
    """Return a report of changes for people; names come from callers, so nothing in them may move a cursor."""
    lines = [
        f"{document['exchanges']} exchanges under revision {document['revision']}: {document['changed']} would change"
    ]
    for one in document["changes"]:
        change = f"{one['before'] or 'served'} -> {one['after'] or 'served'}"
        lines.append(f"{one['count']:>8}  {one['what']:<9} app {one['app'] or '-'}  {one['rule']}: {change}")
        lines.append(f"          such as {', '.join(one['examples'][:3])}")
    cost = document["cost"]
    lines.append(f"cost {cost['before_usd']:.6f} -> {cost['after_usd']:.6f} USD ({cost['unpriced']} without a price)")
    remarks = {
        "partly_known": "may hold more than was looked for then",
        "by_row_alone": "are known by their row alone: the policies of their revision are not kept",
        "undecided": "were decided by no policy and are not counted",
        "changes_beyond_list": "changes are beyond this list",
        "dropped": "were not compared, for want of room",
        "unread": "are uploads or too large to be read again: compared by their facts alone",
    }
    lines += [f"{document[key]:>8}  {text}" for key, text in remarks.items() if document.get(key)]
    return ["".join(char if char.isprintable() else "?" for char in line) for line in lines]
