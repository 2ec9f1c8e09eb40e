"""A caller made of bytes: sends exactly what it is given and reads answers stricter than any client does.

Owns one blocking socket. Every answer is checked against RFC 9112 as it is read, so a test that got an ``Answer``
knows that it was well-framed. Knows nothing of the sidecar.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

Pair = tuple[bytes, bytes]

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) ([\t \x21-\x7e\x80-\xff]*)\Z")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(rb"[\t \x21-\x7e\x80-\xff]*\Z")
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,8}\Z")


class BadFraming(AssertionError):
    """The answer is not one well-framed HTTP/1.1 message; the text says why."""


class Broken(Exception):
    """The answer broke off. ``how``: ``eof``, ``reset`` or ``open`` (nothing more came); ``data`` is what there was."""

    def __init__(self, how: str, data: bytes) -> None:
        super().__init__(f"{how} after {len(data)} bytes: {data[-300:]!r}")
        self.how = how
        self.data = data


@dataclass(slots=True)
class Answer:
    """One whole answer, its framing checked and removed."""

    status: int
    reason: bytes
    headers: list[Pair]
    body: bytes = b""
    framing: str = "none"
    """``none``, ``length``, ``chunked`` or ``close``."""
    interim: list[int] = field(default_factory=list)
    """Statuses of the 1xx answers before it."""

    def all(self, name: str) -> list[bytes]:
        """Return every value of a header, any case."""
        wanted = name.lower().encode()
        return [value for key, value in self.headers if key.lower() == wanted]

    def get(self, name: str) -> str:
        """Return the one value of a header, empty when it is absent; two are a failure."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0].decode("latin-1") if values else ""

    @property
    def closes(self) -> bool:
        """True when the answer announces the end of the connection."""
        return self.framing == "close" or self.get("connection").lower() == "close"

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """Everything that came, for a search."""
        return repr((self.status, self.reason, self.headers, self.body))

    @property
    def events(self) -> list[str]:
        """The data of a stream's events, in order."""
        return [line[6:] for line in self.body.decode("utf-8").split("\n") if line.startswith("data: ")]


class RawCaller:
    """One connection to a port of 127.0.0.1; use as a context manager."""

    def __init__(self, port: int, timeout_s: float = 5.0, *, receive_buffer: int = 0) -> None:
        """``receive_buffer`` (bytes) makes a caller that takes little at a time."""
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(timeout_s)
        self.sock.connect(("127.0.0.1", port))
        self._timeout_s = timeout_s
        self._held = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.sock.close()

    # --- sending

    def send(self, *pieces: bytes, gap_s: float = 0.0) -> None:
        """Send each piece with a write of its own."""
        for piece in pieces:
            self.sock.sendall(piece)
            if gap_s:
                time.sleep(gap_s)  # noqa: TID251 - no event loop here

    def try_send(self, data: bytes) -> bool:
        """Send; False when the other side no longer listens."""
        try:
            self.sock.sendall(data)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def half_close(self) -> None:
        """Send FIN and go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # --- reading

    def _more(self) -> None:
        try:
            piece = self.sock.recv(262144)
        except TimeoutError:
            raise Broken("open", self._held) from None
        except ConnectionError:
            raise Broken("reset", self._held) from None
        if not piece:
            raise Broken("eof", self._held)
        self._held += piece

    def read_until(self, mark: bytes) -> bytes:
        """Return the bytes up to and with ``mark``. Raises Broken."""
        while mark not in self._held:
            self._more()
        data, _, self._held = self._held.partition(mark)
        return data + mark

    def read_exactly(self, count: int) -> bytes:
        """Return so many bytes. Raises Broken."""
        pieces = [self._held]
        have = len(self._held)
        self._held = b""
        while have < count:
            self._more()
            pieces.append(self._held)
            have += len(self._held)
            self._held = b""
        data = b"".join(pieces)
        self._held = data[count:]
        return data[:count]

    def read(self, method: str = "GET") -> Answer:
        """Return the next answer, to a request of that method. Raises Broken and BadFraming."""
        interim: list[int] = []
        while True:
            answer = _parse_head(self.read_until(b"\r\n\r\n")[:-4])
            if answer.status >= 200 or answer.status == 101:
                break
            interim.append(answer.status)
        answer.interim = interim
        answer.framing = _framing_of(answer, method)
        if answer.framing == "length":
            answer.body = self.read_exactly(int(answer.get("content-length")))
        elif answer.framing == "chunked":
            answer.body = self._read_chunks()
        elif answer.framing == "close":
            answer.body = self._read_to_end()
        return answer

    def _read_chunks(self) -> bytes:
        body: list[bytes] = []
        while True:
            line = self.read_until(b"\r\n")[:-2]
            if not _CHUNK.match(line):
                raise BadFraming(f"chunk size {line!r}")
            size = int(line, 16)
            if not size:
                if self.read_until(b"\r\n") != b"\r\n":
                    raise BadFraming("trailers crossed the sidecar")
                return b"".join(body)
            body.append(self.read_exactly(size))
            if self.read_exactly(2) != b"\r\n":
                raise BadFraming("no CRLF behind a chunk")

    def _read_to_end(self) -> bytes:
        try:
            while True:
                self._more()
        except Broken as end:
            if end.how != "eof":
                raise
        data, self._held = self._held, b""
        return data

    def ending(self, within_s: float = 1.0) -> tuple[str, bytes]:
        """Return how the connection ends within that time (``eof``, ``reset``, ``open``) and what still came."""
        deadline_s = time.monotonic() + within_s
        try:
            while True:
                self.sock.settimeout(max(0.001, deadline_s - time.monotonic()))
                self._more()
        except Broken as end:
            return end.how, end.data
        finally:
            self.sock.settimeout(self._timeout_s)


def _parse_head(head: bytes) -> Answer:
    first, *lines = head.split(b"\r\n")
    found = _STATUS.match(first)
    if found is None:
        raise BadFraming(f"status line {first[:200]!r}")
    pairs: list[Pair] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.match(name) or not _VALUE.match(value):
            raise BadFraming(f"header line {line[:200]!r}")
        pairs.append((name, value.strip(b" \t")))
    return Answer(int(found[1]), found[2], pairs)


def check_pairs(answer: Answer) -> None:
    """Check that nothing was said twice that may be said once only."""
    for name in ("content-length", "content-type", "x-request-id", "x-readygate-id", "server-timing", "connection"):
        answer.get(name)


def _framing_of(answer: Answer, method: str) -> str:
    lengths, codings = answer.all("content-length"), answer.all("transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise BadFraming(f"lengths {lengths} and codings {codings}")
    if lengths and not lengths[0].isdigit():
        raise BadFraming(f"length {lengths[0]!r}")
    if codings and codings[0] != b"chunked":
        raise BadFraming(f"coding {codings[0]!r}")
    if answer.status in (101, 204):
        if lengths or codings:
            raise BadFraming(f"{answer.status} with a length")
        return "none"
    if method == "HEAD" or answer.status == 304:
        return "none"
    return "length" if lengths else "chunked" if codings else "close"


def raw_request(
    method: str = "POST",
    target: str | bytes = "/v1/chat/completions",
    *lines: bytes,
    body: bytes = b"",
    host: bytes | None = b"localhost",
    version: bytes = b"HTTP/1.1",
    length: bool | None = None,
) -> bytes:
    """Return a request with these header lines; Content-Length where there is a body, unless told otherwise."""
    raw_target = target.encode("latin-1") if isinstance(target, str) else target
    rows = [method.encode() + b" " + raw_target + b" " + version]
    if host is not None:
        rows.append(b"Host: " + host)
    rows += lines
    if length if length is not None else bool(body):
        rows.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(rows) + b"\r\n\r\n" + body


def chat_body(content: str = "hello", model: str = "gpt-4o-mini", **fields: Any) -> bytes:
    """Return the JSON of a chat request."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": content}], **fields}).encode()


def raw_chat(content: str = "hello", *lines: bytes, model: str = "gpt-4o-mini", **fields: Any) -> bytes:
    """Return a whole chat request with more header lines."""
    return raw_request(
        "POST",
        "/v1/chat/completions",
        b"Content-Type: application/json",
        *lines,
        body=chat_body(content, model, **fields),
    )


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    """Return pieces as a chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"
