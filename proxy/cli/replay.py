"""``readygate replay``: what other policies would have done with the exchanges of the last hours or days.

Owns the verb's arguments, its progress bar and its output. Decides from audit rows, so it needs no prompt; the comparison
itself is ``core/policy/replay``, budgets are played by ``flow/budget_replay`` and kept words read by ``flow/kept_words``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from proxy.cli.audit_output import Progress
from proxy.cli.audit_people import actor
from proxy.cli.audit_store import EXIT_FINDING, EXIT_GOOD, EXIT_UNUSABLE, Unusable, find_settings, find_store
from proxy.cli.audit_words import contents_of
from proxy.cli.policy_sets import policies_by_revision
from proxy.core.audit.query import RowFilter, parse_filter
from proxy.core.audit.render import json_line
from proxy.core.config.settings import Settings
from proxy.core.policy.model import BudgetRule
from proxy.core.policy.replay import Replay
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.flow.audit_reading import pages
from proxy.flow.budget_replay import BudgetPlay, warm_up_s
from proxy.flow.catalog import Snapshot
from proxy.flow.kept_words import KeptWords
from proxy.flow.people import with_content
from proxy.flow.reload import compile_snapshot
from proxy.sources.files import prices_of, read_policies
from proxy.stores.audit_reader import open_reader
from proxy.stores.people import open_people
from proxy.terms.errors import QueryTooSlow, SinkUnavailable

_FILTERS: Final = ("since", "until", "app", "user", "policy", "route", "revision")
_QUERY_S: Final = 120.0
_OPENED_ROWS: Final = 200
_HASH_KEY: Final = b"replay: pseudonyms leave no process"
_OF_PARTS: Final = {
    "budgets": {
        "played": "met a budget, played in the order of their time",
        "estimated": "of these were reserved by their length, for want of their words (max_tokens, messages)",
        "assumed": "were not served then: taken to use what others of their app and model did",
        "unsure": "ended otherwise than the budgets of then explain; what budgets do there is not told",
    },
    "content": {
        "read": "were read again from kept words",
        "unreadable": "have kept words that were cut or that audit.key does not open",
    },
}
"""What is said of budgets and words, where there is something to say."""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "replay",
        help="decide audited exchanges again under other policies and list what would change",
        description="Decide audited exchanges again from their rows: route, targets, refusals, redaction by type, budgets in the "
        "order of time. The health of providers is that of then. Exit code: 0 nothing would change, 1 something would, 2 unusable.",
    )
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument("--policies", metavar="FOLDER", help="the policies in question; left out: the config's")
    parser.add_argument("--enforce", action="store_true", help="take policies of `mode: observe` as if they acted")
    parser.add_argument(
        "--since", default="24h", metavar="X", help="rows from 15m, 24h, 7d ago or a date (%(default)s)"
    )
    for name in _FILTERS[1:]:
        parser.add_argument(f"--{name}", metavar="X", help=f"only this {name}" if name != "until" else "before this")
    parser.add_argument("--no-budgets", action="store_true", help="leave budgets out: fewer rows are read")
    parser.add_argument(
        "--content", action="store_true", help="read kept words again; leaves an entry in audit_actions"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output (%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay; return the exit code."""
    try:
        config = Path(args.config)
        settings = find_settings(config)
        snapshot = _snapshot(settings, Path(args.policies) if args.policies else settings.policies)
        run_ = _Run(settings, snapshot, config, enforce=args.enforce, plays=not args.no_budgets, content=args.content)
        asyncio.run(run_.read(find_store(config), _filter(args)))
    except Unusable as exc:
        print(f"readygate replay: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    except (SinkUnavailable, QueryTooSlow) as exc:
        print(f"readygate replay: the audit store: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    document = run_.document()
    print(json_line(document) if args.format == "json" else "\n".join(report_lines(document)), end="")
    if args.format != "json":
        print()
    return EXIT_FINDING if run_.replay.changes.changed else EXIT_GOOD


class _Run:
    """One run: the policies in question, what they are compared by, and where rows and words come from."""

    def __init__(
        self, settings: Settings, snapshot: Snapshot, config: Path, *, enforce: bool, plays: bool, content: bool
    ) -> None:
        self._config = config
        self._policies = snapshot.policies
        self._known = policies_by_revision(settings, snapshot.policies)
        prices = prices_of(settings)
        is_shared = settings.budgets.url is not None
        self._play = BudgetPlay(prices, is_shared=is_shared, enforce=enforce) if plays else None
        self._words = KeptWords(snapshot) if content else None
        self._contents = contents_of(config) if content else None
        self.replay = Replay(
            snapshot.policies,
            self._known,
            prices,
            enforce=enforce,
            look=None if self._words is None else self._words.look,
            play=self._play,
        )

    async def read(self, store_url: str, wanted: RowFilter) -> None:
        """Take every row, oldest first; budgets need all rows of their time, also those nobody asked about."""
        try:
            reader = open_reader(store_url, limit_s=_QUERY_S)
        except ValueError as exc:
            raise Unusable(str(exc)) from None
        since = next(one.value for one in wanted.conditions if (one.column, one.operator) == ("ts", ">="))
        assert isinstance(since, datetime)
        if self._contents is not None:
            await open_people(store_url).note_content(
                f"replay since {since.isoformat()}", actor=actor(), now_ms=_now_ms()
            )
        asked = RowFilter(tuple(one for one in wanted.conditions if one.column == "ts")) if self._meters else wanted
        if self._meters:
            asked = asked.but("ts", ">=", since - timedelta(seconds=warm_up_s(self._meters)))
        try:
            bar, done = Progress(await reader.count(asked), sys.stderr, time.monotonic), 0
            async for page in pages(reader, asked, oldest_first=True):
                await self._take(page, wanted, since)
                done += len(page)
                bar.show(done)
            self.replay.finish()
            bar.end()
        finally:
            await reader.close()

    @property
    def _meters(self) -> tuple[BudgetRule, ...]:
        """The budgets that make earlier rows, and those of others, matter."""
        return () if self._play is None else self._policies.budgets

    async def _take(self, page: list[dict[str, Any]], wanted: RowFilter, since: datetime) -> None:
        equal = [one for one in wanted.conditions if one.column != "ts"]
        for start in range(0, len(page), _OPENED_ROWS):
            rows = page[start : start + _OPENED_ROWS]
            if self._contents is not None:
                rows = await with_content(rows, self._contents)
            for row in rows:
                counts = row["ts"] >= since and all(row[one.column] == one.value for one in equal)
                self.replay.take(row, counts=counts)

    def document(self) -> dict[str, Any]:
        """Return the report as plain data, with what could not be decided and why."""
        play, words = self._play, self._words
        return {
            **self.replay.document(),
            "budgets": None
            if play is None
            else {"played": play.played, "estimated": play.estimated, "assumed": play.assumed, "unsure": play.unsure},
            "content": None if words is None else {"read": words.read, "unreadable": words.unreadable},
        }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _snapshot(settings: Settings, folder: Path) -> Snapshot:
    from proxy.flow.redactors import Redactors  # noqa: PLC0415 - half a second of imports that --help does not need

    made = Redactors(_HASH_KEY)
    found = read_policies(folder)
    snapshot, problems = compile_snapshot(
        found.files, found.problems, settings, KNOWN_KINDS, made.build, made.build_answers
    )
    if snapshot is None:
        text = "\n".join(f"  {problem}" for problem in problems if problem.is_error)
        raise Unusable("the policies cannot be used:\n" + text)
    return snapshot


def _filter(args: argparse.Namespace) -> RowFilter:
    given = {name: getattr(args, name) for name in _FILTERS if getattr(args, name) is not None}
    try:
        return parse_filter(given, datetime.fromtimestamp(time.time_ns() / 1e9, UTC))
    except ValueError as exc:
        raise Unusable(f"--{exc}") from None


def report_lines(document: dict[str, Any]) -> list[str]:
    """Return a report of changes for people; names come from callers, so nothing in them may move a cursor."""
    lines = [
        f"{document['exchanges']} exchange{'' if document['exchanges'] == 1 else 's'} under revision {document['revision']}: {document['changed']} would change"
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
    for part, texts in _OF_PARTS.items():
        said = document.get(part) or {}
        lines += [f"{said[key]:>8}  {text}" for key, text in texts.items() if said.get(key)]
    return ["".join(char if char.isprintable() else "?" for char in line) for line in lines]
