"""Which header lines cross the sidecar, in each direction, and which it adds.

Owns the tables of what is dropped. End-to-end headers keep their bytes, order and repeats; hop-by-hop
headers, those named in Connection, and everything of our own prefix never cross.
"""

from __future__ import annotations

from typing import Final

from proxy.core.routing.problems import Problem, Retry, retry_after_values
from proxy.terms.exchange import ExchangeFacts
from proxy.terms.http import HOP_BY_HOP, OUR_PREFIX, AnswerHead, Header, RequestHead

_NOT_TO_PROVIDER: Final = HOP_BY_HOP | {b"host", b"content-length", b"authorization", b"expect", b"http2-settings"}
_NOT_TO_CALLER: Final = HOP_BY_HOP | {b"content-length"}
_CACHE_MAX: Final = 1024
_INSEPARABLE: Final = frozenset({b"content-type", b"content-length", b"authorization", b"host", b"transfer-encoding"})
"""Never dropped because a Connection header names them: that would be an attack, not hygiene."""

RATE_LIMIT_HEADERS: Final = frozenset(
    f"x-ratelimit-{what}-{unit}".encode("ascii")
    for what in ("limit", "remaining", "reset")
    for unit in ("requests", "tokens")
)
"""The provider's own view of its limits; replaced where a budget of ours applies."""

IDENTITY: Final[Header] = (b"accept-encoding", b"identity")


class _Keeps:
    """Remembers, per spelling of a header name, whether it crosses. Bounded; misses are decided anew."""

    def __init__(self, dropped: frozenset[bytes]) -> None:
        self._dropped = dropped
        self._known: dict[bytes, bool] = {}

    def __call__(self, name: bytes) -> bool:
        keeps = self._known.get(name)
        if keeps is None:
            lower = name.lower()
            keeps = lower not in self._dropped and not lower.startswith(OUR_PREFIX)
            if len(self._known) < _CACHE_MAX:
                self._known[name] = keeps
        return keeps


_to_provider = _Keeps(_NOT_TO_PROVIDER)
_to_provider_identity = _Keeps(_NOT_TO_PROVIDER | {b"accept-encoding"})
_to_caller = _Keeps(_NOT_TO_CALLER)
_to_caller_decoded = _Keeps(_NOT_TO_CALLER | {b"content-encoding"})


def _connection_named(fields: dict[bytes, bytes]) -> frozenset[bytes]:
    """Return the extra names a Connection header declares as belonging to this hop."""
    value = fields.get(b"connection")
    if value is None or b"," not in value and value.lower() in (b"keep-alive", b"close", b"upgrade"):
        return frozenset()
    names = {token.strip().lower() for token in value.split(b",")}
    return frozenset(names - HOP_BY_HOP - _INSEPARABLE - {b"close"})


def to_provider(
    head: RequestHead, *, wants_identity: bool, drops: frozenset[bytes] = frozenset()
) -> list[Header]:
    """Return the caller's end-to-end headers.

    Args:
        head: The caller's request head.
        wants_identity: Ask for an answer without content coding, because policy or the record has to read it.
        drops: Further lower-case names to leave out (a header our own credential replaces).
    """
    keeps = _to_provider_identity if wants_identity else _to_provider
    headers = [header for header in head.headers if keeps(header[0])]
    extra = _connection_named(head.fields) | drops
    if extra:
        headers = [header for header in headers if header[0].lower() not in extra]
    if wants_identity:
        headers.append(IDENTITY)
    return headers


def to_caller(head: AnswerHead, *, is_decoded: bool = False, drops: frozenset[bytes] = frozenset()) -> list[bytes]:
    """Return the provider's end-to-end header lines, rendered; ``drops`` are further lower-case names to leave out."""
    keeps = _to_caller_decoded if is_decoded else _to_caller
    named = _connection_named(head.fields) | drops
    lines: list[bytes] = []
    for name, value in head.headers:
        if keeps(name) and not (named and name.lower() in named):
            lines += (name, b": ", value, b"\r\n")
    return lines


def _text(value: str) -> bytes:
    """Make a name safe in a header line: printable ASCII, anything else as ``?``."""
    if value.isascii() and value.isprintable():
        return value.encode("ascii")
    return "".join(c if " " <= c <= "~" else "?" for c in value).encode("ascii")


def redactions_value(counts: dict[str, int]) -> str:
    """Return ``email=1,cpf=2``, types in alphabetical order."""
    return ",".join(f"{kind.lower()}={counts[kind]}" for kind in sorted(counts))


def our_lines(facts: ExchangeFacts, now_ms: float, provider_request_id: bool) -> bytes:
    """Return the header lines of ours that stand on every answer.

    Args:
        facts: The exchange so far.
        now_ms: Milliseconds since the exchange began.
        provider_request_id: The answer already carries the provider's own x-request-id.
    """
    lines = [
        f"x-readygate-id: {facts.id}\r\n"
        f"x-readygate-attempts: {len(facts.attempts)}\r\n"
        f"server-timing: gateway;dur={max(0.0, now_ms - facts.upstream_ms):.2f}, upstream;dur={facts.upstream_ms:.2f}\r\n"
    ]
    if not provider_request_id:
        lines.append(f"x-request-id: {facts.id}\r\n")
    if facts.policy_revision:
        lines.append(f"x-readygate-policy: {facts.policy_revision}\r\n")
    if facts.sanitized:
        lines.append(f"x-readygate-redactions: {redactions_value(facts.sanitized)}\r\n")
    rendered = "".join(lines).encode("ascii")
    if facts.provider:
        rendered += b"x-readygate-provider: " + _text(facts.provider) + b"\r\n"
        if facts.model_served:
            rendered += b"x-readygate-model: " + _text(facts.model_served) + b"\r\n"
    return rendered


def refusal_lines(refusal: Problem) -> bytes:
    """Return the header lines that tell a client whose fault a refusal is and whether to try again."""
    lines = f"x-readygate-fault: {refusal.fault.value}\r\n"
    if refusal.retry_after_s is not None:
        seconds, milliseconds = retry_after_values(refusal.retry_after_s)
        lines += f"retry-after: {seconds}\r\nretry-after-ms: {milliseconds}\r\n"
    if refusal.retry is Retry.NO:
        lines += "x-should-retry: false\r\n"
    return lines.encode("ascii")


def _span(seconds: float) -> str:
    """Write a duration as OpenAI does in its rate-limit headers: ``120ms``, ``7.5s``, ``6m0s``."""
    if seconds < 1.0:
        return f"{max(0, round(seconds * 1000))}ms"
    if seconds < 60.0:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60}m{rest}s"


def budget_lines(budget: dict[str, float]) -> bytes:
    """Return ``x-ratelimit-*`` of the tightest budget of ours that applies, in OpenAI's notation."""
    lines = []
    for unit in ("requests", "tokens"):
        limit = budget.get(f"limit_{unit}")
        if limit is not None:
            lines.append(
                f"x-ratelimit-limit-{unit}: {limit:.0f}\r\n"
                f"x-ratelimit-remaining-{unit}: {max(0.0, budget[f'remaining_{unit}']):.0f}\r\n"
                f"x-ratelimit-reset-{unit}: {_span(budget[f'reset_{unit}_s'])}\r\n"
            )
    return "".join(lines).encode("ascii")
