"""The keys of config.yaml's ``jwt`` section: whose tokens open the data port, and what their claims mean.

Owns these rows and what they become. Verifies nothing; ``sources.tokens`` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from proxy.core.config.kinds import Choice, Text, duration
from proxy.core.config.problem import error
from proxy.core.config.schema import Key, Kind, ListOf, Problems, Section, Table
from proxy.core.config.settings import JwtSettings
from proxy.core.config.texts import is_loopback, one_of_schema, read_one_of
from proxy.core.config.yaml_text import BAD, Bad, Map, Node

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
"""Signatures by private keys only: with a shared secret whoever can check a token could make one."""


def parse_jwks_url(text: str) -> str:
    """Return an address that nobody on the way can change the answer of."""
    parts = urlsplit(text)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not is_safe or not parts.hostname or parts.username is not None or not text.isprintable():
        raise ValueError("https://…, without user name; http:// on this machine only")
    return text


_KEYS: Final = {"file": "a path", "url": "a URL"}


@dataclass(frozen=True, eq=False)
class KeySource(Kind):
    """Where public keys are found: ``{file: PATH}`` or ``{url: URL}``."""

    what = "a key set: {file: PATH} or {url: URL}"

    def read(self, node: Node, path: str, problems: Problems) -> tuple[Path | None, str | None] | Bad:
        """Return path and address; one of the two is None."""
        if not isinstance(node, Map):
            problems.append(error(node.mark, "wrong-type", f"`{path}` expects {self.what}"))
            return BAD
        chosen = read_one_of(node, path, problems, self.what, _KEYS)
        if chosen is None:
            return BAD
        name, found, value = chosen
        if name == "file":
            return Path(value), None
        try:
            return None, parse_jwks_url(value)
        except ValueError as exc:
            problems.append(error(found.mark, "bad-value", f"`{path}.url` cannot be used", str(exc)))
            return BAD

    def json_schema(self) -> dict[str, Any]:
        """Return an object with exactly one of the two keys."""
        return one_of_schema(_KEYS)


_CLAIMS = Table(
    "claims",
    "Which claims say who calls; a.b is b within a.",
    (
        Key("app", Text("a claim"), "The app; a token without it opens nothing.", is_required=True, example="azp"),
        Key("user", Text("a claim"), "The user.", "sub", "email"),
        Key("groups", Text("a claim"), "Groups, for `applies_to.groups`; left out: none.", None, "realm_access.roles"),
    ),
)

JWT: Final = Table(
    "jwt",
    "Whose tokens open the data port.",
    (
        Key("issuer", Text("an issuer"), "`iss` of the tokens.", is_required=True, example='"https://login.example.com"'),
        Key(
            "audience",
            ListOf(Text("an audience"), 1, 20),
            "`aud` has to be one of these.",
            is_required=True,
            example="[readygate]",
        ),
        Key(
            "jwks",
            KeySource(),
            "The issuer's public keys.",
            is_required=True,
            example='{url: "https://login.example.com/.well-known/jwks.json"}',
        ),
        Key("claims", _CLAIMS, "Which claims say who calls.", is_required=True, example="{app: azp}"),
        Key("algorithms", ListOf(Choice(ALGORITHMS), 1), "Signatures.", "[RS256, ES256, EdDSA]", "[ES256]"),
        Key("leeway", duration("0s", "5m"), "How far clocks may differ.", "30s", "10s"),
        Key("refresh", duration("10s", "24h"), "How often the keys at a URL are fetched anew.", "5m", "10m"),
    ),
)  # fmt: skip


def jwt_settings(section: Section | None, base_dir: Path) -> JwtSettings | None:
    """Return the settings of a section without errors."""
    if section is None:
        return None
    file, url = section["jwks"]
    claims = section["claims"]
    return JwtSettings(
        section["issuer"],
        tuple(section["audience"].values),
        None if file is None else base_dir / file,
        url,
        tuple(section["algorithms"].values),
        section["leeway"],
        section["refresh"],
        claims["app"],
        claims["user"],
        claims["groups"],
    )
