"""How many tokens a request may cost, before anyone has counted them.

Owns the rule of thumb; knows no tokenizer and no body. Every number errs upward, because a reservation
that is too small is the only kind that can break a budget's promise.
"""

from __future__ import annotations

from typing import NamedTuple

BYTES_PER_TOKEN = 3
"""Common tokenizers need four bytes of English and three of most other text per token."""
TOKENS_PER_MESSAGE = 4
"""Role and separators that a chat template adds around each message."""
TOKENS_PER_REPLY = 3
"""The primer of the assistant's turn."""
ASSUMED_OUTPUT_TOKENS = 1024
"""Taken for the answer when neither the caller nor the policy says how long it may be."""


class Estimate(NamedTuple):
    """Tokens to reserve.

    ``is_explicit`` says that the caller named the length of the answer. An explicit estimate larger than
    a budget can never be served; one that rests on an assumption is cut to the limit instead, because
    otherwise the first request without ``max_tokens`` would be refused for ever.
    """

    tokens: int
    is_explicit: bool


def estimate_tokens(
    body_bytes: int,
    messages: int,
    max_tokens: int | None,
    *,
    cap_tokens: int | None = None,
    choices: int = 1,
) -> Estimate:
    """Bound the tokens of one request from what is cheap to know.

    Args:
        body_bytes: Length of the text that is sent, in UTF-8 bytes.
        messages: Number of messages in it; 1 for a bare prompt or input.
        max_tokens: What the caller allows the answer, under whichever name the API gives it.
        cap_tokens: The policy's own ceiling for the answer.
        choices: Number of answers asked for (``n``).
    """
    prompt = -(-max(0, body_bytes) // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * max(0, messages) + TOKENS_PER_REPLY
    output = output_tokens(max_tokens, cap_tokens=cap_tokens, choices=choices)
    return Estimate(prompt + output, max_tokens is not None)


def output_tokens(max_tokens: int | None, *, cap_tokens: int | None = None, choices: int = 1) -> int:
    """Bound the tokens of all answers to one request."""
    if max_tokens is None:
        output = ASSUMED_OUTPUT_TOKENS if cap_tokens is None else cap_tokens
    else:
        output = max(0, max_tokens) if cap_tokens is None else min(max(0, max_tokens), cap_tokens)
    return output * max(1, choices)
