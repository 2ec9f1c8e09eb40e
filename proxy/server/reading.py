"""The reading half of a caller connection: from bytes to an ``Inbound``, over a strict C parser.

Owns the message being read: its head, its body so far, what its framing may still cost. Every head passes
``gate`` before anything else sees it; one that the connection has sent before is recognised by its bytes.
What becomes of a request that is ready, or refused, is the connection's affair (``front``).
"""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import TYPE_CHECKING, Final

import httptools

from proxy.core.routing.problems import Code, Problem, problem
from proxy.flow.ports import Inbound, inbound_of
from proxy.server import gate
from proxy.server.body import BodyPipe
from proxy.server.known_heads import KnownHead, learn
from proxy.server.responding import Responding
from proxy.terms.http import Header, RequestHead

if TYPE_CHECKING:
    from proxy.server.door import DataDoor

MAX_OVERHEAD_BYTES: Final = 16 * 1024
"""Bytes of chunk framing, extensions and trailers beyond what the body itself accounts for."""
MANY_PIECES: Final = 8
"""So many pieces of a body are put together while the rest is still coming."""
REQUEST_LINE_BYTES: Final = 64
"""What a head has beyond its target and header lines, at most."""


class Reading(Responding):
    """Reads requests one after the other; a request that is ready goes to ``_begin``, a bad one to ``_refuse``."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_body_pieces",
        "_current",
        "_door",
        "_fields",
        "_head",
        "_head_bytes",
        "_head_size",
        "_headers",
        "_in_body",
        "_is_deaf",
        "_is_lingering",
        "_known",
        "_known_left_bytes",
        "_message_is_ignored",
        "_messages_in_piece",
        "_overhead_bytes",
        "_parser",
        "_peer",
        "_poured",
        "_problem",
        "_redo_headers",
        "_started",
        "_target",
        "last_read_s",
        "phase_since_s",
    )

    def __init__(self, door: DataDoor) -> None:
        super().__init__()
        self._door = door
        self._parser = httptools.HttpRequestParser(self)
        self._current: Inbound | None = None
        self._known: KnownHead | None = None
        self._known_left_bytes = 0
        self._messages_in_piece = 0
        self._overhead_bytes = 0
        self._is_lingering = False
        self._is_deaf = False
        self.last_read_s = self.phase_since_s = door.now_s()
        self._peer = ""
        self._head_bytes = 0
        self._redo_headers: list[Header] | None = None
        self._reset_message()

    def _reset_message(self) -> None:
        self._target = b""
        self._head_size = 0
        self._headers: list[Header] = []
        self._fields: dict[bytes, bytes] = {}
        self._head: RequestHead | None = None
        self._body: BodyPipe | None = None
        self._body_pieces: list[bytes] = []
        self._poured: BytesIO | None = None
        self._body_bytes = 0
        self._in_body = False
        self._started = False
        self._problem: Problem | None = None
        self._message_is_ignored = False

    # --- bytes --------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        if self._in_body:
            before = self._body_bytes
            self._overhead_bytes += len(data)
            self._parse(data)
            self._overhead_bytes -= max(0, self._body_bytes - before)
            self._check_overhead()
            return
        self._head_bytes += len(data)
        self._parse(data)
        if self._has_body_to_come() and self._messages_in_piece == 1:
            self._overhead_bytes = max(0, len(data) - self._head_size - self._body_bytes - REQUEST_LINE_BYTES)
            self._check_overhead()
        elif self._head_bytes > self._door.max_head_bytes:
            self._refuse(problem(Code.HEADER_TOO_LARGE))

    def _has_body_to_come(self) -> bool:
        return self._in_body

    def _check_overhead(self) -> None:
        """Refuse chunk extensions, trailers and crumbs: framing that outweighs what it carries."""
        if self._overhead_bytes > MAX_OVERHEAD_BYTES + 16 * self._body_bytes:
            self._refuse(problem(Code.BAD_REQUEST, "The body's framing is out of proportion."))

    def _read_first(self, data: bytes) -> None:
        """Read bytes that begin a request, and remember its head when it came whole."""
        self.phase_since_s = self.last_read_s
        if len(data) > MAX_OVERHEAD_BYTES and gate.is_mostly_framing(data, MAX_OVERHEAD_BYTES):
            self._refuse(problem(Code.BAD_REQUEST, "The body's framing is out of proportion."))
            return
        began = self._head
        self._read(data)
        head = self._head
        if head is not None and head is not began and not self._is_lingering and self._door.collects_body(head):
            # With several requests in one piece the last head is not the first: `learn` compares nothing,
            # so only a head whose request ends this piece may be remembered.
            self._known = learn(data, head) if self._messages_in_piece == 1 else None
        self._messages_in_piece = 0

    # --- heads seen before ------------------------------------------------------------------------

    def _take_known(self, known: KnownHead, data: bytes) -> bool:
        """Begin an exchange whose head is known; False: parse it after all."""
        found = known.match(data)
        if found is None or found[1] > self._door.max_body_bytes:
            return False
        start, length = found
        head = self._head = known.head
        have = len(data) - start
        if have == length:
            self._begin(inbound_of(head, data[start:], self.last_read_s, self._peer))
        elif have < length:
            self.phase_since_s = self.last_read_s
            self._in_body = True
            self._body = None
            self._body_bytes = 0
            self._body_pieces = [data[start:]] if have else []
            self._known_left_bytes = length - have
        else:
            self._begin(Inbound(head, data[start : start + length], self.last_read_s, self._peer))
            self._take_next(data[start + length :])
        return True

    def _take_known_body(self, data: bytes) -> None:
        """Gather the body of a request whose head was known."""
        left = self._known_left_bytes
        self._body_pieces.append(data if len(data) <= left else data[:left])
        self._known_left_bytes = left - min(left, len(data))
        if self._known_left_bytes:
            if len(self._body_pieces) > MANY_PIECES:
                self._pour()
            return
        body = self._gathered()
        self._in_body = False
        assert self._head is not None
        self._begin(Inbound(self._head, body, self.last_read_s, self._peer))
        if len(data) > left:
            self._take_next(data[left:])

    def _take_next(self, rest: bytes) -> None:
        """Take bytes that begin a request."""
        if self._known is None or not self._take_known(self._known, rest):
            self._read_first(rest)

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._parse_after_upgrade(data[exc.args[0] :])
        except httptools.HttpParserError as exc:
            if isinstance(exc, httptools.HttpParserCallbackError) and exc.__context__ is not None:
                self._door.report_fault("front_parser", exc.__context__)
                self._refuse(problem(Code.INTERNAL_ERROR))
            elif self._current is not None and not self._in_body:
                # Garbage behind a request that is being served: serve it, hear nothing more, close.
                self._is_deaf = True
                self._closes_after = True
            elif not self._is_lingering:
                self._refuse(problem(Code.BAD_REQUEST, message="The request is not well-formed HTTP/1.1."))

    def _parse_after_upgrade(self, rest: bytes) -> None:
        """Go on after a head that asked to change protocols: a websocket waits, anything else is declined."""
        if self._redo_headers is None:
            if rest:
                self._hold_for_tunnel(rest)
            return
        headers, self._redo_headers = self._redo_headers, None
        parser = self._parser
        method, version = parser.get_method().decode("ascii"), parser.get_http_version()
        head = gate.render_head(method, self._target, version, headers)
        self._reset_message()
        self._parser = httptools.HttpRequestParser(self)
        self._parse(head + rest)

    # --- the parser's callbacks -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_deaf:
            return
        self._messages_in_piece += 1
        self._head_bytes = self._head_bytes or 1
        self._reset_message()

    def on_url(self, url: bytes) -> None:
        self._head_size += len(url)
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return  # a trailer: read, counted against the body, never forwarded
        self._head_size += len(name) + len(value) + 4
        lower = name.lower()
        fields = self._fields
        if (lower in fields or b"_" in lower) and gate.is_ambiguous_repeat(lower, fields) and self._problem is None:
            shown = lower.decode("ascii", "replace")
            self._problem = problem(Code.BAD_REQUEST, f"The header {shown} is ambiguous: repeated or misspelt.")
        value = value.rstrip(b" \t")
        fields[lower] = fields[lower] + b", " + value if lower == b"connection" and lower in fields else value
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        if self._is_lingering or self._is_deaf:
            return
        self._in_body = True
        self._overhead_bytes = 0
        self.phase_since_s = self.last_read_s
        refusal = self._problem or self._accept_head()
        if refusal is not None:
            self._refuse(refusal)

    def _accept_head(self) -> Problem | None:
        """Build and check the head; start an exchange whose body streams."""
        fields, parser = self._fields, self._parser
        method = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        refusal = gate.check_method(method) or gate.check_version(version, fields)
        if refusal is not None:
            return refusal
        if len(self._headers) > gate.MAX_HEADER_LINES or self._head_size > self._door.max_head_bytes:
            return problem(Code.HEADER_TOO_LARGE)
        path = gate.split_target(self._target)
        if isinstance(path, Problem):
            return path
        is_websocket = False
        if b"upgrade" in fields and parser.should_upgrade():
            is_websocket = method == "GET" and fields[b"upgrade"].lower() == b"websocket" and version == "1.1"
            self._tunnel_backlog.clear()
            if not is_websocket:
                self._redo_headers = gate.without_upgrade(self._headers)
                self._message_is_ignored = True
                return None
        length = fields.get(b"content-length")
        head = self._head = RequestHead(
            method=method,
            target=self._target,
            path=path,
            headers=self._headers,
            fields=fields,
            is_http_10=version == "1.0",
            keep_alive=parser.should_keep_alive() and version == "1.1",
            content_length=int(length) if length is not None else None,
            is_chunked=b"transfer-encoding" in fields,
            is_websocket=is_websocket,
        )
        return self._door.check_head(head) or self._prepare_body(head)

    def _prepare_body(self, head: RequestHead) -> Problem | None:
        """Decide how the body is taken, and answer ``Expect: 100-continue`` when the request may go on."""
        collects = self._door.collects_body(head)
        if collects and head.content_length is not None and head.content_length > self._door.max_body_bytes:
            return problem(Code.BODY_TOO_LARGE, message=f"The body is larger than {self._door.max_body_bytes} bytes.")
        if b"expect" in head.fields:
            refusal = self._door.preflight(head)
            if refusal is not None:
                return refusal
            if head.has_body and self._current is None and not head.is_http_10:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not collects and (head.content_length or 0) > self._door.max_upload_bytes:
            return problem(Code.BODY_TOO_LARGE, f"The upload is larger than {self._door.max_upload_bytes} bytes.")
        if head.has_body and not collects:
            self._body = BodyPipe(self._transport.pause_reading, self._resume_reading)
            self._started = True
            self._begin(Inbound(head, self._body, self.last_read_s, self._peer))
        return None

    def on_body(self, data: bytes) -> None:
        if self._is_lingering or self._is_deaf or self._message_is_ignored:
            return
        self._body_bytes += len(data)
        if self._body is not None:
            self._body.feed(data)
            if self._body_bytes > self._door.max_upload_bytes:
                limit = self._door.max_upload_bytes
                self._body.refuse(problem(Code.BODY_TOO_LARGE, f"The upload is larger than {limit} bytes."))
                self._is_deaf = True
            return
        if self._body_bytes > self._door.max_body_bytes:
            self._refuse(
                problem(Code.BODY_TOO_LARGE, message=f"The body is larger than {self._door.max_body_bytes} bytes.")
            )
            return
        self._body_pieces.append(data)
        if len(self._body_pieces) > MANY_PIECES:
            self._pour()

    def _pour(self) -> None:
        """Put the pieces so far together: to join all of a large body at its end would hold everybody up."""
        if self._poured is None:
            self._poured = BytesIO()
        self._poured.writelines(self._body_pieces)
        self._body_pieces = []
        # A fast caller is read dozens of times in one turn of the loop: let others have theirs.
        self._transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._resume_reading)

    def _gathered(self) -> bytes:
        pieces, self._body_pieces = self._body_pieces, []
        poured, self._poured = self._poured, None
        if poured is None:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        poured.writelines(pieces)
        return poured.getvalue()  # its own memory, no copy

    def _have_bytes(self) -> int:
        """Return how much of the body has come."""
        poured = 0 if self._poured is None else self._poured.tell()
        return self._body_bytes or poured + sum(map(len, self._body_pieces))

    def on_message_complete(self) -> None:
        self._in_body = False
        self._overhead_bytes = 0
        if self._is_lingering or self._is_deaf or self._message_is_ignored:
            return
        if self._body is not None:
            self._body.end()
            return
        head = self._head
        if head is None or self._started:
            return
        self._started = True
        self._begin(Inbound(head, self._gathered(), self.last_read_s, self._peer))

    # --- what the connection does with it -----------------------------------------------------------

    def _begin(self, inbound: Inbound) -> None:
        raise AssertionError("a connection begins exchanges")

    def _refuse(self, refusal: Problem) -> None:
        raise AssertionError("a connection refuses requests")

    def _hold_for_tunnel(self, data: bytes) -> None:
        raise AssertionError("a connection holds what comes before a tunnel")

    def _resume_reading(self) -> None:
        raise AssertionError("a connection reads on")
