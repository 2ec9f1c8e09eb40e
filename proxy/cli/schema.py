"""``readygate schema``: the JSON Schema of config.yaml, a policy file or a case file, for editors and other checkers.

Owns the verb's output. The schema is made from the tables that read the files, so it cannot know a key that they do
not. It says less than they do: `readygate check` also knows cross-references and what can never act.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from proxy.core.config.config_table import CONFIG
from proxy.core.config.schema import Table
from proxy.core.policy.cases import CASES
from proxy.core.policy.policy_table import POLICY

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_TABLES: Final[dict[str, Table]] = {"config": CONFIG, "policy": POLICY, "cases": CASES}


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "schema",
        help="print the JSON Schema of config.yaml or of a policy file",
        description="Print the JSON Schema of config.yaml or of a policy file. Editors that read the line "
        "`# yaml-language-server: $schema=policy.schema.json` at the top of a file complete its keys and explain them.",
    )
    parser.add_argument("file", choices=tuple(_TABLES), help="which kind of file")
    parser.add_argument("-o", "--output", metavar="PATH", help="write it there instead of printing it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print or write the schema."""
    text = json.dumps(schema_of(args.file), indent=2) + "\n"
    if args.output is None:
        print(text, end="")
        return 0
    try:
        Path(args.output).write_text(text, encoding="utf-8")
    except OSError as exc:
        print(f"readygate schema: {args.output}: {exc.strerror}", file=sys.stderr)
        return 2
    return 0


def schema_of(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of ``config``, ``policy`` or ``cases`` files."""
    return {"$schema": DIALECT, "title": f"Readygate {kind}", **_TABLES[kind].json_schema()}
