"""What an exchange goes on from, and what later ones may go on from: names of histories, and their values as bytes.

Owns which members name a history that the provider keeps, and the layout of kept values. Knows no store and no key.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

KeptRow = tuple[str, str, str]
"""Type, value and placeholder, as ``Vault.rows`` gives them."""

ID_WINDOW_BYTES: Final = 16 << 10
"""The answer's own id is looked for in so much of its beginning."""
_MAX_ID: Final = 512
_ANSWER_ID = re.compile(rb'"id"\s*:\s*"(resp[^"\\\s]{1,%d})"' % _MAX_ID)


def names_history(body: bytes) -> bool:
    """Tell cheaply whether a Responses request may go on from something the provider keeps."""
    return body.find(b"previous_response_id") >= 0 or body.find(b"conversation") >= 0


def history_of(document: Any) -> tuple[str, str]:
    """Return the ids of the conversation and of the earlier answer that a Responses request goes on from, or nothing."""
    if type(document) is not dict:
        return "", ""
    conversation = document.get("conversation")
    if type(conversation) is dict:
        conversation = conversation.get("id")
    return _id(conversation), _id(document.get("previous_response_id"))


def answer_id(beginning: bytes) -> str:
    """Return the id of a Responses answer from its first bytes, plain or as events; nothing when it is not there yet."""
    found = _ANSWER_ID.search(beginning)
    return "" if found is None else found[1].decode("utf-8", "replace")


def _id(value: Any) -> str:
    return value if type(value) is str and len(value) <= _MAX_ID else ""


def write_rows(rows: list[KeptRow]) -> bytes:
    """Return rows as bytes; half a surrogate pair survives."""
    return json.dumps(rows, separators=(",", ":")).encode()


def read_rows(data: bytes) -> list[KeptRow]:
    """Undo ``write_rows``. Raises ValueError: another layout."""
    rows = json.loads(data)
    if type(rows) is not list:
        raise ValueError("kept values of an unknown layout")
    return [(str(kind), str(value), str(tag)) for kind, value, tag in rows]
