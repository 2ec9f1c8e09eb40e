"""The arithmetic of the chain: what is bound, what a person's erasure leaves, what a second copy gets."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.audit.chain import (
    PERSONAL,
    Chain,
    commitment,
    erase,
    erased_seal,
    gap_hash,
    hash_of,
    is_erased,
    position_of,
    seal_alone,
    stands_alone,
)
from proxy.core.audit.payload import encode_begin, finish
from proxy.core.audit.row import Gap, Row, Stamp, merge, named, read_end, row_of
from proxy.terms.exchange import Usage
from tests.support.audit import typical_exchange

WRITER = "11111111-2222-4333-8444-555555555555"
SECRET = b"0123456789abcdef"


def bound(chain: Chain, number: int = 1, seq: int = 0, **changes: Any) -> Row:
    """Return a row with its place in the chain, as the spool's reader makes it."""
    payload, _ = finish(typical_exchange(number, **changes))
    row = merge(None, payload, Stamp(chain.writer, chain.epoch, seq or number))
    return chain.bind(row, SECRET)


def test_row_can_be_proved_from_what_the_store_has() -> None:
    """Verifying computes from the row what binding computed from the frame."""
    chain = Chain.begin(WRITER, 1)
    before = chain.copy()
    row = bound(chain)

    assert chain.hash == row.hash == hash_of(row, before.hash)
    assert (1, 1, 0) == (position_of(row), chain.position, before.position)
    assert not stands_alone(row)


def test_same_frames_make_the_same_hashes() -> None:
    """A replayed segment changes nothing in the store."""
    first, second = (
        [bound(chain, number).hash for number in range(1, 6)]
        for chain in (Chain.begin(WRITER, 1), Chain.begin(WRITER, 1))
    )

    assert first == second
    assert 5 == len(set(first))


def test_openings_and_writers_begin_differently() -> None:
    """A row cannot be carried from one chain into another."""
    assert 3 == len({Chain.begin(WRITER, 1).hash, Chain.begin(WRITER, 2).hash, Chain.begin(WRITER[::-1], 1).hash})


_TEXT = st.text(max_size=12) | st.text('[]{}",\\', max_size=6)
"""Callers choose their names: some look like the bytes around them."""
_NUMBER = st.sampled_from([0, 7, 0.0, 1.5, 1e-9, 123456.789])


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("app", "user", "conversation", "route", "model_asked", "path", "error_message"), _TEXT),
            **dict.fromkeys(("cost_usd", "first_token_ms"), _NUMBER | st.none()),
            **dict.fromkeys(("latency_ms", "upstream_ms"), _NUMBER),
            **dict.fromkeys(("findings", "sanitized", "budget"), st.dictionaries(_TEXT, st.integers(0, 9), max_size=2)),
            "response_sanitized": st.none() | st.just({}) | st.just({"CPF": 1}),
            "notes": st.lists(_TEXT, max_size=2),
            "groups": st.lists(_TEXT, max_size=2).map(tuple),
            "is_stream": st.booleans(),
            "usage": st.none() | st.just(Usage(3, 4, 1, 2, is_estimated=True)),
            "attempts": st.just([]),
        },
    )
)
@example({"user": ",[", "groups": ("]", "}")})
@example({"user": '{}"]', "conversation": "{}", "error_message": '"],'})
def test_row_just_written_is_bound_once_and_as_the_row_read_back(changes: dict[str, Any]) -> None:
    """Shipped at once or after a restart, by its bytes or by its columns: a row has one hash, and the store's proves it."""
    facts = typical_exchange(1, **changes)
    payload, columns = finish(facts)
    at_once, later, stored = (Chain.begin(WRITER, 1) for _ in range(3))
    ended = (facts.id, 9, payload, read_end(payload)[1])
    (read,) = later.bind_written([ended], SECRET)

    assert read == stored.bind(merge(None, payload, Stamp(WRITER, 1, 9)), SECRET)
    assert read.hash == hash_of(read, Chain.begin(WRITER, 1).hash)
    if columns is not None:  # nothing had to be cleaned
        ended = (facts.id, 9, payload, columns)
        assert [read, row_of(facts.id, columns, (WRITER, 1, 9))] == at_once.bind_written([ended, ended], SECRET)
        assert at_once == later == stored


def test_second_copy_of_a_frame_is_not_bound_again() -> None:
    """Frames are written twice when a disk refuses to sync; the row has one place all the same."""
    chain = Chain.begin(WRITER, 1)
    bound(chain, 5)
    after = chain.copy()

    assert None is bound(chain, 5).hash
    assert after == chain


CHANGES: dict[str, Any] = {
    "app": "x", "user_id": "x", "conversation": "x", "caller": "x", "route": "x", "policy": "x", "policy_revision": "x",
    "provider": "x", "model_asked": "x", "model_served": "x", "method": "x", "path": "x", "stream": 1, "status": "x",
    "http_status": 1, "outcome": "x", "fault": "x", "error_code": "x", "error_message": "x", "attempt_count": 9,
    "attempts": "[]", "request_bytes": 1, "response_bytes": None, "tokens_in": 1, "tokens_out": 1, "tokens_cached": 1,
    "tokens_reasoning": 1, "tokens_estimated": 1, "cost_usd": None, "latency_ms": 1.5, "first_token_ms": None,
    "upstream_ms": None, "pii_detected": 0, "pii_sanitized": 0, "findings": "{}", "sanitized": "{}",
    "response_findings": '{"x":1}', "unscanned_bytes": 1, "budget": "{}", "notes": '["x"]', "flags": "x",
    "metadata": '{"x":1}', "caller_groups": '["x"]', "id": "x", "ts": 1, "writer": "x", "epoch": 9, "seq": 9,
}  # fmt: skip


@pytest.mark.parametrize("column", [name for name in Row._fields if name not in {"subject", "hash", "seal"}])
def test_every_column_is_bound(column: str) -> None:
    """A column that could be edited unseen would be the one somebody edits; a new column needs a value here."""
    chain = Chain.begin(WRITER, 1)
    row = bound(chain)

    assert row.hash == hash_of(row, Chain.begin(WRITER, 1).hash)
    assert row.hash != hash_of(row._replace(**{column: CHANGES[column]}), Chain.begin(WRITER, 1).hash)


def test_row_without_groups_has_the_hash_it_had_before_there_were_any() -> None:
    """A store that was taken over from the release before must still verify."""
    row = bound(Chain.begin(WRITER, 1))
    assert row.seal is not None
    kept = sha256(row.seal[9:] + orjson.dumps((row.user_id, row.conversation, row.error_message, "{}"))).digest()
    others = [v for n, v in named(row).items() if n not in {*PERSONAL, "subject", "hash", "seal"}]
    before = Chain.begin(WRITER, 1).hash

    assert sha256(before + (1).to_bytes(8, "big") + kept + orjson.dumps(others)).digest() == row.hash


def test_salt_is_the_same_in_a_replay_and_another_for_every_row() -> None:
    """A replayed segment must make the same hashes, and one salt for two rows would let them be compared."""
    chain, again = Chain.begin(WRITER, 1), Chain.begin(WRITER, 1)

    seals = [bound(chain, seq=seq).seal for seq in range(1, 100)]

    assert seals == [bound(again, seq=seq).seal for seq in range(1, 100)]
    assert len({seal[9:] for seal in seals if seal is not None}) == 99


def test_groups_are_personal() -> None:
    """A group of one person names that person: it goes with them, and the row still proves itself."""
    row = bound(Chain.begin(WRITER, 1), groups=("team-of-ana",))
    gone = erase(row)

    assert ('["team-of-ana"]', "[]") == (row.caller_groups, gone.caller_groups)
    assert row.hash == hash_of(gone, Chain.begin(WRITER, 1).hash)


def test_whole_numbers_in_float_columns_are_bound_as_the_store_returns_them() -> None:
    """Databases have doubles where a caller of ours may have put an int."""
    row = bound(Chain.begin(WRITER, 1), latency_ms=5, cost_usd=0, upstream_ms=None, first_token_ms=None)
    stored = row._replace(latency_ms=5.0, cost_usd=0.0)

    assert row.hash == hash_of(stored, Chain.begin(WRITER, 1).hash)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_erased_row_still_proves_itself_and_says_nothing(user: str, conversation: str, error: str) -> None:
    """What binds the personal columns stays; they and the salt go."""
    row = bound(Chain.begin(WRITER, 1), user=user, conversation=conversation, error_message=error)
    gone = erase(row)

    assert row.hash == hash_of(gone, Chain.begin(WRITER, 1).hash)
    assert ("", "", "", "{}", None) == (
        gone.user_id, gone.conversation, gone.error_message, gone.metadata, gone.subject,
    )  # fmt: skip
    assert (False, True) == (is_erased(row), is_erased(gone))
    assert row.seal is not None
    assert gone.seal is not None
    assert row.seal[9:] not in gone.seal
    assert gone == erase(gone)
    assert 1 == position_of(gone)


def test_salt_is_each_rows_own() -> None:
    """Knowing one row's salt helps nobody to guess the name in another."""
    chain = Chain.begin(WRITER, 1)
    seals = {(bound(chain, number).seal or b"")[9:] for number in range(1, 20)}

    assert 19 == len(seals)


def test_row_before_the_chain_has_nothing_to_prove() -> None:
    """Rows of an older release stay readable and erasable."""
    row = bound(Chain.begin(WRITER, 1))._replace(hash=None, seal=None)

    assert (None, None, None, None) == (hash_of(row, b""), commitment(row), position_of(row), erase(row).seal)
    assert (False, False) == (is_erased(row), stands_alone(row))
    assert None is erased_seal(b"odd", "", "", "", "{}")


def test_interrupted_row_stands_alone() -> None:
    """Where it lies depends on what else is left, so nothing is bound to it; its own columns are."""
    facts = typical_exchange(3)
    row = seal_alone(merge(encode_begin(facts), None, Stamp(WRITER, 2, 7)), SECRET)

    assert stands_alone(row)
    assert None is position_of(row)
    assert row.hash == hash_of(row, Chain.begin(WRITER, 2).hash)
    assert row.hash != hash_of(row._replace(user_id="x"), Chain.begin(WRITER, 2).hash)


def test_gap_has_its_place_between_the_rows() -> None:
    """That rows were shed is evidence too."""
    chain = Chain.begin(WRITER, 1)
    bound(chain, 1)
    before = chain.copy()
    gap = Gap(WRITER, 1, 5, 1_795_300_000_000, 12, "shed:audit_backpressure")
    placed = chain.bind_gap(gap)

    assert (2, gap_hash(before.hash, 2, gap)) == (placed.position, placed.hash)
    assert gap_hash(before.hash, 2, placed._replace(shed=1)) != placed.hash
    assert gap is chain.bind_gap(gap)
