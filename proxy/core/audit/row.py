"""One audit row from the facts of one exchange, by way of the bytes the spool keeps.

Owns the row's columns and their order, the payload of BEGIN, END and GAP frames, and what an exchange
that never ended looks like. Does not know files, databases or clocks. A payload is the exchange id
(36 ASCII bytes) followed by a JSON array whose first element is the layout version: arrays, because
names would double the bytes written on the request path. An END repeats everything its BEGIN said, so
a row never depends on two frames having survived.

A row holds ids, counts, names, numbers and times: no prompt text, no answer text, no credential.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from proxy.core.audit.sanitise import CUT, clean_counts, clean_number, clean_text, flag_names
from proxy.terms.exchange import AttemptFacts, ExchangeFacts
from proxy.terms.outcomes import Status

ID_BYTES: Final = 36
"""Length of the exchange id that opens a BEGIN or END payload."""
RESERVED_BYTES: Final = 2048
"""Room kept on disk for the END of every open exchange; a payload up to this size is stored as it is."""
MAX_ROW_BYTES: Final = 8192
"""Largest payload written; a larger row is cut to it and flagged."""

_VERSION: Final = 1
_NUL = b"\\u0000"
_TEXT_LIMITS: Final = (1024, 512, 256, 96, 40, 4)
"""Byte limits of one text, tried in order until the payload fits; the last fits even when every byte is a
control character, which JSON spells with six."""
_MIN_TS_MS: Final = -62_135_596_800_000
_MAX_TS_MS: Final = 253_402_300_799_999
_dumps = orjson.dumps


class Row(NamedTuple):
    """One audit row: the columns of the store, in their order, as plain values.

    Times are milliseconds except ``ts`` (aware UTC). JSON columns are JSON text. ``None`` is "not
    known": an interrupted exchange has no latency.
    """

    id: str
    ts: datetime
    """From the milliseconds inside the UUIDv7, so a replayed row always meets its first copy."""
    writer: str
    """The spool that kept the row (a UUID)."""
    epoch: int
    """How many times that spool had been opened."""
    seq: int
    """Number of the frame within the spool; a later frame of the same exchange wins."""
    hash: bytes | None
    app: str
    user_id: str
    subject: str | None
    conversation: str
    caller: str
    route: str
    policy: str
    policy_revision: str
    provider: str
    model_asked: str
    model_served: str
    method: str
    path: str
    stream: bool
    status: str
    http_status: int
    outcome: str
    fault: str
    error_code: str
    error_message: str
    attempt_count: int
    attempts: str
    request_bytes: int
    response_bytes: int | None
    tokens_in: int | None
    tokens_out: int | None
    tokens_cached: int | None
    tokens_reasoning: int | None
    tokens_estimated: bool
    cost_usd: float | None
    latency_ms: float | None
    first_token_ms: float | None
    upstream_ms: float | None
    pii_detected: bool
    pii_sanitized: bool
    findings: str
    sanitized: str
    response_findings: str
    unscanned_bytes: int
    budget: str
    notes: str
    flags: str
    metadata: str


class Gap(NamedTuple):
    """Rows that were not kept because the spool had no room: when, how many, why.

    ``shed`` is ``None`` in the record that opens a gap; the record that closes it carries the count.
    """

    writer: str
    epoch: int
    seq: int
    ts: datetime
    shed: int | None
    reason: str


def encode_begin(facts: ExchangeFacts) -> bytes:
    """Write down what is known before the first byte may leave for a provider.

    Raises:
        ValueError: The id is not 36 ASCII characters; a fault of ours, never the caller's.
    """
    try:
        payload = facts.id.encode("ascii") + _dumps(
            (
                _VERSION,
                facts.ts_ms,
                facts.app,
                facts.user,
                facts.conversation,
                facts.caller,
                facts.route,
                facts.policy,
                facts.policy_revision,
                facts.provider,
                facts.model_asked,
                facts.method,
                facts.path,
                facts.is_stream,
                facts.request_bytes,
                facts.unscanned_bytes,
                facts.findings,
                facts.sanitized,
                0,
            )
        )
    except TypeError:
        return _shrink(facts, _begin_values, RESERVED_BYTES)
    if len(payload) > RESERVED_BYTES or _NUL in payload:
        return _shrink(facts, _begin_values, RESERVED_BYTES)
    if len(facts.id) != ID_BYTES:
        raise ValueError(f"an exchange id has {ID_BYTES} characters, got {len(facts.id)}")
    return payload


def encode_end(facts: ExchangeFacts, max_bytes: int = MAX_ROW_BYTES) -> bytes:
    """Write down everything about an exchange that ended, in at most ``max_bytes`` (>= 2048).

    Raises:
        ValueError: The id is not 36 ASCII characters.
    """
    try:
        payload = facts.id.encode("ascii") + _dumps(
            (
                _VERSION,
                facts.ts_ms,
                facts.app,
                facts.user,
                facts.conversation,
                facts.caller,
                facts.route,
                facts.policy,
                facts.policy_revision,
                facts.provider,
                facts.model_asked,
                facts.model_served,
                facts.method,
                facts.path,
                facts.is_stream,
                facts.status,
                facts.http_status,
                facts.outcome,
                facts.fault,
                facts.error_code,
                facts.error_message,
                facts.attempts,
                facts.request_bytes,
                facts.response_bytes,
                facts.usage,
                facts.cost_usd,
                facts.latency_ms,
                facts.first_token_ms,
                facts.upstream_ms,
                facts.findings,
                facts.sanitized,
                facts.response_findings,
                facts.unscanned_bytes,
                facts.budget,
                facts.notes,
                0,
            )
        )
    except TypeError:
        return _shrink(facts, _end_values, max_bytes)
    if len(payload) > RESERVED_BYTES or _NUL in payload:
        return _shrink(facts, _end_values, max_bytes)
    if len(facts.id) != ID_BYTES:
        raise ValueError(f"an exchange id has {ID_BYTES} characters, got {len(facts.id)}")
    return payload


def encode_gap(since_ms: int, shed: int | None, reason: str) -> bytes:
    """Write down that rows were shed from Unix time ``since_ms``; ``shed=None`` opens the gap."""
    return _dumps((_VERSION, since_ms, shed, reason))


class Stamp(NamedTuple):
    """Where a frame was kept: spool, opening, number."""

    writer: str
    epoch: int
    seq: int


def merge(begin: bytes | None, end: bytes | None, stamp: Stamp) -> Row:
    """Return the row of an exchange from its frames; without an END it was interrupted.

    ``stamp`` belongs to the END, or to the BEGIN when there is no END.

    Raises:
        ValueError: Neither payload can be read: an unknown layout version, or not what we write.
    """
    payload = end if end is not None else begin
    if payload is None:
        raise ValueError("a row needs a BEGIN or an END")
    exchange_id = str(payload[:ID_BYTES], "ascii")
    values = orjson.loads(payload[ID_BYTES:])
    if values[0] != _VERSION:
        raise ValueError(f"audit payload layout {values[0]!r} is not known to this release")
    try:
        if end is not None:
            return _finished(exchange_id, values, stamp)
        return _interrupted(exchange_id, values, stamp)
    except (IndexError, TypeError) as exc:
        raise ValueError("audit payload does not have the layout it names") from exc


def read_gap(payload: bytes, stamp: Stamp) -> Gap:
    """Return the gap record a GAP payload holds.

    Raises:
        ValueError: Not what ``encode_gap`` writes.
    """
    values = orjson.loads(payload)
    if not isinstance(values, list) or len(values) < 4 or values[0] != _VERSION:
        raise ValueError("audit gap payload does not have a known layout")
    return Gap(stamp.writer, stamp.epoch, stamp.seq, _moment(values[1]), values[2], values[3])


def _finished(exchange_id: str, v: list[Any], stamp: Stamp) -> Row:
    usage = v[24] or {}
    attempts = v[21]
    return Row(
        exchange_id, _row_time(exchange_id, v[1]), stamp.writer, stamp.epoch, stamp.seq, None,
        v[2], v[3], None, v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14],
        v[15], v[16], v[17], v[18] or "", v[19], v[20],
        len(attempts), _json(attempts) if attempts else "[]", v[22], v[23],
        usage.get("input_tokens"), usage.get("output_tokens"), usage.get("cached_tokens"),
        usage.get("reasoning_tokens"), usage.get("is_estimated", False),
        v[25], v[26], v[27], v[28],
        bool(v[29]) or bool(v[31]), bool(v[30]), _mapping(v[29]), _mapping(v[30]), _mapping(v[31]),
        v[32], _mapping(v[33]), _json(v[34]) if v[34] else "[]", flag_names(v[35]), "{}",
    )  # fmt: skip


def _interrupted(exchange_id: str, v: list[Any], stamp: Stamp) -> Row:
    return Row(
        exchange_id, _row_time(exchange_id, v[1]), stamp.writer, stamp.epoch, stamp.seq, None,
        v[2], v[3], None, v[4], v[5], v[6], v[7], v[8], v[9], v[10], "", v[11], v[12], v[13],
        Status.INTERRUPTED.value, 0, "", "", "", "",
        0, "[]", v[14], None, None, None, None, None, False, None, None, None, None,
        bool(v[16]), bool(v[17]), _mapping(v[16]), _mapping(v[17]), "{}",
        v[15], "{}", "[]", flag_names(v[18]), "{}",
    )  # fmt: skip


def _json(value: object) -> str:
    return _dumps(value).decode()


def _mapping(value: dict[str, float]) -> str:
    return _dumps(value).decode() if value else "{}"


def _row_time(exchange_id: str, ts_ms: int) -> datetime:
    """Take the time from a UUIDv7, else the time that was written beside it."""
    if exchange_id[14:15] == "7":
        return _moment(int(exchange_id[:8] + exchange_id[9:13], 16))
    return _moment(ts_ms)


def _moment(ts_ms: int) -> datetime:
    return datetime.fromtimestamp(min(max(ts_ms, _MIN_TS_MS), _MAX_TS_MS) / 1000, UTC)


_Values = list[Any]


def _begin_values(facts: ExchangeFacts, limit: int) -> tuple[_Values, int]:
    text = _Cleaner(limit)
    values = [
        *text.who(facts), text(facts.model_asked), text(facts.method), text(facts.path), facts.is_stream,
        text.number(facts.request_bytes), text.number(facts.unscanned_bytes),
        text.counts(facts.findings), text.counts(facts.sanitized),
    ]  # fmt: skip
    return values, text.bits


def _end_values(facts: ExchangeFacts, limit: int) -> tuple[_Values, int]:
    text = _Cleaner(limit)
    usage = facts.usage
    values = [
        *text.who(facts), text(facts.model_asked), text(facts.model_served),
        text(facts.method), text(facts.path), facts.is_stream, facts.status, facts.http_status,
        facts.outcome, facts.fault, text(facts.error_code), text(facts.error_message),
        text.attempts(facts.attempts), text.number(facts.request_bytes), text.number(facts.response_bytes),
        usage and {
            "input_tokens": text.number(usage.input_tokens),
            "output_tokens": text.number(usage.output_tokens),
            "cached_tokens": text.number(usage.cached_tokens),
            "reasoning_tokens": text.number(usage.reasoning_tokens),
            "is_estimated": usage.is_estimated,
        },
        facts.cost_usd, facts.latency_ms, facts.first_token_ms, facts.upstream_ms,
        text.counts(facts.findings), text.counts(facts.sanitized), text.counts(facts.response_findings),
        text.number(facts.unscanned_bytes), text.counts(facts.budget), text.notes(facts.notes),
    ]  # fmt: skip
    return values, text.bits


class _Cleaner:
    """Cleans the values of one row with one text limit, and remembers what that took."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items = max(2, limit // 16)
        self.bits = 0

    def __call__(self, text: str) -> str:
        text, bits = clean_text(text, self._limit)
        self.bits |= bits
        return text

    def number(self, value: int) -> float:
        kept, bits = clean_number(value)
        self.bits |= bits
        return kept

    def counts(self, counts: dict[str, int] | dict[str, float]) -> dict[str, float]:
        kept, bits = clean_counts(counts, self._items, min(self._limit, 64))
        self.bits |= bits
        return kept

    def notes(self, notes: list[str]) -> list[str]:
        if len(notes) > self._items:
            self.bits |= CUT
        return [self(note) for note in notes[: self._items]]

    def attempts(self, attempts: list[AttemptFacts]) -> list[dict[str, Any]]:
        if len(attempts) > self._items:
            self.bits |= CUT
        return [
            {
                "provider": self(attempt.provider),
                "model": self(attempt.model),
                "started_ms": attempt.started_ms,
                "outcome": attempt.outcome,
                "http_status": attempt.http_status,
                "ended_ms": attempt.ended_ms,
                "reused_connection": attempt.reused_connection,
                "retry_after_s": attempt.retry_after_s,
            }
            for attempt in attempts[: self._items]
        ]

    def who(self, facts: ExchangeFacts) -> list[Any]:
        texts = (
            facts.app, facts.user, facts.conversation, facts.caller, facts.route, facts.policy,
            facts.policy_revision, facts.provider,
        )  # fmt: skip
        return [_VERSION, self.number(facts.ts_ms), *(self(text) for text in texts)]


def _shrink(facts: ExchangeFacts, values_of: Any, max_bytes: int) -> bytes:
    """Clean every text and lower the limit of one text until the payload fits ``max_bytes``."""
    exchange_id = facts.id.encode("ascii")
    if len(exchange_id) != ID_BYTES:
        raise ValueError(f"an exchange id has {ID_BYTES} characters, got {len(exchange_id)}")
    payload = b""
    for limit in _TEXT_LIMITS:
        values, bits = values_of(facts, limit)
        payload = exchange_id + _dumps([*values, bits])
        if len(payload) <= max_bytes:
            return payload
    raise ValueError(f"a row of {len(payload)} bytes does not fit {max_bytes} even when cut")
