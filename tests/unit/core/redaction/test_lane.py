"""How deep inside JSON strings a place is, whatever the pieces."""

import json

import pytest

from proxy.core.redaction.lane import JsonCursor


def depth_at(text: str, *, is_json: bool | None, size: int = 1) -> int:
    cursor = JsonCursor(is_json)
    for at in range(0, len(text), size):
        cursor.feed(text[at : at + size])
    return cursor.depth


@pytest.mark.parametrize(
    ("text", "is_json", "depth"),
    [
        ("", True, 0), ('{"a": ', True, 0), ('{"a": "', True, 1), ('{"a": "x"', True, 0), ('"', True, 1), ('{"a": "x\\"y', True, 1),
        ('{"a": "\\u00e9\\n', True, 1), ('{"a": "he said \\"hi\\" ', True, 1), ('{"a":"[note] ', True, 1),
        ('{"a":"{\\"b\\":\\"', True, 2), ('{"a":"{\\"b\\":\\"x\\"', True, 1), ('{"a":"[{\\"b\\":\\"{\\\\\\"c\\\\\\":\\\\\\"', True, 3),
        ('{"a":"\\u007b\\u0022b\\u0022:\\"', True, 2), ('  {"a":"', None, 1), ('Use "', None, 0), ('[1] see "', None, 0),
        ("{", None, 0), ('["', None, 1), ('{"a":"\\uZZZZ', True, 1),
    ],
)  # fmt: skip
def test_depth_is_known_at_every_piece_size(text: str, is_json: bool | None, depth: int) -> None:
    """One level too few breaks the client's JSON, one too many shows backslashes."""
    for size in (1, 2, 3, 1000):
        assert depth == depth_at(text, is_json=is_json, size=size)


def test_depth_agrees_with_the_encoder_for_many_levels() -> None:
    """Each level of encoding is one level of depth."""
    text = "x"
    for level in range(1, 7):
        text = json.dumps({"k": text})
        assert level == depth_at(text[: text.index("x")], is_json=True), level
