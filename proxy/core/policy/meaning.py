"""What differs in meaning between two sets of policy texts: key paths with what stood there and what stands there now.

Owns how a policy is laid out as key paths. Comments, layout, bases and overlays are resolved first, so only what acts
is compared. Knows no file and no revision.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from proxy.core.config.yaml_text import canonical
from proxy.core.policy.layers import layered

_NAMES = ("name", "policy", "base")
_MARKS = ("provider", "model")


class Change(NamedTuple):
    """One key path; ``before`` or ``after`` is None where it does not exist. Values are JSON texts."""

    path: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.path}: {self.after}"
        if self.after is None:
            return f"- {self.path}: {self.before}"
        return f"~ {self.path}: {self.before} -> {self.after}"


def changes_between(
    before: Sequence[tuple[str, str]], after: Sequence[tuple[str, str]], environment: str | None
) -> list[Change]:
    """Return what differs, ordered by key path; texts that cannot be read have no key paths."""
    old, new = key_paths(before, environment), key_paths(after, environment)
    return [
        Change(path, old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def key_paths(files: Sequence[tuple[str, str]], environment: str | None) -> dict[str, str]:
    """Return key path -> JSON text of every value that stands in the policies, merged with their bases and overlays."""
    found: dict[str, str] = {}
    for file, node in layered(files, environment).policies:
        plain = canonical(node)
        name = plain.get("policy") if isinstance(plain, dict) else None
        for path, value in _walk(str(name or file.rsplit("/", 1)[-1]), plain):
            found[path] = json.dumps(value, ensure_ascii=False)
    return found


def _walk(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _walk(f"{path}.{key}", inner)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for label, item in _labelled(value):
            yield from _walk(f"{path}[{label}]", item)
    else:
        yield path, value


def _labelled(items: list[object]) -> Iterator[tuple[str, object]]:
    """Name the items of a list by what they are called, so that one put in between moves no other."""
    seen: dict[str, int] = {}
    for number, item in enumerate(items):
        label = _label(item) or str(number)
        seen[label] = seen.get(label, 0) + 1
        yield (label if seen[label] == 1 else f"{label}#{seen[label]}"), item


def _label(item: object) -> str:
    if not isinstance(item, dict):
        return ""
    named = next((item[key] for key in _NAMES if isinstance(item.get(key), str)), None)
    if named is not None:
        return str(named)
    if isinstance(item.get("types"), list):
        return ",".join(map(str, item["types"]))
    match = item.get("match")
    if isinstance(match, dict):
        return " ".join(str(one) for part in match.values() if isinstance(part, list) for one in part)
    return ":".join(str(item[key]) for key in _MARKS if isinstance(item.get(key), str))
