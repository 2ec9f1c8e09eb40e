"""Server-sent events as bytes: a decoder fed any split of a stream, and the way back.

Owns framing only: where an event begins and ends, and that no text can ever forge a boundary. Does not know JSON,
providers or placeholders. Called by ``core/dialect`` (watching a stream) and ``core/redaction`` (restoring one).
"""

from proxy.core.sse.decoder import MAX_EVENT_BYTES, EventDecoder, EventTooLarge, ServerEvent
from proxy.core.sse.encoder import encode

__all__ = ["MAX_EVENT_BYTES", "EventDecoder", "EventTooLarge", "ServerEvent", "encode"]
