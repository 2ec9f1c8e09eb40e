"""JSON out, whatever a provider put in: the fast serialiser, and a patient one for what it refuses.

Owns the choice. Does not know what the documents mean.
"""

from __future__ import annotations

import json
from typing import Any

import orjson


def dumps(document: Any) -> bytes:
    """Serialise compactly; lone surrogates and numbers beyond 64 bits are written in ASCII with escapes.

    Raises:
        ValueError: NaN or an infinity, which JSON does not have.
    """
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii")
