"""HTTP nouns shared by the two halves of the data path: heads, header pairs, body pieces.

Header names and values stay the bytes that came in (names keep their case); nothing here parses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that belong to one hop (RFC 9110 section 7.6.1); never forwarded, either way."""

OUR_PREFIX = b"x-readygate-"
"""Our own headers: read by us, never forwarded to a provider, never accepted from one."""


@dataclass(slots=True)
class RequestHead:
    """The head of a caller's request after the strict gate let it through.

    ``target`` is the raw request target in origin form (path and query, as sent); ``path`` the part
    before ``?`` decoded as ASCII. ``fields`` maps lower-case names to the last value seen.
    """

    method: str
    target: bytes
    path: str
    headers: list[Header]
    fields: dict[bytes, bytes]
    is_http_10: bool = False
    keep_alive: bool = True
    content_length: int | None = None
    is_chunked: bool = False
    is_websocket: bool = False
    memo: dict[object, object] = field(default_factory=dict)
    """What was worked out from this head before: a connection that sends the same head again shares it."""

    @property
    def has_body(self) -> bool:
        """True when the framing announces a body of at least one byte, or a chunked one."""
        return self.is_chunked or bool(self.content_length)


_FIELD_LINE = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]*)")
_TRAILING_SPACE = re.compile(rb"[ \t]+\r\n")


class AnswerHead:
    """The head of a provider's answer.

    ``fields`` maps lower-case names to the last value seen; ``content_type`` is the media type in lower case
    without parameters, empty when absent.
    """

    __slots__ = ("content_type", "fields", "headers", "reason", "status")

    def __init__(self, status: int, reason: bytes, headers: list[Header]) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        fields = self.fields = {name.lower(): value for name, value in headers}
        media = fields.get(b"content-type", b"")
        self.content_type = media if media == b"application/json" else media.split(b";", 1)[0].strip().lower()

    @property
    def is_event_stream(self) -> bool:
        """True for ``text/event-stream``."""
        return self.content_type == b"text/event-stream"


def split_field_lines(raw: bytes, start: int, end: int) -> list[Header]:
    """Split the header lines in ``raw[start:end]``, each ending CRLF, that a strict parser has accepted.

    Names keep their case; white space around values goes.
    """
    if raw.find(b" \r\n", start, end) >= 0 or raw.find(b"\t\r\n", start, end) >= 0:
        return _FIELD_LINE.findall(_TRAILING_SPACE.sub(b"\r\n", raw[start:end]))
    return _FIELD_LINE.findall(raw, start, end)
