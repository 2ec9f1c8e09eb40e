"""A table language for our files: which keys exist, what they take, what they mean.

Owns the shapes (table, map, list), did-you-mean and the rule that nothing is ignored; ``kinds`` has single values. A file's schema is a ``Table`` of
``Key`` rows, each with a line of documentation, a default and an example, so that reference pages and a JSON
Schema can be made from the same rows. Does not know what keys exist: ``config_table`` and ``policy_table`` do.

A value that is refused is written down as a problem and read as its key's default, so that the rest of the
file is still checked. The result of a file with errors is never used.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from proxy.core.config.problem import Mark, Problem, error
from proxy.core.config.yaml_text import BAD, Bad, Map, Node, Refused, Scalar, Sequence, parse_yaml

Problems = list[Problem]


class Kind:
    """What a value may be. ``read`` returns the value, or BAD after writing down why not."""

    what: str
    """What is expected, for messages."""

    def read(self, node: Node, path: str, problems: Problems) -> Any:
        """Turn a node into the value that settings hold."""
        raise NotImplementedError

    def json_schema(self) -> dict[str, Any]:
        """Return what JSON Schema (2020-12) can say of it, for editors; ``read`` remains the judge."""
        return {"description": self.what}


@dataclass(frozen=True, eq=False)
class Key:
    """One row of a table.

    ``default`` is what an absent key means, in YAML as one would write it; None means absent is None,
    and with ``is_required`` that it may not be absent.
    """

    name: str
    kind: Kind
    doc: str
    default: str | None = None
    example: str = ""
    is_required: bool = False

    def default_value(self) -> Any:
        """Return what an absent key means, read by the same rules as a written one."""
        return _default_of(self)


@functools.cache
def _default_of(key: Key) -> Any:
    if key.default is None:
        return None
    node, problems = parse_yaml(key.default, f"default of {key.name}")
    if node is not None:
        value = key.kind.read(node, key.name, problems)
        if not problems:
            return value
    raise ValueError(f"the default of {key.name} is refused by its own kind: {problems}")


class Section:
    """A map that was read by a ``Table``: values by key, and where each was written."""

    __slots__ = ("_marks", "_refused", "_values", "mark")

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self._refused: set[str] = set()
        self._values: dict[str, Any] = {}
        self._marks: dict[str, Mark] = {}

    def put(self, name: str, value: Any, mark: Mark | None) -> None:
        """Store a value; ``mark`` None: it was not written, this is the default."""
        self._values[name] = value
        if mark is not None:
            self._marks[name] = mark

    def refuse(self, name: str, fallback: Any, mark: Mark | None) -> None:
        """Store what stands in for a value that was refused or is missing."""
        self.put(name, fallback, mark)
        self._refused.add(name)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def at(self, name: str) -> Mark:
        """Return where the value of a key was written, or where its map begins."""
        return self._marks.get(name, self.mark)

    def is_written(self, name: str) -> bool:
        """Say whether the file gives this key (rightly or wrongly) rather than leaving it to the default."""
        return name in self._marks

    def is_good(self, *names: str) -> bool:
        """Say whether none of these was refused or is missing."""
        return self._refused.isdisjoint(names)


@dataclass(slots=True)
class Items:
    """A list that was read: the good values, and where each was written."""

    values: list[Any] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Any, Mark]]:
        return iter(zip(self.values, self.marks, strict=True))

    def __len__(self) -> int:
        return len(self.values)


@dataclass(slots=True)
class Entries:
    """A map with free keys that was read: the good values by key, and where each key was written."""

    values: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)


def closest(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean X?`` for the likeliest of the known words, or an empty string."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean `{by_lower[found[0]]}`?" if found else ""


def _describe(node: Node) -> str:
    """Say in a few words what stands there, without repeating text that may be secret."""
    match node:
        case Map():
            return "a map"
        case Sequence():
            return "a list"
        case Scalar(value=bool()):
            return f"the truth value {node.text}"
        case Scalar(value=int() | float()):
            return f"the number {node.text}"
        case Scalar():
            return "text"
        case Refused():
            return "nothing usable"


def scalar(node: Node, path: str, problems: Problems, what: str) -> Scalar | None:
    """Return the node as a scalar with a value; otherwise write down what was expected."""
    if isinstance(node, Refused) or (isinstance(node, Scalar) and node.value is BAD):
        return None
    if not isinstance(node, Scalar):
        wrong_type(node, path, problems, what)
        return None
    if node.value is None:
        problems.append(error(node.mark, "no-value", f"`{path}` has no value", f"give {what} or delete the key"))
        return None
    return node


def wrong_type(node: Node, path: str, problems: Problems, what: str, suggestion: str = "") -> None:
    """Write down that something else stands where ``what`` is expected."""
    text = f"{f'`{path}`' if path else 'the file'} expects {what}, got {_describe(node)}"
    problems.append(error(node.mark, "wrong-type", text, suggestion))


@dataclass(frozen=True, eq=False)
class ListOf(Kind):
    """A list of one kind."""

    item: Kind
    min_items: int = 0
    max_items: int = 10_000

    @property
    def what(self) -> str:  # type: ignore[override]  # a read-only description, computed
        """Say what is expected."""
        return f"a list, each item {self.item.what}"

    def read(self, node: Node, path: str, problems: Problems) -> Items | Bad:
        """Return the good items."""
        if not isinstance(node, Sequence):
            if isinstance(node, Map) or scalar(node, path, problems, self.what) is not None:
                hint = f"write [{node.text}]" if isinstance(node, Scalar) else "start each item with `- `"
                wrong_type(node, path, problems, self.what, hint)
            return BAD
        if not self.min_items <= len(node.items) <= self.max_items:
            limit = f"at least {self.min_items}" if len(node.items) < self.min_items else f"at most {self.max_items}"
            text = f"`{path}` needs {limit} item(s), got {len(node.items)}"
            problems.append(error(node.mark, "out-of-range", text))
        items = Items()
        for index, item in enumerate(node.items[: self.max_items]):
            value = self.item.read(item, f"{path}[{index}]", problems)
            if value is not BAD:
                items.values.append(value)
                items.marks.append(item.mark)
        return items

    def json_schema(self) -> dict[str, Any]:
        """Return an array of the item's schema."""
        limits = {"minItems": self.min_items} if self.min_items else {}
        return {"type": "array", "items": self.item.json_schema(), **limits, "maxItems": self.max_items}


@dataclass(frozen=True, eq=False)
class MapOf(Kind):
    """A map whose keys are names of the author's choosing."""

    value: Kind
    what: str = "a map"
    parse_key: Callable[[str], str] | None = None
    """Returns the key as it is kept; raises ValueError saying what a key may be."""

    def read(self, node: Node, path: str, problems: Problems) -> Entries | Bad:
        """Return the good entries."""
        if not isinstance(node, Map):
            if isinstance(node, Sequence) or scalar(node, path, problems, self.what) is not None:
                wrong_type(node, path, problems, self.what)
            return BAD
        entries = Entries()
        for key, entry in node.entries.items():
            kept = key
            try:
                kept = self.parse_key(key) if self.parse_key else key
            except ValueError as exc:
                problems.append(error(entry.mark, "bad-name", f"{key!r} cannot be a key of `{path}`", str(exc)))
            if kept in entries.marks:
                problems.append(error(entry.mark, "duplicate-key", f"{key!r} repeats {kept!r} of `{path}`"))
            value = self.value.read(entry.node, f"{path}.{key}", problems)
            if value is not BAD:
                entries.values[kept] = value
                entries.marks[kept] = entry.mark
        return entries

    def json_schema(self) -> dict[str, Any]:
        """Return an object whose values all follow one schema."""
        return {"type": "object", "description": self.what, "additionalProperties": self.value.json_schema()}


@dataclass(frozen=True, eq=False)
class Table(Kind):
    """A map with known keys. ``later`` names keys that are planned and do not act yet, with the reason."""

    name: str
    doc: str
    keys: tuple[Key, ...]
    later: dict[str, str] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)
    """Keys that people look for here and that live elsewhere -> where."""

    @property
    def what(self) -> str:  # type: ignore[override]  # a read-only description, computed
        """Say what is expected."""
        return f"a map with keys such as {', '.join(key.name for key in self.keys[:3])}"

    def read(self, node: Node, path: str, problems: Problems) -> Section | Bad:
        """Return the section; unknown and missing keys are problems."""
        if not isinstance(node, Map):
            if isinstance(node, Sequence) or scalar(node, path, problems, self.what) is not None:
                wrong_type(node, path, problems, self.what)
            return BAD
        section = Section(node.mark)
        rows = {key.name: key for key in self.keys}
        absent = self._unknown(node, path, problems, rows)
        for row in self.keys:
            entry = node.entries.get(row.name)
            if entry is not None:
                where = f"{path}.{row.name}" if path else row.name
                value = row.kind.read(entry.node, where, problems)
                if value is BAD:
                    section.refuse(row.name, BAD if row.is_required else row.default_value(), entry.node.mark)
                else:
                    section.put(row.name, value, entry.node.mark)
            elif row.is_required:
                section.refuse(row.name, BAD, None)
                if row.name not in absent:
                    text = f"{f'`{path}`' if path else 'the file'} needs the key `{row.name}`: {row.doc}"
                    hint = f"for example `{row.name}: {row.example}`" if row.example else ""
                    problems.append(error(node.mark, "missing-key", text, hint))
            else:
                section.put(row.name, row.default_value(), None)
        return section

    def _unknown(self, node: Map, path: str, problems: Problems, rows: dict[str, Key]) -> set[str]:
        """Write down every unknown key; return the names that were probably meant, to complain only once."""
        meant: set[str] = set()
        place = f"in `{path}`" if path else "at the top of the file"
        for name, entry in node.entries.items():
            if name in rows:
                continue
            if name in self.later:
                problems.append(error(entry.mark, "unsupported", f"`{name}` {self.later[name]}", "delete it"))
                continue
            unused = [known for known in rows if known not in node.entries] or list(rows)
            hint, home = closest(name, unused), self.homes.get(name)
            if home is not None and (not hint or home.partition(",")[0] not in rows):
                hint = f"it belongs in `{home}`"  # what lives elsewhere is no misspelling of a key that happens to be like it
            meant.update(known for known in unused if f"`{known}`" in hint)
            problems.append(error(entry.mark, "unknown-key", f"no key `{name}` {place}", hint or self._list_of_keys()))
        return meant

    def json_schema(self) -> dict[str, Any]:
        """Return a closed object: a key that is not listed is an error, as it is for ``read``."""
        schema: dict[str, Any] = {
            "type": "object",
            "description": self.doc,
            "properties": {key.name: _property(key) for key in self.keys},
            "additionalProperties": False,
        }
        required = [key.name for key in self.keys if key.is_required]
        return {**schema, "required": required} if required else schema

    def _list_of_keys(self) -> str:
        return "known here: " + ", ".join(key.name for key in self.keys)


def _property(key: Key) -> dict[str, Any]:
    """Return one key's schema with its meaning, default and example."""
    schema = {**key.kind.json_schema(), "description": f"{key.doc} Takes {key.kind.what}."}
    for word, text in (("default", key.default), ("examples", key.example or None)):
        value = None if text is None else _as_written(text)
        if value is not None:
            schema[word] = [value] if word == "examples" else value
    return schema


def _as_written(text: str) -> Any:
    """Return the plain value that a piece of YAML writes down, or None when it is no value of its own."""
    node, problems = parse_yaml(str(text), "schema")  # an enumeration member is text, too, but not to the parser
    return None if node is None or problems else _plain(node)


def _plain(node: Node) -> Any:
    match node:
        case Map():
            return {name: _plain(entry.node) for name, entry in node.entries.items()}
        case Sequence():
            return [_plain(item) for item in node.items]
        case Scalar():
            return node.value
        case Refused():
            return None
