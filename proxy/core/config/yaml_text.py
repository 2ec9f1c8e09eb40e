"""A strict subset of YAML: text -> tree of nodes that know their place, or every reason why not.

Owns what both kinds of file may look like: one document, plain and quoted scalars, maps, lists; no
anchors, aliases, merge keys, tags, duplicate keys or scalars that YAML 1.1 and 1.2 read differently.
Does not know what any key means (``schema`` does) and never reads a file.

Source: reliability-cases 3.2 (alias bombs, ``no``, ``010``, ``12:30:45``); YAML 1.2.2 core schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import yaml

from proxy.core.config.problem import Mark, Problem, error

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_PROBLEMS = 200
"""A file with more is not worth a longer list."""

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser when PyYAML was built with it (about ten times faster), else the Python one; marks agree."""

_AMBIGUOUS_WORDS = frozenset({"yes", "no", "on", "off", "y", "n"})
_NOT_A_NUMBER = frozenset({".nan", "nan", ".inf", "+.inf", "-.inf", "inf", "+inf", "-inf", "infinity", "-infinity"})
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?\Z")
_OCTAL = re.compile(r"[-+]?0o?[0-9_]+\Z")
_BASED = re.compile(r"[-+]?0[xXbB][0-9a-fA-F_]+\Z")
_UNDERSCORED = re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?\Z")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9]+(:[0-9]{1,2})+(\.[0-9]*)?\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?\Z")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


class Bad(Enum):
    """Stands for a part that was refused already, so that nobody complains about it twice."""

    BAD = "bad"


BAD = Bad.BAD


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value. ``value`` is str, int, float, bool or None by the core schema; BAD if refused."""

    mark: Mark
    text: str
    value: str | int | float | bool | Bad | None
    is_quoted: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One ``key: value`` of a map; ``mark`` is the key's."""

    mark: Mark
    node: Node


@dataclass(frozen=True, slots=True)
class Map:
    """A map in the order of the file."""

    mark: Mark
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    mark: Mark
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Refused:
    """Where something stood that the subset does not have."""

    mark: Mark


Node = Scalar | Map | Sequence | Refused


class _Stop(Exception):
    """Reading further makes no sense; the reason is already on the list."""


def parse_yaml(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """Read one document and return its tree with everything that is wrong with it.

    Args:
        text: The whole file.
        file: Its name, for messages only.

    Returns:
        The tree (None when nothing usable is left) and the problems found, in the order of the text.
    """
    reader = _Reader(file)
    try:
        _refuse_size_and_characters(text, reader)
        root = reader.read(text)
    except _Stop:
        root = None
    except yaml.MarkedYAMLError as exc:
        reader.problems.append(_syntax_problem(exc, file, text))
        root = None
    return root, reader.problems


def canonical(node: Node) -> object:
    """Return the meaning of a tree as plain values: equal for texts that differ in comments or layout only."""
    match node:
        case Map():
            return {key: canonical(entry.node) for key, entry in sorted(node.entries.items())}
        case Sequence():
            return [canonical(item) for item in node.items]
        case Scalar():
            return None if node.value is BAD else node.value
        case Refused():
            return None


def _refuse_size_and_characters(text: str, reader: _Reader) -> None:
    mark = Mark(reader.file)
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > MAX_BYTES:
        reader.add(mark, "file-too-large", f"the file has {size_bytes} bytes; at most {MAX_BYTES} (1MiB) are read")
        raise _Stop
    found = _UNPRINTABLE.search(text, 1 if text.startswith("\ufeff") else 0)
    if found is not None:
        before = text[: found.start()]
        at = Mark(reader.file, before.count("\n") + 1, found.start() - (before.rfind("\n") + 1) + 1)
        code_point = f"U+{ord(found.group()):04X}"
        reader.add(at, "bad-character", f"the control character {code_point} may not stand in YAML", "delete it")
        raise _Stop


def _syntax_problem(exc: yaml.MarkedYAMLError, file: str, text: str) -> Problem:
    what = exc.problem or "not YAML"
    mark = exc.problem_mark or exc.context_mark
    suggestion = ""
    if "unexpected end of stream" in what and exc.context_mark is not None:
        mark, suggestion = exc.context_mark, "close the quote that opens here"
    elif exc.context is not None and ("alias" in exc.context or "anchor" in exc.context):
        suggestion = 'put text that starts with * or & in quotes, such as "*"'
    elif "tab character" in what:
        suggestion = "indent with spaces, not tabs"
    elif "cannot start any token" in what:
        is_tab = mark is not None and text[mark.index : mark.index + 1] == "\t"
        suggestion = "indent with spaces, not tabs" if is_tab else "put the value in quotes"
    elif "mapping values are not allowed" in what:
        suggestion = "put a value that holds ': ' in quotes, and check the indentation"
    elif "could not find expected ':'" in what or "did not find expected" in what:
        suggestion = "check the indentation, the brackets and the colon after the key"
    at = Mark(file, mark.line + 1, mark.column + 1) if mark is not None else Mark(file)
    return error(at, "yaml-syntax", f"not readable as YAML: {what}", suggestion)


@dataclass(slots=True)
class _Open:
    """A map or list that is still being read."""

    node: Map | Sequence
    key: str | None = None
    key_mark: Mark | None = None
    skips_value: bool = False


class _Reader:
    """Turns PyYAML's events into nodes without recursion, and writes down what the subset refuses."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._open: list[_Open] = []
        self._root: Node | None = None
        self._documents = 0

    def add(self, mark: Mark, code: str, message: str, suggestion: str = "") -> None:
        """Write one error down."""
        self.problems.append(error(mark, code, message, suggestion))
        if len(self.problems) >= MAX_PROBLEMS:
            self.problems.append(error(mark, "too-many-problems", f"gave up after {MAX_PROBLEMS} problems"))
            raise _Stop

    def read(self, text: str) -> Node | None:
        """Read all events of the text and return the root."""
        for event in _events(text):
            mark = Mark(self.file, event.start_mark.line + 1, event.start_mark.column + 1)
            match event:
                case yaml.ScalarEvent():
                    self._scalar(event, mark)
                case yaml.AliasEvent():
                    self.add(
                        mark, "alias", f"the alias *{event.anchor} is refused", f'quote "*{event.anchor}" if it is text'
                    )
                    self._place(Refused(mark))
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._start(event, mark)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._open.pop()
                case yaml.DocumentStartEvent():
                    self._document(mark)
                case _:
                    pass  # the ends of documents and of the stream say nothing
        if self._root is None or (isinstance(self._root, Scalar) and self._root.value is None):
            self.add(Mark(self.file), "empty-file", "the file holds no settings", "start it with `version:`")
            return None
        return self._root

    def _document(self, mark: Mark) -> None:
        self._documents += 1
        if self._documents > 1:
            self.add(mark, "several-documents", "a second YAML document starts here", "use one file per document")
            raise _Stop

    def _start(self, event: Any, mark: Mark) -> None:
        if len(self._open) >= MAX_DEPTH:
            self.add(mark, "too-deep", f"nested deeper than {MAX_DEPTH} levels")
            raise _Stop
        node: Map | Sequence = Map(mark) if isinstance(event, yaml.MappingStartEvent) else Sequence(mark)
        self._refuse_decorations(event, mark)
        self._place(node)
        self._open.append(_Open(node))

    def _scalar(self, event: Any, mark: Mark) -> None:
        is_quoted = bool(event.style)  # libyaml says "" for plain, the Python parser None
        value: str | int | float | bool | Bad | None
        if self._refuse_decorations(event, mark):
            value = BAD
        else:
            value = event.value if is_quoted else self._plain(event.value, mark)
        self._place(Scalar(mark, event.value, value, is_quoted))

    def _refuse_decorations(self, event: Any, mark: Mark) -> bool:
        if event.anchor is not None:
            self.add(mark, "anchor", f"the anchor &{event.anchor} is refused", "delete it and write values out")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.add(mark, "tag", f"the tag {tag} is refused", "delete it; quote the value if it is text")
        return event.tag is not None

    def _plain(self, text: str, mark: Mark) -> str | int | float | bool | Bad | None:
        why = _ambiguity(text)
        if why:
            self.add(mark, "ambiguous-scalar", f"the bare value {text} is ambiguous: {why}", _way_out(text))
            return BAD
        return _resolve(text)

    def _place(self, node: Node) -> None:
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if isinstance(parent.node, Sequence):
            parent.node.items.append(node)
        elif parent.key_mark is None:
            self._key(parent, parent.node, node)
        else:
            if not parent.skips_value and parent.key is not None:
                parent.node.entries[parent.key] = Entry(parent.key_mark, node)
            parent.key = parent.key_mark = None

    def _key(self, parent: _Open, into: Map, node: Node) -> None:
        parent.key_mark = node.mark
        parent.skips_value = True
        if isinstance(node, Map | Sequence):
            self.add(node.mark, "complex-key", "a key must be a single word", "check the braces and the indentation")
        elif isinstance(node, Scalar) and node.value is not BAD:
            key = parent.key = node.text
            if key == "<<" and not node.is_quoted:
                self.add(node.mark, "merge-key", "the merge key << is refused", "write the keys out")
            elif key in into.entries:
                first = into.entries[key].mark
                text = f"the key {key!r} stands here twice; first on line {first.line}"
                self.add(node.mark, "duplicate-key", text, "delete one of the two")
            else:
                parent.skips_value = False


def _events(text: str) -> Iterator[Any]:
    loader = Loader(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


def _ambiguity(text: str) -> str:
    """Say why a bare scalar means different things to different readers, or return an empty string."""
    lower = text.lower()
    if lower in _AMBIGUOUS_WORDS:
        return "some YAML readers take it for true or false"
    if lower in _NOT_A_NUMBER:
        return "some YAML readers take it for a number that is none"
    if _OCTAL.match(text) and not _DECIMAL.match(text):
        return "some YAML readers take it for an octal number"
    if _BASED.match(text):
        return "some YAML readers take it for a hexadecimal or binary number"
    if _UNDERSCORED.match(text):
        return "some YAML readers take it for a number"
    if _SEXAGESIMAL.match(text):
        return "some YAML readers take it for a number to the base 60"
    if _DATE.match(text):
        return "some YAML readers take it for a date"
    return ""


def _way_out(text: str) -> str:
    if text.lower() in _AMBIGUOUS_WORDS:
        return f'write true or false, or "{text}" if it is text'
    return f'write "{text}" in quotes if it is text'


def _resolve(text: str) -> str | int | float | bool | None:
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if len(text) <= 18 and _DECIMAL.match(text):
        return int(text)
    if len(text) <= 32 and _FLOAT.match(text):
        return float(text)
    return text
