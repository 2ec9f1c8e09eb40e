"""JSON inside a string (tool-call arguments, tool results): its texts, and where they stand in the source.

Owns tokens and offsets, so that a value can be replaced in the source itself: white space, key order, escapes and
repeated keys stay as they were. Does not know what is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import orjson

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|[{}\[\],:]')
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class JsonLeaf(NamedTuple):
    """One string, key or number in JSON source."""

    text: str
    """Decoded."""
    label: str
    """The key it stands under (through arrays), decoded; empty for keys themselves."""
    offsets: list[int] | int
    """Source offset of each decoded character and of the end; an int when they only differ by that much."""
    is_number: bool
    is_key: bool

    def source(self, at: int) -> int:
        """Return where in the source the decoded character ``at`` begins."""
        return self.offsets + at if isinstance(self.offsets, int) else self.offsets[at]


def is_json_text(text: str) -> bool:
    """Tell whether a string is a JSON object or array by itself."""
    stripped = text.strip(" \t\r\n")
    if len(stripped) < 2 or stripped[0] + stripped[-1] not in ("{}", "[]"):
        return False
    try:
        orjson.loads(stripped)
    except orjson.JSONDecodeError:
        return False
    return True


def leaves(source: str) -> Iterator[JsonLeaf]:
    """Yield every key, string and number of valid JSON source, in order."""
    labels: list[str] = [""]
    containers: list[str] = []
    expects_key = False
    label = ""
    for found in _TOKEN.finditer(source):
        token = found[0]
        first = token[0]
        if first == '"':
            text, offsets = _decode(token, found.start())
            if expects_key:
                label = text
                expects_key = False
                yield JsonLeaf(text, "", offsets, False, True)
            else:
                yield JsonLeaf(text, label, offsets, False, False)
        elif first in "{[":
            containers.append(first)
            labels.append(label)
            expects_key = first == "{"
        elif first in "}]":
            containers.pop()
            label = labels.pop()
            expects_key = False
        elif first == ",":
            expects_key = bool(containers) and containers[-1] == "{"
            if not expects_key:
                label = labels[-1]
        elif first != ":":
            yield JsonLeaf(token, label, found.start(), True, False)


def _decode(token: str, start: int) -> tuple[str, list[int] | int]:
    """Return a string token's text and the source offset of each of its characters, ``start`` being the quote's."""
    inner = token[1:-1]
    if "\\" not in inner:
        return inner, start + 1
    pieces: list[str] = []
    offsets: list[int] = []
    at = 0
    for found in _ESCAPE.finditer(inner):
        pieces.append(inner[at : found.start()])
        offsets.extend(range(at, found.start()))
        escape = found[0]
        character = chr(int(found[1], 16)) if found[1] else _SHORT.get(escape[1], escape[1])
        if "\udc00" <= character <= "\udfff" and pieces and not pieces[-1] and _is_high(pieces):
            pieces[-2] = _joined(pieces[-2], character)
        else:
            pieces.append(character)
            offsets.append(found.start())
        at = found.end()
    pieces.append(inner[at:])
    offsets.extend(range(at, len(inner) + 1))
    return "".join(pieces), [start + 1 + offset for offset in offsets]


def _is_high(pieces: list[str]) -> bool:
    return len(pieces) > 1 and len(pieces[-2]) == 1 and "\ud800" <= pieces[-2] <= "\udbff"


def _joined(high: str, low: str) -> str:
    return (high + low).encode("utf-16", "surrogatepass").decode("utf-16")
