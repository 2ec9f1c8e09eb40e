"""Estimates err upward."""

from __future__ import annotations

import base64
import json

import pytest

from proxy.core.budget.estimate import (
    ASSUMED_OUTPUT_TOKENS,
    TOKENS_PER_IMAGE,
    measure,
    output_tokens,
    prompt_tokens,
)


@pytest.mark.parametrize(
    ("body_bytes", "messages", "max_tokens", "expected"),
    [
        (0, 0, 0, 3),
        (1, 0, 0, 4),
        (300, 2, 50, 100 + 8 + 3 + 50),
        (301, 2, 50, 101 + 8 + 3 + 50),
    ],
)
def test_prompt_messages_and_allowed_answer_are_added(
    body_bytes: int, messages: int, max_tokens: int, expected: int
) -> None:
    """Bytes over three, rounded up, and what the chat template adds."""
    assert expected == prompt_tokens(body_bytes, messages) + output_tokens(max_tokens)


def test_unnamed_answer_is_assumed() -> None:
    """Nobody said how long it may be."""
    assert ASSUMED_OUTPUT_TOKENS == output_tokens(None)


def test_every_choice_may_be_as_long() -> None:
    """``n: 4`` costs four answers."""
    assert (40, 4 * ASSUMED_OUTPUT_TOKENS) == (output_tokens(10, 4), output_tokens(None, 4))


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
        text_bytes, images = measure(body)

        assert 2 == images
        assert text_bytes < 500
        tokens = prompt_tokens(text_bytes, 1, images) + output_tokens(10)
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

    assert (len(body), 0) == measure(body)


def test_body_without_pictures_is_its_length() -> None:
    assert (17, 0) == measure(b'{"messages":"hi"}')
