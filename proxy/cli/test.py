"""``readygate test``: play the cases beside the policies and say which hold.

Owns the verb's output and exit code. The cases run through the real relay in this process (``flow/rehearsal``);
nothing leaves it and no secret is needed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from proxy.cli.audit_output import Progress
from proxy.core.policy.case_checks import check_cases
from proxy.core.policy.cases import parse_cases
from proxy.core.policy.coverage import rules_of
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.flow.rehearsal import Rehearsal
from proxy.flow.reload import compile_snapshot
from proxy.flow.self_test import CaseResult, SelfTest, run_cases
from proxy.sources.files import prices_of, read_config, read_policies
from proxy.stores.memory import MemorySpool

_HASH_KEY: Final = b"rehearsal: pseudonyms of cases need no secret"


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "test",
        help="play the cases beside the policies (*.cases.yaml) and say which hold",
        description="Play every case of the policy folder's *.cases.yaml through the real decisions, with scripted "
        "providers and virtual time. Nothing leaves this process. Exit code: 0 all hold, 1 some do not (or, with "
        "--require-coverage, some rule is touched by no case), 2 the files cannot be used.",
    )
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument("--policies", metavar="FOLDER", help="another policy folder than the config names")
    parser.add_argument("-k", "--only", metavar="TEXT", help="only cases whose name holds this")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output (%(default)s)")
    parser.add_argument("--junit", metavar="PATH", help="also write a JUnit report there")
    parser.add_argument("--require-coverage", action="store_true", help="fail when a rule is touched by no case")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play the cases; return the exit code."""
    from proxy.flow.redactors import Redactors  # noqa: PLC0415 - half a second of imports that --help does not need

    config = read_config(Path(args.config))
    if config.settings is None:
        return _unusable([str(problem) for problem in config.problems])
    folder = Path(args.policies) if args.policies else config.settings.policies
    policies = read_policies(folder)
    redactors = Redactors(_HASH_KEY)
    snapshot, problems = compile_snapshot(
        policies.files, policies.problems, config.settings, KNOWN_KINDS, redactors.build, redactors.build_answers
    )
    cases, case_problems = parse_cases(policies.cases)
    problems += case_problems
    if snapshot is not None:
        problems += check_cases(cases, snapshot.policies, config.settings, KNOWN_KINDS)
    if snapshot is None or any(problem.is_error for problem in problems):
        return _unusable([str(problem) for problem in problems if problem.is_error])
    wanted = [case for case in cases if args.only is None or args.only in case.name]
    if cases and not wanted:
        return _unusable([f"{folder}: none of {len(cases)} cases has {args.only!r} in its name"])
    if not wanted:
        return _unusable([f"{folder}: no case to play; write some into a file such as {folder}/default.cases.yaml"])
    began_s = time.perf_counter()
    rules = rules_of(policies.files, config.settings.environment) if args.only is None else []
    bar, done = Progress(len(wanted), sys.stderr, time.monotonic), itertools.count(1)
    rehearsal = Rehearsal(config.settings, snapshot, MemorySpool, prices_of(config.settings))
    outcome = run_cases(rehearsal, wanted, rules, lambda _: bar.show(next(done)))
    bar.end()
    if args.junit:
        Path(args.junit).write_text(junit(outcome), encoding="utf-8")
    if args.format == "json":
        print(json.dumps(_plain(outcome), indent=2))
    else:
        _print(outcome, time.perf_counter() - began_s)
    return 1 if outcome.failed or (outcome.uncovered and args.require_coverage) else 0


def _unusable(lines: list[str]) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return 2


def _print(outcome: SelfTest, took_s: float) -> None:
    for result in outcome.failed:
        mark = result.case.mark
        print(f"{mark.file}:{mark.line}:{mark.column}: FAILED {result.case.name}")
        for line in result.differences:
            print(f"    {line}")
    for rule in outcome.uncovered:
        print(f"{rule}: no case touches it")
    held = len(outcome.results) - len(outcome.failed)
    print(f"{held} of {len(outcome.results)} cases hold, {len(outcome.uncovered)} rules untouched ({took_s:.2f} s)")


def _plain(outcome: SelfTest) -> dict[str, Any]:
    return {
        "cases": [
            {
                "name": result.case.name,
                "file": result.case.mark.file,
                "line": result.case.mark.line,
                "holds": not result.differences,
                "differences": list(result.differences),
            }
            for result in outcome.results
        ],
        "untouched": [
            {"rule": rule.name, "part": rule.part.value, "policy": rule.policy, "line": rule.mark.line}
            for rule in outcome.uncovered
        ],
    }


def junit(outcome: SelfTest) -> str:
    """Return the results as a JUnit report."""
    total, failed = len(outcome.results), len(outcome.failed)
    lines = [f'<testsuite name="readygate test" tests="{total}" failures="{failed}">', *map(_testcase, outcome.results)]
    return '<?xml version="1.0" encoding="utf-8"?>\n' + "\n".join([*lines, "</testsuite>"]) + "\n"


def _testcase(result: CaseResult) -> str:
    mark = result.case.mark
    head = (
        f"  <testcase classname={quoteattr(mark.file)} name={quoteattr(result.case.name)} "
        f'file={quoteattr(mark.file)} line="{mark.line}"'
    )
    if not result.differences:
        return head + "/>"
    text = "\n".join(result.differences)
    return f"{head}><failure message={quoteattr(result.differences[0])}>{escape(text)}</failure></testcase>"
