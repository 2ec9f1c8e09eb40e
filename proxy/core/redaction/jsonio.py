"""JSON in and out for redaction: strict and fast when possible, patient with half a surrogate pair when it must be.

Owns the choice between the two parsers. Does not know what the documents mean.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from proxy.core.dialect.json_text import dumps

__all__ = ["dumps", "keeping_digits", "loads", "without_lone_surrogates"]

_LARGE_FLOAT = re.compile(rb"[0-9]e\+[0-9]")
_LONE = re.compile("[\ud800-\udfff]")


def loads(data: bytes) -> Any:
    r"""Parse strict UTF-8 JSON; lone surrogates written as escapes (``"\ud83d"``) are accepted as they are.

    Raises:
        ValueError: Not JSON, not UTF-8, a byte order mark, NaN or Infinity, or nested too deeply.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if b"\\ud" not in data and b"\\uD" not in data:
            raise
    return _loads_patiently(data)


def keeping_digits(document: Any, data: bytes) -> Any:
    """Return a document that may be written again in place of ``data``, from which it was read.

    The fast parser makes floats of integers beyond 64 bits; such a document is read anew, with every digit.

    Raises:
        ValueError: As for ``loads``.
    """
    written = dumps(document)
    if written != data and b"e+" in written and _LARGE_FLOAT.search(written) is not None:
        return _loads_patiently(data)
    return document


def _loads_patiently(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc


def without_lone_surrogates(text: str) -> str:
    """Return the text with each half surrogate pair replaced by U+FFFD; offsets stay the same."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _LONE.sub("\ufffd", text)
    return text


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
