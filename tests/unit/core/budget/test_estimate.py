"""Estimates err upward and know whether the caller named the answer's length."""

from __future__ import annotations

import base64
import json

import pytest

from proxy.core.budget.estimate import (
    ASSUMED_OUTPUT_TOKENS,
    TOKENS_PER_IMAGE,
    Estimate,
    Prompt,
    estimate_tokens,
    measure,
)


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


PICTURE = base64.b64encode(bytes(300_000)).decode()
INLINE = f"data:image/png;base64,{PICTURE}"


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "image_url", "image_url": {"url": INLINE}}],
        [{"type": "input_image", "image_url": INLINE}],
        [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}],
        [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
    ],
)
def test_picture_counts_as_a_picture_whatever_its_bytes(parts: list[object]) -> None:
    """A third of the bytes of a photo is hundreds of thousands of tokens, and was refused for ever."""
    for separators in ((",", ":"), (", ", ": ")):
        body = json.dumps({"messages": [{"role": "user", "content": parts * 2}]}, separators=separators).encode()
        found = measure(body)

        assert 2 == found.images
        assert found.text_bytes < 500
        tokens = estimate_tokens(found.text_bytes, 1, 10, images=found.images).tokens
        assert 2 * TOKENS_PER_IMAGE <= tokens < 2 * TOKENS_PER_IMAGE + 250


@pytest.mark.parametrize(
    "content",
    [
        INLINE,
        json.dumps({"type": "image_url", "image_url": {"url": INLINE}}),
        'an "image": "media_type": "image/png", "data": "' + PICTURE,
        [{"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PICTURE}"}}],
    ],
)
def test_words_that_look_like_a_picture_count_as_words(content: object) -> None:
    """Or a caller could have any text admitted as next to nothing."""
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()

    assert len(body) == measure(body).text_bytes


def test_body_without_pictures_is_its_length() -> None:
    assert Prompt(17) == measure(b'{"messages":"hi"}')
