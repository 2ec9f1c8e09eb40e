"""Asking a target in another dialect than the caller's, and answering the caller in his.

Owns the seam between a chat exchange and a target that speaks the Messages API: what is sent, and the answer as chat,
so that nothing behind it knows of the other dialect. The mapping itself is ``core.dialect``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import orjson

from proxy.core.dialect import Dialect
from proxy.core.dialect.from_messages import ChatEvents, NotAMessage, chat_of, error_of
from proxy.flow.catalog import Deployment
from proxy.flow.exchange import Exchange
from proxy.flow.intake import Request
from proxy.flow.ports import Answer, BodySink, LiveBody

MESSAGES_TARGET: Final = b"/messages"
_VERSION: Final = b"anthropic-version: 2023-06-01\r\n"


def is_translated(exchange: Exchange, deployment: Deployment) -> bool:
    """True when a chat request goes to a target that speaks the Messages API."""
    return deployment.speaks_messages and exchange.dialect is Dialect.CHAT


def asks_usage(request: Request) -> bool:
    """True when a chat request asks for a usage event at the end of its stream."""
    large = request.large
    if large is not None:
        return large.asks_usage or (large.fitted is not None and large.fitted[1])
    document = request.document
    options = document.get("stream_options") if isinstance(document, dict) else None
    return isinstance(options, dict) and options.get("include_usage") is True


def version_line(exchange: Exchange, owned: frozenset[bytes]) -> bytes:
    """Return the version header that the Messages API demands, unless settings or caller give one."""
    if b"anthropic-version" in owned or b"anthropic-version" in exchange.inbound.head.fields:
        return b""
    return _VERSION


def translated_answer(answer: Answer, created_s: int, *, reports_usage: bool) -> Answer:
    """Return a Messages API answer as the chat answer it stands for.

    A whole answer that is neither a message nor an error goes on as it is, to be judged as what it is.
    """
    head = answer.head
    if answer.live is not None:
        if head.is_event_stream:
            answer.live = TranslatedLive(answer.live, ChatEvents(created_s, reports_usage=reports_usage))
        else:
            answer.live.abort()
            answer.live, answer.body = None, b""
        return answer
    if not answer.body:
        return answer
    try:
        document = orjson.loads(answer.body)
        made = error_of(document) if head.status >= 400 or _is_error(document) else chat_of(document, created_s)
    except (orjson.JSONDecodeError, NotAMessage):
        return answer
    if made is None:
        return answer
    answer.body = orjson.dumps(made)
    return answer


def _is_error(document: object) -> bool:
    return isinstance(document, dict) and document.get("type") == "error"


class TranslatedLive:
    """A live Messages API stream, with the codec that makes a chat stream of it: whoever reads it feeds the codec, so that
    large reads are translated at the pace of everything else.
    """

    __slots__ = ("_live", "codec")

    def __init__(self, live: LiveBody, codec: ChatEvents) -> None:
        self._live = live
        self.codec = codec

    def attach(self, sink: BodySink) -> None:
        """Deliver the provider's bytes to ``sink``."""
        self._live.attach(sink)

    def pause(self) -> None:
        """Stop reading from the provider."""
        self._live.pause()

    def resume(self) -> None:
        """Read on."""
        self._live.resume()

    def abort(self) -> None:
        """Close the connection now."""
        self._live.abort()

    def write(self, data: bytes) -> None:
        """Nothing is sent into an answer that is no tunnel."""
        self._live.write(data)

    def throttle(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Let the provider's back-pressure reach whoever writes."""
        self._live.throttle(pause, resume)

    def close(self) -> None:
        """Close in order."""
        self._live.close()
