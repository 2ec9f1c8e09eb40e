"""Which header lines cross the sidecar, in each direction, and which it adds.

Owns the tables of what is dropped. End-to-end headers keep their bytes, order and repeats; hop-by-hop
headers, those named in Connection, and everything of our own prefix never cross.
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import floor
from typing import Final

from proxy.core.routing.problems import Problem, Retry, retry_after_values
from proxy.flow.budgets import Denied, Granted
from proxy.terms.exchange import ExchangeFacts
from proxy.terms.http import HOP_BY_HOP, OUR_PREFIX, AnswerHead, Header, RequestHead
from proxy.terms.redaction import Counts

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

REPLACED_BY_OUR_KEY: Final = frozenset({b"x-api-key", b"api-key", b"openai-organization", b"openai-project"})
"""The caller's other credentials and account names: meaningless, or harmful, beside a key of ours."""

ACCOUNT_HEADERS: Final = frozenset({b"openai-organization", b"openai-project"})
"""Headers of an answer that name the account behind our key."""


class _Keeps(dict[bytes, bool]):
    """Whether a header crosses, by each spelling of its name that was met: one C look-up per header.

    Bounded: callers choose spellings, so beyond a thousand they are decided anew each time.
    """

    def __init__(self, dropped: frozenset[bytes]) -> None:
        super().__init__()
        self._dropped = dropped

    def __missing__(self, name: bytes) -> bool:
        lower = name.lower()
        keeps = lower not in self._dropped and not lower.startswith(OUR_PREFIX)
        if len(self) < _CACHE_MAX:
            self[name] = keeps
        return keeps


_to_provider = _Keeps(_NOT_TO_PROVIDER)
_to_provider_identity = _Keeps(_NOT_TO_PROVIDER | {b"accept-encoding"})
_to_provider_own_key = _Keeps(_NOT_TO_PROVIDER | REPLACED_BY_OUR_KEY)
_to_provider_own_key_identity = _Keeps(_NOT_TO_PROVIDER | REPLACED_BY_OUR_KEY | {b"accept-encoding"})


def _lines_named(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """Match the lines of these names and of our own prefix, each with the CRLF in front of it, in a head in lower case.

    Matching letters of either case instead would cost several times as much.
    """
    any_name = b"|".join([*(re.escape(name) for name in sorted(names)), re.escape(OUR_PREFIX) + rb"[^:\r\n]*"])
    return re.compile(rb"\r\n(?:" + any_name + rb"):[^\r\n]*")


_DROPPED: Final = {
    (is_governed, is_own_key): _NOT_TO_CALLER
    | (RATE_LIMIT_HEADERS if is_governed else frozenset())
    | (ACCOUNT_HEADERS if is_own_key else frozenset())
    for is_governed in (False, True)
    for is_own_key in (False, True)
}
_NOT_PASSED: Final = {flags: _lines_named(names) for flags, names in _DROPPED.items()}
"""The lines of an answer that stay here, by what applies to it."""
PASSED: Final = {flags: _Keeps(names) for flags, names in _DROPPED.items()}
"""Whether a line of this name crosses, by what applies to the answer: a budget of ours, a key of ours; in counting order."""


def _connection_values(headers: list[Header]) -> bytes:
    """Return what all Connection lines of a head say, as one list."""
    return b", ".join([value for name, value in headers if name.lower() == b"connection"])


def _connection_named(value: bytes) -> frozenset[bytes]:
    """Return the extra names a Connection header declares as belonging to this hop."""
    if b"," not in value and value.lower() in (b"keep-alive", b"close", b"upgrade", b""):
        return frozenset()
    names = {token.strip().lower() for token in value.split(b",")}
    return frozenset(names - HOP_BY_HOP - _INSEPARABLE - {b"close"})


def to_provider(head: RequestHead, *, wants_identity: bool, hides_keys: bool, owned: frozenset[bytes]) -> bytes:
    """Return the caller's end-to-end header lines, rendered.

    Args:
        head: The caller's request head.
        wants_identity: Ask for an answer without content coding, because policy or the record has to read it.
        hides_keys: A credential of ours goes to the provider, or the caller's is a key to this sidecar: either
            way the caller's credentials stay here.
        owned: Lower-case names that the provider's own settings set.
    """
    if wants_identity:
        keeps = _to_provider_own_key_identity if hides_keys else _to_provider_identity
    else:
        keeps = _to_provider_own_key if hides_keys else _to_provider
    dropped = _connection_named(_connection_values(head.headers)) | owned
    lines: list[bytes] = []
    for name, value in head.headers:
        if not keeps[name] or (dropped and name.lower() in dropped):
            continue
        if hides_keys and name.lower() == b"sec-websocket-protocol":
            value = _without_key(value)
            if not value:
                continue
        lines += (name, b": ", value, b"\r\n")
    if wants_identity:
        lines.append(b"accept-encoding: identity\r\n")
    return b"".join(lines)


def _without_key(protocols: bytes) -> bytes:
    """Drop the subprotocol in which browsers hand over a key."""
    names = [name.strip() for name in protocols.split(b",")]
    return b", ".join(name for name in names if not name.startswith(b"openai-insecure-api-key."))


def to_caller(head: AnswerHead, is_decoded: bool = False, is_governed: bool = False, is_own_key: bool = False) -> bytes:
    """Return the provider's end-to-end header lines, each ending CRLF.

    Args:
        head: The provider's answer head.
        is_decoded: The body's content coding was undone.
        is_governed: A rate budget of ours applies; its numbers stand in for the provider's.
        is_own_key: The answer was got with our key: headers that name our account stay here.
    """
    if head.kept is not None and not is_decoded:
        lines, pick = head.kept[2 * is_governed + is_own_key]
        return lines if pick is None else lines % pick(head.values)
    lines = _without(_NOT_PASSED[is_governed, is_own_key], head.lines, head.lines.lower())
    if is_decoded or b"connection" in head.telling:
        lines = _less_common(head, lines, is_decoded=is_decoded)
    return lines[2:] + b"\r\n" if lines else b""


def _without(named: re.Pattern[bytes], lines: bytes, lower: bytes) -> bytes:
    """Return the lines without those that match in their lower-case form."""
    kept, at = [], 0
    for found in named.finditer(lower):
        start, end = found.span()
        if start > at:
            kept.append(lines[at:start])
        at = end
    kept.append(lines[at:])
    return b"".join(kept)


def _less_common(head: AnswerHead, lines: bytes, *, is_decoded: bool) -> bytes:
    """Leave out what only some answers must not pass on."""
    dropped = set(_connection_named(_connection_values(head.headers)))
    if is_decoded:
        dropped.add(b"content-encoding")
    return _without(_lines_named(frozenset(dropped)), lines, lines.lower()) if dropped else lines


def _text(value: str) -> bytes:
    """Make a name safe in a header line: printable ASCII, anything else as ``?``."""
    if value.isascii() and value.isprintable():
        return value.encode("ascii")
    return "".join(c if " " <= c <= "~" else "?" for c in value).encode("ascii")


def redactions_value(counts: dict[str, int]) -> str:
    """Return ``cpf=2,email=1``, types in alphabetical order."""
    if type(counts) is not Counts:
        return _redactions(tuple(counts.items()))
    if counts.header is None:
        counts.header = _redactions(tuple(counts.items()))
    return counts.header


@lru_cache(maxsize=512)
def _redactions(counts: tuple[tuple[str, int], ...]) -> str:
    return ",".join(f"{kind.lower()}={count}" for kind, count in sorted(counts))


def our_lines(facts: ExchangeFacts, now_ms: float, provider_request_id: bool, named: bytes | None = None) -> bytes:
    """Return the header lines of ours that stand on every answer.

    Args:
        facts: The exchange so far.
        now_ms: Milliseconds since the exchange began.
        provider_request_id: The answer already carries the provider's own x-request-id.
        named: The lines of ``naming_lines``, when they are at hand.
    """
    exchange_id, upstream_ms = facts.id, facts.upstream_ms
    # In whole hundredths, which are cheaper to write than floats; ``floor``, because CPython 3.11 calls ``int`` as the
    # type it is, at ten times the price.
    theirs, own = floor(upstream_ms * 100.0 + 0.5), floor((now_ms - upstream_ms) * 100.0 + 0.5)
    if own < 0:  # noqa: PLR1730 - ``max`` costs more than the sums
        own = 0
    lines = (
        f"x-readygate-id: {exchange_id}\r\nx-readygate-attempts: {len(facts.attempts)}\r\n"
        f"server-timing: gateway;dur={own // 100}{_HUNDREDTHS[own % 100]}, "
        f"upstream;dur={theirs // 100}{_HUNDREDTHS[theirs % 100]}\r\n"
    )
    if not provider_request_id:
        lines += f"x-request-id: {exchange_id}\r\n"
    if facts.sanitized:
        lines += f"x-readygate-redactions: {redactions_value(facts.sanitized)}\r\n"
    if named is None:
        named = naming_lines(facts.policy_revision, facts.provider, facts.model_served)
    return lines.encode() + named


_HUNDREDTHS: Final = tuple([f".{hundredths:02d}" for hundredths in range(100)])


def naming_lines(policy_revision: str, provider: str, model: str) -> bytes:
    """Return the header lines that name policy, provider and model; what is not known has no line."""
    lines = b"x-readygate-policy: " + _text(policy_revision) + b"\r\n" if policy_revision else b""
    if provider:
        lines += b"x-readygate-provider: " + _text(provider) + b"\r\n"
        if model:
            lines += b"x-readygate-model: " + _text(model) + b"\r\n"
    return lines


def refusal_lines(refusal: Problem) -> bytes:
    """Return the header lines that tell a client whose fault a refusal is and whether to try again."""
    lines = f"x-readygate-fault: {refusal.fault.value}\r\n"
    if refusal.retry_after_s is not None:
        seconds, milliseconds = retry_after_values(refusal.retry_after_s)
        lines += f"retry-after: {seconds}\r\nretry-after-ms: {milliseconds}\r\n"
    if refusal.retry is Retry.NO:
        lines += "x-should-retry: false\r\n"
    return lines.encode("ascii")


def _span(seconds: float) -> bytes:
    """Write a duration as OpenAI does in its rate-limit headers: ``120ms``, ``7.5s``, ``6m0s``."""
    if seconds < 1.0:
        return b"%dms" % max(0, round(seconds * 1000))
    if seconds < 60.0:
        return f"{seconds:.3g}s".encode("ascii")
    whole_s = int(seconds)
    known = _spans.get(whole_s)
    if known is None:
        minutes, rest = divmod(whole_s, 60)
        known = b"%dm%ds" % (minutes, rest) if minutes < 60 else b"%dh%dm%ds" % (minutes // 60, minutes % 60, rest)
        if len(_spans) < _CACHE_MAX:
            _spans[whole_s] = known
    return known


_spans: dict[int, bytes] = {}
"""Seconds -> how they are written; most windows are a minute long and say the same each time."""


def budget_lines(granted: Granted) -> bytes:
    """Return ``x-ratelimit-*`` of the tightest budgets of ours that apply, in OpenAI's notation."""
    most_requests, left_requests, requests_s = (
        granted.limit_requests,
        granted.remaining_requests,
        granted.reset_requests_s,
    )
    most_tokens, left_tokens, tokens_s = granted.limit_tokens, granted.remaining_tokens, granted.reset_tokens_s
    if requests_s >= 60.0 and tokens_s >= 60.0 and left_requests >= 0 and left_tokens >= 0:
        # From a minute on a span is written in whole seconds, so all but what is left is the same for a second or longer.
        told = (most_requests, floor(requests_s), most_tokens, floor(tokens_s))
        known = _known_limits.get(told)
        if known is None:
            if len(_known_limits) >= _CACHE_MAX:
                _known_limits.clear()
            known = _BOTH_LEFT % (most_requests, _span(requests_s), most_tokens, _span(tokens_s))
            _known_limits[told] = known
        return known % (left_requests, left_tokens)
    lines = b""
    if most_requests >= 0:
        lines = _REQUESTS_LEFT % (most_requests, max(0, left_requests), _span(requests_s))
    if most_tokens >= 0:
        lines += _TOKENS_LEFT % (most_tokens, max(0, left_tokens), _span(tokens_s))
    return lines


_REQUESTS_LEFT: Final = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
)
_TOKENS_LEFT: Final = (
    b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\nx-ratelimit-reset-tokens: %b\r\n"
)
_BOTH_LEFT: Final = re.sub(rb"(remaining-\w+: )%d", rb"\1%%d", _REQUESTS_LEFT + _TOKENS_LEFT)
_known_limits: dict[tuple[int, int, int, int], bytes] = {}
"""Limits and seconds until they are whole -> both lines, but for what is left."""


def denial_lines(denied: Denied) -> bytes:
    """Return ``x-ratelimit-*`` of the budget that refused; a limit on concurrency has no such header."""
    dimension = denied.dimension.value
    if dimension.startswith("requests"):
        return _REQUESTS_LEFT % (denied.limit, 0, _span(denied.retry_after_s))
    if dimension.startswith("tokens"):
        return _TOKENS_LEFT % (denied.limit, 0, _span(denied.retry_after_s))
    return b""
