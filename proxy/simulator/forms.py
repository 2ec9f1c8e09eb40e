"""Multipart forms, as uploads send them.

Owns the reading of ``multipart/form-data``. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)
_NAME = re.compile(rb'(?<![*\w])name="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_FILENAME = re.compile(rb'filename="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_TYPE = re.compile(rb"^content-type:\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Field:
    """One part of a form."""

    content: bytes
    filename: str = ""
    content_type: str = ""


def read_form(content_type: str, body: bytes) -> dict[str, Field] | None:
    """Return the parts by name (the last of repeated names), or None when this is no multipart form."""
    match = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or match is None:
        return None
    mark = b"--" + match[1].encode("latin-1", "replace")
    form: dict[str, Field] = {}
    for part in (b"\r\n" + body).split(b"\r\n" + mark)[1:]:
        if part.startswith(b"--"):
            break
        head, blank, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not blank or name is None:
            return None
        filename, kind = _FILENAME.search(head), _TYPE.search(head)
        form[name[1].decode("utf-8", "replace")] = Field(
            content,
            filename[1].decode("utf-8", "replace") if filename else "",
            kind[1].decode("latin-1") if kind else "",
        )
    return form
