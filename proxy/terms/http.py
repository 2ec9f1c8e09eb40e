"""HTTP nouns shared by the two halves of the data path: heads, header pairs, body pieces.

Header names and values stay the bytes that came in (names keep their case); nothing here parses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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

EVENT_STREAM = b"text/event-stream"
OUR_PREFIX = b"x-readygate-"
"""Our own headers: read by us, never forwarded to a provider, never accepted from one."""


@dataclass(slots=True)
class RequestHead:
    """The head of a caller's request after the strict gate let it through.

    ``target`` is the raw request target in origin form (path and query, as sent); ``path`` the part
    before ``?`` decoded as ASCII, ``subpath`` what of it follows ``/v1``. ``fields`` maps lower-case names to the last value seen.
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
    subpath: str = field(init=False)

    def __post_init__(self) -> None:
        self.subpath = self.path[3:]

    @property
    def has_body(self) -> bool:
        """True when the framing announces a body of at least one byte, or a chunked one."""
        return self.is_chunked or bool(self.content_length)


_FIELD_LINE = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]*)")
_TRAILING_SPACE = re.compile(rb"[ \t]+(?=\r\n|$)")
_TELLING = re.compile(
    rb"\r\n(content-(?:type|length|encoding)|x-request-id|connection|transfer-encoding):[ \t]*([^\r\n]*)"
)

Crossing = tuple[bytes, Callable[[Sequence[bytes]], object] | None]
"""Header lines with gaps, and what picks the values for the gaps; None: there are no gaps."""


def _unread(values: Sequence[bytes]) -> bool:
    """Say of a head whose lines nobody knows that a limit may be near."""
    return True


class AnswerHead:
    """The head of a provider's answer.

    ``lines`` holds the field lines as they came, each with its CRLF in front; a strict parser has accepted them.
    They are not taken apart unless somebody asks: most of them only pass by. ``telling`` maps the few names that
    decide how an answer is read (its content type and coding, Connection, Transfer-Encoding) to their last value in
    lower case; ``length`` is what Content-Length says, None when absent; ``has_request_id`` that there is an
    X-Request-Id. ``content_type`` is the media type in lower case without parameters, empty when absent.
    """

    __slots__ = (
        "_fields",
        "content_type",
        "has_request_id",
        "kept",
        "length",
        "lines",
        "may_be_near",
        "reason",
        "status",
        "telling",
        "values",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - positional, because keywords cost a microsecond per exchange here
        self,
        status: int,
        reason: bytes,
        lines: bytes,
        telling: dict[bytes, bytes] | None = None,
        content_type: bytes = b"",
        length: bytes | None = None,
        has_request_id: bool = False,
        values: Sequence[bytes] = (),
        kept: Sequence[Crossing] | None = None,
        may_be_near: Callable[[Sequence[bytes]], bool] | None = _unread,
    ) -> None:
        """Read the lines; whoever knows them already says what is ``telling``, and how the ``values`` are passed on."""
        if telling is None:
            # ``find`` and not ``in``: CPython 3.11 first tries to read what is looked for as a number, and fails.
            if lines.find(b" \r\n") >= 0 or lines.find(b"\t\r\n") >= 0 or lines.endswith((b" ", b"\t")):
                lines = _TRAILING_SPACE.sub(b"", lines)
            telling = dict(_TELLING.findall(lines.lower()))
            length = telling.pop(b"content-length", None)
            has_request_id = telling.pop(b"x-request-id", None) is not None
            if b"content-encoding" in telling and telling[b"content-encoding"].strip() in (b"", b"identity"):
                del telling[b"content-encoding"]  # nothing was coded
            content_type = telling.get(b"content-type", b"").split(b";", 1)[0].strip()
        self.status = status
        self.reason = reason
        self.lines = lines
        self.telling = telling
        self.content_type = content_type
        self.length = length
        self.has_request_id = has_request_id
        self.values = values
        self.kept = kept
        self.may_be_near = may_be_near
        """Says by the ``values`` whether a limit of the provider's own may be near; None: no line speaks of any."""
        self._fields: dict[bytes, bytes] | None = None

    @property
    def headers(self) -> list[Header]:
        """Every field as (name, value), in order; names keep their case."""
        return _FIELD_LINE.findall(self.lines)

    @property
    def fields(self) -> dict[bytes, bytes]:
        """Lower-case name -> last value, of every field; taken apart at the first call."""
        if self._fields is None:
            self._fields = {name.lower(): value for name, value in self.headers}
        return self._fields

    @property
    def is_event_stream(self) -> bool:
        """True for ``text/event-stream``."""
        return self.content_type == EVENT_STREAM
