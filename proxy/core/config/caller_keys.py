"""The caller keys' file: which keys open the data port, since when, until when. Never a key itself.

Owns the file's text, read and written, and what creating, revoking and rotating do to it. Knows no clock and no disk:
moments come in as aware UTC datetimes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from proxy.core.config.config_table import VERSION
from proxy.core.config.kinds import Text
from proxy.core.config.problem import Mark, Problem, error, has_errors, in_order
from proxy.core.config.schema import Key, ListOf, Section, Table
from proxy.core.config.settings import CallerKey
from proxy.core.config.texts import parse_name, parse_sha256
from proxy.core.config.yaml_text import BAD, parse_yaml

_FORM = "%Y-%m-%dT%H:%M:%SZ"
_HEADER = "# Caller keys, by their hashes. Written by `readygate keys`; the keys themselves are nowhere.\n"


def parse_moment(text: str) -> str:
    """Return a UTC moment as it is kept. Raises ValueError saying how one is written."""
    try:
        datetime.strptime(text, _FORM).replace(tzinfo=UTC)
    except ValueError:
        raise ValueError('UTC, such as "2026-11-21T15:04:05Z"') from None
    return text


def _moment_key(name: str, doc: str, *, is_required: bool = False) -> Key:
    kind = Text("a moment in UTC", parse_moment)
    return Key(name, kind, doc, None, '"2026-11-21T15:04:05Z"', is_required=is_required)


_ENTRY = Table(
    "key",
    "One caller key.",
    (
        Key("name", Text("a name", parse_name), "What rows call it.", is_required=True, example="shop-prod"),
        Key("app", Text("an app name", parse_name), "Whose requests it brings.", is_required=True, example="shop"),
        Key(
            "sha256",
            Text("64 hex digits", parse_sha256, is_private=True),
            "SHA-256 of the key.",
            is_required=True,
            example='"<64 hex digits>"',
        ),
        _moment_key("created", "When it was made.", is_required=True),
        _moment_key("expires", "From then on it opens nothing."),
        _moment_key("revoked", "Taken back at this moment."),
    ),
    homes={"key": "sha256, hashed"},
)

CALLER_KEYS = Table(
    "callers_file",
    "The file that `callers_file` of config.yaml names.",
    (VERSION, Key("keys", ListOf(_ENTRY), "The keys.", is_required=True, example="[]")),
)


class KeyState(StrEnum):
    """What a key is worth at some moment."""

    ACTIVE = "active"
    EXPIRING = "expiring"
    """It works and has an end."""
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key of the file; moments in the file's form."""

    name: str
    app: str
    sha256: str
    created: str
    expires: str | None = None
    revoked: str | None = None

    @property
    def id(self) -> str:
        """The beginning of the digest: enough to tell keys of one name apart, too little to be looked for."""
        return self.sha256[:8]

    @property
    def until_s(self) -> float | None:
        """Unix seconds from which the key opens nothing; None: it has no end."""
        ends = [seconds(text) for text in (self.expires, self.revoked) if text is not None]
        return min(ends, default=None)

    def state(self, now_s: float) -> KeyState:
        """Return what the key is worth at a Unix time."""
        if self.revoked is not None and seconds(self.revoked) <= now_s:
            return KeyState.REVOKED
        until_s = self.until_s
        if until_s is None:
            return KeyState.ACTIVE
        return KeyState.EXPIRED if until_s <= now_s else KeyState.EXPIRING

    def as_caller(self) -> CallerKey:
        """Return the key as the data port sees it."""
        return CallerKey(self.name, self.sha256, self.app, self.until_s)


@dataclass(frozen=True, slots=True)
class CallerKeysResult:
    """What became of the text. ``keys`` is None exactly when one of the problems is an error."""

    keys: tuple[KeyRecord, ...] | None
    problems: tuple[Problem, ...] = ()


def seconds(moment: str) -> float:
    """Return Unix seconds."""
    return datetime.strptime(moment, _FORM).replace(tzinfo=UTC).timestamp()


def written(now_s: float) -> str:
    """Return a Unix time in the file's form."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(now_s))).strftime(_FORM)


def parse_caller_keys(text: str, file: str) -> CallerKeysResult:
    """Read the whole text and return keys or every problem, never only the first."""
    node, problems = parse_yaml(text, file)
    top = CALLER_KEYS.read(node, "", problems) if node is not None else BAD
    if not isinstance(top, Section):
        return CallerKeysResult(None, in_order(problems))
    if top.is_good("keys"):
        seen: dict[str, Mark] = {}
        for entry, _ in top["keys"]:
            digest = entry["sha256"]
            if digest in seen:
                text = f"the same key stands on line {seen[digest].line}"
                problems.append(error(entry.at("sha256"), "duplicate-caller", text, "delete one of the two"))
            elif entry.is_good("sha256"):
                seen[digest] = entry.at("sha256")
    if has_errors(problems):
        return CallerKeysResult(None, in_order(problems))
    fields = ("name", "app", "sha256", "created", "expires", "revoked")
    keys = tuple(KeyRecord(*(entry[field] for field in fields)) for entry in top["keys"].values)
    return CallerKeysResult(keys, in_order(problems))


def render_caller_keys(keys: Sequence[KeyRecord]) -> str:
    """Return the text of a file with these keys."""
    lines = [_HEADER, "version: 1\n", "keys:\n" if keys else "keys: []\n"]
    for key in keys:
        for number, field in enumerate(("name", "app", "sha256", "created", "expires", "revoked")):
            value = getattr(key, field)
            if value is not None:
                lines.append(f"  {'-' if number == 0 else ' '} {field}: {json.dumps(value)}\n")
    return "".join(lines)


def revoked(keys: Sequence[KeyRecord], name: str, now_s: float, key_id: str = "") -> tuple[KeyRecord, ...]:
    """Return the keys with those of a name (or the one with this id) taken back; nothing else changes."""
    return tuple(
        replace(key, revoked=written(now_s))
        if key.name == name and key.id.startswith(key_id) and not key.revoked
        else key
        for key in keys
    )


def rotated(keys: Sequence[KeyRecord], new: KeyRecord, now_s: float, overlap_s: float) -> tuple[KeyRecord, ...]:
    """Return the keys with a new one, and the others of its name ending when the overlap is over, or sooner."""
    end_s = now_s + overlap_s

    def ending(key: KeyRecord) -> KeyRecord:
        if key.name != new.name or (key.until_s is not None and key.until_s <= end_s):
            return key
        return replace(key, expires=written(end_s))

    return (*map(ending, keys), new)
