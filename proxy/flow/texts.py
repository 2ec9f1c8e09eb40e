"""Text and form bodies made readable for redaction: one JSON object in, the same kind of body out.

Owns the two wrappings. Knows no pattern and no policy; JSON and multipart are not its affair.
"""

from __future__ import annotations

import codecs
import json
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from proxy.core.dialect.json_text import dumps

_FORM: Final = b"application/x-www-form-urlencoded"


def wrap(body: bytes, content_type: bytes) -> bytes | None:
    """Return a JSON document that holds the text of a ``text/*`` or form body, or None for any other body.

    Bytes that are no UTF-8 stand in it as halves of surrogate pairs; ``hidden_bytes`` counts them.
    """
    kind = content_type.split(b";", 1)[0].strip().lower()
    is_form = kind == _FORM
    if not is_form and not kind.startswith(b"text/") and not is_written(kind):
        return None
    text = body.decode("utf-8", "surrogateescape")
    if is_form:
        try:
            pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=10_000)
        except ValueError:  # too many to be taken apart
            return dumps({"text": text})
        return dumps({"form": [{name: value} for name, value in pairs]})
    return dumps({"text": text})


def hidden_bytes(body: bytes) -> int:
    """Return how much of a text may say more than what was read: all of it when it is not UTF-8, or may be UTF-16."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return len(body)
    return len(body) if b"\0" in body else 0


def is_wide_json(body: bytes) -> bool:
    """Tell whether a body is JSON in UTF-16 or UTF-32: there are servers that read that."""
    head = body[:4]
    if b"\0" not in head and not head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return False
    try:
        text = body.decode(json.detect_encoding(body))
    except UnicodeDecodeError:
        return False
    return text.lstrip("\ufeff \t\r\n")[:1] in ("{", "[", '"')


def is_written(kind: bytes) -> bool:
    """True for media types of text that do not say so, and for none at all."""
    return not kind or b"xml" in kind or b"yaml" in kind


def unwrap(document: Any) -> bytes:
    """Return the body of a document that ``wrap`` made and redaction changed."""
    if "text" in document:
        text: str = document["text"]
        return text.encode("utf-8", "surrogateescape")
    pairs = [pair for field in document["form"] for pair in field.items()]
    return urlencode(pairs, errors="surrogateescape").encode("ascii")
