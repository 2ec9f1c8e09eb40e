"""Where text, model and usage live in OpenAI-shaped JSON and in its streams.

Owns the shapes of the public endpoints; unknown fields are nobody's business here and pass untouched. Does not know
policy, placeholders or transport. Called by ``flow`` and ``core/redaction``.
"""

from proxy.core.dialect.names import CHAT, EMBEDDINGS, OTHER, Dialect, dialect_of
from proxy.core.dialect.usage import error_in_body, read_usage, read_usage_of
from proxy.core.dialect.watch import StreamWatch

__all__ = [
    "CHAT",
    "EMBEDDINGS",
    "OTHER",
    "Dialect",
    "StreamWatch",
    "dialect_of",
    "error_in_body",
    "read_usage",
    "read_usage_of",
]
