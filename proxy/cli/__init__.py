"""The command line: one module per verb, imported only when its verb is called.

Owns the list of verbs and the exit codes (0 done, 1 a finding, 2 wrong usage or configuration). Knows
nothing of what a verb does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from proxy import __version__

VERBS: Final = {
    "serve": "run the sidecar",
    "check": "check config.yaml and the policies, with file:line:column for every problem",
    "init": "write a first config.yaml and a starter policy, after a few questions",
    "explain": "say why a request is (or was) treated as it is: rules, findings, budgets, attempts",
    "test": "play the cases beside the policies (*.cases.yaml) and say which hold",
    "policy": "revisions of the policies: history, diff, rollback; what a candidate would change (shadow)",
    "replay": "decide audited exchanges again under other policies and list what would change",
    "redact": "show what redaction does to a text or a JSON request, and why",
    "schema": "print the JSON Schema of config.yaml or of a policy file, for editors",
    "audit": "read and prove the audit store: tail, query, stats, export, verify, erase, prune, migrate",
    "keys": "make, list, revoke and rotate caller keys",
    "breakers": "list the breakers of a running sidecar, or reset one",
    "doctor": "look at everything the sidecar needs: files, secrets, ports, disk, stores, providers, clock",
    "inject": "rehearse a fault: one chat request with x-readygate-fault-inject",
    "simulate": "run the simulated provider, or budgets of many sidecars on virtual time",
    "budgets": "show what is left of every budget of a running sidecar, and who used it",
    "probe": "ask a running sidecar how it is (for health checks without curl)",
}

_EPILOG = """examples:
  readygate serve -c config.yaml          start; apps use http://127.0.0.1:8080/v1 as their OpenAI base URL
  readygate check -c config.yaml          exit code 0: good; 1: findings; 2: not readable
  readygate simulate provider --port 9100 an OpenAI-shaped provider that needs no key

exit codes: 0 done, 1 a finding, 2 wrong usage or configuration
"""


def _parser(wanted: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="readygate",
        description="A sidecar that enforces readiness policy in front of OpenAI-compatible LLM providers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"readygate {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for verb, help_text in VERBS.items():
        if verb == wanted:
            import_module(f"proxy.cli.{verb}").add_parser(subparsers)
        else:
            subparsers.add_parser(verb, help=help_text, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code of the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    parser = _parser(wanted if wanted in VERBS else None)
    args = parser.parse_args(arguments)
    if args.verb is None:
        parser.print_help()
        return 2
    try:
        code: int = import_module(f"proxy.cli.{args.verb}").run(args)
    except BrokenPipeError:
        # The reader of our output went away (`… | head`): not an error worth a traceback.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    return code
