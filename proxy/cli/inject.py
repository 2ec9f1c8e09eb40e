"""``readygate inject``: send one chat request with an injected fault and say what came of it.

Owns the verb's arguments and its report; the sidecar injects the fault, where its policy lets it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy.core.policy.faults import SYNTAX, parse_fault
from proxy.sources.files import read_config

EXIT_GOOD, EXIT_FINDING, EXIT_UNUSABLE = 0, 1, 2


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "inject",
        help="rehearse a fault: one chat request with x-readygate-fault-inject",
        description="The route needs `inject: {header: true}`. The caller key, where one is needed, is OPENAI_API_KEY. "
        "Exit code: 0 answered, 1 the app would have seen an error, 2 nobody answers.",
    )
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument(
        "--url", metavar="URL", help="base URL instead of the config's, such as http://127.0.0.1:8080/v1"
    )
    parser.add_argument("--fault", required=True, metavar="FAULT", help=SYNTAX)
    parser.add_argument("--model", default="gpt-4o-mini", help="model to ask for (%(default)s)")
    parser.add_argument("--stream", action="store_true", help="ask for a stream")


def run(args: argparse.Namespace) -> int:
    """Send the request and report; return the exit code."""
    try:
        parse_fault(args.fault)
    except ValueError as exc:
        print(f"readygate inject: --fault: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    url = args.url or _configured_url(Path(args.config))
    parts = urlsplit(url or "")
    if parts.scheme != "http" or not parts.hostname:
        print(f"readygate inject: {url or args.config!r} gives no http:// address", file=sys.stderr)
        return EXIT_UNUSABLE
    messages = [{"role": "user", "content": "Say a few words."}]
    body = json.dumps({"model": args.model, "stream": args.stream, "messages": messages})
    headers = {"content-type": "application/json", "x-readygate-fault-inject": args.fault}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["authorization"] = f"Bearer {key}"
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=660)
    began_s = time.monotonic()
    try:
        connection.request("POST", parts.path.rstrip("/") + "/chat/completions", body, headers)
        answer = connection.getresponse()
        data = answer.read()
    except (OSError, http.client.HTTPException) as exc:
        print(f"readygate inject: no whole answer from {url}: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    finally:
        connection.close()
    return _report(answer, data, time.monotonic() - began_s)


def _report(answer: http.client.HTTPResponse, data: bytes, seconds: float) -> int:
    attempts = answer.getheader("x-readygate-attempts", "0")
    took = f"after {attempts} attempts and {seconds:.2f} s"
    is_stream = answer.getheader("content-type", "").startswith("text/event-stream")
    is_broken = is_stream and b"[DONE]" not in data
    if answer.status < 400 and not is_broken:
        print(f"answered by {answer.getheader('x-readygate-provider', '?')} {took}")
    elif is_broken:
        print(f"the stream broke in-band {took}: {_error_of(data.rpartition(b'data: ')[2])}")
    else:
        print(f"status {answer.status} {took}: {_error_of(data)}")
    print(f"  row {answer.getheader('x-readygate-id', '?')}")
    return EXIT_GOOD if answer.status < 400 and not is_broken else EXIT_FINDING


def _error_of(data: bytes) -> str:
    try:
        error = json.loads(data)["error"]
        return f"{error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return "no error object"


def _configured_url(config: Path) -> str | None:
    settings = read_config(config).settings
    if settings is None:
        return None
    data = settings.server.data
    host = "127.0.0.1" if data.host in ("0.0.0.0", "::", "") else data.host  # noqa: S104 - asked, not listened on
    return f"http://{f'[{host}]' if ':' in host else host}:{data.port}/v1"
