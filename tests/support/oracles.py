"""O1, O2 and O3: whether the rows of a store agree with what callers and the provider saw.

Shares no code with what it judges. Callers' and provider's journals join the rows by the marker that each request
carries in its prompt and as its conversation, so no id of ours is trusted. As commands, exit code 0 good, 1 a
finding, 2 unusable:

    python -m tests.support.oracles O1 --calls calls.jsonl --provider provider.jsonl --store postgresql://…
    python -m tests.support.oracles O2 --store sqlite:///var/audit.db
    python -m tests.support.oracles O3 --config config.yaml          # readygate audit verify
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg

MARKER = re.compile(r"mark-\d{6}-end")
UNSENT = frozenset({"stale_connection", "breaker_open", "budget_denied"})
"""Attempts of which the provider need not have seen anything."""
UNKEPT = frozenset({"audit_backpressure", "audit_unavailable"})
"""Refusals because no row could be kept: they have none, and no provider is asked."""
SERVED = frozenset({"success", "fallback", "rescued"})
Rows = Sequence[dict[str, Any]]


@dataclass(slots=True)
class Call:
    """One request as its caller saw it. Times are monotonic seconds, 0 when it did not happen."""

    marker: str
    kind: str
    sent_s: float = 0.0
    first_byte_s: float = 0.0
    ended_s: float = 0.0
    bytes: int = 0
    status: int = 0
    id: str = ""
    code: str = ""
    """Of a refusal."""
    is_whole: bool = False
    """The answer came to its end: framing closed, and ``[DONE]`` for a stream."""
    has_left: bool = False
    """The caller hung up by itself."""


def reconcile(calls: Iterable[Call], provider_bodies: Iterable[str], rows: Rows) -> list[str]:
    """O1: return everything in which the two journals and the rows disagree (invariants I1 to I5)."""
    by_marker = {call.marker: call for call in calls}
    rows_of: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        rows_of.setdefault(row["conversation"], []).append(row)
    arrived: Counter[str] = Counter()
    for body in provider_bodies:
        found = MARKER.search(body)
        arrived[found[0] if found else "no marker"] += 1
    problems = [f"I3: a row of {marker!r}, which nobody sent" for marker in rows_of if marker not in by_marker]
    problems += [f"I3: the provider saw {marker!r}, which nobody sent" for marker in arrived if marker not in by_marker]
    problems += [f"I2: {problem}" for problem in duplicates(rows)]
    for marker, call in by_marker.items():
        own = rows_of.get(marker, [])
        if call.code in UNKEPT:
            if own or arrived[marker]:
                problems.append(
                    f"I1: refused unrecorded, yet {len(own)} rows and {arrived[marker]} at the provider: {call}"
                )
        elif len(own) > 1 or (not own and (call.bytes or arrived[marker])):
            problems.append(f"I1: {len(own)} rows of {call}, which the provider saw {arrived[marker]} times")
        elif own:
            problems += _disagreements(call, own[0], arrived[marker])
    return problems


def duplicates(rows: Rows) -> list[str]:
    """O2: return the ids that occur more than once."""
    counts = Counter(str(row["id"]) for row in rows)
    return [f"id {name} has {count} rows" for name, count in counts.items() if count > 1]


def _disagreements(call: Call, row: dict[str, Any], arrived: int) -> Iterable[str]:
    told = f"{call} has the row {row['status']} {row['http_status']} {row['error_code']}"
    if call.id and call.id != str(row["id"]):
        yield f"I4: another id: {told} {row['id']}"
    if row["status"] == "interrupted":
        if call.is_whole:
            yield f"I4: whole for its caller: {told}"
        return
    if call.status and call.status != row["http_status"]:
        yield f"I4: another status: {told}"
    if call.is_whole and (call.status == 200) != (row["status"] in SERVED):
        yield f"I4: another end: {told}"
    if call.has_left and row["status"] not in SERVED | {"cancelled"}:
        yield f"I4: the caller left: {told}"
    attempts = json.loads(row["attempts"]) if isinstance(row["attempts"], str) else row["attempts"]
    sent = sum(attempt["outcome"] not in UNSENT for attempt in attempts)
    is_agreed = sent - 1 <= arrived <= sent if row["status"] == "cancelled" else sent == arrived
    if not is_agreed:
        yield f"I5: {sent} attempts, {arrived} at the provider: {told}"


def chain_problems(config: Path) -> str:
    """O3: return what ``readygate audit verify`` finds, nothing when the chain holds or this release has no chain."""
    command = [sys.executable, "-m", "proxy", "audit", "verify", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if "invalid choice" in done.stderr:
        return ""
    return "" if done.returncode == 0 else done.stdout + done.stderr


async def rows_of_postgres(url: str) -> list[dict[str, Any]]:
    """Return every row of the store, oldest first."""
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch("SELECT * FROM audit ORDER BY ts, id")
    finally:
        await connection.close()
    return [{**dict(row), "id": str(row["id"])} for row in found]


def rows_of(store: str) -> list[dict[str, Any]]:
    """Return every row of a store by its URL. Call it where no event loop runs."""
    if store.startswith("sqlite:///"):
        path = Path(store.removeprefix("sqlite:///")).absolute()
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM audit ORDER BY ts, id")]
    return asyncio.run(rows_of_postgres(store))


def write_calls(calls: Iterable[Call], path: Path) -> None:
    """Keep a callers' journal as JSON lines."""
    path.write_text("".join(json.dumps(asdict(call)) + "\n" for call in calls))


def main(argv: Sequence[str] | None = None) -> int:
    """Judge with one oracle."""
    parser = argparse.ArgumentParser(prog="oracles", description="Rows against the journals of callers and provider.")
    parser.add_argument("oracle", choices=("O1", "O2", "O3"))
    parser.add_argument("--calls", type=Path, help="callers' journal, JSON lines (O1)")
    parser.add_argument("--provider", type=Path, help="the simulated provider's journal, JSON lines (O1)")
    parser.add_argument("--store", help="URL of the audit store (O1, O2)")
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), help="config of the sidecar (O3)")
    args = parser.parse_args(argv)
    try:
        problems = _judge(args)
    except (OSError, ValueError, TypeError, KeyError, sqlite3.Error, asyncpg.PostgresError) as exc:
        print(f"oracles: {exc!r}", file=sys.stderr)
        return 2
    print("\n".join(problems[:50]) if problems else f"{args.oracle} holds")
    return 1 if problems else 0


def _judge(args: argparse.Namespace) -> list[str]:
    match args.oracle:
        case "O1":
            calls = [Call(**json.loads(line)) for line in args.calls.read_text().splitlines()]
            entries = [json.loads(line) for line in args.provider.read_text().splitlines()]
            return reconcile(calls, [entry.get("body", "") for entry in entries], rows_of(args.store))
        case "O2":
            return duplicates(rows_of(args.store))
        case _:
            found = chain_problems(args.config)
            return [found] if found else []


if __name__ == "__main__":
    sys.exit(main())
