"""What flow needs from the hands, as Protocols; the hands implement them, app joins them.

Owns nothing. The two halves of the data path meet here: a ``Responder`` is the caller's side of one
exchange, an ``Upstream`` dials providers and yields ``Answer`` values.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from proxy.core.policy.model import Timeouts
from proxy.core.routing.problems import Problem
from proxy.terms.exchange import ExchangeFacts
from proxy.terms.http import AnswerHead, RequestHead
from proxy.terms.outcomes import Outcome

_bare: Final = object.__new__
Offload = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a function in a worker thread and awaits its result."""


class BodySource(Protocol):
    """A request body that is still arriving, read piece by piece with back-pressure."""

    @property
    def refusal(self) -> Problem | None:
        """Why the door gave the body up half-way, or None."""
        ...

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


class Pausable(Protocol):
    """Something that sends bytes and can be made to wait."""

    def pause(self) -> None:
        """Stop reading from the provider (the caller's socket is full)."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...


class LiveBody(Pausable, Protocol):
    """An answer body still on the wire."""

    def attach(self, sink: BodySink) -> None:
        """Deliver what has arrived and all that follows to ``sink``."""
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


def answer_of(head: AnswerHead, body: bytes, reused_connection: bool) -> Answer:
    """Return an answer that is here as a whole; the same as calling the class, filled in place."""
    answer = _bare(Answer)
    answer.head = head
    answer.body = body
    answer.live = None
    answer.reused_connection = reused_connection
    return answer


@dataclass(slots=True)
class AttemptFailed(Exception):
    """No usable answer came; ``outcome`` says how. A value in all but mechanism: flow matches on it."""

    outcome: Outcome
    reused_connection: bool = False
    bytes_received: int = 0


class CallKind:
    """What calls have in common that one request head makes at one deployment.

    ``target`` is the path below the provider's base URL, with query, starting with ``/``.
    ``headers`` are rendered end-to-end lines without Host, credentials and framing; the upstream adds those.
    ``passes_caller_key`` lets the caller's own Authorization through to a provider that has no key of ours.
    ``start`` is the upstream's: the beginning of every request of this kind, as long as ``start_is_of`` is what it
    would be made of.
    """

    __slots__ = ("head", "headers", "model", "passes_caller_key", "provider", "start", "start_is_of", "target")

    def __init__(
        self,
        provider: str,
        head: RequestHead,
        target: bytes,
        headers: bytes,
        model: str = "",
        *,
        passes_caller_key: bool = False,
    ) -> None:
        self.provider = provider
        self.head = head
        self.target = target
        self.headers = headers
        self.model = model
        self.passes_caller_key = passes_caller_key
        self.start = b""
        self.start_is_of: object = None


class Call:
    """One attempt, ready to be sent.

    ``deadline_s`` is monotonic. ``collect_max_bytes`` bounds what is gathered into a whole body before the
    answer turns live. ``must_be_fresh`` forbids a pooled connection (the retry after one that had gone stale).
    ``wants_events`` takes an answer that does not say what it is for the event stream that was asked for.
    """

    __slots__ = ("body", "collect_max_bytes", "deadline_s", "kind", "must_be_fresh", "timeouts", "wants_events")

    def __init__(
        self,
        kind: CallKind,
        body: bytes | BodySource,
        timeouts: Timeouts,
        deadline_s: float,
        collect_max_bytes: int,
        must_be_fresh: bool = False,
        wants_events: bool = False,
    ) -> None:
        self.kind = kind
        self.body = body
        self.timeouts = timeouts
        self.deadline_s = deadline_s
        self.collect_max_bytes = collect_max_bytes
        self.must_be_fresh = must_be_fresh
        self.wants_events = wants_events


class Upstream(Protocol):
    """Dials providers."""

    async def send(self, call: Call) -> Answer:
        """Send one attempt and return its answer once the head (or the whole small body) is there.

        Raises:
            AttemptFailed: refused, unreachable, timed out, reset, or not understandable as HTTP.
        """
        ...

    def lacks_key(self, provider: str) -> bool:
        """True when this provider takes a key of ours and there is none now."""
        ...

    def uses_own_key(self, provider: str) -> bool:
        """True when the credential sent to this provider is ours and not the caller's."""
        ...

    def mask(self, provider: str, data: bytes) -> bytes:
        """Return ``data`` with the credential that this provider was sent starred out."""
        ...

    def owned_headers(self, provider: str) -> frozenset[bytes]:
        """Lower-case names of header lines that are ours to set for this provider; the caller's stay here."""
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

    def send_head(self, status: int, reason: bytes, headers: bytes) -> None:
        """Write the answer to a HEAD request; ``headers`` hold whatever framing the provider announced."""
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

    def bind(self, live: Pausable) -> None:
        """Pause and resume this as the caller's socket fills and empties."""
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


def inbound_of(head: RequestHead, body: bytes, arrived_s: float, peer: str) -> Inbound:
    """Return a request that is here as a whole; the same as calling the class, filled in place."""
    inbound = _bare(Inbound)
    inbound.head = head
    inbound.body = body
    inbound.arrived_s = arrived_s
    inbound.peer = peer
    return inbound


class Clock(Protocol):
    """Time and identity, owned by app."""

    def monotonic_s(self) -> float: ...

    def unix_ms(self) -> int: ...

    def stamp(self) -> tuple[str, int]:
        """Return a fresh UUIDv7 in canonical text form, and the Unix millisecond in it."""
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
