"""Reads every text of a request and notes what was found where, changing nothing.

Owns the walk over parsed JSON: which strings are read, with which label, and how JSON inside a string is read. Does not
know actions or placeholders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from proxy.core.redaction import fields
from proxy.core.redaction.actions import is_own_mark
from proxy.core.redaction.dataurl import is_base64, without_data
from proxy.core.redaction.detectors import Detector
from proxy.core.redaction.fields import NAMES, is_name
from proxy.core.redaction.jsoncursor import as_meant
from proxy.core.redaction.jsonio import without_lone_surrogates
from proxy.core.redaction.jsontext import JsonLeaf, is_json_text, leaves
from proxy.core.redaction.normal import Allowlist, takes_everything
from proxy.core.redaction.seams import Piece, seams
from proxy.core.redaction.seen import JSON_STARTS, FindingMemory, Remembering, is_ordinary
from proxy.core.redaction.sites import Edit, Site
from proxy.core.redaction.tags import Spans
from proxy.terms.redaction import Action, DirectionPlan, Finding

MAX_DEPTH = 192
"""Deepest nesting that is read, strings that hold JSON included."""
_MAX_LEAFED = 1 << 16
"""Longest JSON text (in characters) that is read leaf by leaf where its form is not a contract."""
_MIN_DIGITS = 7
_MIN_NUMBER = 10 ** (_MIN_DIGITS - 1)
_MAX_NUMBER = 10**20
_MAX_EXACT = 2**63
"""From here on the fast parser makes floats of integers."""
_MIN_SECRET = 16
"""Fewer characters under a name of the protocol are no secret."""
_HAS_SIGN = re.compile(r"[0-9@]|[^\x00-\x7f]")
_UNICODE_ESCAPE = re.compile(r"\\+u00[2-7][0-9a-fA-F]")
_CONTENT, _FREE, _ENUM_WORDS, _OPAQUE_TYPES = fields.CONTENT, fields.FREE, fields.ENUM_WORDS, fields.OPAQUE_TYPES
_MEMBERS = fields.MEMBERS
_ITEM_LISTS = frozenset({"messages", "tools", "input", "output", "choices", "data"})
"""Lists whose members are apart for the model too."""
_TOP_ORDER, _TOP_KNOWN = fields.TOP_ORDER, fields.TOP_KNOWN
_NUMBERED = fields.NUMBERED
_SCALARS = (int, bool, type(None))
_ROLES = ("user", "assistant", "system", "developer", "tool", "function")


_KEY_OF: Final = FindingMemory.key_of
_NOTHING_KNOWN: Final[Mapping[int | bytes, Spans]] = {}
_new = tuple.__new__  # makes a named tuple in half the time of its own constructor


class TooDeep(Exception):
    """The document is nested deeper than ``MAX_DEPTH``."""


class Scan:
    """The walk over one document and what it saw. Made for one request and thrown away with it."""

    __slots__ = (
        "_allow",
        "_detector",
        "_memory",
        "_path",
        "_plan",
        "_reads_words",
        "_remembered",
        "_takes_all",
        "bracketed",
        "loses_digits",
        "sites",
        "unscanned_at",
        "unscanned_bytes",
    )

    def __init__(
        self,
        detector: Detector,
        plan: DirectionPlan,
        allow: Allowlist,
        reads_words: bool = False,
        takes_all: bool | None = None,
        memory: Remembering | None = None,
    ) -> None:
        """Begin at the top of a document.

        Args:
            detector: What looks.
            plan: What is looked for.
            allow: What is nobody's business.
            reads_words: Names without any digit or @ are read too, because some type looks for words.
            takes_all: What ``takes_everything`` says of plan and allowlist, when it is known.
            memory: The detector, where it is one that remembers.
        """
        self._detector = detector
        self._memory = memory
        self._remembered = _NOTHING_KNOWN if memory is None else memory.memory.newest
        self._reads_words = reads_words
        self._plan = plan
        self._allow = allow
        self._takes_all = takes_everything(plan, allow) if takes_all is None else takes_all
        self._path: list[Any] = []
        self.sites: list[Site] = []
        self.bracketed: list[str] = []
        """Texts that might hold something looking like a placeholder."""
        self.loses_digits = False
        """A number may have had more digits than the document shows."""
        self.unscanned_bytes = 0
        self.unscanned_at: list[tuple[Any, ...]] = []

    def answer(self, holder: list[Any]) -> None:
        """Walk a whole answer, the only member of ``holder``.

        Raises:
            TooDeep: Nested deeper than ``MAX_DEPTH``.
        """
        document = holder[0]
        if isinstance(document, dict):
            self._dict(document, False)
        else:
            self._unkeyed(holder, False)

    def _unkeyed(self, holder: list[Any], is_free: bool) -> None:
        document = holder[0]
        if isinstance(document, list):
            self._list(document, "", is_free)
        elif isinstance(document, str):
            self._string(holder, 0, document, "", is_free)
        elif isinstance(document, (int, float)):
            self._value(holder, 0, document, "", is_free)

    def request(self, holder: list[Any]) -> None:
        """Walk a whole request, the only member of ``holder``.

        The order decides the numbering, so what stays the same over a conversation comes first.

        Raises:
            TooDeep: Nested deeper than ``MAX_DEPTH``.
        """
        document = holder[0]
        if not isinstance(document, dict):
            self._unkeyed(holder, True)
            return
        if _TOP_KNOWN.issuperset(document):
            self._known(document)
            return
        for key in _TOP_ORDER:
            if key in document:
                value = document[key]
                self._value(document, key, value, "" if type(value) is str else key, False)
        for key, value in document.items():
            if key in _TOP_ORDER or value is None or value is True or value is False:
                continue
            is_free = key not in _TOP_KNOWN
            if is_free:
                self._key(document, key)
            self._value(document, key, value, key, is_free or key in _FREE)

    def _known(self, document: dict[str, Any]) -> None:
        """Walk a request all of whose members are of the protocol."""
        for key, label, is_read, is_numbered in fields.order_of(tuple(document)):
            value = document[key]
            kind = type(value)
            if kind is list and key == "messages":
                self._messages(value)
            elif kind is str:
                if is_read or len(value) >= _MIN_SECRET:
                    self._string(document, key, value, label, False)
            elif kind is float:
                if is_numbered or not -_MAX_EXACT < value < _MAX_EXACT:
                    self._value(document, key, value, key, False)
            elif is_numbered or kind not in _SCALARS:
                self._value(document, key, value, key, False)

    def _messages(self, messages: list[Any]) -> None:
        """Walk a conversation, most of which is messages of one role and one text."""
        path, known = self._path, self._remembered
        for at, message in enumerate(messages):
            text = message.get("content") if type(message) is dict and len(message) == 2 else None
            if type(text) is str and message.get("role") in _ROLES:
                findings = known.get(_KEY_OF(text))
                if findings is not None and not findings and findings.is_ordinary:
                    continue  # a text that came before, with nothing in it
                path += ("messages", at)
                self._string(message, "content", text, "content", False)
                path.pop()
            else:
                path.append("messages")
                self._value(messages, at, message, "messages", False)
            path.pop()

    def _value(self, parent: Any, key: Any, value: Any, label: str, is_free: bool) -> None:
        kind = type(value)
        if kind is str:
            self._string(parent, key, value, label, is_free)
        elif kind is dict or kind is list:
            path = self._path
            path.append(key)
            if len(path) > MAX_DEPTH:
                raise TooDeep
            if kind is dict:
                self._dict(value, is_free)
            else:
                self._list(value, label, is_free)
            path.pop()
        elif kind is int or kind is float:
            if kind is float and not -_MAX_EXACT < value < _MAX_EXACT:
                self.loses_digits = True
            if is_free or (label in _NUMBERED and type(parent) is dict):
                self._number(parent, key, value, label)

    def _dict(self, node: dict[str, Any], is_free: bool) -> None:
        part_type = node.get("type")
        # Of a schema it may be a list: ["string", "null"].
        if type(part_type) is str and part_type in _OPAQUE_TYPES and not is_free:
            self.unscanned_at.append(tuple(self._path))
        inner_free = is_free or part_type == "tool_use"
        for key, value in node.items():
            if len(key) > 4 and (is_free or key not in _MEMBERS) and (self._reads_words or _HAS_SIGN.search(key)):
                self._key(node, key)
            if type(value) is str:
                if value not in _ENUM_WORDS:
                    self._string(node, key, value, key, is_free)
            elif value is not None:
                self._value(node, key, value, key, is_free or key in _FREE or (inner_free and key == "input"))

    def _list(self, node: list[Any], label: str, is_free: bool) -> None:
        begun = len(self.sites)
        for at, item in enumerate(node):
            self._value(node, at, item, label, is_free)
        if len(node) > 1 and not is_free and label not in _ITEM_LISTS:
            self._split_values(node, begun)

    def _split_values(self, parts: list[Any], begun: int) -> None:
        """Find values that begin in one text part and go on in the next; sites from ``begun`` on are of this list."""
        known = {id(site.parent): site for site in self.sites[begun:] if site.key == "text" and not site.is_key}
        for found, pieces in self._kept_across(parts):
            sites = [
                known.get(id(parts[at])) or Site(parts[at], "text", parts[at]["text"], (*self._path, at, "text"), [])
                for at, _, _ in pieces
            ]
            if any(
                edit.start < end and start < edit.end and not (start <= edit.start and edit.end <= end)
                for site, (_, start, end) in zip(sites, pieces, strict=True)
                for edit in site.edits
            ):
                continue
            for nth, (site, (_, start, end)) in enumerate(zip(sites, pieces, strict=True)):
                # What looked like a value by itself was the half of one.
                site.edits[:] = [edit for edit in site.edits if edit.end <= start or end <= edit.start]
                site.edits.append(Edit(start, end, found.kind, found.value, is_rest=nth > 0))
                site.edits.sort()
                if id(site.parent) not in known:
                    known[id(site.parent)] = site
                    self.sites.append(site)

    def _kept_across(self, parts: list[Any]) -> Iterator[tuple[Edit, list[Piece]]]:
        for seam in seams(parts):
            for edit in self._found(seam.text, ""):
                pieces = seam.pieces(edit.start, edit.end)
                if len(pieces) > 1:
                    yield edit, pieces

    def _key(self, parent: dict[str, Any], key: str) -> None:
        edits = self._edits(key, "")
        if edits:
            self.sites.append(Site(parent, key, key, tuple(self._path), edits, is_key=True))
        if _may_be_tag(key):
            self.bracketed.append(key)

    def _number(self, parent: Any, key: Any, value: float, label: str) -> None:
        if value < _MIN_NUMBER or value > _MAX_NUMBER or value != int(value):
            return
        digits, text = str(int(value)), str(value)
        for edit in self._found(digits, "" if label in _CONTENT else label):
            if edit.start == 0 and edit.end == len(digits):
                whole = edit._replace(end=len(text), value=text)
                self.sites.append(Site(parent, key, text, (*self._path, key), [whole]))

    def _string(self, parent: Any, key: Any, text: str, label: str, is_free: bool) -> None:
        if label in _CONTENT or not label:
            findings = self._ordinary(text)
            if findings is not None:
                if findings:
                    self._note(parent, key, text, findings if self._takes_all else self._kept(text, findings))
                return
        if not is_free and label in NAMES and (label != "model" or not self._path) and is_name(label, text):
            if len(text) >= _MIN_SECRET:
                self._secret(parent, key, text)
            return
        if len(text) >= 64:
            if label in fields.OPAQUE and is_base64(text):
                self.unscanned_bytes += len(text)
                self.unscanned_at.append((*self._path, key))
                return
            if ";base64," in text:
                self._string_with_data(parent, key, text, label)
                return
        if _may_be_tag(text):
            self.bracketed.append(text)
        is_json, label = key == "arguments", "" if label in _CONTENT else label
        if is_json or text[:1] in JSON_STARTS or "\\u00" in text:
            edits = self._edits(text, label, is_json=is_json)
            if edits:
                self.sites.append(Site(parent, key, text, (*self._path, key), edits))
        else:
            self._note(parent, key, text, self._findings(text, label))

    def _ordinary(self, text: str) -> list[Finding] | None:
        """Return what is in an ordinary text; None when the text is none."""
        known = self._remembered.get(_KEY_OF(text))
        if known is not None and known.is_ordinary:
            return known
        if not is_ordinary(text):
            return None
        return self._detector.find(text) if self._memory is None else self._memory.find_ordinary(text)

    def _note(self, parent: Any, key: Any, text: str, findings: list[Finding]) -> None:
        """Note the findings of a text that is read as it is written, as most are."""
        if findings:
            self.sites.append(Site(parent, key, text, (*self._path, key), None, False, findings))

    def _secret(self, parent: Any, key: Any, text: str) -> None:
        """Note what only looks like an id or a word of the protocol, and is a secret from end to end."""
        edits = self._found(text, "")
        if len(edits) == 1 and (edits[0].start, edits[0].end) == (0, len(text)):
            self.sites.append(Site(parent, key, text, (*self._path, key), edits))

    def _string_with_data(self, parent: Any, key: Any, text: str, label: str) -> None:
        """Read a text without the data: URLs in it, which are counted."""
        readable, hidden_bytes = without_data(text)
        path = (*self._path, key)
        if hidden_bytes:
            self.unscanned_bytes += hidden_bytes
            self.unscanned_at.append(path)
        if _may_be_tag(readable):
            self.bracketed.append(readable)
        edits = self._edits(readable, "" if label in _CONTENT else label)
        if edits:
            self.sites.append(Site(parent, key, text, path, edits))

    def _edits(self, text: str, label: str, *, is_json: bool = False, level: int = 0) -> list[Edit]:
        if (
            text[:1] in JSON_STARTS
            and (is_json or len(text) <= _MAX_LEAFED or "\\u" in text or "\\/" in text)
            and is_json_text(text)
        ):
            if len(self._path) + level > MAX_DEPTH:
                raise TooDeep
            return self._leaf_edits(text, level + 1)
        is_escaped = "\\u00" in text and _UNICODE_ESCAPE.search(text) is not None
        edits = self._unescaped_edits(text, label) if is_escaped else self._found(text, label)
        return as_meant(text, edits, is_json=is_json) if edits and "\\" in text else edits

    def _unescaped_edits(self, text: str, label: str) -> list[Edit]:
        """Read a text with pieces of JSON in it (behind a heading, in a fence) as its escapes are meant."""
        pieces: list[str] = []
        offsets: list[int] = []
        at = 0
        for escape in _UNICODE_ESCAPE.finditer(text):
            pieces += (text[at : escape.start()], chr(int(escape[0][-2:], 16)))
            offsets += (*range(at, escape.start()), escape.start())
            at = escape.end()
        pieces.append(text[at:])
        offsets += range(at, len(text) + 1)
        return [
            edit._replace(
                start=offsets[edit.start], end=offsets[edit.end], value=text[offsets[edit.start] : offsets[edit.end]]
            )
            for edit in self._found("".join(pieces), label)
        ]

    def _leaf_edits(self, source: str, level: int) -> list[Edit]:
        """Return the findings of JSON source, with offsets into the source itself."""
        edits: list[Edit] = []
        for leaf in leaves(source):
            if leaf.is_number:
                edits += self._number_edits(leaf)
                continue
            if len(leaf.text) < 3 or leaf.text in fields.ENUM_WORDS:
                continue
            if leaf.is_key and not self._reads_words and not _HAS_SIGN.search(leaf.text):
                continue
            if "\\" in source and _may_be_tag(leaf.text):
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
            Edit(start, start + len(text), edit.kind, text, 0, True)
            for edit in self._found(text, leaf.label)
            if edit.start == 0 and edit.end == len(text)
        ]

    def _found(self, text: str, label: str) -> list[Edit]:
        return [_new(Edit, (f[0], f[1], f[2], text[f[0] : f[1]], 0, False, False)) for f in self._findings(text, label)]

    def _findings(self, text: str, label: str) -> list[Finding]:
        """Return what is in a text, without what the policy does not look for or allows, or a stand-in of ours."""
        readable = without_lone_surrogates(text)
        findings = self._detector.find_labelled(readable, label) if label else self._detector.find(readable)
        return findings if not findings or (self._takes_all and "[" not in text) else self._kept(text, findings)

    def _kept(self, text: str, findings: list[Finding]) -> list[Finding]:
        """Return the findings policy looks for and does not allow, and that are no stand-ins of ours."""
        has_brackets = "[" in text
        allows = None if self._allow.is_empty else self._allow.allows
        may_cover = allows is not None and self._allow.may_cover(text)
        plan = self._plan
        actions, default, min_score, scores = plan.actions, plan.default, plan.min_score, plan.scores
        kept: list[Finding] = []
        last_end = 0
        for found in findings:
            start, end, kind, score, _ = found
            if score < min_score if not scores else score < scores.get(kind, min_score):
                continue
            if start < last_end or actions.get(kind, default) is Action.OFF:
                continue
            if has_brackets and is_own_mark(text, start, end):
                continue
            if allows is not None and allows(kind, text, start, end, may_cover=may_cover):
                continue
            kept.append(found)
            last_end = end
        return kept


def is_protocol(name: str, text: str) -> bool:
    """Tell whether a string of an answer is a word, an id or bytes in disguise of the protocol, and nobody's prose."""
    if text in _ENUM_WORDS or (name in NAMES and is_name(name, text)):
        return True
    return len(text) >= 64 and name in fields.OPAQUE and is_base64(text)


def _may_be_tag(text: str) -> bool:
    return "[" in text or "\uff3b" in text or "\\u" in text
