"""Which kinds of content a request brings besides text. Looks at the types of content parts only."""

from __future__ import annotations

from typing import Any, Final

_KINDS: Final = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
    "audio": "audio",
    "file": "file",
    "input_file": "file",
    "document": "file",
    "video_url": "video",
}
MODALITIES: Final = ("text", "image", "audio", "file", "video")


def modalities_of(document: Any) -> frozenset[str]:
    """Return the modalities of a parsed request, ``text`` among them always."""
    found = {"text"}
    if not isinstance(document, dict):
        return frozenset(found)
    for message in _list(document.get("messages")) + _list(document.get("input")):
        if not isinstance(message, dict):
            continue
        for part in (message, *_list(message.get("content"))):
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind in _KINDS:
                found.add(_KINDS[kind])
    return frozenset(found)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
