"""What the handlers of one search share: the text in both forms, what was found, and how to look around.

Owns the findings of one search. Knows no family.
"""

from __future__ import annotations

import re
from bisect import bisect_left

from proxy.core.redaction.detect.labels import NEGATIVE_ALONE, Label, LabelIndex
from proxy.core.redaction.detect.tables.tongues import LIST_WORDS
from proxy.terms.redaction import Finding

STRONG, SOFT, LABELLED, WEAK = 0.95, 0.85, 0.9, 0.7
"""Confidence of a finding: shape and check; bare digits and check; label and check; label alone."""

NEAR = 12
"""So close a label is taken at its word: what has the form of its kind is reported although a check digit is wrong."""

_new = tuple.__new__  # makes a named tuple in half the time of its own constructor
_IS_WORD = bytes(1 if chr(c).isalnum() or c == 0x5F else 0 for c in range(128)) + bytes(128)
_ANOTHER_KEY = re.compile(rb"[:=,;{][^:=]{0,40}?([A-Za-z_]{2,})[\"'\\)\]]{0,4}[ \t]?[:=]")
_SAYS_NOTHING = re.compile(
    rb"(?i)(?:.*_)?(?:value|val|values|string|str|text|number|num|no|nr|int|integer|long|content|data|answer|response|raw|plain"
    rb"|valor|wert|valeur|valore|waarde|numero|nummer)|(?:doc|document|id|documento)_?(?:number|no|num|nr|value)"
)
"""Keys that stand between a label and its value and name nothing themselves: ``"type": "cpf", "value": ...``, ``cpf: str = ...``."""
_ANSWERED = re.compile(
    rb"[^\n:=]{0,16}\?[^\n:=]{0,12}\r?\n(?:[\[(]?[0-9:./, \-]{4,20}[\])]?[ \-]{0,3})?[^\n:=0-9]{1,24}:[ \t]{0,2}(?:[A-Za-z\xc0-\xff',]{1,8} ){0,3}"
)
"""A question that names a value, answered by the next speaker: ``your date of birth?``, line break, ``[09:13] Sam: ``."""
_ATTRIBUTES = re.compile(
    rb"[\w.\-]{0,24}(?:\s{1,8}[A-Za-z][\w:.\-]{0,30}=\\{0,3}(?:\"[^\"<>]{0,60}\"|'[^'<>]{0,60}'))+\s*/?>"
)
"""The rest of a tag whose name is the label: ``<ns:pis xsi:type="xsd:string">``."""
_ID_KEY = re.compile(rb"\\{0,3}[\"'], ?\\{0,3}[\"'](?:id|identifier|identificador)\\{0,3}[\"'] ?: ?\\{0,3}[\"']?")
"""What stands between the name of a document and its number: ``{"type": "PIS", "id": "…"}``."""
_KEY_TAIL = re.compile(rb"[\w\-]{0,24}[\\\"']{0,4}")
_VALUE_KEY = re.compile(rb".{0,8}[\"'], ?\\?[\"']valor\\?[\"'] ?: ?\\?[\"']?", re.DOTALL)
"""A key that names an amount, and here the value of what the key before it says: ``"campo": "cns", "valor": "…"``."""
_LIST_GAP = re.compile(
    rb" ?/ ?|,? (?:e|and|y|et|und|ou|or|o|oder|en|of|och|og|&|ve|veya|dan|atau|es|vagy|si|sau|i|lub|a|nebo|hoac) |[\"'],\s{0,4}[\"']"
)
_OPEN_LIST = re.compile(rb"(?:[:=] ?\[|(?i:\bin) ?\()\s{0,4}[\"'][^\[\]]*\Z")
_MAX_LIST_GAP = 10
_LIST_CHARS = 160
_OF_VCARD = re.compile(
    rb"(?i)(?:[;,](?:type=|value=)?\"?(?:voice|cell|work|home|fax|mobile|pref(?:=[0-9])?|msg|text|main|uri|internet|x-[a-z]{2,12})\"?){1,5}:"
)
"""What a business card says of a number before it: ``TEL;TYPE=CELL,VOICE:``."""
_IS_EMPHASIS_BEFORE = re.compile(rb"(?:\A|[^A-Za-z0-9_])__?\Z")
_IS_EMPHASIS_AFTER = re.compile(rb"__?(?![A-Za-z0-9_])")
"""Underscores with which Markdown sets off a word: they are no part of it."""
_UNDER_HEADING = b" \t\r\n:*#_|>=-"
_VALUE_BETWEEN = re.compile(rb"[0-9]{4}")
_ESCAPED = frozenset(b"nrtbf")


Item = tuple[int, int, int, Finding]
"""Priority, length below zero and start of a finding, and itself: in the order in which overlaps are settled."""


class Context:
    """One search over one text."""

    __slots__ = ("_labels", "barren", "birth", "data", "found", "header", "local", "orphans", "size", "text")

    def __init__(
        self, text: str, data: bytes, labels: LabelIndex, local: bool = False, is_foreign: bool = False
    ) -> None:  # by position: one is made for every text with a candidate
        self.text = text
        self.data = data
        self.size = len(data)
        self.found: list[Item] = []
        self.birth = is_foreign
        """True once a word of birth was seen (or may hide in another script): dates are looked at only then."""
        self.orphans = False
        """True once something looked like a value but for a label: a header row may have it."""
        self.local = local
        self.barren = 0
        """Up to here a run was judged to be no token; token words inside it announce nothing."""
        self.header = False
        """True once the name of a secret stood where a column's header stands."""
        self._labels = labels

    def add(self, start: int, end: int, kind: str, priority: int, score: float, sub: str = "") -> None:
        """Note a finding; overlaps are settled when the scan is over."""
        self.found.append((priority, start - end, start, _new(Finding, (start, end, kind, score, sub))))

    def label(self, start: int) -> Label | None:
        """Return the nearest label before ``start``, if it may belong to the value there."""
        found = self._labels.before(self.text, self.data, start)
        if found is None or not found.distance:
            return found
        gap = found.gap
        if found.kinds == NEGATIVE_ALONE and _VALUE_KEY.fullmatch(self.data, max(0, start - found.distance - 9), start):
            stop = self.data.rfind(b",", 0, start)
            named = self._labels.before(self.text, self.data, stop)
            return named if named is not None and _KEY_TAIL.fullmatch(named.gap) else found
        if gap[-1:] == b">" and _ATTRIBUTES.fullmatch(gap):
            return Label(found.kinds, 1, b">")
        if _joins(gap):
            return found
        is_typed = gap[-6:].find(b":") >= 0 and _ID_KEY.fullmatch(gap) is not None and "PHONE" not in found.kinds
        return found if is_typed else None

    def listed(self, start: int) -> Label | None:
        """Return a label where the value at ``start`` is one more of a list whose value before was found: "phones: A / B"."""
        if self.local or not self.found:
            return None
        last = self.found[-1][3]
        if not 0 < start - last.end < _MAX_LIST_GAP:
            return None
        gap = self.data[last.end : start]
        if gap.find(b"?") >= 0 and self.text[last.end : start].strip() in LIST_WORDS:
            return Label(frozenset((last.kind,)), 1, b" ")
        if _LIST_GAP.fullmatch(gap) is None:
            return None
        if gap.find(b",", 0, 2) > 0 and _OPEN_LIST.search(self.data, max(0, start - _LIST_CHARS), start) is None:
            return None  # a row of a table, perhaps
        return Label(frozenset((last.kind,)), 1, b" ")

    def is_called(self, start: int, kind: str) -> bool:
        """True when the nearest label before ``start`` names the kind."""
        label = self.label(start)
        return label is not None and kind in label.kinds

    def label_after(self, end: int) -> Label | None:
        """Return the label right after a value; never asked when a stream is searched, which may not wait for it."""
        return None if self.local else self._labels.after(self.text, self.data, end)

    def is_glued_left(self, start: int) -> bool:
        """True when a letter, digit or underscore stands right before, other than the tail of a written-out escape."""
        if not start:
            return False
        before = self.data[start - 1]
        if not _is_word(before):
            return False
        if before == 0x5F:
            return not _IS_EMPHASIS_BEFORE.search(self.data, max(0, start - 3), start)
        return not (before in _ESCAPED and start > 1 and self.data[start - 2] == 0x5C)

    def is_glued_right(self, end: int) -> bool:
        """True when a letter, digit or underscore stands right after."""
        if end >= self.size or not _is_word(self.data[end]):
            return False
        return self.data[end] != 0x5F or _IS_EMPHASIS_AFTER.match(self.data, end) is None


def _is_word(char: int) -> bool:
    return bool(_IS_WORD[char])


def _joins(gap: bytes) -> bool:
    """True when the text between a label and a value leaves no other value or key in between."""
    if len(gap) < 4 and gap[:2] != b"\n\n":
        return True
    if _ANSWERED.fullmatch(gap) or (gap[:1] in (b";", b",") and _OF_VCARD.fullmatch(gap)):
        return True
    for key in _ANOTHER_KEY.finditer(gap):
        if not _SAYS_NOTHING.fullmatch(key[1]):
            return False
    if _VALUE_BETWEEN.search(gap) or len(gap) - len(gap.translate(None, b"0123456789")) > 6:
        return False
    return gap.find(b"\n\n") < 0 or not gap.strip(_UNDER_HEADING)


def resolve(found: list[Item]) -> list[Finding]:
    """Return disjoint findings in order: on overlap lower priority number, then longer, then earlier wins."""
    if len(found) == 1:
        return [found[0][3]]
    reach = -1
    for _, _, start, finding in found:
        if start < reach:
            break
        reach = finding[1]
    else:  # in order and disjoint, as nearly always
        return [item[3] for item in found]
    kept: list[Finding] = []
    taken: list[Finding] = []
    found.sort(key=lambda item: item[2])
    clusters: list[list[Item]] = []
    reach = -1
    for item in found:
        if item[2] < reach:
            clusters[-1].append(item)
        else:
            clusters.append([item])
        reach = max(reach, item[3].end)
    for cluster in clusters:
        if len(cluster) == 1:
            kept.append(cluster[0][3])
            continue
        taken.clear()
        for item in sorted(cluster):
            finding = item[3]
            at = bisect_left(taken, finding)  # disjoint and in order, so only the neighbours can overlap
            if (at == 0 or taken[at - 1].end <= finding.start) and (at == len(taken) or finding.end <= taken[at].start):
                taken.insert(at, finding)
        kept.extend(taken)
    return kept
