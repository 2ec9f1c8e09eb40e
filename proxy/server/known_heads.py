"""Heads that a connection has sent before: recognised by their bytes instead of being parsed again.

SDKs send the same head with every request of a connection but for the length of the body. Owns the
comparison; a head comes in only after the strict parser and the gate have accepted these very bytes, and it
matches only when every byte but the digits of Content-Length is the same. Knows no connection.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.terms.http import RequestHead

MAX_HEAD_BYTES: Final = 8 * 1024
_MAX_DIGITS: Final = 10
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,9})\r\n")


class KnownHead:
    """One accepted head of a connection, cut at the digits of its Content-Length."""

    __slots__ = ("_after", "_before", "_end", "_from", "_size", "head")

    def __init__(self, before: bytes, after: bytes, head: RequestHead) -> None:
        self._before = before
        self._after = after
        self._size = len(after)
        self._from = self._end = len(before)
        """Where the digits begin, and where they ended last: most lengths have as many digits as the one before."""
        self.head = head

    def match(self, data: bytes) -> tuple[int, int] | None:
        """Return (offset of the body, its length) when ``data`` begins with this head, whatever its length says."""
        start, end = self._from, self._end
        if data[:start] != self._before:
            return None
        if data[end : end + self._size] != self._after:
            end = data.find(b"\r", start, start + _MAX_DIGITS + 1)
            if end < 0 or not data.startswith(self._after, end):
                return None
            self._end = end
        digits = data[start:end]
        return (end + self._size, int(digits)) if digits.isdigit() else None


def learn(data: bytes, head: RequestHead) -> KnownHead | None:
    """Return the known head for bytes that began with ``head``, or None when this kind is not worth remembering."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
    if end < 0 or head.content_length is None or head.is_chunked or head.is_websocket or not head.keep_alive:
        return None
    if b"expect" in head.fields or data[:2] == b"\r\n":
        return None
    block = data[: end + 4]
    found = _LENGTH.search(block)
    if found is None or _LENGTH.search(block, found.end(1)) is not None:
        return None
    return KnownHead(block[: found.start(1)], block[found.end(1) :], head)
