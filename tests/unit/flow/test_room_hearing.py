"""What is skipped of a provider's word on its own limits is only what would have changed nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.flow.answer_shapes import AnswerShapes
from proxy.flow.budgets import Budgets
from proxy.flow.room import Room
from proxy.flow.waiting import WaitingLines
from proxy.terms.http import AnswerHead
from tests.support.audit import SetClock

OPENAI = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]
REQUESTS = ["x-ratelimit-limit-requests", "X-RateLimit-Remaining-Requests", "x-ratelimit-reset-requests"]
ANTHROPIC = [
    "anthropic-ratelimit-tokens-limit",
    "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-tokens-reset",
]
HEADS = [
    OPENAI,
    REQUESTS,
    OPENAI + REQUESTS,
    ANTHROPIC,
    OPENAI + ANTHROPIC,
    OPENAI[1:],
    OPENAI + OPENAI[1:2],
    ["x-note"],
]
ODD = st.sampled_from(["", "-1", "x-ratelimit-limit", "9" * 30, "5 0"])


def values_of(name: str) -> st.SearchStrategy[str]:
    """Return what such a line may say: mostly numbers near the edge between far and near."""
    if "reset" in name:
        return st.sampled_from(["9s", "9s", "20s", "0s"]) | ODD
    if "limit-t" in name or "limit-r" in name.replace("ratelimit-r", "") or name.endswith("-limit"):
        return st.sampled_from(["100", "100", "20"])
    return st.sampled_from(["0", "2", "3", "10", "11", "90", "90", "91"]) | st.sampled_from(["90", "91"]) | ODD


TARGET = SimpleNamespace(model="m", dialled="groq:m")


def hears(room: Room, head: AnswerHead) -> tuple[bool, list[tuple[float, bool]]]:
    """Tell the room of an answer; return whether anybody is paced, and how long what waits."""
    plan: Any = SimpleNamespace()
    if head.may_be_near is not None:
        room.hear(plan, TARGET, head)  # type: ignore[arg-type]
    paces = room.budgets.paces
    return paces.is_idle, [paces.wait_s("groq:m", tokens, room.clock.monotonic_s()) for tokens in (0, 2, 50)]


@settings(max_examples=300, deadline=None)
@given(names=st.sampled_from(HEADS), data=st.data())
def test_shaped_heads_say_of_limits_what_they_say_when_every_line_is_read(
    names: list[str], data: st.DataObject
) -> None:
    """A head that is known by its shape is asked for few values; one that is not is read: both pace alike."""
    shapes, clock = AnswerShapes(), SetClock()
    rooms: list[Any] = [Room(Budgets(), WaitingLines(clock.monotonic_s), SimpleNamespace(), clock, None) for _ in "ab"]  # type: ignore[arg-type]
    for gap_s in data.draw(st.lists(st.sampled_from([0.0, 1.0, 9.0]), min_size=3, max_size=12)):
        clock.now_s += gap_s
        lines = "".join(f"\r\n{name}: {data.draw(values_of(name))}" for name in names).encode()

        shaped = shapes.head(200, b"HTTP/1.1 200 OK" + lines + b"\r\n\r\n")

        assert hears(rooms[1], AnswerHead(200, b"OK", lines)) == hears(rooms[0], shaped)
        for room in rooms:
            room.budgets.paces.take("groq:m", 1, clock.now_s)


def test_word_heard_before_a_far_one_is_news_again() -> None:
    """The same line may come twice with plenty between: the second time it is a new word, not a repeated one."""
    shapes, clock = AnswerShapes(), SetClock()
    room: Any = Room(Budgets(), WaitingLines(clock.monotonic_s), SimpleNamespace(), clock, None)  # type: ignore[arg-type]

    def told(left: int) -> tuple[bool, list[tuple[float, bool]]]:
        clock.now_s += 10.0
        lines = (
            f"\r\nx-ratelimit-limit-tokens: 100\r\nx-ratelimit-remaining-tokens: {left}\r\nx-ratelimit-reset-tokens: 9s"
        )
        return hears(room, shapes.head(200, b"HTTP/1.1 200 OK" + lines.encode() + b"\r\n\r\n"))

    for left in (99, 98, 97):
        told(left)
    first = told(2)
    clock.now_s += 10.0
    room.budgets.paces.take("groq:m", 1, clock.now_s)

    assert (True, first) == (told(99)[0], told(2))
    assert not first[0]
