"""Reads every text of a request and notes what was found where, changing nothing.

Owns the walk over parsed JSON: which strings are read, with which label, and how JSON inside a string is read. Does not
know actions or placeholders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from proxy.core.redaction import fields
from proxy.core.redaction.actions import OWN_MARKS
from proxy.core.redaction.jsonio import without_lone_surrogates
from proxy.core.redaction.jsontext import JsonLeaf, is_json_text, leaves
from proxy.core.redaction.normal import Allowlist
from proxy.core.redaction.seams import Piece, seams
from proxy.terms.redaction import Action, DirectionPlan, Finding

MAX_DEPTH = 192
"""Deepest nesting that is read, strings that hold JSON included."""
_MAX_LEAFED = 1 << 16
"""Longest JSON text (in characters) that is read leaf by leaf where its form is not a contract."""
_MIN_DIGITS = 7
_HAS_SIGN = re.compile(r"[0-9@]")
_MAY_BE_TAG = re.compile(r"\[|\uff3b|\\u")


class Detector(Protocol):
    """What looks for values; ``proxy.core.redaction.detect.build_detector`` makes the real one."""

    def find(self, text: str) -> list[Finding]:
        """Return disjoint findings in order of their start."""
        ...

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        """The same for a text that stands under a name (a JSON key, a column)."""
        ...

    def may_contain(self, raw: bytes) -> bool:
        """Tell whether anything could be found in these bytes; False is a promise."""
        ...


class Blind:
    """Finds nothing: for walks that only count what cannot be read."""

    def find(self, text: str) -> list[Finding]:
        return []

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        return []

    def may_contain(self, raw: bytes) -> bool:
        return False


class TooDeep(Exception):
    """The document is nested deeper than ``MAX_DEPTH``."""


class Edit(NamedTuple):
    """One finding in one text: what would be replaced."""

    start: int
    end: int
    kind: str
    value: str
    depth: int = 0
    """How many levels of JSON strings the place is in."""
    is_number: bool = False
    """The value is a JSON number; a stand-in needs quotes."""
    is_rest: bool = False
    """The value began in the text before; what is here just goes."""


class Site(NamedTuple):
    """A place in the document with findings. ``parent[key]`` holds ``text``, or ``text`` is the key itself."""

    parent: Any
    key: Any
    text: str
    edits: list[Edit]
    path: tuple[Any, ...]
    is_key: bool = False


class Scan:
    """The walk over one document and what it saw. Made for one request and thrown away with it."""

    __slots__ = ("_allow", "_detector", "_path", "_plan", "bracketed", "sites", "unscanned_at", "unscanned_bytes")

    def __init__(self, detector: Detector, plan: DirectionPlan, allow: Allowlist) -> None:
        self._detector = detector
        self._plan = plan
        self._allow = allow
        self._path: list[Any] = []
        self.sites: list[Site] = []
        self.bracketed: list[str] = []
        """Texts that might hold something looking like a placeholder."""
        self.unscanned_bytes = 0
        self.unscanned_at: list[tuple[Any, ...]] = []

    def answer(self, document: Any) -> None:
        """Walk a whole answer.

        Raises:
            TooDeep: Nested deeper than ``MAX_DEPTH``.
        """
        if isinstance(document, dict):
            self._dict(document, False)
        else:
            self._unkeyed([document], False)

    def _unkeyed(self, holder: list[Any], is_free: bool) -> None:
        document = holder[0]
        if isinstance(document, list):
            self._list(document, "", is_free)
        elif isinstance(document, str):
            self._string(holder, 0, document, "", is_free)

    def request(self, holder: list[Any]) -> None:
        """Walk a whole request, the only member of ``holder``. Order decides numbering: what stays the same over a conversation comes first.

        Raises:
            TooDeep: Nested deeper than ``MAX_DEPTH``.
        """
        document = holder[0]
        if not isinstance(document, dict):
            self._unkeyed(holder, True)
            return
        first = [key for key in (*fields.TOP_FIRST, *fields.TOP_HISTORY) if key in document]
        rest = [key for key in document if key not in fields.TOP_FIRST and key not in fields.TOP_HISTORY]
        for key in (*first, *rest):
            is_free = key not in fields.TOP_KNOWN
            if is_free:
                self._key(document, key)
            self._value(document, key, document[key], key, is_free or key in fields.FREE)

    def _value(self, parent: Any, key: Any, value: Any, label: str, is_free: bool) -> None:
        kind = type(value)
        if kind is str:
            self._path.append(key)
            self._string(parent, key, value, label, is_free)
            self._path.pop()
        elif kind is dict or kind is list:
            self._path.append(key)
            if len(self._path) > MAX_DEPTH:
                raise TooDeep
            if kind is dict:
                self._dict(value, is_free)
            else:
                self._list(value, label, is_free)
            self._path.pop()
        elif is_free and kind is int:
            self._number(parent, key, value, label)

    def _dict(self, node: dict[str, Any], is_free: bool) -> None:
        part_type = node.get("type")
        if part_type in fields.OPAQUE_TYPES and not is_free:
            self.unscanned_at.append(tuple(self._path))
        inner_free = is_free or part_type == "tool_use"
        for key, value in node.items():
            if is_free and len(key) > 4 and _HAS_SIGN.search(key):
                self._key(node, key)
            self._value(node, key, value, key, is_free or key in fields.FREE or (inner_free and key == "input"))

    def _list(self, node: list[Any], label: str, is_free: bool) -> None:
        begun = len(self.sites)
        for at, item in enumerate(node):
            self._value(node, at, item, label, is_free)
        if not is_free and len(node) > 1:
            self._split_values(node, begun)

    def _split_values(self, parts: list[Any], begun: int) -> None:
        """Find values that begin in one text part and go on in the next; sites from ``begun`` on are of this list."""
        for found, pieces in self._kept_across(parts):
            sites = [self._site_of(parts[at], begun, at) for at, _, _ in pieces]
            if any(
                edit.start < end and start < edit.end
                for site, (_, start, end) in zip(sites, pieces, strict=True)
                for edit in site.edits
            ):
                continue
            for nth, (site, (_, start, end)) in enumerate(zip(sites, pieces, strict=True)):
                site.edits.append(Edit(start, end, found.kind, found.value, is_rest=nth > 0))
                site.edits.sort()
                if not any(site is known for known in self.sites):
                    self.sites.append(site)

    def _kept_across(self, parts: list[Any]) -> Iterator[tuple[Edit, list[Piece]]]:
        for seam in seams(parts):
            for finding in self._kept(self._look(seam.text, ""), seam.text):
                pieces = seam.pieces(finding.start, finding.end)
                if len(pieces) > 1:
                    value = seam.text[finding.start : finding.end]
                    yield Edit(finding.start, finding.end, finding.kind, value), pieces

    def _site_of(self, part: dict[str, Any], begun: int, at: int) -> Site:
        for site in self.sites[begun:]:
            if site.parent is part and site.key == "text" and not site.is_key:
                return site
        return Site(part, "text", part["text"], [], (*self._path, at, "text"))

    def _key(self, parent: dict[str, Any], key: str) -> None:
        edits = self._edits(key, "")
        if edits:
            self.sites.append(Site(parent, key, key, edits, tuple(self._path), is_key=True))
        if _MAY_BE_TAG.search(key):
            self.bracketed.append(key)

    def _number(self, parent: Any, key: Any, value: int, label: str) -> None:
        text = str(value)
        if len(text) < _MIN_DIGITS:
            return
        for found in self._kept(self._look(text, label), text):
            if found.start == 0 and found.end == len(text):
                edit = Edit(0, len(text), found.kind, text)
                self.sites.append(Site(parent, key, text, [edit], (*self._path, key)))

    def _string(self, parent: Any, key: Any, text: str, label: str, is_free: bool) -> None:
        if text in fields.ENUM_WORDS:
            return
        if not is_free and self._is_name(label, text):
            return
        if label in fields.OPAQUE and len(text) >= 64 and fields.BASE64.match(text):
            self.unscanned_bytes += len(text)
            self.unscanned_at.append(tuple(self._path))
            return
        if _MAY_BE_TAG.search(text):
            self.bracketed.append(text)
        if ";base64," in text:
            text_read = fields.DATA_URL.sub(self._blank, text)
            if not text_read.strip():
                return
        else:
            text_read = text
        edits = self._edits(text_read, "" if label in fields.CONTENT else label, is_json=label == "arguments")
        if edits:
            self.sites.append(Site(parent, key, text, edits, tuple(self._path)))

    def _is_name(self, label: str, text: str) -> bool:
        if label == "model":
            return True
        if label in fields.ENUMS:
            return fields.ENUM_VALUE.match(text) is not None
        return label in fields.IDS and fields.ID_VALUE.match(text) is not None

    def _blank(self, found: re.Match[str]) -> str:
        """Hide a data: URL from the detectors; its length stays."""
        self.unscanned_bytes += len(found[0])
        path = tuple(self._path)
        if not self.unscanned_at or self.unscanned_at[-1] != path[: len(self.unscanned_at[-1])]:
            self.unscanned_at.append(path)
        return " " * len(found[0])

    def _edits(self, text: str, label: str, *, is_json: bool = False, level: int = 0) -> list[Edit]:
        if (is_json or len(text) <= _MAX_LEAFED) and text[:1] in ("{", "[", " ", "\n") and is_json_text(text):
            if len(self._path) + level > MAX_DEPTH:
                raise TooDeep
            return self._leaf_edits(text, level + 1)
        findings = self._kept(self._look(text, label), text)
        return [Edit(f.start, f.end, f.kind, text[f.start : f.end]) for f in findings]

    def _leaf_edits(self, source: str, level: int) -> list[Edit]:
        """Return the findings of JSON source, with offsets into the source itself."""
        edits: list[Edit] = []
        for leaf in leaves(source):
            if leaf.is_number:
                edits += self._number_edits(leaf)
                continue
            if len(leaf.text) < 3 or leaf.text in fields.ENUM_WORDS:
                continue
            if leaf.is_key and not _HAS_SIGN.search(leaf.text):
                continue
            if "\\" in source and _MAY_BE_TAG.search(leaf.text):
                self.bracketed.append(leaf.text)
            label = "" if leaf.label in fields.CONTENT else leaf.label
            for edit in self._edits(leaf.text, label, level=level):
                start, end = leaf.source(edit.start), leaf.source(edit.end)
                edits.append(edit._replace(start=start, end=end, depth=edit.depth + 1))
        return edits

    def _number_edits(self, leaf: JsonLeaf) -> list[Edit]:
        text = leaf.text
        if len(text) < _MIN_DIGITS or not text.isdigit():
            return []
        start = leaf.source(0)
        return [
            Edit(start, start + len(text), found.kind, text, 0, True)
            for found in self._kept(self._look(text, leaf.label), text)
            if found.start == 0 and found.end == len(text)
        ]

    def _look(self, text: str, label: str) -> list[Finding]:
        readable = without_lone_surrogates(text)
        return self._detector.find_labelled(readable, label) if label else self._detector.find(readable)

    def _kept(self, findings: list[Finding], text: str) -> list[Finding]:
        """Drop what the policy does not look for, allows, or what is a stand-in of ours; keep the rest disjoint."""
        if not findings:
            return findings
        plan = self._plan
        own = [found.span() for found in OWN_MARKS.finditer(text)] if "[" in text else []
        kept: list[Finding] = []
        end = 0
        for finding in sorted(findings):
            if finding.start < end or finding.score < plan.min_score:
                continue
            if plan.action_for(finding.kind) is Action.OFF:
                continue
            if any(begin <= finding.start and finding.end <= stop for begin, stop in own):
                continue
            if not self._allow.is_empty and self._allow.allows(finding.kind, text, finding.start, finding.end):
                continue
            kept.append(finding)
            end = finding.end
        return kept


def distinct(sites: list[Site]) -> dict[str, int]:
    """Return how many different values of each type were found."""
    return count_kinds(dict.fromkeys((edit.kind, edit.value) for site in sites for edit in site.edits))


def count_kinds(values: dict[tuple[str, str], None]) -> dict[str, int]:
    """Return how often each type occurs among (type, value) pairs."""
    counts: dict[str, int] = {}
    for kind, _ in values:
        counts[kind] = counts.get(kind, 0) + 1
    return counts
