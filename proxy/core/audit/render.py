"""Rows and figures as text that is safe to show: JSON lines and CSV.

Owns what may not pass: values come from callers and providers, so nothing in them may move a terminal's
cursor, start a line, or act as a formula in a spreadsheet. JSON repeats every value exactly, escaped.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""Control characters of both sets, and what turns the direction of text or is not seen at all."""
_FORMULA: Final = ("=", "+", "-", "@")
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def json_line(document: object) -> str:
    """Return one line of JSON in which no character can act on a terminal."""
    return _escaped(orjson.dumps(document, default=str, option=orjson.OPT_UTC_Z).decode()) + "\n"


def csv_text(lines: Iterable[Sequence[str]]) -> str:
    """Return CSV, one line a row; text that a spreadsheet would take for a formula begins with an apostrophe."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([[_inert(text) for text in line] for line in lines])
    return out.getvalue()


def cell(value: Any) -> str:
    """Return a value as one cell of a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return str(value)


def _escaped(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) if _UNSAFE.search(text) else text


def _inert(text: str) -> str:
    text = _escaped(text)
    return "'" + text if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
