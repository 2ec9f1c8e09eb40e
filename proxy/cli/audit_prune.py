"""``readygate audit prune``: delete now what the policies' ``audit.retention`` says is too old.

Owns the verb's arguments and its output. A running sidecar does the same once an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from proxy.cli.audit_people import actor
from proxy.cli.audit_store import EXIT_GOOD, Unusable, find_keys, find_settings, find_store
from proxy.core.audit.render import json_line
from proxy.core.policy.load import parse_policies
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.flow.retention import ages_of, prune_all
from proxy.sources.files import read_policies
from proxy.stores.retention import open_pruner


def add_verb(verbs: Any) -> None:
    """Add the verb to ``readygate audit``."""
    parser = verbs.add_parser(
        "prune",
        help="delete rows that are older than audit.retention of their policy",
        description="Delete rows that are older than audit.retention of their policy; whole months are dropped. A running "
        "sidecar does this once an hour. Signed records take the place of the rows, so that verify still holds.",
    )
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="(%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Delete what is too old; return the exit code. Raises Unusable, SinkUnavailable."""
    settings = find_settings(Path(args.config))
    folder = read_policies(settings.policies)
    parsed = parse_policies(folder.files, settings, KNOWN_KINDS)
    if parsed.policies is None:
        raise Unusable("the policies have errors; `readygate check` names them")
    keys = find_keys(settings)
    if keys is None:
        raise Unusable("there is no key to sign with: set audit.key, or run this where the spool is")
    try:
        pruner = open_pruner(find_store(Path(args.config)), keys)
    except ValueError as exc:
        raise Unusable(str(exc)) from None
    rows = asyncio.run(prune_all(pruner, ages_of(parsed.policies.policies), _now_ms, actor()))
    sys.stdout.write(json_line({"rows": rows}) if args.format == "json" else f"{rows} rows deleted\n")
    return EXIT_GOOD


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
