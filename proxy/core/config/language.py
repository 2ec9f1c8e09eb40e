"""Versions of a file's language: a tree that was written in an older version becomes one of the current version.

Owns the steps' shape, their order, and what they do to a tree and to the author's text. A step only names edits, a key that is
called otherwise or a word that is; both the loader and ``readygate policy upgrade`` carry out the same edits, so a file means the same
before and after. Every node keeps its place, so problems point into the author's file. Does not know what any key means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from proxy.core.config.problem import Mark, Problem, error
from proxy.core.config.schema import Key, Kind, Problems, scalar, wrong_type
from proxy.core.config.yaml_text import BAD, Bad, Entry, Map, Node, Scalar
from proxy.core.config.yaml_text import Sequence as ListNode

TOO_NEW: Final = "version-too-new"
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_TOKEN = re.compile("\"(?:[^\"\\\\]|\\\\.)*\"|'(?:[^']|'')*'|[^\\s,:\\[\\]{}#]+", re.DOTALL)


class Rename(NamedTuple):
    """A key at this place is called otherwise."""

    mark: Mark
    old: str
    new: str


class Reword(NamedTuple):
    """The value at this place is another word."""

    mark: Mark
    old: str
    new: str


Edit = Rename | Reword


class Step(NamedTuple):
    """What a version of the language says otherwise than the one before."""

    says: str
    """One sentence for authors."""
    edits: Callable[[Map], Iterable[Edit]]
    """Names the edits for a tree, which may be wrong in any way."""


class CannotRewrite(Exception):
    """The text does not hold what the tree says; it has to be changed by hand."""


@dataclass(frozen=True, eq=False)
class Version(Kind):
    """The version of a file's language: the current one, or an older one that is read as the current one."""

    current: int

    @property
    def what(self) -> str:  # type: ignore[override]  # a read-only description, computed
        """Say what is expected."""
        return f"the number {self.current}" if self.current == 1 else f"a whole number from 1 to {self.current}"

    def read(self, node: Node, path: str, problems: Problems) -> int | Bad:
        """Return the number."""
        found = scalar(node, path, problems, self.what)
        if found is None:
            return BAD
        value = found.value
        if isinstance(value, bool) or not isinstance(value, int):
            wrong_type(node, path, problems, self.what, "write it without quotes" if found.text.isdigit() else "")
            return BAD
        if value > self.current:
            problems.append(_too_new(node.mark, value, self.current))
            return BAD
        if value < 1:
            problems.append(error(node.mark, "out-of-range", f"`{path}` expects {self.what}, got {found.text}"))
            return BAD
        return value

    def json_schema(self) -> dict[str, Any]:
        """Return a number within the limits."""
        return {"type": "integer", "minimum": 1, "maximum": self.current}


def _too_new(mark: Mark, value: int, current: int) -> Problem:
    reads = "version 1" if current == 1 else f"versions 1 to {current}"
    text = f"the file is written in version {value} of its language; this release of readygate reads {reads}"
    return error(mark, TOO_NEW, text, f"run a newer readygate, or write it in version {current}")


@dataclass(frozen=True, slots=True)
class Language:
    """The versions of one kind of file. ``steps[0]`` leads from version 1 to 2."""

    steps: tuple[Step, ...] = ()

    @property
    def current(self) -> int:
        """The version that is read as it stands."""
        return len(self.steps) + 1

    def key(self) -> Key:
        """Return the row of ``version`` for the file's table."""
        number = str(self.current)
        doc = "Version of the file's language" + ("." if self.current == 1 else "; older ones are read as this one.")
        return Key("version", Version(self.current), doc, is_required=True, example=number)

    def is_too_new(self, root: Node, problems: Problems) -> bool:
        """Say whether nothing of a file can be judged, and write down why."""
        value = version_of(root)
        if value is None or value <= self.current or not isinstance(root, Map):
            return False
        problems.append(_too_new(root.entries["version"].node.mark, value, self.current))
        return True

    def read(self, root: Map, problems: Problems) -> tuple[Map, tuple[Edit, ...]]:
        """Return a tree in the current version, and what had to be changed for that.

        A tree without a version we know comes back as it is, for its table to refuse.
        """
        version = version_of(root)
        if version is None or not 1 <= version < self.current:
            return root, ()
        made: list[Edit] = []
        for step in self.steps[version - 1 :]:
            edits = list(step.edits(root))
            root = _changed(root, {edit.mark: edit for edit in edits}, problems)
            made += edits
        entry = root.entries["version"]
        number = str(self.current)
        made.append(Reword(entry.node.mark, str(version), number))
        root.entries["version"] = Entry(entry.mark, Scalar(entry.node.mark, number, self.current, False))
        return root, tuple(made)


def version_of(root: Node) -> int | None:
    """Return the version that a file claims; None when it claims none that is a number."""
    node = root.entries["version"].node if isinstance(root, Map) and "version" in root.entries else None
    value = node.value if isinstance(node, Scalar) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def in_words_of(edits: Iterable[Edit], problem: Problem) -> Problem:
    """Return a problem that calls keys as the author does, not as the current version does."""
    for edit in edits:
        if isinstance(edit, Rename):
            word = re.compile(rf"(?<![\w-]){re.escape(edit.new)}(?![\w-])")
            problem = replace(
                problem,
                message=word.sub(edit.old, problem.message),
                suggestion=word.sub(edit.old, problem.suggestion),
            )
    return problem


def _changed(node: Map, edits: dict[Mark, Edit], problems: Problems) -> Map:
    entries: dict[str, Entry] = {}
    for key, entry in node.entries.items():
        edit = edits.get(entry.mark)
        name = edit.new if isinstance(edit, Rename) else key
        if name != key and name in node.entries:
            text = f"`{key}` is called `{name}` by now, which stands here, too"
            problems.append(error(entry.mark, "duplicate-key", text, "delete one of the two"))
            continue
        entries[name] = Entry(entry.mark, _changed_value(entry.node, edits, problems))
    return Map(node.mark, entries)


def _changed_value(node: Node, edits: dict[Mark, Edit], problems: Problems) -> Node:
    match node:
        case Map():
            return _changed(node, edits, problems)
        case ListNode():
            return ListNode(node.mark, [_changed_value(item, edits, problems) for item in node.items])
        case Scalar():
            edit = edits.get(node.mark)
            return Scalar(node.mark, edit.new, edit.new, False) if isinstance(edit, Reword) else node
        case _:
            return node


def rewritten(text: str, edits: Sequence[Edit]) -> str:
    """Return a file's text with these edits carried out and everything else, comments too, as it was.

    Raises:
        CannotRewrite: Something else stands at the place of an edit.
    """
    starts = [0, *(found.end() for found in _LINE_BREAK.finditer(text))]
    bom = 1 if text.startswith("\ufeff") else 0
    last = {edit.mark: edit for edit in edits}  # of several steps that change one place
    first = {edit.mark: edit for edit in reversed(edits)}
    for mark in sorted(last, key=lambda one: (one.line, one.column), reverse=True):
        begin = starts[mark.line - 1] + mark.column - 1
        token = _TOKEN.match(text, begin) or _TOKEN.match(text, begin + bom)
        if token is None or token.group().strip("\"'") != first[mark].old:
            raise CannotRewrite(f"line {mark.line}: expected `{first[mark].old}`")
        text = text[: token.start()] + last[mark].new + text[token.end() :]
    return text
