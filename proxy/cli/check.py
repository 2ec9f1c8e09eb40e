"""``readygate check``: say everything that is wrong with the config and the policies, and change nothing.

Owns the verb's output and exit code. Called by ``cli``; what is a problem is decided in ``core``.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from proxy import __version__
from proxy.core.config.language import version_of
from proxy.core.config.problem import Problem, Severity, in_order
from proxy.core.config.yaml_text import parse_yaml
from proxy.core.policy.case_checks import check_cases
from proxy.core.policy.cases import parse_cases
from proxy.core.policy.load import parse_policies
from proxy.core.policy.versions import POLICY_LANGUAGE
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.sources.caller_keys import read_caller_keys
from proxy.sources.files import read_config, read_policies, read_prices
from proxy.sources.secrets import Secrets, references, secret_problems

EXIT_GOOD, EXIT_FINDING, EXIT_UNUSABLE = 0, 1, 2
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_NOT_STARTED = frozenset({"missing-file", "unreadable-file"})


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "check",
        help="say everything that is wrong with config.yaml and the policies",
        description="Read config.yaml and its policy folder as `serve` would and print every problem with its place. "
        "Exit code: 0 nothing that stops it, 1 errors (with --strict also lints), 2 no config to check.",
    )
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument("--policies", metavar="PATH", help="another policy folder, or one policy file")
    parser.add_argument(
        "--format", choices=("text", "json", "sarif", "github"), default="text", help="output (%(default)s)"
    )
    parser.add_argument("--strict", action="store_true", help="let lints fail the check, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check and print; return the exit code."""
    problems, can_start = find_problems(Path(args.config), Path(args.policies) if args.policies else None)
    counts = Counter(problem.severity for problem in problems)
    errors, lints = counts[Severity.ERROR], counts[Severity.LINT]
    if args.format == "json":
        print(json.dumps({"errors": errors, "lints": lints, "problems": [_plain(p) for p in problems]}, indent=2))
    elif args.format == "sarif":
        print(json.dumps(sarif(problems), indent=2))
    elif args.format == "github":
        for problem in problems:
            print(github_command(problem))
    else:
        for problem in problems:
            print(problem)
        print(_summary(args.config, errors, lints))
        old = older_policies(Path(args.config), Path(args.policies) if args.policies else None)
        if old:
            print(
                f"{old} policy file{'' if old == 1 else 's'} in an older version of the language: `readygate policy upgrade`"
            )
    if not can_start:
        return EXIT_UNUSABLE
    return EXIT_FINDING if errors or (lints and args.strict) else EXIT_GOOD


def find_problems(config: Path, policies: Path | None = None) -> tuple[tuple[Problem, ...], bool]:
    """Return every problem of a config and its policies, and whether there was a config to read at all."""
    result = read_config(config)
    problems = list(result.problems)
    if result.settings is None:
        is_there = not any(p.code in _NOT_STARTED and p.line == 1 and p.column == 1 for p in problems)
        return tuple(problems), is_there
    secrets = Secrets()
    secrets.load(references(result.settings))
    # Keys are rarely there where files are checked, and `serve` without any puts the simulated provider in place.
    problems += [
        replace(p, severity=Severity.LINT) if p.code == "no-usable-provider" else p
        for p in secret_problems(result.settings, secrets)
    ]
    if result.settings.callers_file is not None:
        problems += [
            replace(p, severity=Severity.LINT) if p.code == "missing-file" else p
            for p in read_caller_keys(result.settings.callers_file).problems
        ]
    if result.settings.prices is not None:
        problems += read_prices(result.settings.prices).problems
    folder = read_policies(policies or result.settings.policies)
    problems += folder.problems
    cases, of_cases = parse_cases(folder.cases)
    problems += of_cases
    if folder.files:
        found = parse_policies(folder.files, result.settings, KNOWN_KINDS, everyday_lines(folder.files))
        problems += found.problems
        if found.policies is not None:
            problems += check_cases(cases, found.policies, result.settings, KNOWN_KINDS)
    return in_order(problems), True


def older_policies(config: Path, policies: Path | None) -> int:
    """Return how many policy files are written in an older version: no mistake, and worth knowing."""
    settings = read_config(config).settings
    if settings is None:
        return 0
    roots = [parse_yaml(text, name)[0] for name, text in read_policies(policies or settings.policies).files]
    versions = [version_of(root) for root in roots if root is not None]
    return sum(version is not None and 0 < version < POLICY_LANGUAGE.current for version in versions)


def everyday_lines(files: Sequence[tuple[str, str]]) -> list[str]:
    """Return texts with nothing to redact, to try a policy's own types against; none when no policy can have any."""
    if not any("types:" in text for _, text in files):
        return []
    text = resources.files("proxy.cli").joinpath("everyday_lines.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _plain(problem: Problem) -> dict[str, str | int]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "severity": problem.severity.value,
        "code": problem.code,
        "message": problem.message,
        "suggestion": problem.suggestion,
    }


def _summary(config: str, errors: int, lints: int) -> str:
    if not errors and not lints:
        return f"{config}: good"
    words = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((errors, "error"), (lints, "lint")) if n]
    return f"{config}: {' and '.join(words)}"


def github_command(problem: Problem) -> str:
    """Return the workflow command that puts a problem beside its line in a pull request."""
    word = "error" if problem.is_error else "warning"
    place = f"file={_property_text(problem.file)},line={problem.line},col={problem.column}"
    return f"::{word} {place},title={_property_text(problem.code)}::{_message_text(_words_of(problem))}"


def _message_text(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property_text(text: str) -> str:
    return _message_text(text).replace(":", "%3A").replace(",", "%2C")


def _words_of(problem: Problem) -> str:
    return f"{problem.message} ({problem.suggestion})" if problem.suggestion else problem.message


def sarif(problems: Sequence[Problem]) -> dict[str, Any]:
    """Return the problems as a SARIF 2.1.0 log, which code hosts and editors read."""
    results = [
        {
            "ruleId": problem.code,
            "level": "error" if problem.is_error else "warning",
            "message": {"text": _words_of(problem)},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": quote(problem.file)},
                        "region": {"startLine": problem.line, "startColumn": problem.column},
                    }
                }
            ],
        }
        for problem in problems
    ]
    rules = [{"id": code} for code in sorted({problem.code for problem in problems})]
    driver = {"name": "readygate check", "version": __version__, "rules": rules}
    return {"version": "2.1.0", "$schema": SARIF_SCHEMA, "runs": [{"tool": {"driver": driver}, "results": results}]}
