"""Lets an outside referee judge the sidecar on loopback: the package pii-leak-benchmark, in a virtualenv of its own.

    python -m loadtest.referee [--write]

The referee plays the app and the provider: it sends personal data through a real sidecar process, looks at what reaches the
"provider", answers with an echo and with values of its own, cut at awkward places, and looks at what reaches the "app".
``--write`` puts the result into docs/referee.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv-referee"
PACKAGE = "pii-leak-benchmark==0.6.0"
PAGE = ROOT / "docs/referee.md"
DATA, ADMIN, CAPTURE = 18765, 18766, 18767
SEEDS = ("a1b2c3d4e5f60001", "a1b2c3d4e5f60002", "a1b2c3d4e5f60003")
CONFIG = f"""version: 1
server: {{data: {{host: 127.0.0.1, port: {DATA}}}, admin: {{host: 127.0.0.1, port: {ADMIN}}}}}
policies: policies/
providers: {{referee: {{base_url: "http://127.0.0.1:{CAPTURE}/v1"}}}}
audit: {{store: "sqlite:///audit.db", spool: spool}}
"""
POLICY = """version: 2
policy: default
redaction:
  request: {default: restore}
  response: {default: redact}
routes: [{match: {models: ["*"]}, chain: [{provider: referee}]}]
"""
EXAMPLE_KEYS = """  types:
    - name: example_key                 # keys of documentation, too, which no detector takes for secrets
      pattern: "AKIA[A-Z0-9]{16}|gh[oprsu]_[A-Za-z0-9]{36}|xox[abpr]-[A-Za-z0-9-]{20,}"
"""
STRICT_POLICY = POLICY.replace("routes:", EXAMPLE_KEYS + "routes:")
VERDICTS = {0: "CLEAN", 1: "LEAK", 2: "NOT MEASURED"}


def referee(name: str) -> str:
    """Return the path of one of the referee's programs, installing them when they are not there."""
    program = VENV / "bin" / name
    if not program.exists():
        venv.create(VENV, with_pip=True)
        subprocess.run([VENV / "bin/python", "-m", "pip", "install", "--quiet", PACKAGE], check=True)
    return str(program)


@contextmanager
def sidecar(policy: str = POLICY) -> Iterator[None]:
    """Run a sidecar whose only provider is the referee."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "policies").mkdir()
        (Path(folder) / "config.yaml").write_text(CONFIG)
        (Path(folder) / "policies/default.yaml").write_text(policy)
        command = [sys.executable, "-m", "proxy", "serve", "-c", f"{folder}/config.yaml", "--simulate", "never"]
        with (
            (Path(folder) / "log").open("wb") as log,
            subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as it,
        ):
            try:
                _wait(it)
                yield
            finally:
                it.terminate()
                it.terminate()  # a second signal: do not drain


def _wait(process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/livez", timeout=1):
                return
        except OSError:
            time.sleep(0.1)  # noqa: TID251 - a script without a loop
        if process.poll() is not None:
            break
    raise RuntimeError("the sidecar did not start")


def boundary() -> dict[str, Any]:
    """Run the first profile: what reaches the provider, what comes back, in streams."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [referee("pii-leak-benchmark"), "--target-base-url", f"http://127.0.0.1:{DATA}/v1"]
        command += [
            "--capture-port",
            str(CAPTURE),
            "--iterations",
            "5",
            "--json-out",
            str(out),
            "--target-name",
            "readygate",
        ]
        subprocess.run(command, check=False, timeout=300, stdout=subprocess.DEVNULL)
        report: dict[str, Any] = json.loads(out.read_text())
    return report


def splitting(seed: str) -> dict[str, Any]:
    """Run the second profile: values of the model's own, whole and cut in two; the caller's own, restored."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "summary.json"
        command = [referee("pii-leak-benchmark-v2"), "--out", folder, "--only", "readygate", "--seed", seed]
        command += ["--gateway-url", f"http://127.0.0.1:{DATA}/v1/chat/completions", "--upstream-port", str(CAPTURE)]
        command += ["--oracle", "union-worst-case", "--json-out", str(out)]
        subprocess.run(command, check=False, timeout=600, stdout=subprocess.DEVNULL)
        row: dict[str, Any] = json.loads(out.read_text())["rows"][0]
    return row


def selfcheck(target: str = f"http://127.0.0.1:{DATA}/v1") -> tuple[str, list[str]]:
    """Run the referee's own smoke test, keys included: its verdict, and the types it saw at the provider."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [referee("pii-leak-benchmark"), "selfcheck", "--target-base-url", target, "--json-out", str(out)]
        command += ["--capture-port", str(CAPTURE), "--profile", "pii-secrets-v1"]
        ended = subprocess.run(command, check=False, timeout=300, stdout=subprocess.DEVNULL)
        report: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"checks": {}}
    seen = report["checks"].get("configured_upstream_boundary", {}).get("leaked_entity_types", [])
    return VERDICTS.get(ended.returncode, "NOT MEASURED"), sorted(seen)


def _selfcheck_lines(rows: dict[str, tuple[str, list[str]]]) -> list[str]:
    lines = [
        "",
        (
            "`selfcheck` sends an e-mail address, a card, a social security number and three keys with the words EXAMPLE and NOTAREALTOKEN "
            "inside. Such keys stand in documentation and are let through on purpose (`docs/kinds.md`); keys of the same form without "
            "such words do not pass. Who wants them replaced as well says so in a type of the policy's own:"
        ),
        "",
        "```yaml",
        "redaction:",
        EXAMPLE_KEYS.rstrip(),
        "```",
        "",
        "| run | verdict | reached the provider |",
        "|---|---|---|",
    ]
    return lines + [
        f"| {name} | {verdict} | {', '.join(seen) or 'nothing'} |" for name, (verdict, seen) in rows.items()
    ]


def page(
    first: dict[str, Any], second: list[dict[str, Any]], checks: dict[str, tuple[str, list[str]]], today: str
) -> str:
    """Return the result as a page."""
    lines = [
        "# An outside referee",
        "",
        (
            f"`make referee`, {today}, {PACKAGE} (Apache-2.0) against a sidecar on loopback with "
            "`request: {default: restore}, response: {default: redact}`. The referee is app and provider at once."
        ),
        "",
        "First profile: what reaches the provider, what comes back (streams).",
        "",
        "| check | result |",
        "|---|---|",
    ]
    lines += [
        f"| {name.replace('_', ' ')} | {'pass' if check.get('passed') else 'FAIL'} |"
        for name, check in sorted(first["checks"].items())
    ]
    leaked = first["checks"]["configured_upstream_boundary"].get("leaked_entity_types", [])
    lines += [
        "",
        f"Types that reached the provider: {', '.join(leaked) or 'none'}.",
        "",
        (
            "Second profile: the caller's own values must come back (fidelity), the model's own must not pass, whole or cut in two "
            "and in three at every position (leak)."
        ),
        "",
        "| seed | cases | fidelity | leak, whole | leak, cut | outcome |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['seed']} | {row['cases_applicable']} | {row['fidelity_rate']:.3f} | {row['leak_single_chunk']:.4f} | "
        f"{row['leak_adversarial']:.4f} | {row['outcome']} |"
        for row in second
    ]
    lines += _selfcheck_lines(checks)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run both profiles and print; 1 when the referee saw a leak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/referee.md")
    args = parser.parse_args()
    referee("pii-leak-benchmark")
    with sidecar():
        first = boundary()
        second = [splitting(seed) for seed in SEEDS]
        checks = {"no sidecar (the referee's control)": selfcheck("capture://self"), "the policy above": selfcheck()}
    with sidecar(STRICT_POLICY):
        checks["with the type of its own"] = selfcheck()
    text = page(first, second, checks, time.strftime("%Y-%m-%d", time.gmtime()))
    sys.stdout.write(text)
    if args.write:
        PAGE.write_text(text)
    is_clean = checks["with the type of its own"][0] == "CLEAN"
    return 0 if is_clean and all(row["leak_adversarial"] == 0 for row in second) and first.get("passed") else 1


if __name__ == "__main__":
    sys.exit(main())
