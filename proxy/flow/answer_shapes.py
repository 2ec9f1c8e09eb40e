"""Answer heads known from answers before: compared as they stand, with only their changing values looked at.

Owns a few shapes per provider. A provider's answers carry the same lines in the same order, and few of their values
change; such a head is taken apart once, and after that recognised by its bytes. Knows no connection: a head that has
another shape is read in the ordinary way, with the same result.
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Final

from proxy.core.budget.announced import nearness
from proxy.flow.headers import PASSED
from proxy.terms.http import AnswerHead, Crossing

_MAX_SHAPES: Final = 8
_MAX_SEEN: Final = 32
"""Heads that were met once; a shape is made when another of the same kind is met."""
_MAX_LINES: Final = 64
_MAX_LENGTH_DIGITS: Final = 9
_NAME: Final = re.compile(rb"([!-9;-~]+):[ \t]*")
_DECIDING: Final = frozenset({b"content-type", b"content-encoding", b"connection", b"transfer-encoding"})
"""Lines whose value makes another kind of head, not another value."""
_NEVER_WHOLE: Final = frozenset({b"transfer-encoding", b"upgrade", b"proxy-connection"})
_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close", b""})
_SPACE: Final = 0x20

Kind = tuple[bytes, ...]
"""The status line, the beginning of each line up to its value, and the whole of a deciding one."""


class AnswerShape:
    """Heads of one kind, some of whose values change."""

    __slots__ = ("_head", "_last", "_length_at", "_may_be_near", "_start", "_stretches", "can_be_whole", "kept", "rows", "varies")  # fmt: skip

    def __init__(self, head: AnswerHead, kind: Kind, rows: list[bytes], varies: list[bool]) -> None:
        """Take a head of this kind: as it was read, line by line, and which of the lines change."""
        self._head = head
        self._start = len(rows[0])
        self.rows, self.varies = rows, varies
        self._stretches: list[tuple[bytes, int]] = []
        """What stands before each changing value, and its length."""
        stretch = rows[0]
        names = [row.partition(b":")[0].lower() for row in rows[1:]]
        changing = [name for name, changes in zip(names, varies[1:], strict=True) if changes]
        for begin, row, changes in zip(kind[1:], rows[1:], varies[1:], strict=True):
            stretch += b"\r\n" + (begin if changes else row)
            if changes:
                self._stretches.append((stretch, len(stretch)))
                stretch = b""
        self._last = stretch + b"\r\n\r\n"
        limits = nearness(_values(rows[1:], varies[1:]))
        self._may_be_near = None if limits is None else limits.may_be
        self._length_at = changing.index(b"content-length") if b"content-length" in changing else None
        self.can_be_whole = (
            rows[0].startswith(b"HTTP/1.1 ")
            and 200 <= head.status < 300
            and head.status != 204
            and self._length_at is not None
            and head.content_type == b"application/json"
            and head.telling.get(b"connection", b"keep-alive") == b"keep-alive"
            and _NEVER_WHOLE.isdisjoint(names)
        )
        """An answer of this kind that came in one piece needs no parser."""
        self.kept = [
            _crossing(kind[1:], rows[1:], varies[1:], [keeps[name] for name in names]) for keeps in PASSED.values()
        ]

    def read(self, data: bytes) -> tuple[AnswerHead, int] | None:
        """Return the head that ``data`` begins with and where its body begins; None when it is of another shape."""
        at = 0
        values: list[bytes] = []
        for stretch, size in self._stretches:
            if not data.startswith(stretch, at):
                return None
            start = at + size
            at = data.find(b"\r", start)
            if data[at - 1] == _SPACE:
                return None  # no part of the value, but of the line: see AnswerHead
            values.append(data[start:at])
        if not data.startswith(self._last, at):
            return None
        length = None
        if self._length_at is not None:
            length = values[self._length_at]
            if not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS:
                return None
        if len(values) > 1 or length is None:
            # Nobody may have judged these bytes: only what every parser lets through.
            joined = b"".join(values)
            if not joined.isascii() or not joined.decode("ascii").isprintable():
                return None
        known = self._head
        end = at + len(self._last)
        lines = data[self._start : end - 4]
        head = AnswerHead(
            known.status,
            known.reason,
            lines,
            known.telling,
            known.content_type,
            length,
            known.has_request_id,
            values,
            self.kept,
            self._may_be_near,
        )
        return head, end


def _values(rows: list[bytes], varies: list[bool]) -> list[tuple[bytes, bytes, int | None]]:
    """Return each line's name and value, and the place of the value among those that change."""
    found: list[tuple[bytes, bytes, int | None]] = []
    place = 0
    for row, changes in zip(rows, varies, strict=True):
        name, _, value = row.partition(b":")
        found.append((name, value.strip(), place if changes else None))
        place += changes
    return found


def _crossing(kind: Kind, rows: list[bytes], varies: list[bool], passes: list[bool]) -> Crossing:
    """Return the lines that cross, each with its CRLF and with gaps for the values that change."""
    text, place = b"", 0
    places: list[int] = []
    for begin, row, changes, crosses in zip(kind, rows, varies, passes, strict=True):
        if crosses:
            text += begin.replace(b"%", b"%%") + b"%b\r\n" if changes else row.replace(b"%", b"%%") + b"\r\n"
            if changes:
                places.append(place)
        place += changes
    return (text, itemgetter(*places)) if places else (text % (), None)


class AnswerShapes:
    """The shapes of one provider's answers, the one that fitted last in front."""

    __slots__ = ("_known", "_seen", "_shapes")

    def __init__(self) -> None:
        self._shapes: list[AnswerShape] = []
        self._known: dict[Kind, AnswerShape] = {}
        self._seen: dict[Kind, list[bytes]] = {}

    def whole(self, data: bytes) -> tuple[AnswerHead, bytes] | None:
        """Return head and body of an answer that came in one piece, or None: a parser has to look at it.

        Whatever is returned here a strict parser reads in the same way, and no byte is left over.
        """
        for at, shape in enumerate(self._shapes):
            if shape.can_be_whole:
                found = shape.read(data)
                if found is not None:
                    if at:
                        self._shapes.insert(0, self._shapes.pop(at))
                    head, start = found
                    assert head.length is not None
                    return (head, data[start:]) if len(data) - start == int(head.length) else None
        return None

    def head(self, status: int, raw: bytes) -> AnswerHead:
        """Read a head that a parser has accepted, from its status line to its blank line."""
        for at, shape in enumerate(self._shapes):
            found = shape.read(raw)
            if found is not None:
                if at:
                    self._shapes.insert(0, self._shapes.pop(at))
                return found[0]
        first = raw.find(b"\r\n")
        head = AnswerHead(status, raw[13:first], raw[first:-4])
        self._learn(head, raw[:-4])
        return head

    def _learn(self, head: AnswerHead, block: bytes) -> None:
        rows = block.split(b"\r\n")
        kind = _kind(rows) if len(rows) <= _MAX_LINES and block.count(b"\n") == len(rows) - 1 else None
        if kind is None or head.telling.get(b"connection", b"") not in _PLAIN_CONNECTION:
            return
        shape = self._known.get(kind)
        if shape is not None:
            varies = [was or old != new for was, old, new in zip(shape.varies, shape.rows, rows, strict=True)]
            if varies != shape.varies:
                self._shapes.remove(shape)
                self._add(AnswerShape(head, kind, rows, varies), kind)
        elif len(self._shapes) < _MAX_SHAPES:
            seen = self._seen.pop(kind, None)
            if seen is not None:
                changes = [old != new or _is_length(new) for old, new in zip(seen, rows, strict=True)]
                self._add(AnswerShape(head, kind, rows, changes), kind)
                return
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen[kind] = rows

    def _add(self, shape: AnswerShape, kind: Kind) -> None:
        self._known[kind] = shape
        self._shapes.insert(0, shape)


def _is_length(row: bytes) -> bool:
    return row[:15].lower() == b"content-length:"


def _kind(rows: list[bytes]) -> Kind | None:
    """Return the kind of a head, or None when it is not worth remembering."""
    kind, lengths = [rows[0]], 0
    for row in rows[1:]:
        named = _NAME.match(row)
        if named is None or row.endswith((b" ", b"\t")):
            return None
        lengths += _is_length(row)
        kind.append(row if named[1].lower() in _DECIDING else named[0])
    return tuple(kind) if lengths <= 1 else None
