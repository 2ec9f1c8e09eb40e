"""Text and form bodies made readable for redaction: one JSON object in, the same kind of body out.

Owns the two wrappings. Knows no pattern and no policy; JSON and multipart are not its affair.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import orjson

_FORM: Final = b"application/x-www-form-urlencoded"


def wrap(body: bytes, content_type: bytes) -> bytes | None:
    """Return a JSON document that holds the text of a ``text/*`` or form body, or None for any other body.

    A body that is not UTF-8 is None as well: nobody can say what it holds.
    """
    kind = content_type.split(b";", 1)[0].strip().lower()
    is_form = kind == _FORM
    if not is_form and not kind.startswith(b"text/") and not is_written(kind):
        return None
    try:
        text = body.decode("utf-8")
        if is_form:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=10_000)
            return orjson.dumps({"form": [{name: value} for name, value in pairs]})
    except (UnicodeDecodeError, ValueError):
        return None
    return orjson.dumps({"text": text})


def is_written(kind: bytes) -> bool:
    """True for media types of text that do not say so, and for none at all."""
    return not kind or b"xml" in kind or b"yaml" in kind


def unwrap(document: Any) -> bytes:
    """Return the body of a document that ``wrap`` made and redaction changed."""
    if "text" in document:
        text: str = document["text"]
        return text.encode("utf-8")
    return urlencode([pair for field in document["form"] for pair in field.items()]).encode("ascii")
