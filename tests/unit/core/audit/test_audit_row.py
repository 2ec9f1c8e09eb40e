"""From facts to a row: complete, storable, and honest about what was cut."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.audit.payload import encode_begin, encode_end, encode_gap, finish
from proxy.core.audit.row import MAX_ROW_BYTES, RESERVED_BYTES, Row, Stamp, merge, named, read_gap, row_of
from proxy.core.audit.sanitise import MAX_GROUPS_BYTES
from proxy.terms.exchange import AttemptFacts, ExchangeFacts, Usage
from proxy.terms.outcomes import Fault, Outcome, Status
from proxy.terms.redaction import Counts
from tests.support.audit import TS_MS, exchange_id, typical_exchange

STAMP = Stamp("11111111-2222-4333-8444-555555555555", 2, 41)
TEXT_FIELDS = [field.name for field in fields(ExchangeFacts) if field.type == "str" and field.name != "id"]


def end_row(**changes: Any) -> Row:
    return merge(None, encode_end(typical_exchange(**changes)), STAMP)


def test_finished_exchange_fills_every_column() -> None:
    """The columns promised by the design are all there, each with its own fact."""
    row = end_row(status=Status.FALLBACK, fault=Fault.PROVIDER, is_stream=True, unscanned_bytes=12, notes=["a"])

    assert ("fallback", "provider", True, 12, '["a"]') == (
        row.status, row.fault, row.stream, row.unscanned_bytes, row.notes,
    )  # fmt: skip
    assert (100, 50, 0, 0, False) == (
        row.tokens_in, row.tokens_out, row.tokens_cached, row.tokens_reasoning, row.tokens_estimated,
    )  # fmt: skip
    assert (0.000125, 512.25, 200.125, 510.0) == (row.cost_usd, row.latency_ms, row.first_token_ms, row.upstream_ms)
    assert (True, True, '{"EMAIL":1}', "{}") == (
        row.pii_detected,
        row.pii_sanitized,
        row.findings,
        row.response_findings,
    )
    assert ("openai", "gpt-4o-mini", "ok", 200) == (
        row.provider, row.model_served, row.outcome, orjson.loads(row.attempts)[0]["http_status"],
    )  # fmt: skip
    assert STAMP == (row.writer, row.epoch, row.seq)


def test_counts_that_exchanges_share_make_the_same_row() -> None:
    """Their text is written once and kept with them."""
    plain, shared = {"EMAIL": 1, "CPF": 2}, Counts({"EMAIL": 1, "CPF": 2})
    first, second = (end_row(findings=shared, sanitized=shared) for _ in range(2))

    assert end_row(findings=plain, sanitized=plain) == first == second
    assert end_row(findings=plain, sanitized={"CPF": 2}) == end_row(findings=shared, sanitized={"CPF": 2})


def test_begin_without_end_is_an_interrupted_exchange() -> None:
    """A killed sidecar leaves a row that says so, with all that was known when it began."""
    row = merge(encode_begin(typical_exchange()), None, STAMP)

    assert (Status.INTERRUPTED, 0, "", None, None) == (
        row.status, row.http_status, row.outcome, row.latency_ms, row.tokens_in,
    )  # fmt: skip
    assert ("checkout", "user-1", "fast", True) == (row.app, row.user_id, row.model_asked, row.pii_sanitized)


def test_end_needs_no_begin() -> None:
    """A row must not depend on two frames having survived."""
    facts = typical_exchange()

    assert merge(encode_begin(facts), encode_end(facts), STAMP) == merge(None, encode_end(facts), STAMP)


@pytest.mark.parametrize("changes", [{}, {"usage": None, "cost_usd": float("nan"), "attempts": [], "findings": {}}])
def test_row_from_memory_equals_the_row_read_back(changes: dict[str, Any]) -> None:
    """Whether a row was shipped at once or after a restart must not show in the store."""
    facts = typical_exchange(**changes)
    payload, columns = finish(facts)

    assert columns is not None
    assert merge(None, payload, STAMP) == row_of(facts.id, columns, STAMP)


@given(
    st.sampled_from([0.0, 7, 0.1 + 0.2, 1e-9, 123456.789, float("nan")]),
    st.sampled_from([0.0, 1e22]),
    st.text(max_size=5),
    st.none() | st.just(1.5),
)
def test_attempt_that_is_the_only_one_is_written_as_one_of_several(
    ended_ms: float, started_ms: float, model: str, retry_after_s: float | None
) -> None:
    """What is kept of the last attempt of its kind must not show in this one's row."""
    one = AttemptFacts("openai", model, started_ms, Outcome.OK, 200, ended_ms, retry_after_s=retry_after_s)
    alone, twice = end_row(attempts=[one]), end_row(attempts=[one, one])

    assert f"[{alone.attempts[1:-1]},{alone.attempts[1:-1]}]" == twice.attempts


@pytest.mark.parametrize("changes", [{"app": "a\x00"}, {"user": "\ud800"}, {"model_asked": "m" * 4000}])
def test_row_that_had_to_be_cleaned_is_only_to_be_had_from_its_payload(changes: dict[str, Any]) -> None:
    """What was escaped or cut on disk must not reach the store uncut from memory."""
    assert finish(typical_exchange(**changes))[1] is None


def test_time_of_a_row_comes_from_its_id() -> None:
    """A replayed row must land in the partition of its first copy, whatever the clock says now."""
    row = end_row(ts_ms=TS_MS)
    moved = typical_exchange()
    moved.ts_ms = 5

    assert TS_MS == row.ts
    assert row.ts == merge(None, encode_end(moved), STAMP).ts


def test_id_that_is_no_uuid7_falls_back_to_the_written_time() -> None:
    """A foreign id must not date a row to the year 6000."""
    facts = typical_exchange()
    facts.id = facts.id[:14] + "4" + facts.id[15:]

    assert TS_MS == merge(None, encode_end(facts), STAMP).ts


def test_id_of_another_length_is_our_own_fault_and_refused() -> None:
    """The id opens the payload at a fixed width; a wrong one would shift the rest."""
    facts = typical_exchange()
    facts.id = "short"
    for encode in (encode_begin, encode_end):
        with pytest.raises(ValueError, match="36 characters"):
            encode(facts)


@pytest.mark.parametrize("name", TEXT_FIELDS)
@pytest.mark.parametrize(("raw", "stored"), [("a\x00b", "a\\u0000b"), ("a\ud800b", "a\\ud800b"), ("\udfff", "\\udfff")])
def test_unstorable_character_is_spelled_out_and_flagged(name: str, raw: str, stored: str) -> None:
    """NUL and lone surrogates would refuse a whole batch in PostgreSQL (AU-10)."""
    column = {"user": "user_id"}.get(name, name)
    row = end_row(**{name: raw})

    assert (stored, "escaped") == (getattr(row, column), row.flags)


def test_unstorable_characters_in_nested_facts_are_spelled_out_too() -> None:
    """The JSON columns are as exposed as the text columns."""
    bad = "x\x00\ud800"
    row = end_row(
        notes=[bad], findings={bad: 1}, budget={bad: 2.0}, attempts=[AttemptFacts(bad, bad, 0.0, Outcome.OK, 200)]
    )

    assert "x\\u0000\\ud800" == orjson.loads(row.notes)[0]
    assert {"x\\u0000\\ud800": 1} == orjson.loads(row.findings)
    assert "x\\u0000\\ud800" == orjson.loads(row.attempts)[0]["model"]
    assert "\\u0000" not in orjson.loads(row.budget).keys() | {row.flags}


def test_mebibyte_of_model_name_is_cut_and_flagged() -> None:
    """A caller may send anything as a model; the row stays small and says that it was cut (AU-10)."""
    facts = typical_exchange(model_asked="m" * 2**20)
    begin, end = encode_begin(facts), encode_end(facts)
    row = merge(None, end, STAMP)

    assert len(begin) <= RESERVED_BYTES
    assert len(end) <= MAX_ROW_BYTES
    assert (1024, "cut") == (len(row.model_asked), row.flags)
    assert "cut" == merge(begin, None, STAMP).flags


def test_number_beyond_64_bits_is_cut_and_flagged() -> None:
    """Providers count tokens; some day one sends nonsense."""
    row = end_row(usage=Usage(2**70, -(2**70)))

    assert (2**63 - 1, -(2**63 - 1), "cut") == (row.tokens_in, row.tokens_out, row.flags)


def test_not_a_number_becomes_unknown() -> None:
    """NaN has no JSON and no meaning in a sum."""
    assert end_row(cost_usd=float("nan")).cost_usd is None


def test_ordinary_row_carries_no_flag() -> None:
    """A flag must mean something."""
    assert "" == end_row().flags


wild_text = st.text(st.characters(), max_size=400) | st.just("\x00\ud800🙂") | st.just("ü" * 5000)


@given(st.dictionaries(st.sampled_from(TEXT_FIELDS), wild_text), st.lists(wild_text, max_size=40), st.booleans())
def test_any_texts_fit_the_room_set_aside(texts: dict[str, str], notes: list[str], is_tight: bool) -> None:
    """An END always fits, so an exchange that began can always be ended."""
    attempts = [AttemptFacts(note, note, 0.0) for note in notes]
    facts = typical_exchange(**texts, notes=notes, attempts=attempts, findings=dict.fromkeys(notes, 1))
    limit = RESERVED_BYTES if is_tight else MAX_ROW_BYTES
    payload = encode_end(facts, limit)
    row = merge(None, payload, STAMP)

    assert len(payload) <= limit
    assert len(encode_begin(facts)) <= RESERVED_BYTES
    for value in row:
        if isinstance(value, str):
            assert "\x00" not in value
            value.encode()


def test_worst_texts_fit_the_room_set_aside() -> None:
    """Control characters cost six bytes each in JSON; even then the END must fit."""
    worst = ["\x01" * 300 + str(number) for number in range(40)]
    facts = typical_exchange(
        **dict.fromkeys(TEXT_FIELDS, worst[0]), notes=worst, attempts=[AttemptFacts(text, text, 0.1) for text in worst],
        findings=dict.fromkeys(worst, 1), sanitized=dict.fromkeys(worst, 1),
        response_findings=dict.fromkeys(worst, 1), budget=dict.fromkeys(worst, 0.123456789012345),
    )  # fmt: skip

    assert len(encode_end(facts, RESERVED_BYTES)) <= RESERVED_BYTES
    assert len(encode_begin(facts)) <= RESERVED_BYTES


def test_groups_of_a_token_are_kept_in_their_order() -> None:
    """The first of the caller's groups decides between two policies, so the order is part of the fact."""
    facts = typical_exchange(groups=("eng-b", "eng-a"))
    ended, begun = merge(None, encode_end(facts), STAMP), merge(encode_begin(facts), None, STAMP)

    assert ('["eng-b","eng-a"]', "") == (ended.caller_groups, ended.flags)
    assert ended.caller_groups == begun.caller_groups
    assert "[]" == end_row().caller_groups


@pytest.mark.parametrize("groups", [tuple(f"group-{n:04}" for n in range(2000)), ("x" * 5000,), ("\x01" * 400, "b")])
def test_groups_without_number_are_cut_and_flagged(groups: tuple[str, ...]) -> None:
    """Tokens of large organisations name thousands; a row keeps the first that fit and says so."""
    facts = typical_exchange(groups=groups)
    row = merge(None, encode_end(facts), STAMP)

    assert len(row.caller_groups.encode()) <= MAX_GROUPS_BYTES
    assert list(groups[: len(orjson.loads(row.caller_groups))]) == orjson.loads(row.caller_groups)
    assert ("cut", "cut") == (row.flags, merge(encode_begin(facts), None, STAMP).flags)


@pytest.mark.parametrize("groups", [(), ("ops", "data")])
@pytest.mark.parametrize("layout", [2, 3])
def test_frames_of_earlier_releases_are_read(layout: int, groups: tuple[str, ...]) -> None:
    """A spool that an earlier release left behind is delivered by this one."""
    facts = typical_exchange(groups=groups if layout == 3 else ())
    begin, end = encode_begin(facts), encode_end(facts)
    columns = list(named(merge(None, end, STAMP)).values())[5:47]
    old_begin = orjson.loads(begin[36:])
    old_begin[0] = layout
    if layout == 2:
        columns.pop()
        old_begin.pop()

    assert merge(None, end, STAMP) == merge(None, end[:36] + orjson.dumps([layout, facts.ts_ms, columns]), STAMP)
    assert merge(begin, None, STAMP) == merge(begin[:36] + orjson.dumps(old_begin), None, STAMP)


def test_unknown_layout_is_refused_by_value_error() -> None:
    """After a downgrade a newer row must be set aside, not misread."""
    payload = exchange_id(1).encode() + b"[99,1]"
    with pytest.raises(ValueError, match="layout"):
        merge(None, payload, STAMP)


@given(st.binary(max_size=200))
def test_noise_is_refused_by_value_error(noise: bytes) -> None:
    """Whatever lies in a frame, the reader has one exception to expect."""
    with pytest.raises(ValueError):  # noqa: PT011 - the promise is the class
        merge(None, exchange_id(1).encode() + b"[1," + noise, STAMP)


def test_gap_record_returns_what_was_written() -> None:
    """Rows that are missing are evidence too."""
    gap = read_gap(encode_gap(TS_MS, 17, "shed:audit_backpressure"), STAMP)

    assert (17, "shed:audit_backpressure", 41) == (gap.shed, gap.reason, gap.seq)
