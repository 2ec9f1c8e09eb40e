"""Values between turns: bounds, writes that follow each other, and stores that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dialect import Dialect
from proxy.core.redaction import Vault
from proxy.core.redaction.history import answer_id, history_of, read_rows, write_rows
from proxy.flow.exchange import Exchange
from proxy.flow.kept_values import MAX_VALUES, NOT_KEPT, NOT_RECALLED, KeptValues
from proxy.stores.memory_values import MemoryValues
from proxy.terms.errors import ValuesUnavailable


def exchange(*values: str, conversation: str = "c", dialect: Dialect = Dialect.CHAT, app: str = "shop") -> Exchange:
    vault = Vault((), b"key") if values else None
    for value in values:
        cast("Vault", vault).tag("EMAIL", value)
    facts = SimpleNamespace(app=app, caller="", conversation=conversation, notes=[])
    return cast("Exchange", SimpleNamespace(facts=facts, vault=vault, dialect=dialect, follows=None))


def values_of(turn: Exchange) -> set[str]:
    return set() if turn.vault is None else {value for _, value, _ in turn.vault.rows()}


def kept_in(store: Any, now_s: Callable[[], float] = lambda: 0.0) -> KeptValues:
    return KeptValues(store, b"secret", now_s, lambda: 0.5)


class Failing(MemoryValues):
    async def read(self, history: str) -> list[bytes]:
        raise ValuesUnavailable("away")

    async def write(self, history: str, rows: bytes, keep_s: float) -> None:
        raise ValuesUnavailable("away")


async def test_turn_that_comes_at_once_has_what_the_turn_before_it_is_still_writing() -> None:
    """Nobody waits for the write, so whoever needs it does."""

    class Slow(MemoryValues):
        async def write(self, history: str, rows: bytes, keep_s: float) -> None:
            await asyncio.sleep(0.02)
            await super().write(history, rows, keep_s)

    kept = kept_in(Slow(lambda: 0.0))
    await kept.join(exchange("ana@example.com"), 60.0, None)
    second = exchange("bea@example.com")
    await kept.join(second, 60.0, None)
    third = exchange()
    await kept.join(third, 60.0, None)

    assert {"ana@example.com", "bea@example.com"} == values_of(second) == values_of(third)
    await kept.close()


async def test_values_are_forgotten_when_their_time_is_over() -> None:
    """The clock of the store is the one that counts."""
    now = [0.0]
    kept = kept_in(MemoryValues(lambda: now[0]))
    first = exchange("ana@example.com")
    await kept.join(first, 60.0, None)
    assert first.follows is not None
    await first.follows.settled()
    found = []
    for now[0] in (59.0, 61.0):
        turn = exchange()
        await kept.join(turn, 60.0, None)
        found.append(values_of(turn))

    assert [{"ana@example.com"}, set()] == found


async def test_value_said_again_lasts_from_then_on() -> None:
    """A conversation whose person is named every day does not lose them after the first."""
    now = [0.0]
    kept = kept_in(MemoryValues(lambda: now[0]))
    for now[0] in (0.0, 50.0):
        turn = exchange("ana@example.com")
        await kept.join(turn, 60.0, None)
        assert turn.follows is not None
        await turn.follows.settled()
    now[0] = 100.0
    last = exchange()
    await kept.join(last, 60.0, None)

    assert {"ana@example.com"} == values_of(last)


async def test_what_an_answer_handed_on_is_known_by_the_conversation_too() -> None:
    """The first turn had no conversation; the third names nothing else."""
    kept = kept_in(MemoryValues(lambda: 0.0))
    first = exchange("ana@example.com", conversation="", dialect=Dialect.RESPONSES)
    await kept.join(first, 60.0, {})
    assert first.follows is not None
    first.follows.take_answer(b'{"id":"resp_1"}')
    second, third = exchange(dialect=Dialect.RESPONSES), exchange()
    await kept.join(second, 60.0, {"previous_response_id": "resp_1"})
    await kept.join(third, 60.0, None)

    assert {"ana@example.com"} == values_of(second) == values_of(third)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_answer_without_an_id_says_that_its_values_are_not_kept(is_stream: bool) -> None:
    """A provider with ids of another kind must not look as if it worked."""
    kept = kept_in(MemoryValues(lambda: 0.0))
    turn = exchange("ana@example.com", conversation="", dialect=Dialect.RESPONSES)
    await kept.join(turn, 60.0, {})
    assert turn.follows is not None
    if is_stream:
        turn.follows.feed(b'data: {"id":"x"}\n\n')
        turn.follows.finish()
    else:
        turn.follows.take_answer(b'{"id":"x"}')

    assert ([NOT_KEPT], 1) == (turn.facts.notes, kept.failures)


async def test_history_that_is_full_says_so_and_keeps_what_it_has() -> None:
    """A conversation cannot fill the store, and its row says that later turns know less."""
    kept = kept_in(MemoryValues(lambda: 0.0))
    await kept.join(exchange(*(f"a{at}@example.com" for at in range(MAX_VALUES))), 60.0, None)
    more = exchange("one.more@example.com")
    await kept.join(more, 60.0, None)
    later = exchange()
    await kept.join(later, 60.0, None)

    assert ([NOT_KEPT], MAX_VALUES) == (more.facts.notes, len(values_of(later)))


async def test_store_that_fails_is_left_alone_after_a_while_and_every_row_says_so() -> None:
    """An outage costs each turn nothing once it is known."""
    asked = []

    class Counting(Failing):
        async def read(self, history: str) -> list[bytes]:
            asked.append(history)
            return await super().read(history)

    kept = kept_in(Counting(lambda: 0.0))
    turns = [exchange("ana@example.com") for _ in range(30)]
    for turn in turns:
        await kept.join(turn, 60.0, None)
        follower = turn.follows
        assert follower is not None
        await follower.settled()

    assert len(asked) < 10
    assert kept.is_open
    assert all([NOT_RECALLED, NOT_KEPT] == turn.facts.notes for turn in turns)
    assert all({"ana@example.com"} == values_of(turn) for turn in turns)


async def test_memory_drops_the_history_written_longest_ago() -> None:
    """The bound holds, and a conversation that goes on stays."""
    store = MemoryValues(lambda: 0.0, max_bytes=30)
    for name, rows in (("a", b"0123456789"), ("b", b"0123456789"), ("a", b"9876543210"), ("c", b"0123456789")):
        await store.write(name, rows, 60.0)

    assert [2, 0, 1] == [len(await store.read(name)) for name in "abc"]


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"conversation": "conv_1"}, ("conv_1", "")),
        ({"conversation": {"id": "conv_1"}, "previous_response_id": None}, ("conv_1", "")),
        ({"previous_response_id": "resp_1"}, ("", "resp_1")),
        ({"conversation": 7, "previous_response_id": ["x"]}, ("", "")),
        ({"conversation": "x" * 600}, ("", "")),
        ([], ("", "")),
        (None, ("", "")),
    ],
)
def test_histories_are_named_by_text_alone(document: Any, found: tuple[str, str]) -> None:
    """What is no id names nothing, and nothing is raised."""
    assert found == history_of(document)


def test_id_of_an_answer_is_found_whole_or_not_at_all() -> None:
    """An id that is cut by the window would be another one."""
    text = b'{"type":"response.created","response":{"id":"resp_12ab+/=","object":"response"}}'
    ids = {answer_id(text[:at]) for at in range(len(text) + 1)}

    assert {"", "resp_12ab+/="} == ids


@given(st.lists(st.tuples(st.text(), st.text(st.characters()), st.text())))
def test_rows_survive_their_way_to_the_store(rows: list[tuple[str, str, str]]) -> None:
    """Any value comes back, half a surrogate pair too."""
    assert rows == read_rows(write_rows(rows))
