"""Names the shape spoken on a path. Does not look at bodies."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Dialect(StrEnum):
    """The shape of a request and of its answer."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    """Anthropic's ``/v1/messages``."""
    OTHER = "other"
    """Anything else: JSON is still read wherever it has strings."""


CHAT: Final = Dialect.CHAT
EMBEDDINGS: Final = Dialect.EMBEDDINGS
OTHER: Final = Dialect.OTHER
"""By names of their own, as ``terms.outcomes.OK`` is: every exchange asks for these a dozen times."""


_BY_PATH = {
    "/v1/chat/completions": Dialect.CHAT,
    "/v1/completions": Dialect.COMPLETIONS,
    "/v1/responses": Dialect.RESPONSES,
    "/v1/embeddings": Dialect.EMBEDDINGS,
    "/v1/messages": Dialect.MESSAGES,
}


def dialect_of(path: str) -> Dialect:
    """Return the dialect of a path without its query; deeper paths (``/v1/responses/resp_1``) and other prefixes count.

    ``/v1/threads/…/messages`` is OpenAI's own and not Anthropic's, so it is OTHER.
    """
    known = _BY_PATH.get(path)
    return known if known is not None else _from_segments(path.strip("/").split("/"))


def _from_segments(segments: list[str]) -> Dialect:
    if "completions" in segments:
        at = segments.index("completions")
        return Dialect.CHAT if at and segments[at - 1] == "chat" else Dialect.COMPLETIONS
    if "responses" in segments:
        return Dialect.RESPONSES
    if segments[-1] == "embeddings":
        return Dialect.EMBEDDINGS
    if "messages" in segments and "threads" not in segments:
        return Dialect.MESSAGES
    return Dialect.OTHER
