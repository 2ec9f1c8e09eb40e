"""One audit row from the facts of one exchange, by way of the bytes the spool keeps.

Owns the row's columns and their order, the payload of BEGIN, END and GAP frames, and what an exchange
that never ended looks like. Does not know files, databases or clocks. A payload is the exchange id
(36 ASCII bytes) followed by a JSON array whose first element is the layout version: arrays, because
names would double the bytes written on the request path. An END holds the columns of its row as the
store takes them and repeats everything its BEGIN said, so a row never depends on two frames having
survived, and one that is still in memory needs no parsing.

A row holds ids, counts, names, numbers and times: no prompt text, no answer text, no credential.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from proxy.core.audit.sanitise import CUT, NO_GROUPS, clean_counts, clean_groups, clean_number, clean_text, flag_names
from proxy.terms.exchange import AttemptFacts, ExchangeFacts, Usage
from proxy.terms.outcomes import Fault, Outcome, Status

ID_BYTES: Final = 36
"""Length of the exchange id that opens a BEGIN or END payload."""
RESERVED_BYTES: Final = 2048
"""Room kept on disk for the END of every open exchange; a payload up to this size is stored as it is."""
MAX_ROW_BYTES: Final = 8192
"""Largest payload written; a larger row is cut to it and flagged."""

Columns = tuple[Any, ...]
"""What an END says, in the order of ``Row`` from ``app`` to ``caller_groups``."""

_VERSION: Final = 3
_WITHOUT_GROUPS: Final = 2
"""The layout before this one: spools of an earlier release may still hold frames of it."""
_NUL = b"\\u0000"
MAX_TEXT_BYTES: Final = 1024
"""Longest text of a row that is not cut further to fit."""
_TEXT_LIMITS: Final = (MAX_TEXT_BYTES, 512, 256, 96, 40, 4)
"""Byte limits of one text, tried in order until the payload fits; the last fits even when every byte is a
control character, which JSON inside JSON spells with seven."""
_WORDS: Final[dict[str | None, str]] = {
    None: "",
    **{word: word.value for words in (Status, Outcome, Fault) for word in words},
}
"""The words of the enumerations as plain texts, which drivers and JSON take several times faster."""
_NO_USAGE: Final = (None, None, None, None, 0)
_UNGROUPED: Final = (0, NO_GROUPS)
_KNOWN: Final = frozenset({_VERSION, _WITHOUT_GROUPS})
_dumps = orjson.dumps
_SORTED: Final = orjson.OPT_SORT_KEYS
"""Stored JSON has its keys in order, so that what a database gives back can be compared byte for byte."""


class Row(NamedTuple):
    """One audit row: the columns of the store, in their order, as plain values.

    Times are milliseconds. JSON columns are JSON text. Claims are 0 or 1. ``None`` is "not known": an
    interrupted exchange has no latency.
    """

    id: str
    ts: int
    """Unix time, from the UUIDv7 when the id is one, so a replayed row always meets its first copy."""
    writer: str
    """The spool that kept the row (a UUID)."""
    epoch: int
    """How many times that spool had been opened."""
    seq: int
    """Number of the frame within the spool; a later frame of the same exchange wins."""
    app: str
    user_id: str
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
    stream: int
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
    tokens_estimated: int
    cost_usd: float | None
    latency_ms: float | None
    first_token_ms: float | None
    upstream_ms: float | None
    pii_detected: int
    pii_sanitized: int
    findings: str
    sanitized: str
    response_findings: str
    unscanned_bytes: int
    budget: str
    notes: str
    flags: str
    caller_groups: str
    """Of a verified token, in its order: what ``applies_to.groups`` of a policy looked at."""
    subject: str | None = None
    hash: bytes | None = None
    """The row's place in the chain of its writer, see ``chain.py``."""
    metadata: str = "{}"
    seal: bytes | None = None
    """What ``hash`` was made with; see ``chain.py``."""


FIRST_COLUMN: Final = Row._fields.index("app")
WRITTEN_COLUMNS: Final = Row._fields.index("subject")
"""How many columns come from the spool; those behind them keep their defaults."""
CLAIMS: Final = frozenset({"stream", "tokens_estimated", "pii_detected", "pii_sanitized"})
JSON_COLUMNS: Final = frozenset(
    {"attempts", "findings", "sanitized", "response_findings", "budget", "notes", "metadata", "caller_groups"}
)
_COLUMN_COUNT: Final = WRITTEN_COLUMNS - FIRST_COLUMN
_DEFAULTS: Final = tuple(Row._field_defaults.values())


Bound = tuple[bytes, bytes]
"""The hash and the seal of a row that has its place in the chain."""


class Gap(NamedTuple):
    """Rows that were not kept because the spool had no room: when, how many, why.

    ``shed`` is ``None`` in the record that opens a gap; the record that closes it carries the count.
    """

    writer: str
    epoch: int
    seq: int
    ts: int
    shed: int | None
    reason: str
    position: int | None = None
    hash: bytes | None = None


def encode_begin(facts: ExchangeFacts) -> bytes:
    """Write down what is known before the first byte may leave for a provider.

    Raises:
        ValueError: The id is not 36 ASCII characters; a fault of ours, never the caller's.
    """
    bits, groups = clean_groups(facts.groups) if facts.groups else _UNGROUPED
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
                bits,
                groups,
            )
        )
    except TypeError:
        return _shrink(facts, _begin_values, RESERVED_BYTES)
    if len(payload) > RESERVED_BYTES or payload.find(_NUL) >= 0:
        return _shrink(facts, _begin_values, RESERVED_BYTES)
    if len(facts.id) != ID_BYTES:
        raise ValueError(f"an exchange id has {ID_BYTES} characters, got {len(facts.id)}")
    return payload


def encode_end(facts: ExchangeFacts, max_bytes: int = MAX_ROW_BYTES) -> bytes:
    """Write down everything about an exchange that ended, in at most ``max_bytes`` (>= 2048).

    Raises:
        ValueError: The id is not 36 ASCII characters.
    """
    return finish(facts, max_bytes)[0]


def finish(facts: ExchangeFacts, max_bytes: int = MAX_ROW_BYTES) -> tuple[bytes, Columns | None]:
    """Return the END payload of an exchange, and the columns in it when they need no reading back.

    Raises:
        ValueError: The id is not 36 ASCII characters.
    """
    try:
        columns = _columns(facts)
        payload = facts.id.encode("ascii") + _dumps((_VERSION, facts.ts_ms, columns))
    except (TypeError, KeyError):
        return _shrink(facts, _end_values, max_bytes), None
    if len(payload) > RESERVED_BYTES or payload.find(_NUL) >= 0:
        return _shrink(facts, _end_values, max_bytes), None
    if len(facts.id) != ID_BYTES:
        raise ValueError(f"an exchange id has {ID_BYTES} characters, got {len(facts.id)}")
    return payload, columns if facts.id[14] == "7" else None


def _columns(facts: ExchangeFacts) -> Columns:
    """Return the columns of an ordinary row; long and flat, because this runs for every exchange."""
    attempts, usage, cost_usd = facts.attempts, facts.usage, facts.cost_usd
    found, replaced, answered = facts.findings, facts.sanitized, facts.response_findings
    tokens_in = tokens_out = cached = reasoning = None
    is_estimated = 0
    if usage is not None:
        tokens_in, tokens_out, cached = usage.input_tokens, usage.output_tokens, usage.cached_tokens
        reasoning, is_estimated = usage.reasoning_tokens, 1 if usage.is_estimated else 0
    found_text = _dumps(found, None, _SORTED).decode() if found else "{}"
    bits, groups = clean_groups(facts.groups) if facts.groups else _UNGROUPED
    return (
        facts.app, facts.user, facts.conversation, facts.caller, facts.route, facts.policy, facts.policy_revision,
        facts.provider, facts.model_asked, facts.model_served, facts.method, facts.path, 1 if facts.is_stream else 0,
        _WORDS[facts.status], facts.http_status, _WORDS[facts.outcome], _WORDS[facts.fault],
        facts.error_code, facts.error_message,
        len(attempts), _attempts_text(attempts),
        facts.request_bytes, facts.response_bytes, tokens_in, tokens_out, cached, reasoning, is_estimated,
        cost_usd if cost_usd == cost_usd else None,  # noqa: PLR0124 - what is not a number has no sum
        facts.latency_ms, facts.first_token_ms, facts.upstream_ms,
        1 if found or answered else 0, 1 if replaced or facts.response_sanitized else 0,
        found_text,
        found_text if replaced == found else _json(replaced),
        _dumps(answered, None, _SORTED).decode() if answered else "{}",
        facts.unscanned_bytes, _dumps(facts.budget, None, _SORTED).decode() if facts.budget else "{}",
        _dumps(facts.notes).decode() if facts.notes else "[]", flag_names(bits) if bits else "", groups,
    )  # fmt: skip


def _tokens(usage: Usage) -> tuple[int, int, int, int, int]:
    return (
        usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens,
        1 if usage.is_estimated else 0,
    )  # fmt: skip


def _attempts_text(attempts: list[AttemptFacts]) -> str:
    if len(attempts) == 1:
        return _dumps((_attempt(attempts[0]),)).decode()
    return _dumps([_attempt(one) for one in attempts]).decode() if attempts else "[]"


def _attempt(attempt: AttemptFacts) -> dict[str, Any]:
    return {  # in order, see _SORTED
        "ended_ms": attempt.ended_ms,
        "http_status": attempt.http_status,
        "model": attempt.model,
        "outcome": _WORDS[attempt.outcome],
        "provider": attempt.provider,
        "retry_after_s": attempt.retry_after_s,
        "reused_connection": attempt.reused_connection,
        "started_ms": attempt.started_ms,
    }


def encode_gap(since_ms: int, shed: int | None, reason: str) -> bytes:
    """Write down that rows were shed from Unix time ``since_ms``; ``shed=None`` opens the gap."""
    return _dumps((_VERSION, since_ms, shed, reason))


class Stamp(NamedTuple):
    """Where a frame was kept: spool, opening, number."""

    writer: str
    epoch: int
    seq: int


def row_of(
    exchange_id: str, columns: Columns, stamp: tuple[str, int, int], bound: Bound | None = None, ts: int | None = None
) -> Row:
    """Return the row of an exchange that ended, from the columns ``finish`` returned and where it was kept.

    Args:
        exchange_id: A UUIDv7.
        columns: As ``finish`` returned them.
        stamp: Writer, epoch and number.
        bound: The row's place in the chain.
        ts: The time the id begins with, where it has been read already.

    Raises:
        ValueError: An id without the time a UUIDv7 begins with.
    """
    tail = _DEFAULTS if bound is None else (None, bound[0], "{}", bound[1])
    return tuple.__new__(Row, (exchange_id, id_time_ms(exchange_id) if ts is None else ts, *stamp, *columns, *tail))


def with_bound(row: Row, bound: Bound | None) -> Row:
    """Return the row with its place in the chain; unchanged without one."""
    return row if bound is None else tuple.__new__(Row, (*row[:WRITTEN_COLUMNS], None, bound[0], "{}", bound[1]))


def id_time_ms(exchange_id: str) -> int:
    """Return the Unix milliseconds a UUIDv7 begins with."""
    return int(exchange_id[:8] + exchange_id[9:13], 16)


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
    try:
        if values[0] not in _KNOWN:
            raise ValueError(f"audit payload layout {values[0]!r} is not known to this release")
        if values[0] == _WITHOUT_GROUPS:
            (values if end is None else values[2]).append(NO_GROUPS)
        columns = values[2] if end is not None else _interrupted(values)
        if len(columns) != _COLUMN_COUNT:
            raise ValueError("audit payload does not have the columns of its layout")
        return tuple.__new__(Row, (exchange_id, _row_time(exchange_id, values[1]), *stamp, *columns, *_DEFAULTS))
    except (IndexError, TypeError, KeyError, AttributeError) as exc:
        raise ValueError("audit payload does not have the layout it names") from exc


def read_gap(payload: bytes, stamp: Stamp) -> Gap:
    """Return the gap record a GAP payload holds.

    Raises:
        ValueError: Not what ``encode_gap`` writes.
    """
    values = orjson.loads(payload)
    if not isinstance(values, list) or len(values) < 4 or values[0] not in _KNOWN:
        raise ValueError("audit gap payload does not have a known layout")
    return Gap(stamp.writer, stamp.epoch, stamp.seq, int(values[1]), values[2], values[3])


def _interrupted(v: list[Any]) -> Columns:
    """Return the columns of an exchange of which only its BEGIN is known."""
    return (
        *v[2:11], "", v[11], v[12], 1 if v[13] else 0,
        Status.INTERRUPTED.value, 0, "", "", "", "", 0, "[]", v[14], None, *_NO_USAGE, None, None, None, None,
        1 if v[16] else 0, 1 if v[17] else 0, _json(v[16]), _json(v[17]), "{}", v[15], "{}", "[]", flag_names(v[18]), v[19],
    )  # fmt: skip


def _json(value: object) -> str:
    return _dumps(value, None, _SORTED).decode()


def _row_time(exchange_id: str, ts_ms: int) -> int:
    """Take the time from a UUIDv7, else the time that was written beside it."""
    if exchange_id[14:15] == "7":
        return int(exchange_id[:8] + exchange_id[9:13], 16)
    return int(ts_ms)


_Values = list[Any]


def _begin_values(facts: ExchangeFacts, limit: int) -> _Values:
    text = _Cleaner(limit)
    values = [
        _VERSION, text.number(facts.ts_ms), *text.who(facts), text(facts.model_asked), text(facts.method),
        text(facts.path), facts.is_stream,
        text.number(facts.request_bytes), text.number(facts.unscanned_bytes),
        text.counts(facts.findings), text.counts(facts.sanitized),
    ]  # fmt: skip
    groups = text.groups(facts.groups)
    return [*values, text.bits, groups]


def _end_values(facts: ExchangeFacts, limit: int) -> _Values:
    text = _Cleaner(limit)
    usage = facts.usage
    found, answered = text.counts(facts.findings), text.counts(facts.response_findings)
    replaced = text.counts(facts.sanitized)
    tokens = _NO_USAGE if usage is None else [text.number(count) for count in _tokens(usage)]
    attempts = text.attempts(facts.attempts)
    columns = [
        *text.who(facts), text(facts.model_asked), text(facts.model_served),
        text(facts.method), text(facts.path), 1 if facts.is_stream else 0,
        text(facts.status), facts.http_status, text(facts.outcome), text(facts.fault or ""),
        text(facts.error_code), text(facts.error_message), len(facts.attempts), _json(attempts),
        text.number(facts.request_bytes), facts.response_bytes and text.number(facts.response_bytes), *tokens,
        facts.cost_usd, facts.latency_ms, facts.first_token_ms, facts.upstream_ms,
        1 if found or answered else 0, 1 if replaced or facts.response_sanitized else 0, _json(found), _json(replaced), _json(answered),
        text.number(facts.unscanned_bytes), _json(text.counts(facts.budget)), _json(text.notes(facts.notes)),
    ]  # fmt: skip
    groups = text.groups(facts.groups)
    return [_VERSION, text.number(facts.ts_ms), [*columns, flag_names(text.bits), groups]]


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

    def groups(self, groups: tuple[str, ...]) -> str:
        bits, text = clean_groups(groups)
        if len(text) > self._limit:
            bits, text = bits | CUT, NO_GROUPS
        self.bits |= bits
        return text

    def attempts(self, attempts: list[AttemptFacts]) -> list[dict[str, Any]]:
        if len(attempts) > self._items:
            self.bits |= CUT
        return [
            _attempt(attempt) | {"provider": self(attempt.provider), "model": self(attempt.model)}
            for attempt in attempts[: self._items]
        ]

    def who(self, facts: ExchangeFacts) -> list[str]:
        texts = (
            facts.app, facts.user, facts.conversation, facts.caller, facts.route, facts.policy,
            facts.policy_revision, facts.provider,
        )  # fmt: skip
        return [self(text) for text in texts]


def _shrink(facts: ExchangeFacts, values_of: Any, max_bytes: int) -> bytes:
    """Clean every text and lower the limit of one text until the payload fits ``max_bytes``."""
    exchange_id = facts.id.encode("ascii")
    if len(exchange_id) != ID_BYTES:
        raise ValueError(f"an exchange id has {ID_BYTES} characters, got {len(exchange_id)}")
    payload = b""
    for limit in _TEXT_LIMITS:
        payload = exchange_id + _dumps(values_of(facts, limit))
        if len(payload) <= max_bytes:
            return payload
    raise ValueError(f"a row of {len(payload)} bytes does not fit {max_bytes} even when cut")
