"""Estimates err upward and know whether the caller named the answer's length."""

from __future__ import annotations

import pytest

from proxy.core.budget.estimate import ASSUMED_OUTPUT_TOKENS, Estimate, estimate_tokens


@pytest.mark.parametrize(
    ("body_bytes", "messages", "max_tokens", "expected"),
    [
        (0, 0, 0, 3),
        (1, 0, 0, 4),
        (300, 2, 50, 100 + 8 + 3 + 50),
        (301, 2, 50, 101 + 8 + 3 + 50),
        (-5, -1, -9, 3),
    ],
)
def test_prompt_messages_and_allowed_answer_are_added(
    body_bytes: int, messages: int, max_tokens: int, expected: int
) -> None:
    """Bytes over three, rounded up, and what the chat template adds."""
    assert Estimate(expected, True) == estimate_tokens(body_bytes, messages, max_tokens)


def test_unnamed_answer_is_assumed_and_marked() -> None:
    """Such an estimate may be cut to a limit instead of refusing the request for ever."""
    assert Estimate(3 + ASSUMED_OUTPUT_TOKENS, False) == estimate_tokens(0, 0, None)


def test_policy_cap_bounds_named_and_unnamed_answers() -> None:
    """The cap is what the policy will let through, so it is what can be used."""
    assert Estimate(3 + 20, True) == estimate_tokens(0, 0, 500, cap_tokens=20)
    assert Estimate(3 + 20, False) == estimate_tokens(0, 0, None, cap_tokens=20)


def test_every_choice_may_be_as_long() -> None:
    """``n: 4`` costs four answers."""
    assert estimate_tokens(0, 0, 10, choices=4).tokens == 3 + 40
