"""The gate: can any string of this JSON body hold a finding at all? Asked of raw bytes, before anything is parsed.

Owns the undoing of JSON escapes in place, so that every string of the body stands in the bytes as its reader would see
it, between quotes. What is found there is a superset of what can be found in the strings one by one: no family crosses
a quote. Knows no JSON beyond escapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from proxy.core.redaction.detect.context import Context
from proxy.core.redaction.detect.engine import compile_search
from proxy.core.redaction.detect.fold import has_other_letters, plain_view, to_bytes
from proxy.core.redaction.detect.labels import Label, LabelIndex

_HEX_ESCAPE = re.compile(rb"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})")
"""Two halves of one character beyond the first plane, or one character."""
_MAX_HEX_ESCAPES = 2000
_MAX_DEPTH = 4
_INSERT = re.compile(rb"(?i)\binsert\s+into\b")
_MARKED_HEADER = re.compile(rb"<(?:th|TH)\b")
_DELIMITERS = b",;\t|"
TOKENS_KEY = b'_tokens"'
"""The end of keys of almost every request that hold the word of a label and announce nothing; they would be weighed each time."""
HIDING = (
    rb";base64,",
    rb'"(?:document|encrypted_content|file|file_data|b64_json|image|image_url|input_audio|input_file|input_image)"',
)
"""Marks of what cannot be read in a request, of the shapes known."""
_ESCAPED = rb"[\\%]"
"""What may stand for something else than itself."""
_OTHER_SCRIPTS = bytes((*range(0xC4, 0xE2), *range(0xE3, 0xF0)))
"""First bytes in UTF-8 of most letters beyond Latin-1."""
_MAX_FOLDED_BYTES = 32 << 10
"""A larger body with rare characters is read once, by the gate, rather than perhaps twice."""
_LIMIT_KEYS = (b'"max_tokens"', b'"max_completion_tokens"', b'"max_output_tokens"')
_EVERYDAY_ESCAPES = ((b"\\n", b"\n"), (b'\\"', b'"'), (b"\\t", b"\t"), (b"\\r", b"\r"))
_SIMPLE_ESCAPES = (*_EVERYDAY_ESCAPES, (b"\\/", b"/"), (b"\\b", b" "), (b"\\f", b" "))


class GateContext(Context):
    """A search that only wants to know whether something could be there.

    Where the verdict would depend on a label it is put off: any label in the whole body will do.
    """

    __slots__ = ("fired", "wants_label")

    def __init__(self, text: str, data: bytes, labels: LabelIndex) -> None:
        super().__init__(text, data, labels, False, has_other_letters(text, data))
        self.fired = False
        self.wants_label = False

    def add(self, start: int, end: int, kind: str, priority: int, score: float, sub: str = "") -> None:
        """Note that something was found; what and where do not matter."""
        self.fired = True

    def label(self, start: int) -> Label | None:
        """Note that a label would be asked for."""
        self.wants_label = True
        return None

    def is_called(self, start: int, kind: str) -> bool:
        """Open at once: labels of such values ("from", "host") are words of every other sentence, and not looked for."""
        self.fired = True
        return False

    def label_after(self, end: int) -> Label | None:
        """Note that a label would be asked for."""
        self.wants_label = True
        return None

    def has_label(self) -> bool:
        """Tell whether a label of any kind stands anywhere in the body."""
        return self._labels.any_in(self.text, self.data)


def without_limits(raw: bytes) -> bytes:
    """Take the names of token limits out of a body: they announce nothing."""
    for key in _LIMIT_KEYS if TOKENS_KEY in raw else ():
        raw = raw.replace(key, b'"_"')
    return raw


def compile_silence(signs: tuple[bytes, ...], engine: str) -> Callable[[bytes], bool]:
    """Return a test that is True only of bodies in plain words which hold none of the signs, nor of ``HIDING``.

    One search tells so of most bodies, over an automaton that has fewer states than the one that finds the values
    themselves; False says nothing.

    Args:
        signs: Patterns one of which matches somewhere in whatever the families could find.
        engine: Of the automaton.
    """
    search = compile_search((*signs, *HIDING, _ESCAPED, *_LIMIT_KEYS), engine)
    limit_keys = frozenset(_LIMIT_KEYS)

    def is_silent(raw: bytes) -> bool:
        if not raw.isascii() or raw.find(b"\\") >= 0:
            read = _read_simply(raw)
            return read is not None and search(read, 0)[0] < 0
        start, end = search(raw, 0)
        while start >= 0 and raw[start:end] in limit_keys:
            quote = end - 1  # which something else may begin with, but for a second name
            start, end = search(raw, quote)
            if start == quote:
                return False
        return start < 0

    return is_silent


def _read_simply(raw: bytes) -> bytes | None:
    """Return a body as it is read, one byte a character, where that takes no more than the escapes of every letter."""
    if raw.find(b"\\\\") >= 0:
        return None
    raw = without_limits(raw)
    for escape, char in _EVERYDAY_ESCAPES:
        if raw.find(b"\\") < 0:
            break
        raw = raw.replace(escape, char)
    if raw.isascii():
        return raw
    try:
        data = raw.decode().encode("latin-1")
    except UnicodeError:
        if len(raw) > _MAX_FOLDED_BYTES or len(raw.translate(None, _OTHER_SCRIPTS)) < len(raw):
            return None
        text, data = _fold(raw)
        return None if has_other_letters(text, data) else data
    return None if data.find(b"\xad") >= 0 else data  # a soft hyphen is not read


def unescape(raw: bytes) -> bytes | None:
    """Return the body with one level of JSON escapes undone, or None when there are too many to be worth it."""
    if raw.count(b"\\u") > _MAX_HEX_ESCAPES:
        return None
    parts = raw.split(b"\\\\")
    for i, part in enumerate(parts):
        if part.find(b"\\u") >= 0:
            part = _HEX_ESCAPE.sub(_character, part)
        for escape, char in _SIMPLE_ESCAPES if b"\\" in part else ():
            part = part.replace(escape, char)
        parts[i] = part
    return b"\\".join(parts)


def _character(found: re.Match[bytes]) -> bytes:
    if found[3]:
        return chr(int(found[3], 16)).encode("utf-8", "surrogatepass")
    high, low = int(found[1], 16) - 0xD800, int(found[2], 16) - 0xDC00
    return chr(0x10000 + (high << 10) + low).encode()


def _fold(body: bytes) -> tuple[str, bytes]:
    """Return the body as text and as bytes of one character each; the text is left out when it is the same."""
    if body.isascii() and body.find(b"%") < 0 and body.find(b"\\") < 0:
        return "", body
    text = body.decode("utf-8", "replace")
    view = plain_view(text)
    text = view[0] if view else text
    return text, to_bytes(text)


def may_contain(raw: bytes, labels: LabelIndex, walk: Callable[[GateContext], None]) -> bool:
    """Return False only when no string of the body can hold a finding.

    Args:
        raw: The body, JSON in UTF-8, after ``without_limits``.
        labels: Where a label is needed, one of these must stand somewhere in the body.
        walk: Runs the families over a context until one has fired.
    """
    for _ in range(_MAX_DEPTH):  # strings inside strings: arguments of tool calls are JSON once more
        if raw.find(b"\\") < 0:
            return _opens(raw, labels, walk)
        body = unescape(raw)
        if body is None or _opens(body, labels, walk):
            return True
        if body == raw or body.find(b"\\") < 0:
            return False
        raw = body
    return True


def _opens(body: bytes, labels: LabelIndex, walk: Callable[[GateContext], None]) -> bool:
    text, data = _fold(body)
    ctx = GateContext(text, data, labels)
    walk(ctx)
    return is_open(ctx)


def _has_table(data: bytes) -> bool:
    """True when two lines that follow each other both hold a delimiter, or values are inserted, or cells marked up."""
    if _INSERT.search(data) is not None or _MARKED_HEADER.search(data) is not None:
        return True
    is_row = False
    for line in data.split(b"\n") if b"\n" in data else ():
        was_row, is_row = is_row, len(line.translate(None, _DELIMITERS)) < len(line)
        if was_row and is_row:
            return True
    return False


def is_open(ctx: GateContext) -> bool:
    """Judge a body whose families have all been asked."""
    if ctx.fired:
        return True
    if ctx.header and _has_table(ctx.data):
        return True
    return ctx.wants_label and ctx.has_label()
