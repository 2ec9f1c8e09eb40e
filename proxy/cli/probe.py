"""``readygate probe``: one GET at a probe address, for container health checks in images without curl.

Owns nothing; standard library only, so that it starts fast.
"""

from __future__ import annotations

import argparse
import http.client
import sys
from typing import Any
from urllib.parse import urlsplit


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "probe",
        help="ask a running sidecar how it is",
        description="GET one address; exit code 0 when the answer is 200, 1 when it is not or nobody answers.",
    )
    parser.add_argument("--url", default="http://127.0.0.1:8081/livez", help="what to ask (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--quiet", action="store_true", help="say nothing, only exit")


def run(args: argparse.Namespace) -> int:
    """Ask, print the answer, return 0 or 1; 2 for an address that is none."""
    url = urlsplit(args.url)
    if url.scheme != "http" or not url.hostname:
        print(f"readygate probe: {args.url!r} is not an http:// address", file=sys.stderr)
        return 2
    connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=args.timeout)
    try:
        connection.request("GET", url.path or "/")
        answer = connection.getresponse()
        body = answer.read(64 * 1024).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as exc:
        if not args.quiet:
            print(f"readygate probe: no answer from {args.url}: {exc}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    if not args.quiet:
        print(body.rstrip())
    return 0 if answer.status == 200 else 1
