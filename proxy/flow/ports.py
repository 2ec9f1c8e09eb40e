"""What flow needs from the hands, as Protocols; the hands implement them, app.py joins them.

Owns nothing. The two halves of the data path meet here: a ``Responder`` is the caller's side of one
exchange, an ``Upstream`` dials providers and yields ``Answer`` values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from proxy.terms.exchange import ExchangeFacts
from proxy.terms.http import AnswerHead, Header, RequestHead
from proxy.terms.outcomes import Outcome


class BodySource(Protocol):
    """A request body that is still arriving, read piece by piece with back-pressure."""

    async def next_piece(self) -> bytes:
        """Return the next piece; ``b""`` is the end. Raises ConnectionError when the caller left."""
        ...

    def discard(self) -> None:
        """Read and drop what is left, so that the connection can be closed in order."""
        ...


class BodySink(Protocol):
    """Where a live answer's bytes go; every method is called from the event loop and never awaits."""

    def on_body(self, data: bytes) -> None:
        """Take the next bytes of the answer body."""
        ...

    def on_end(self, outcome: Outcome) -> None:
        """The body ended: ``OK`` when its framing was complete, else what broke it. Called once."""
        ...


class LiveBody(Protocol):
    """An answer body still on the wire."""

    def attach(self, sink: BodySink) -> None:
        """Deliver what has arrived and all that follows to ``sink``."""
        ...

    def pause(self) -> None:
        """Stop reading from the provider (the caller's socket is full)."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...

    def abort(self) -> None:
        """Close the connection now; ``on_end`` is not called after this."""
        ...

    def write(self, data: bytes) -> None:
        """Send raw bytes to the provider: the other direction of a tunnel."""
        ...

    def throttle(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Call these when the provider's socket is full and when it takes bytes again."""
        ...

    def close(self) -> None:
        """Close in order: what was written still goes out."""
        ...


@dataclass(slots=True)
class Answer:
    """What one attempt brought: a head with a whole body, or a head with a live one."""

    head: AnswerHead
    body: bytes | None = None
    live: LiveBody | None = None
    reused_connection: bool = False


@dataclass(slots=True)
class AttemptFailed(Exception):
    """No usable answer came; ``outcome`` says how. A value in all but mechanism: flow matches on it."""

    outcome: Outcome
    reused_connection: bool = False
    bytes_received: int = 0


@dataclass(slots=True)
class Call:
    """One attempt, ready to be sent.

    ``target`` is the path below the provider's base URL, with query, starting with ``/``.
    ``headers`` are end-to-end headers without Host, credentials and framing; the upstream adds those.
    Times are monotonic seconds or seconds; ``collect_max_bytes`` bounds what is gathered into a whole
    body before the answer turns live.
    """

    provider: str
    method: str
    target: bytes
    headers: list[Header]
    body: bytes | BodySource
    model: str
    connect_timeout_s: float
    first_byte_timeout_s: float
    idle_timeout_s: float
    deadline_s: float
    collect_max_bytes: int
    body_length: int | None = None
    """Length of a streamed body when the caller announced it; None sends it chunked."""
    must_be_fresh: bool = False
    """Do not reuse a pooled connection (the retry after one that had gone stale)."""
    passes_caller_key: bool = False
    caller_authorization: bytes | None = None
    is_websocket: bool = False


class Upstream(Protocol):
    """Dials providers."""

    async def send(self, call: Call) -> Answer:
        """Send one attempt and return its answer once the head (or the whole small body) is there.

        Raises:
            AttemptFailed: refused, unreachable, timed out, reset, or not understandable as HTTP.
        """
        ...

    def uses_own_key(self, provider: str) -> bool:
        """True when the credential sent to this provider is ours and not the caller's."""
        ...

    def mask(self, provider: str, text: str) -> str:
        """Return ``text`` with every credential of ours starred out."""
        ...

    async def refresh_credential(self, provider: str) -> bool:
        """Re-read the provider's secret; True when it changed."""
        ...


class Responder(Protocol):
    """The caller's side of one exchange. Head first, then body, then exactly one of finish or abort."""

    def send_whole(self, status: int, reason: bytes, headers: bytes, body: bytes) -> None:
        """Write a complete answer in one piece. ``headers`` are rendered lines, each ending CRLF,
        without Content-Length, Connection and Transfer-Encoding.
        """
        ...

    def start(self, status: int, reason: bytes, headers: bytes, length: int | None) -> None:
        """Write the head of an answer whose body follows; unknown length means chunked (or close-delimited)."""
        ...

    def write(self, data: bytes) -> None:
        """Write a piece of the body; never blocks, see ``bind``."""
        ...

    def finish(self) -> None:
        """End the body in order."""
        ...

    def abort(self) -> None:
        """Cut the connection so that the caller sees a broken answer, not a complete one."""
        ...

    def bind(self, live: LiveBody) -> None:
        """Pause and resume this body as the caller's socket fills and empties."""
        ...

    def tunnel(self, head: bytes, live: LiveBody) -> None:
        """Write ``head`` as it is and hand every later byte of the caller to ``live``."""
        ...

    def tunnel_write(self, data: bytes) -> None:
        """Write raw bytes to the caller after ``tunnel``."""
        ...

    @property
    def has_started(self) -> bool:
        """True once any byte of an answer has been written."""
        ...


@dataclass(slots=True)
class Inbound:
    """One caller request: head, body (whole, or still arriving), and when it came."""

    head: RequestHead
    body: bytes | BodySource
    arrived_s: float
    """Monotonic seconds when the head was complete."""
    peer: str = ""


class Clock(Protocol):
    """Time and identity, owned by app.py."""

    def monotonic_s(self) -> float: ...

    def unix_ms(self) -> int: ...

    def new_id(self) -> str:
        """Return a fresh UUIDv7 in canonical text form."""
        ...


class Witness(Protocol):
    """Hears what happened; telemetry turns it into metrics, log lines and spans."""

    def exchange_ended(self, facts: ExchangeFacts) -> None: ...

    def fault(self, what: str, **fields: object) -> None:
        """Something of ours failed. ``fields`` hold names and numbers, never text of a prompt."""
        ...

    def notice(self, what: str, **fields: object) -> None:
        """An event operators want to see (reload, breaker, drain)."""
        ...
