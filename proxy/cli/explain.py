"""``readygate explain``: why a request was treated as it was, or would be.

Owns the verb's output. A request file is played through the real decisions (``flow/rehearsal``): nothing leaves this
process. A past exchange is told from its audit row, which holds what was decided then; when the same policies are
still there, the rules it met are told, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from proxy.cli.audit_store import EXIT_FINDING, EXIT_GOOD, EXIT_UNUSABLE, Unusable, find_settings, find_store
from proxy.cli.policy_sets import policies_by_revision
from proxy.core.audit.query import parse_filter
from proxy.core.audit.render import json_line
from proxy.core.config.problem import Mark
from proxy.core.config.settings import Settings
from proxy.core.dialect import dialect_of
from proxy.core.policy.access import Asked
from proxy.core.policy.applies import Subject
from proxy.core.policy.cases import Case, Expected
from proxy.core.policy.decide import facts_of_row
from proxy.core.policy.policy_set import PolicySet
from proxy.core.policy.trail import Step, trail_of
from proxy.core.redaction import RequestRedactor
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.flow.catalog import Snapshot
from proxy.flow.intake import Request, read_json
from proxy.flow.rehearsal import Rehearsal
from proxy.flow.reload import compile_snapshot
from proxy.flow.self_test import happened_in
from proxy.sources.files import prices_of, read_policies
from proxy.stores.audit_reader import open_reader
from proxy.stores.memory import MemorySpool
from proxy.terms.errors import QueryTooSlow, SinkUnavailable

_JSON: Final = ("findings", "response_findings", "notes", "caller_groups")
_EXAMPLE: Final = '{"model": "fast", "messages": [{"role": "user", "content": "hello"}]}'
_HASH_KEY: Final = b"rehearsal: pseudonyms of cases need no secret"


@dataclass(slots=True)
class Story:
    """What is told, in the order of the request path."""

    title: str
    revision: str
    steps: list[Step] = field(default_factory=list)
    redaction: list[dict[str, Any]] = field(default_factory=list)
    budget: dict[str, Any] = field(default_factory=dict)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "explain",
        help="say why a request is (or was) treated as it is: rules, findings, budgets, attempts",
        description="Explain a request: a JSON body from a file (or - for standard input), played through the real "
        "decisions without leaving this process, or a past exchange by its x-readygate-id, from the "
        "audit store. Exit code: 0 explained, 1 no such exchange or the request would be refused, 2 unusable files.",
    )
    parser.add_argument("request", nargs="?", metavar="FILE", help="a JSON request body; - reads standard input")
    parser.add_argument("--request-id", metavar="ID", help="a past exchange instead")
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument("--policies", metavar="FOLDER", help="another policy folder than the config names")
    parser.add_argument("--app", default="", help="the calling app")
    parser.add_argument("--user", default="", help="its user")
    parser.add_argument("--group", action="append", default=[], metavar="NAME", help="a group of the caller's token")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="a request header")
    parser.add_argument("--path", default="/v1/chat/completions", help="the path (%(default)s)")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output (%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain one exchange; return the exit code."""
    try:
        if (args.request is None) == (args.request_id is None):
            raise Unusable("give a request file or --request-id, one of the two")
        settings = find_settings(Path(args.config))
        if args.request_id is not None:
            story = asyncio.run(_told_from_row(args, settings))
        else:
            story = _rehearsed(args, settings, _snapshot(settings, args.policies))
    except Unusable as exc:
        print(f"readygate explain: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    except (SinkUnavailable, QueryTooSlow) as exc:
        print(f"readygate explain: the audit store: {exc}", file=sys.stderr)
        return EXIT_FINDING
    if story is None:
        print(f"readygate explain: no row of {args.request_id}; rows arrive within seconds", file=sys.stderr)
        return EXIT_FINDING
    print(json_line(asdict(story)).rstrip("\n") if args.format == "json" else "\n".join(_lines(story)))
    return EXIT_FINDING if args.request is not None and story.result.get("status", 200) >= 400 else EXIT_GOOD


def _snapshot(settings: Settings, folder: str | None) -> Snapshot:
    from proxy.flow.redactors import Redactors  # noqa: PLC0415 - half a second of imports that --help does not need

    made = Redactors(_HASH_KEY)
    policies = read_policies(Path(folder) if folder else settings.policies)
    snapshot, problems = compile_snapshot(
        policies.files, policies.problems, settings, KNOWN_KINDS, made.build, made.build_answers
    )
    if snapshot is None:
        raise Unusable("the policies cannot be used:\n" + "\n".join(f"  {p}" for p in problems if p.is_error))
    return snapshot


# --- a request that has not been sent -------------------------------------------------------------------


def _rehearsed(args: argparse.Namespace, settings: Settings, snapshot: Snapshot) -> Story:
    try:
        body = sys.stdin.buffer.read() if args.request == "-" else Path(args.request).read_bytes()
    except OSError as exc:
        raise Unusable(f"{args.request}: {exc.strerror}") from None
    if not args.path.startswith("/v1/"):
        raise Unusable(f"--path {args.path}: expected a path of the data port, such as /v1/chat/completions")
    headers = dict(map(_header, args.header))
    if not body.strip():
        raise Unusable(f"{args.request} is empty; a request body is JSON, such as {_EXAMPLE}")
    case = Case(
        "explain",
        Mark(args.request),
        "POST",
        args.path,
        headers,
        body,
        args.app,
        args.user,
        "",
        {},
        (),
        (),
        Expected(),
        tuple(args.group),
    )
    played = Rehearsal(settings, snapshot, MemorySpool, prices_of(settings)).play(case)
    happened, facts = happened_in(played), played.facts
    story = Story(f"{args.request} (played here, nothing was sent)", snapshot.revision)
    request = read_json(body, dialect_of(args.path)) if body else Request(b"")
    model = request.model if isinstance(request, Request) else None
    path = args.path.partition("?")[0].removeprefix("/v1")
    groups = tuple(args.group)
    fields = {name.encode(): value.encode() for name, value in headers.items()}
    subject = Subject(args.app, facts.caller, facts.user, model or "", path, fields, groups)
    if isinstance(request, Request):
        asked = Asked("POST", path, model, args.path.partition("?")[2], len(body), request.document)
        story.steps = trail_of(snapshot.policies, subject, model, asked, knows_body=True)
    route = snapshot.route_for(subject, model)
    redactor = getattr(route, "redactor", None)
    if redactor is not None and isinstance(request, Request):
        story.redaction = _sighted(redactor, body)
    story.budget = dict(facts.budget)
    story.attempts = [
        {"deployment": sent.deployment, "bytes_sent": len(sent.body), "outcome": "would be asked"}
        for sent in played.sent
    ]
    story.skipped = list(happened.skipped)
    story.result = {"status": played.status, "code": happened.code, "result": happened.result}
    if happened.code:
        story.result["message"] = facts.error_message
    return story


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise Unusable(f"--header {text}: expected NAME:VALUE")
    return name.strip().lower(), value.strip()


def _sighted(redactor: RequestRedactor, body: bytes) -> list[dict[str, Any]]:
    """Return what is found and where; of what is no JSON only the rehearsal says what becomes of it."""
    try:
        sightings = redactor.sightings(body)
    except ValueError:
        return []
    return [{"type": one.kind.lower(), "at": one.place, "action": one.action.value} for one in sightings]


# --- a past exchange ------------------------------------------------------------------------------------


async def _told_from_row(args: argparse.Namespace, settings: Settings) -> Story | None:
    try:
        wanted = parse_filter({"id": args.request_id}, datetime.fromtimestamp(0, UTC))
        reader = open_reader(find_store(Path(args.config)))
    except ValueError as exc:
        raise Unusable(f"--request-id: {str(exc).removeprefix('id: ')}; it is in the header x-readygate-id") from None
    try:
        rows = await reader.rows(wanted, 1)
    finally:
        await reader.close()
    if not rows:
        return None
    more = [] if args.policies is None else [_snapshot(settings, args.policies).policies]
    return story_of(rows[0], policies_by_revision(settings, *more)(rows[0]["policy_revision"]))


def story_of(row: dict[str, Any], policies: PolicySet | None) -> Story:
    """Tell an audit row; ``policies`` are those that decided it, None: nobody has them any more."""
    story = Story(f"{row['id']} of {row['ts']}", row["policy_revision"])
    path = str(row["path"]).removeprefix("/v1")
    if policies is not None:
        facts = facts_of_row({**row, **{name: _parsed(row[name]) for name in _JSON}}, policies)
        subject = Subject(
            facts.app, facts.caller, facts.user, row["model_asked"], path, fields=facts.fields, groups=facts.groups
        )
        model = row["model_asked"] or None
        asked = Asked(row["method"], path, model, "", row["request_bytes"])
        story.steps = trail_of(policies, subject, model, asked)
    else:
        told = f"policy {row['policy'] or '-'}, route {row['route'] or '-'}"
        story.steps = [Step(told, f"app {row['app']!r}, model {row['model_asked']!r}", "as the row says", True)]
        story.remarks.append(
            f"the policies of revision {row['policy_revision'] or '-'} are not kept here: its rules cannot be shown"
        )
    found, replaced = _parsed(row["findings"]), _parsed(row["sanitized"])
    story.redaction = [
        {"type": kind.lower(), "values": count, "replaced": replaced.get(kind, 0)} for kind, count in found.items()
    ]
    story.budget = _parsed(row["budget"])
    story.attempts = _parsed(row["attempts"])
    notes = _parsed(row["notes"])
    story.skipped = [note.removeprefix("skipped:") for note in notes if note.startswith("skipped:")]
    story.remarks += [note for note in notes if not note.startswith("skipped:")]
    keys = ("http_status", "status", "error_code", "error_message", "fault", "provider", "model_served", "latency_ms")
    story.result = {
        key: row[key] for key in (*keys, "tokens_in", "tokens_out", "cost_usd") if row[key] not in (None, "")
    }
    return story


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


# --- for people -----------------------------------------------------------------------------------------


def _lines(story: Story) -> list[str]:
    lines = [story.title, f"policies   revision {story.revision}"]
    for number, step in enumerate(story.steps):
        mark = ">" if step.is_taken else " "
        lines.append(f"{'rules' if number == 0 else '':<10} {mark} {step.rule}   {step.inputs}: {step.verdict}")
    for number, row in enumerate(story.redaction):
        lines.append(f"{'redaction' if number == 0 else '':<10}   {_row(row)}")
    if not story.redaction:
        lines.append("redaction    nothing found")
    if story.budget:
        lines.append(f"{'budget':<10}   {_row(story.budget)}")
    lines += [f"{'skipped':<10}   {note}" for note in story.skipped]
    for number, attempt in enumerate(story.attempts, 1):
        lines.append(f"{'attempt':<10} {number} {_row(attempt)}")
    lines.append(f"{'answer':<10}   {_row(story.result)}")
    return lines + [f"{'remark':<10}   {remark}" for remark in story.remarks]


def _row(row: dict[str, Any]) -> str:
    told = {key: value for key, value in row.items() if value not in (None, "")}
    return "  ".join(f"{key}={f'{value:.6g}' if isinstance(value, float) else value}" for key, value in told.items())
