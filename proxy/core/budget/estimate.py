"""How many tokens a request may cost, before anyone has counted them.

Owns the rule of thumb; knows no tokenizer and no body. Every number errs upward, because a reservation
that is too small is the only kind that can break a budget's promise.
"""

from __future__ import annotations

import re
from typing import Final

BYTES_PER_TOKEN = 3
"""Common tokenizers need four bytes of English and three of most other text per token."""
TOKENS_PER_MESSAGE = 4
"""Role and separators that a chat template adds around each message."""
TOKENS_PER_REPLY = 3
"""The primer of the assistant's turn."""
ASSUMED_OUTPUT_TOKENS = 1024
"""Taken for the answer when neither the caller nor the policy says how long it may be."""

TOKENS_PER_IMAGE = 1600
"""Providers shrink pictures before they count them: what most of them charge for a large one at most."""
_INLINE: Final = b";base64,"
_OPENS_INLINE: Final = re.compile(rb'"(?:image_url|url)"\s*:\s*"data:image/[\w.+-]{1,40};base64,\Z')
_BEFORE_BLOCK: Final = re.compile(rb'"media_type"\s*:\s*"image/[\w.+-]{1,40}"\s*,\s*"data"\s*:\s*"\Z')
_LOOK_BACK: Final = 120


def measure(body: bytes) -> tuple[int, int]:
    """Take the pictures out of a JSON body's length: they cost by their size on a screen, not by their bytes.

    Returns the bytes of the text that is left, and the number of pictures. Only what stands where a provider reads a picture is taken out. Inside other text the quotes are escaped, so no
    caller can hide words there.
    """
    if body.find(b"image") < 0:
        return len(body), 0
    chat = body.count(b'"image_url"') - body.count(b'"input_image"')
    images = max(0, chat) // 2 + body.count(b'"input_image"') + body.count(b'"image"')
    left, inline = len(body), 0
    for mark, opening, skip in ((_INLINE, _OPENS_INLINE, len(_INLINE)), (b'"data"', _BEFORE_BLOCK, 0)):
        at = body.find(mark)
        while at >= 0:
            begin = at + skip if skip else body.find(b'"', at + len(mark)) + 1
            end = body.find(b'"', begin)
            if end < 0 or not begin:
                break
            if opening.search(body, max(0, begin - _LOOK_BACK), begin):
                left -= end - begin
                inline += 1
            at = body.find(mark, max(end, at + 1))
    return left, max(images, inline)


def prompt_tokens(text_bytes: int, messages: int, images: int = 0) -> int:
    """Bound the tokens of what is sent from what is cheap to know.

    Args:
        text_bytes: Length of the text, in UTF-8 bytes.
        messages: Number of messages in it; 1 for a bare prompt or input.
        images: Pictures among the messages, whose bytes are not in ``text_bytes``.
    """
    return (
        -(-text_bytes // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * messages + TOKENS_PER_IMAGE * images + TOKENS_PER_REPLY
    )


def output_tokens(max_tokens: int | None, choices: int = 1) -> int:
    """Bound the tokens of all answers to one request.

    Args:
        max_tokens: What the caller, or policy, allows an answer; None: nobody says.
        choices: Number of answers asked for (``n``).
    """
    return (ASSUMED_OUTPUT_TOKENS if max_tokens is None else max_tokens) * choices
