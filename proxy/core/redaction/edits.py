"""Puts stand-ins into the places where a walk has found values.

Owns the writing: offsets, quotes around what was a number, escapes inside JSON strings, renamed members. Does not choose
the stand-ins.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from proxy.core.redaction.sites import Site

Move = tuple[int, int]
"""Where a replaced piece ended, and by how much what is behind it moved."""


def moved(at: int, moves: list[Move]) -> int:
    """Return where the character at offset ``at`` is after the moves."""
    return at + sum(by for end, by in moves if end <= at)


class Renames:
    """Members that get other names, gathered so that each object is written once however many they are."""

    __slots__ = ("_by_parent",)

    def __init__(self) -> None:
        self._by_parent: dict[int, tuple[dict[str, Any], dict[str, str]]] = {}

    def add(self, parent: dict[str, Any], old: str, new: str) -> None:
        """Note that a member goes by another name."""
        self._by_parent.setdefault(id(parent), (parent, {}))[1][old] = new

    def carry_out(self) -> None:
        """Give the names; places stay, and members whose names would become one keep apart."""
        for parent, names in self._by_parent.values():
            taken: dict[str, int] = dict.fromkeys(parent, 1)
            members: list[tuple[str, Any]] = []
            for key, value in parent.items():
                name = names.get(key, key)
                if name != key and name in taken:
                    name = self._apart(name, taken)
                taken.setdefault(name, 1)
                members.append((name, value))
            parent.clear()
            parent.update(members)

    @staticmethod
    def _apart(name: str, taken: dict[str, int]) -> str:
        while True:
            taken[name] += 1
            other = f"{name} ({taken[name]})"
            if other not in taken:
                return other


def apply_edits(site: Site, stand_in_for: Callable[[str, str], str | None], renames: Renames) -> list[Move]:
    """Write stand-ins over the findings of one place; return what moved, nothing when nothing changed.

    Args:
        site: The place.
        stand_in_for: Type and value -> stand-in, or None to leave the value.
        renames: Takes what becomes of a member's name; the caller carries it out when all places are written.
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
            renames.add(site.parent, site.key, text)
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
