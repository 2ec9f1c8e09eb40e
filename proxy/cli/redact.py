"""``readygate redact``: show what a policy would do to a text or a JSON request, and why.

Owns the verb's input, output and exit code. What is found and done is ``core/redaction``'s. Writes nothing but its output.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import orjson

from proxy.core.dialect import Dialect
from proxy.core.policy.load import parse_policies
from proxy.core.policy.model import RoutePlan
from proxy.core.redaction.detect import KNOWN_KINDS, build_detector, kinds_of
from proxy.core.redaction.jsonio import dumps, keeping_digits, loads
from proxy.core.redaction.preview import Preview, Shown, preview
from proxy.core.redaction.restore import AnswerRestorer
from proxy.core.redaction.scan import TooDeep
from proxy.sources.files import read_config, read_policies
from proxy.terms.redaction import Action, DirectionPlan, RedactionPlan

EXIT_DONE, EXIT_FINDING, EXIT_UNUSABLE = 0, 1, 2
_MAX_INPUT_BYTES = 64 << 20
_RED, _GREEN, _PLAIN = "\x1b[31;9m", "\x1b[32m", "\x1b[0m"
_EXAMPLES = """examples:
  echo 'write to ana@example.com' | readygate redact
  readygate redact request.json --explain -c config.yaml --app shop-web
  readygate redact --diff notes.txt
  git diff --cached | readygate redact --check        exit code 1 when anything is found

exit codes: 0 done, 1 the policy refuses the text (with --check: something was found), 2 wrong usage or configuration
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "redact",
        help="show what redaction does to a text or a JSON request, and why",
        description="Redact a text or a JSON request as the sidecar would before it leaves, and print the result. Without -c every "
        "type of docs/kinds.md is looked for and replaced by a placeholder.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", default="-", help="what to read (-: standard input, the default)")
    parser.add_argument("-c", "--config", metavar="PATH", help="decide by the policies of this config file")
    parser.add_argument("--app", default="", help="with -c: as this app")
    parser.add_argument("--model", default=None, help="with -c: as a request for this model")
    parser.add_argument("--action", choices=("restore", "redact", "mask", "hash"), default="restore",
                        help="without -c: what is put in place of a value (%(default)s)")  # fmt: skip
    parser.add_argument("--as", dest="kind", choices=("auto", "text", "json"), default="auto",
                        help="how to read the input; auto: JSON when it is an object (%(default)s)")  # fmt: skip
    parser.add_argument("--explain", action="store_true", help="add a table: type, place, confidence, why")
    parser.add_argument("--diff", action="store_true", help="show what goes (red) and what comes in its place (green)")
    parser.add_argument("--check", action="store_true", help="print the table only; exit code 1 when anything is found")
    parser.add_argument("--restore", action="store_true", help="put the values back and say whether all came back")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="(%(default)s)")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output (%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Redact and print; return the exit code."""
    try:
        raw = sys.stdin.buffer.read(_MAX_INPUT_BYTES + 1) if args.file == "-" else Path(args.file).read_bytes()
        if len(raw) > _MAX_INPUT_BYTES:
            return _unusable("the input is larger than 64 MiB")
        document, is_text = _read(raw, args.kind)
    except (OSError, ValueError) as exc:
        return _unusable(f"{args.file}: {exc.strerror if isinstance(exc, OSError) else exc}")
    plan = _plan(args)
    if isinstance(plan, str):
        return _unusable(plan)
    own = tuple(own for own in plan.custom if plan.request.action_for(own.name) is not Action.OFF)
    try:
        result = preview(document, plan, build_detector(kinds_of(plan.request), own), os.urandom(32))
    except (TooDeep, RecursionError):
        return _unusable("the document is nested too deeply to be read")
    _print(result, args, document, is_text=is_text)
    if args.check:
        return EXIT_FINDING if result.findings else EXIT_DONE
    return EXIT_FINDING if result.refused else EXIT_DONE


def _unusable(message: str) -> int:
    print(f"readygate redact: {message}", file=sys.stderr)
    return EXIT_UNUSABLE


def _read(raw: bytes, kind: str) -> tuple[Any, bool]:
    """Return the input as a request document, and whether it is one text in a message.

    Raises:
        ValueError: Not UTF-8, or not the JSON it should be.
    """
    if kind != "text" and (kind == "json" or raw.lstrip()[:1] == b"{"):
        try:
            return keeping_digits(loads(raw), raw), False
        except ValueError as exc:
            if kind == "json":
                raise ValueError(f"not JSON: {exc}") from None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError("not text in UTF-8") from None
    return {"messages": [{"role": "user", "content": text}]}, True


def _plan(args: argparse.Namespace) -> RedactionPlan | str:
    """Return the plan to redact by, or why there is none."""
    if args.config is None:
        return RedactionPlan(DirectionPlan(default=Action(args.action)))
    config = read_config(Path(args.config))
    if config.settings is None:
        return "\n".join(str(problem) for problem in config.problems)
    folder = read_policies(config.settings.policies)
    result = parse_policies(folder.files, config.settings, KNOWN_KINDS)
    if result.policies is None:
        return "\n".join(str(problem) for problem in (*folder.problems, *result.problems) if problem.is_error)
    route = result.policies.select(args.app, args.model, "/chat/completions")
    if not isinstance(route, RoutePlan):
        return f"no route takes app {args.app!r} and model {args.model!r}: name one with --model"
    return route.redaction


def _print(result: Preview, args: argparse.Namespace, document: Any, *, is_text: bool) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # half a surrogate pair is shown as its escape
        sys.stdout.reconfigure(errors="backslashreplace")
    if args.format == "json":
        print(json.dumps(_plain(result, args, document, is_text=is_text), indent=2, ensure_ascii=False))
        return
    has_color = args.color == "always" or (
        args.color == "auto" and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    )
    if result.refused:
        print(f"readygate redact: {result.refused}", file=sys.stderr)
    elif args.diff:
        print("".join(_diff(result.findings, has_color=has_color)) or _out(result, is_text=is_text), end="")
    elif not args.check:
        print(_out(result, is_text=is_text), end="")
    if args.explain or args.check:
        print("\n".join(_table(result.findings)), file=sys.stdout)
    if args.restore:
        print(_round_trip(result, document))


def _out(result: Preview, *, is_text: bool) -> str:
    """Return what would leave; a text comes out with the line break it had or had not."""
    if is_text:
        text: str = result.document["messages"][0]["content"]
        return text
    try:
        return orjson.dumps(result.document, option=orjson.OPT_INDENT_2).decode() + "\n"
    except TypeError:  # half a surrogate pair, or more digits than a machine word holds
        return json.dumps(result.document, indent=2) + "\n"


def _round_trip(result: Preview, document: Any) -> str:
    if result.vault.is_empty:
        return "nothing to restore"
    back = loads(AnswerRestorer(result.vault, Dialect.CHAT).whole(dumps(result.document)))
    return f"restored {len(result.vault)} placeholders: {'identical' if back == document else 'differs (a number comes back as text)'}"


def _table(findings: tuple[Shown, ...]) -> list[str]:
    if not findings:
        return ["nothing found"]
    rows = [("type", "where", "span", "sure", "action", "in its place", "why")]
    for found in findings:
        sure = "" if found.confidence is None else f"{found.confidence:.2f}"
        span = f"{found.start}-{found.end}"
        rows.append((found.kind.lower(), found.where, span, sure, found.action, found.stand_in, found.why))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _diff(findings: tuple[Shown, ...], *, has_color: bool) -> list[str]:
    """Return every text with findings, values struck out beside what comes instead."""
    out: list[str] = []
    by_text: dict[tuple[str, str], list[Shown]] = {}
    for found in findings:
        by_text.setdefault((found.where, found.text), []).append(found)
    red, green, plain = (_RED, _GREEN, _PLAIN) if has_color else ("[-", "{+", "")
    end_red, end_green = (plain, plain) if has_color else ("-]", "+}")
    for (where, text), shown in by_text.items():
        if len(by_text) > 1:
            out.append(f"--- {where}\n")
        done = 0
        for found in shown:
            out.append(text[done : found.start])
            value = text[found.start : found.end]
            changed = f"{red}{value}{end_red}{green}{found.stand_in}{end_green}"
            out.append(changed if found.stand_in else value)
            done = found.end
        out.append(text[done:] + ("" if text.endswith("\n") else "\n"))
    return out


def _plain(result: Preview, args: argparse.Namespace, document: Any, *, is_text: bool) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for found in result.findings:
        counts[found.kind.lower()] = counts.get(found.kind.lower(), 0) + 1
    shown: dict[str, Any] = {
        "redacted": None if result.refused else result.document["messages"][0]["content"] if is_text else result.document,
        "refused": result.refused,
        "counts": counts,
        "findings": [
            {
                "type": found.kind.lower(), "where": found.where, "start": found.start, "end": found.end,
                "confidence": found.confidence, "action": found.action, "in_its_place": found.stand_in, "why": found.why,
            }
            for found in result.findings
        ],
    }  # fmt: skip
    if args.restore:
        shown["restored"] = _round_trip(result, document)
    return shown
