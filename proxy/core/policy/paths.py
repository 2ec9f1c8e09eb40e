"""How a policy writes the path of a request: what follows ``/v1``, exact or as a glob.

Owns this one spelling; used wherever a policy names paths.
"""

from __future__ import annotations


def parse_path(text: str) -> str:
    """Return the path as it is kept. Raises ValueError saying what a path may be."""
    if not text.startswith(("/", "*")) or not text.isprintable() or not text.isascii() or len(text) > 512:
        raise ValueError("start it with /: the path after /v1, such as /files*")
    if text == "/v1" or text.startswith("/v1/"):
        raise ValueError(f"leave /v1 out: {text[3:] or '/*'}")
    if "?" in text or "#" in text:
        raise ValueError("the path alone, without query")
    return text
