"""HTTP nouns shared by the two halves of the data path: heads, header pairs, body pieces.

Header names and values stay the bytes that came in (names keep their case); nothing here parses.
"""

from __future__ import annotations

from dataclasses import dataclass

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

    @property
    def has_body(self) -> bool:
        """True when the framing announces a body of at least one byte, or a chunked one."""
        return self.is_chunked or bool(self.content_length)


@dataclass(slots=True)
class AnswerHead:
    """The head of a provider's answer. ``fields`` maps lower-case names to the last value seen."""

    status: int
    reason: bytes
    headers: list[Header]
    fields: dict[bytes, bytes]

    @property
    def content_type(self) -> bytes:
        """Media type in lower case without parameters; empty when absent."""
        return self.fields.get(b"content-type", b"").split(b";", 1)[0].strip().lower()

    @property
    def is_event_stream(self) -> bool:
        """True for ``text/event-stream``."""
        return self.content_type == b"text/event-stream"
