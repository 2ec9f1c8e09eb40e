"""Broken copies of a YAML file: each key misspelt, each key repeated, each value of another type.

Owns the breaking and knows at which line (and, for keys, column) the file is broken. Uses PyYAML's own
positions, not ours, so that a test of our positions has a second opinion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml


class Mutant(NamedTuple):
    """One broken copy. ``line`` counts from 1; ``column`` is 0 when only the line is promised."""

    what: str
    text: str
    line: int
    column: int


def mutants_of(text: str, free_maps: frozenset[str]) -> Iterator[Mutant]:
    """Yield every mutant of a file. Keys directly under one of ``free_maps`` are names, so they are not misspelt."""
    root = yaml.compose(text, yaml.SafeLoader)
    yield from _walk(root, text, free_maps, "")


def _walk(node: Any, text: str, free_maps: frozenset[str], under: str) -> Iterator[Mutant]:
    match node:
        case yaml.MappingNode():
            for key, value in node.value:
                yield from _key_mutants(key, value, text, is_name=under in free_maps)
                yield from _walk(value, text, free_maps, key.value)
        case yaml.SequenceNode():
            for item in node.value:
                yield from _walk(item, text, free_maps, "")
        case _:
            yield from _value_mutants(node, text)


def _key_mutants(key: Any, value: Any, text: str, *, is_name: bool) -> Iterator[Mutant]:
    start, end = key.start_mark, key.end_mark
    line, column = start.line + 1, start.column + 1
    if not is_name:
        for wrong in (f"{key.value}q", f"q{key.value}", key.value.upper()):
            yield Mutant(f"misspell {key.value} as {wrong}", _put(text, start, end, wrong), line, column)
    before = text[: start.index].rpartition("\n")[2].rstrip()
    if before.endswith(("{", ",")):
        twice, at = f"{key.value}: 1, {key.value}", (line, column + len(key.value) + 5)
    else:
        twice, at = f"{key.value}: 1\n{' ' * start.column}{key.value}", (line + 1, column)
    yield Mutant(f"repeat {key.value}", _put(text, start, end, twice), *at)
    yield Mutant(f"empty {key.value}", _put(text, value.start_mark, value.end_mark, "~ "), value.start_mark.line + 1, 0)


def _value_mutants(node: Any, text: str) -> Iterator[Mutant]:
    is_number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    swaps = ["{qq: 1}", "[[1]]", "true" if node.tag != "tag:yaml.org,2002:bool" else "7", "010", "*x", "!!str x", "no"]
    swaps.append("seven" if is_number else "7")
    if node.value[:1].isdigit() and not is_number and node.style is None:
        swaps += [node.value + "q", node.value.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")]
    for swap in swaps:
        broken = _put(text, node.start_mark, node.end_mark, swap)
        if broken == text:
            continue
        yield Mutant(f"{node.value} becomes {swap}", broken, node.start_mark.line + 1, 0)


def _put(text: str, start: Any, end: Any, new: str) -> str:
    return text[: start.index] + new + text[end.index :]
