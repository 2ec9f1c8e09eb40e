"""The journal: what reached the simulated provider and what it did about it.

Owns the bounded record of connections and requests and its JSON form. It is the oracle of the
tests, so it writes down bytes as they came: targets and headers are latin-1, one character a byte.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import orjson


@dataclass(slots=True, eq=False)
class ConnectionRecord:
    """One accepted connection. Times are monotonic seconds; -1 means not yet."""

    number: int
    peer: str
    opened_s: float
    bytes_received: int = 0
    requests: int = 0
    closed_s: float = -1.0
    closed_by: str = ""
    """``peer``, ``simulator`` or empty while open."""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "number": self.number, "peer": self.peer, "opened_s": self.opened_s, "closed_s": self.closed_s,
            "closed_by": self.closed_by, "bytes_received": self.bytes_received, "requests": self.requests,
        }  # fmt: skip


@dataclass(slots=True, eq=False)
class Entry:
    """One request and its answer. Times are monotonic seconds; -1 means not yet."""

    number: int
    connection: int
    started_s: float
    """When the first byte of the request arrived."""
    method: str = ""
    target: str = ""
    """Exactly as on the request line, query included."""
    http_version: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    """In order, repeated names kept, spelling kept."""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    """The first ``journal_body_bytes`` of the body."""
    body_bytes: int = 0
    provider: str = ""
    """What stood before ``/v1`` in the path, so that one simulator can play several providers."""
    model: str = ""
    received_s: float = -1.0
    """When the last byte of the request arrived."""
    fault: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    """Tokens that the provider bills for the request, whether or not its answer says so; a fault that spoils the
    answer on its way leaves them."""
    status: int = 0
    """Status of the answer, 0 when none was sent."""
    bytes_sent: int = 0
    events_sent: int = 0
    """Whole SSE events handed to the socket, prelude and end marks included."""
    first_byte_s: float = -1.0
    ended_s: float = -1.0
    closed_by: str = ""
    """Who ended the connection during this exchange: ``peer``, ``simulator`` or nobody."""
    is_complete: bool = False
    """True when everything the simulator meant to send was sent and the framing was closed."""
    digest: str = ""

    @property
    def sha256(self) -> str:
        """Hex digest of the whole body."""
        return self.digest or hashlib.sha256(self.body).hexdigest()

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def is_ended(self) -> bool:
        """True when the simulator is done with the request, whatever the end was."""
        return self.ended_s >= 0

    def header(self, name: str) -> str | None:
        """Return the first value of a header, any case, or None."""
        return next(iter(self.header_values(name)), None)

    def header_values(self, name: str) -> list[str]:
        """Return all values of a header, any case, in order."""
        wanted = name.lower()
        return [value for key, value in self.headers if key.lower() == wanted]

    def json(self) -> Any:
        """Return the parsed body."""
        return orjson.loads(self.body)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form; a body that is no UTF-8 is given as ``body_base64``."""
        shown = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in ("body", "digest")
        }  # fmt: skip
        shown["sha256"] = self.sha256
        try:
            shown["body"] = self.body.decode("utf-8")
        except UnicodeDecodeError:
            shown["body_base64"] = base64.b64encode(self.body).decode("ascii")
        return shown


class Journal:
    """Append-only while it has room; then the oldest entries, and before them the oldest bodies, go."""

    def __init__(self, max_entries: int = 10_000, max_body_bytes: int = 256 * 1024,
                 max_total_bytes: int = 128 * 1024 * 1024, sink: IO[bytes] | None = None) -> None:  # fmt: skip
        self._entries: deque[Entry] = deque(maxlen=max_entries)
        self._connections: deque[ConnectionRecord] = deque(maxlen=max_entries)
        self._with_body: deque[Entry] = deque()
        self._max_body_bytes = max_body_bytes
        self._max_total_bytes = max_total_bytes
        self._body_bytes = 0
        self._sink = sink
        self._on_change: Callable[[], None] | None = None
        self.request_count = 0
        self.connection_count = 0

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    @property
    def entries(self) -> list[Entry]:
        """The kept entries, oldest first."""
        return list(self._entries)

    @property
    def connections(self) -> list[ConnectionRecord]:
        """The kept connections, oldest first."""
        return list(self._connections)

    def watch(self, on_change: Callable[[], None] | None) -> None:
        """Call ``on_change`` after every new, received or ended entry; None stops that."""
        self._on_change = on_change

    def open_connection(self, peer: str, now_s: float) -> ConnectionRecord:
        """Write down an accepted connection."""
        self.connection_count += 1
        record = ConnectionRecord(self.connection_count, peer, now_s)
        self._connections.append(record)
        return record

    def close_connection(self, record: ConnectionRecord, closed_by: str, now_s: float) -> None:
        """Write down who ended a connection, once."""
        if record.closed_s < 0:
            record.closed_s, record.closed_by = now_s, closed_by
            self._changed()

    def begin(self, connection: int, now_s: float) -> Entry:
        """Write down a request at its first byte."""
        self.request_count += 1
        entry = Entry(self.request_count, connection, now_s)
        self._entries.append(entry)
        self._changed()
        return entry

    def received(self, entry: Entry, body: bytes, now_s: float) -> None:
        """Write down that the whole request is here, keeping as much of its body as there is room for."""
        entry.received_s = now_s
        entry.body_bytes = len(body)
        if len(body) > self._max_body_bytes:
            entry.digest = hashlib.sha256(body).hexdigest()
            body = body[: self._max_body_bytes]
        entry.body = body
        self._body_bytes += len(body)
        self._with_body.append(entry)
        while self._body_bytes > self._max_total_bytes or len(self._with_body) > (self._entries.maxlen or 1):
            self._forget_body(self._with_body.popleft())
        self._changed()

    def end(self, entry: Entry, now_s: float) -> None:
        """Write down that the exchange is over, and add it to the file if there is one."""
        if entry.ended_s >= 0:
            return
        entry.ended_s = now_s
        if self._sink is not None:
            self._sink.write(orjson.dumps(entry.as_dict()) + b"\n")
        self._changed()

    def reset(self) -> None:
        """Forget everything but the running numbers."""
        self._entries.clear()
        self._connections.clear()
        self._with_body.clear()
        self._body_bytes = 0

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def _forget_body(self, entry: Entry) -> None:
        self._body_bytes -= len(entry.body)
        if entry.body and not entry.digest:
            entry.digest = entry.sha256
        entry.body = b""

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()
