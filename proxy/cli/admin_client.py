"""What verbs use to ask a running sidecar over its admin API.

Owns how the sidecar is found (``config.yaml``, or ``--url``) and which token is sent (``READYGATE_TOKEN``, else a token the
config names that is set here). Standard library only; says in one line what is wrong.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from proxy.core.config.settings import Settings
from proxy.sources.files import read_config
from proxy.sources.secrets import Secrets

ENV_OF_TOKEN = "READYGATE_TOKEN"  # noqa: S105 - the name of a variable
ANSWER_MAX_BYTES = 64 * 1024 * 1024


class AdminUnreachable(Exception):
    """The sidecar cannot be asked as things are; the message says what to change."""


class AdminRefused(Exception):
    """The sidecar said no; the message is its own."""


class AdminClient:
    """One sidecar's admin port."""

    def __init__(self, url: str, token: str | None) -> None:
        """Take ``http://host:port`` and the token to send, if any. Raises AdminUnreachable for an address that is none."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise AdminUnreachable(f"{url!r} is not an http:// address")
        self._host, self._port = parts.hostname, parts.port or 80
        self._token = token

    def get(self, path: str) -> Any:
        """Return the document of a GET. Raises AdminUnreachable, AdminRefused."""
        return self.call("GET", path)

    def call(self, method: str, path: str, document: Any = None) -> Any:
        """Make one call and return its document. Raises AdminUnreachable, AdminRefused."""
        headers = {"x-readygate-admin": "1"}
        body = None
        if document is not None:
            headers["content-type"], body = "application/json", json.dumps(document).encode()
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read(ANSWER_MAX_BYTES)
        except (OSError, http.client.HTTPException) as exc:
            raise AdminUnreachable(f"no answer from the admin port {self._host}:{self._port}: {exc}") from None
        finally:
            connection.close()
        try:
            found = json.loads(data) if data else None
        except ValueError:
            raise AdminUnreachable(f"{self._host}:{self._port} is not a sidecar's admin port") from None
        if answer.status >= 400:
            error = found.get("error", {}) if isinstance(found, dict) else {}
            hint = f" (set {ENV_OF_TOKEN})" if answer.status == 401 else ""
            raise AdminRefused(f"{error.get('message', f'status {answer.status}')}{hint}")
        return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how a sidecar is found."""
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument(
        "--url", metavar="URL", help="admin address instead of the config's, such as http://127.0.0.1:8081"
    )


def connect(args: argparse.Namespace) -> AdminClient:
    """Return the client for the parsed arguments. Raises AdminUnreachable."""
    token = os.environ.get(ENV_OF_TOKEN) or None
    if args.url is not None:
        return AdminClient(args.url, token)
    result = read_config(Path(args.config))
    if result.settings is None:
        problems = "\n".join(f"  {problem}" for problem in result.problems)
        raise AdminUnreachable(f"{args.config} cannot be used:\n{problems}")
    admin = result.settings.server.admin
    host = "127.0.0.1" if admin.host in ("0.0.0.0", "::", "") else admin.host  # noqa: S104 - asked, not listened on
    shown = f"[{host}]" if ":" in host else host
    return AdminClient(f"http://{shown}:{admin.port}", token or _configured(result.settings))


def quoted(name: str) -> str:
    """Return a name as one part of a path."""
    return quote(name, safe="")


def _configured(settings: Settings) -> str | None:
    """Return the first token that is set in this environment, the one with most rights first."""
    refs = [settings.admin_token] if settings.admin_token is not None else []
    refs += [
        t.token for t in sorted(settings.admin_tokens, key=lambda t: ("admin", "operator", "viewer").index(t.role))
    ]
    secrets = Secrets()
    secrets.load(refs)
    found = (secrets.current(ref) for ref in refs)
    return next((secret.reveal() for secret in found if secret is not None), None)
