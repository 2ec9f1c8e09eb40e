"""Puts stand-ins into the places where a walk has found values.

Owns the writing: offsets, quotes around what was a number, escapes inside JSON strings, renamed members. Does not choose
the stand-ins.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from proxy.core.redaction.scan import Site

Move = tuple[int, int]
"""Where a replaced piece ended, and by how much what is behind it moved."""


def moved(at: int, moves: list[Move]) -> int:
    """Return where the character at offset ``at`` is after the moves."""
    return at + sum(by for end, by in moves if end <= at)


def apply_edits(site: Site, stand_in_for: Callable[[str, str], str | None]) -> list[Move]:
    """Write stand-ins over the findings of one place; return what moved, nothing when nothing changed.

    Args:
        site: The place.
        stand_in_for: Type and value -> stand-in, or None to leave the value.
    """
    text = site.text
    pieces: list[str] = []
    moves: list[Move] = []
    done = 0
    for start, end, kind, value, depth, is_number, is_rest in site.edits:
        stand_in = stand_in_for(kind, value)
        if stand_in is None:
            continue
        if depth or is_number:
            stand_in = _as_source(stand_in, depth, is_number=is_number)
        if is_rest:
            stand_in = ""
        pieces += (text[done:start], stand_in)
        moves.append((end, len(stand_in) - (end - start)))
        done = end
    if pieces:
        text = "".join(pieces) + text[done:]
        if site.is_key:
            _rename(site.parent, site.key, text)
        else:
            site.parent[site.key] = text
    return moves


def _as_source(stand_in: str, depth: int, *, is_number: bool) -> str:
    """Write a stand-in as the source at its place wants it: quoted for a number, escaped inside JSON strings."""
    if is_number:
        stand_in = json.dumps(stand_in, ensure_ascii=False)
    for _ in range(depth):
        stand_in = json.dumps(stand_in, ensure_ascii=False)[1:-1]
    return stand_in


def _rename(parent: dict[str, Any], old: str, new: str) -> None:
    """Give a member another name, its place unchanged; two that would become one keep apart."""
    name, again = new, 1
    while name in parent:
        again += 1
        name = f"{new} ({again})"
    members = [(name if key == old else key, value) for key, value in parent.items()]
    parent.clear()
    parent.update(members)
