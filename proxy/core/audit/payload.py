"""What the spool is told of an exchange: the payloads of BEGIN, END and GAP frames, from the facts.

Owns how they are written, and what is cut from one that does not fit; how they are read is in ``row``. Runs on the
request path, twice an exchange, so what rows of one kind share is written down once and kept: it differs from
caller to caller and route to route, hardly from one exchange to the next.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import orjson

from proxy.core.audit.row import ID_BYTES, LAYOUT, MAX_ROW_BYTES, RESERVED_BYTES, Columns, json_text, said_as_bound
from proxy.core.audit.sanitise import CUT, NO_GROUPS, clean_counts, clean_groups, clean_number, clean_text, flag_names
from proxy.terms.exchange import AttemptFacts, ExchangeFacts, Usage
from proxy.terms.outcomes import Fault, Outcome, Status
from proxy.terms.redaction import Counts

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
_NUL: Final = "\\u0000"
"""How JSON writes the one character, beside lone surrogates, that no store takes."""
_NUL_BYTES: Final = _NUL.encode()
_UNSTORABLE: Final = "a NUL is spelled out before it is stored"
_TO_ENDED: Final = '[{"ended_ms":'
_FROM_STARTED: Final = "}]"
_NO_METADATA: Final = "{}"
_NO_USAGE: Final = (None, None, None, None, 0)
_UNGROUPED: Final = (0, NO_GROUPS)
_NOTHING_FOUND: Final = (0, 0, "{}", "{}", "{}")
_TO_CODE: Final = 16
"""What is said of an exchange up to its error code."""
_MAX_KINDS: Final = 1024
"""Kinds of row that are kept; about 2 KB each."""
_SORTED: Final = orjson.OPT_SORT_KEYS
_dumps = orjson.dumps


def encode_begin(facts: ExchangeFacts) -> bytes:
    """Write down what is known before the first byte may leave for a provider.

    Raises:
        ValueError: The id is not 36 ASCII characters; a fault of ours, never the caller's.
    """
    bits, groups = clean_groups(facts.groups) if facts.groups else _UNGROUPED
    try:
        payload = facts.id.encode("ascii") + _dumps(
            (
                LAYOUT,
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
    # A search for one byte costs a tenth of one for more, and few rows have a backslash.
    if len(payload) > RESERVED_BYTES or (payload.find(b"\\") >= 0 and payload.find(_NUL_BYTES) >= 0):
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
    """Return the END payload of an exchange, and its columns when they need no reading back.

    Raises:
        ValueError: The id is not 36 ASCII characters.
    """
    try:
        payload, columns = _ordinary(facts)
    except (TypeError, KeyError):
        return _shrink(facts, _end_values, max_bytes), None
    if len(payload) > RESERVED_BYTES:
        return _shrink(facts, _end_values, max_bytes), None
    if len(facts.id) != ID_BYTES:
        raise ValueError(f"an exchange id has {ID_BYTES} characters, got {len(facts.id)}")
    return payload, columns if facts.id[14] == "7" and said_as_bound(payload) else None


def _ordinary(facts: ExchangeFacts) -> tuple[bytes, Columns]:
    """Return payload and columns of a row in which nothing has to be cleaned.

    Long and flat, because this runs for every exchange. What every row has of its own is written here, everything
    else is a column of ``_kind``.

    Raises:
        TypeError, KeyError: Something has to.
    """
    attempts, usage, cost_usd, first_token_ms = facts.attempts, facts.usage, facts.cost_usd, facts.first_token_ms
    tokens_in = tokens_out = cached = reasoning = None
    estimated = 0
    if usage is not None:
        tokens_in, tokens_out, cached = usage.input_tokens, usage.output_tokens, usage.cached_tokens
        reasoning, estimated = usage.reasoning_tokens, 1 if usage.is_estimated else 0
    found, answered = facts.findings, facts.response_findings
    one = attempts[0] if len(attempts) == 1 else None
    alone = None
    if one is not None:
        alone = (one.provider, one.model, one.outcome, one.http_status, one.reused_connection, one.retry_after_s)
    shared, head, seen, notes, message, between = _kind(
        (
            facts.app, facts.caller, facts.route, facts.policy, facts.policy_revision, facts.provider,
            facts.model_asked, facts.model_served, facts.method, facts.path, facts.is_stream, facts.status,
            facts.http_status, facts.outcome, facts.fault, facts.error_code, facts.error_message, len(attempts),
            estimated, _seen(facts) if found or answered or facts.sanitized or facts.response_sanitized else None,
            facts.unscanned_bytes, _dumps(facts.notes) if facts.notes else b"[]", facts.groups, alone,
        )
    )  # fmt: skip
    user, conversation = facts.user, facts.conversation
    if "\0" in user or "\0" in conversation:
        raise TypeError(_UNSTORABLE)
    if one is None:
        tried = _storable(json_text([_attempt(one) for one in attempts]))
    else:
        ended, started = _dumps(one.ended_ms).decode(), _dumps(one.started_ms).decode()
        tried = f"{_TO_ENDED}{ended}{between}{started}{_FROM_STARTED}"
    sent, received = facts.request_bytes, facts.response_bytes
    if cost_usd is not None:  # what is not a number has no sum
        cost_usd = cost_usd + 0.0 if cost_usd == cost_usd else None  # noqa: PLR0124
    if first_token_ms is not None:
        first_token_ms += 0.0
    latency_ms, upstream_ms = facts.latency_ms + 0.0, facts.upstream_ms + 0.0
    budget = _storable(_dumps(facts.budget, None, _SORTED).decode()) if facts.budget else "{}"
    payload = facts.id.encode("ascii") + _dumps(
        (
            LAYOUT, facts.ts_ms, (user, conversation, message), head, tried, sent, received, tokens_in, tokens_out, cached, reasoning, estimated,
            cost_usd, latency_ms, first_token_ms, upstream_ms, seen, budget, notes,
        )
    )  # fmt: skip
    own = (
        user, conversation, tried, sent, received, tokens_in, tokens_out, cached, reasoning, latency_ms, upstream_ms,
        budget, cost_usd, first_token_ms,
    )  # fmt: skip
    return payload, (facts.ts_ms, own, shared)


_Kind = tuple[tuple[Any, ...], orjson.Fragment, orjson.Fragment, orjson.Fragment, orjson.Fragment, str]


@lru_cache(_MAX_KINDS)
def _kind(said: tuple[Any, ...]) -> _Kind:
    """Return what rows share that say the same: their columns, and the pieces of the END they stand in.

    Raises:
        TypeError: A text has to be cleaned.
    """
    app, *where, stream, status, http_status, outcome, fault, code = said[:_TO_CODE]
    message, tries, estimated, found, unscanned, notes, groups, alone = said[_TO_CODE:]
    bits, groups = clean_groups(groups) if groups else _UNGROUPED
    head = (
        app, *where, 1 if stream else 0, _WORDS[status], http_status, _WORDS[outcome], _WORDS[fault], code, tries,
    )  # fmt: skip
    seen = (*(found or _NOTHING_FOUND), unscanned)
    remarks = (notes.decode(), flag_names(bits) if bits else "")
    personal = (message, _NO_METADATA) if groups == NO_GROUPS else (message, _NO_METADATA, groups)
    shared = (*head[:-1], message, tries, estimated, *seen, *remarks, groups)
    pieces = [orjson.Fragment(_storable(_dumps(part).decode())[1:-1]) for part in (head, seen, remarks, personal)]
    return shared, pieces[0], pieces[1], pieces[2], pieces[3], _between_times(*alone) if alone else ""


def _between_times(
    provider: str, model: str, outcome: Outcome, http_status: int, reused_connection: bool, retry_after_s: float | None
) -> str:
    """Return what stands between the two times of an attempt that is the only one."""
    one = AttemptFacts(provider, model, 0, outcome, http_status, 0, reused_connection, retry_after_s)
    return _storable(json_text([_attempt(one)]))[len(_TO_ENDED) + 1 : -len(_FROM_STARTED) - 1]


def _storable(text: str) -> str:
    """Return a JSON text in which nothing has to be cleaned, or raise TypeError."""
    if _NUL in text:
        raise TypeError(_UNSTORABLE)
    return text


def _seen(facts: ExchangeFacts) -> tuple[int, int, str, str, str]:
    """Return the columns that say what was found and replaced."""
    found, replaced, answered = facts.findings, facts.sanitized, facts.response_findings
    found_text = _counts_text(found)
    return (
        1 if found or answered else 0,
        1 if replaced or facts.response_sanitized else 0,
        found_text,
        found_text if replaced is found else _counts_text(replaced),
        json_text(answered) if answered else "{}",
    )


def _counts_text(counts: dict[str, int]) -> str:
    if type(counts) is not Counts:
        return json_text(counts) if counts else "{}"
    if counts.text is None:
        counts.text = json_text(counts)
    return counts.text


def _tokens(usage: Usage) -> tuple[int, int, int, int, int]:
    return (
        usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens,
        1 if usage.is_estimated else 0,
    )  # fmt: skip


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
    return _dumps((LAYOUT, since_ms, shed, reason))


_Values = list[Any]


def _begin_values(facts: ExchangeFacts, limit: int) -> _Values:
    text = _Cleaner(limit)
    values = [
        LAYOUT, text.number(facts.ts_ms), *text.who(facts), text(facts.model_asked), text(facts.method),
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
    app, user, conversation, *where = text.who(facts)
    columns = [
        app, *where, text(facts.model_asked), text(facts.model_served),
        text(facts.method), text(facts.path), 1 if facts.is_stream else 0,
        text(facts.status), facts.http_status, text(facts.outcome), text(facts.fault or ""),
        text(facts.error_code), len(facts.attempts), json_text(attempts),
        text.number(facts.request_bytes), facts.response_bytes and text.number(facts.response_bytes), *tokens,
        *map(_float, (facts.cost_usd, facts.latency_ms, facts.first_token_ms, facts.upstream_ms)),
        1 if found or answered else 0, 1 if replaced or facts.response_sanitized else 0, json_text(found), json_text(replaced), json_text(answered),
        text.number(facts.unscanned_bytes), json_text(text.counts(facts.budget)), json_text(text.notes(facts.notes)),
    ]  # fmt: skip
    groups = text.groups(facts.groups)
    personal = [user, conversation, text(facts.error_message), _NO_METADATA, *([] if groups == NO_GROUPS else [groups])]
    return [LAYOUT, text.number(facts.ts_ms), personal, *columns, flag_names(text.bits)]


def _float(value: float | None) -> float | None:
    return None if value is None else value + 0.0


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
