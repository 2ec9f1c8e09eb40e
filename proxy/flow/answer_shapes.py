"""Answer heads known from answers before: compared as they stand, with only their changing values looked at.

Owns a few shapes per provider. A provider's answers carry the same lines in the same order, and few of their values
change; such a head is taken apart once, and after that recognised by its bytes. Knows no connection: a head that has
another shape is read in the ordinary way, with the same result.
"""

from __future__ import annotations

import re
from operator import itemgetter
from struct import Struct
from typing import Final

from proxy.core.budget.announced import nearness
from proxy.flow.headers import PASSED
from proxy.terms.http import AnswerHead, Crossing

_bare: Final = object.__new__
_MAX_SHAPES: Final = 8
_MAX_SEEN: Final = 32
"""Heads that were met once; a shape is made when another of the same kind is met."""
_MAX_LINES: Final = 64
_NAME: Final = re.compile(rb"([!-9;-~]+):[ \t]*")
_REASON: Final = re.compile(rb"[\t -~\x80-\xff]*")
_DECIDING: Final = frozenset({b"content-type", b"content-encoding", b"connection", b"transfer-encoding"})
"""Lines whose value makes another kind of head, not another value."""
_NEVER_WHOLE: Final = frozenset({b"upgrade", b"proxy-connection"})
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close", b""})

Kind = tuple[bytes, ...]
"""The status line, the beginning of each line up to its value, and the whole of a deciding one."""


class AnswerShape:
    """Heads of one kind, some of whose values change."""

    __slots__ = (
        "_head",
        "_length_at",
        "_may_be_near",
        "_start",
        "_stretches",
        "_take",
        "_taken_bytes",
        "can_be_whole",
        "kept",
        "rows",
        "varies",
    )

    def __init__(self, head: AnswerHead, kind: Kind, rows: list[bytes], varies: list[bool]) -> None:
        """Take a head of this kind: as it was read, line by line, and which of the lines change."""
        self._head = head
        self._start = len(rows[0])
        self.rows, self.varies = rows, varies
        stretches = [rows[0]]
        names = [row.partition(b":")[0].lower() for row in rows[1:]]
        changing = [name for name, changes in zip(names, varies[1:], strict=True) if changes]
        for begin, row, changes in zip(kind[1:], rows[1:], varies[1:], strict=True):
            stretches[-1] += b"\r\n" + (begin if changes else row)
            if changes:
                stretches.append(b"")
        stretches[-1] += b"\r\n\r\n"
        self._stretches = tuple(stretches)
        """What never changes: before, between and behind the values that do."""
        sizes = [len(row) - len(begin) for begin, row in zip(kind, rows, strict=True)]
        self._expect(tuple(size for size, changes in zip(sizes, varies, strict=True) if changes))
        limits = nearness(_values(rows[1:], varies[1:]))
        self._may_be_near = None if limits is None else limits.may_be
        self._length_at = changing.index(b"content-length") if b"content-length" in changing else None
        self.can_be_whole = (
            rows[0].startswith(b"HTTP/1.1 ")
            and 200 <= head.status < 300
            and head.status != 204
            and head.telling.get(b"transfer-encoding") == (b"chunked" if self._length_at is None else None)
            and head.content_type == b"application/json"
            and head.telling.get(b"connection", b"keep-alive") == b"keep-alive"
            and _NEVER_WHOLE.isdisjoint(names)
        )
        """An answer of this kind that came in one piece needs no parser."""
        self.kept = [
            _crossing(kind[1:], rows[1:], varies[1:], [keeps[name] for name in names]) for keeps in PASSED.values()
        ]

    def _expect(self, sizes: tuple[int, ...]) -> None:
        """Look for values of these lengths first: most are as long as the last ones were."""
        lengths = [f"{len(stretch)}s" for stretch in self._stretches]
        for at, size in enumerate(sizes):
            lengths[at] += f"{size}s"
        form = Struct("".join(lengths))
        self._take, self._taken_bytes = form.unpack_from, form.size

    def read(self, data: bytes) -> tuple[AnswerHead, int] | None:
        """Return the head that ``data`` begins with and where its body begins; None when it is of another shape."""
        if len(data) < self._taken_bytes or (pieces := self._take(data))[::2] != self._stretches:
            sizes = self._sizes(data)
            if sizes is None:
                return None
            self._expect(sizes)
            pieces = self._take(data)
        values: tuple[bytes, ...] = pieces[1::2]
        length_at = self._length_at
        length = None if length_at is None else values[length_at]
        if length is not None and not length.isdigit():
            return None
        if (len(values) > 1 or length is None) and not _are_plain(values):
            return None
        known, end = self._head, self._taken_bytes
        # Filled in place, because calling the class costs as much as the rest.
        head = _bare(AnswerHead)
        head.status = known.status
        head.reason = known.reason
        head.lines = data[self._start : end - 4]
        head.telling = known.telling
        head.content_type = known.content_type
        head.length = length
        head.has_request_id = known.has_request_id
        head.values = values
        head.kept = self.kept
        head.may_be_near = self._may_be_near
        head._fields = None
        return head, end

    def _sizes(self, data: bytes) -> tuple[int, ...] | None:
        """Return how long each value is in a head of this shape, or None when it is of another."""
        at, sizes = 0, []
        for stretch in self._stretches[:-1]:
            if not data.startswith(stretch, at):
                return None
            start = at + len(stretch)
            at = data.find(b"\r", start)
            sizes.append(at - start)
        return tuple(sizes) if data.startswith(self._stretches[-1], at) else None


def _are_plain(values: tuple[bytes, ...]) -> bool:
    """True for values that every parser takes as they are, whoever has or has not judged them."""
    joined = b"".join(values)
    if not joined.isascii() or not joined.decode("ascii").isprintable():
        return False
    # Space at the end belongs to the line and not to the value: see AnswerHead.
    return b"" not in values and tuple(map(bytes.rstrip, values)) == values


def _only_chunk(data: bytes, at: int) -> bytes | None:
    """Return the body of an answer that came as one chunk, or None when it is anything else that a parser may read."""
    start = data.find(b"\r\n", at, at + 10) + 2
    size = len(data) - start - len(_LAST_CHUNK)
    if start < 2 or size <= 0 or data[at : start - 2].lower() != b"%x" % size or not data.endswith(_LAST_CHUNK):
        return None
    return data[start : start + size]


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

    __slots__ = ("_known", "_seen", "_shapes", "_whole")

    def __init__(self) -> None:
        self._shapes: list[AnswerShape] = []
        self._known: dict[Kind, AnswerShape] = {}
        self._seen: dict[Kind, list[bytes]] = {}
        self._whole: AnswerShape | None = None
        """The shape of the last answer that came in one piece."""

    def whole(self, data: bytes) -> tuple[AnswerHead, bytes] | None:
        """Return head and body of an answer that came in one piece, or None: a parser has to look at it.

        Whatever is returned here a strict parser reads in the same way, and no byte is left over.
        """
        shape = self._whole
        found = None if shape is None else shape.read(data)
        if found is None:
            found = self._read_otherwise(data)
            if found is None:
                return None
        head, start = found
        if head.length is None:
            body = _only_chunk(data, start)
            return None if body is None else (head, body)
        # What is no plain number as we would write it is the parser's to read.
        return (head, data[start:]) if head.length == b"%d" % (len(data) - start) else None

    def _read_otherwise(self, data: bytes) -> tuple[AnswerHead, int] | None:
        for shape in self._shapes:
            if shape.can_be_whole and shape is not self._whole:
                found = shape.read(data)
                if found is not None:
                    self._whole = shape
                    return found
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
        # The parser lets control characters through here, and the reason is copied into our own status line.
        reason = raw[13:first] if _REASON.fullmatch(raw, 13, first) else b""
        head = AnswerHead(status, reason, raw[first:-4])
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
                self._whole = None
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
    """Return the kind of a head, or None when it is not worth remembering, or of lines that only count together."""
    kind, lengths, connections = [rows[0]], 0, 0
    for row in rows[1:]:
        named = _NAME.match(row)
        if named is None or row.endswith((b" ", b"\t")):
            return None
        lengths += _is_length(row)
        connections += row[:11].lower() == b"connection:"
        kind.append(row if named[1].lower() in _DECIDING else named[0])
    return tuple(kind) if lengths <= 1 >= connections else None
