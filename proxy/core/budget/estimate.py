"""How many tokens a request may cost, before anyone has counted them.

Owns the rule of thumb; knows no tokenizer and no body. Every number errs upward, because a reservation
that is too small is the only kind that can break a budget's promise.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

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


class Prompt(NamedTuple):
    """What there is to count in a request's body."""

    text_bytes: int
    images: int = 0


class Estimate(NamedTuple):
    """Tokens to reserve.

    ``is_explicit`` says that the caller named the length of the answer. An explicit estimate larger than
    a budget can never be served; one that rests on an assumption is cut to the limit instead, because
    otherwise the first request without ``max_tokens`` would be refused for ever.
    """

    tokens: int
    is_explicit: bool


def measure(body: bytes) -> Prompt:
    """Take the pictures out of a JSON body's length: they cost by their size on a screen, not by their bytes.

    Only what stands where a provider reads a picture is taken out. Inside other text the quotes are escaped, so no
    caller can hide words there.
    """
    if body.find(b"image") < 0:
        return Prompt(len(body))
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
    return Prompt(left, max(images, inline))


def estimate_tokens(
    body_bytes: int,
    messages: int,
    max_tokens: int | None,
    *,
    cap_tokens: int | None = None,
    choices: int = 1,
    images: int = 0,
) -> Estimate:
    """Bound the tokens of one request from what is cheap to know.

    Args:
        body_bytes: Length of the text that is sent, in UTF-8 bytes.
        messages: Number of messages in it; 1 for a bare prompt or input.
        max_tokens: What the caller allows the answer, under whichever name the API gives it.
        cap_tokens: The policy's own ceiling for the answer.
        choices: Number of answers asked for (``n``).
        images: Pictures among the messages, whose bytes are not in ``body_bytes``.
    """
    # No ``max`` here or below: the function costs more than all the sums of an ordinary request.
    text = -(-body_bytes // BYTES_PER_TOKEN) if body_bytes > 0 else 0
    prompt = text + (TOKENS_PER_MESSAGE * messages if messages > 0 else 0) + TOKENS_PER_REPLY
    if images:
        prompt += TOKENS_PER_IMAGE * images
    output = output_tokens(max_tokens, cap_tokens=cap_tokens, choices=choices)
    return Estimate(prompt + output, max_tokens is not None)


def output_tokens(max_tokens: int | None, *, cap_tokens: int | None = None, choices: int = 1) -> int:
    """Bound the tokens of all answers to one request."""
    if max_tokens is None:
        output = ASSUMED_OUTPUT_TOKENS if cap_tokens is None else cap_tokens
    else:
        output = max(0, max_tokens)
        if cap_tokens is not None and cap_tokens < output:
            output = cap_tokens
    return output * choices if choices > 1 else output
