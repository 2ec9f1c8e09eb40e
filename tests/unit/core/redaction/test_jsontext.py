"""JSON inside a string: its leaves, their labels and their exact places."""

import json

import pytest

from proxy.core.redaction.jsontext import is_json_text, leaves


def test_leaves_carry_label_and_place() -> None:
    """A value is replaced in the source, so its place must be exact."""
    source = ' { "a" : [ "x", {"b":1.5e3}, "y" ], "c\\u0064": "caf\\u00e9\\n\\ud83d\\ude80!", "n": -7 , "e": {}, "z": [[], "t"] } '
    read = [(leaf.text, leaf.label, leaf.is_number, leaf.is_key) for leaf in leaves(source)]

    assert [
        ("a", "", False, True), ("x", "a", False, False), ("b", "", False, True), ("1.5e3", "b", True, False),
        ("y", "a", False, False), ("cd", "", False, True), ("caf\u00e9\n\U0001f680!", "cd", False, False), ("n", "", False, True),
        ("-7", "n", True, False), ("e", "", False, True), ("z", "", False, True), ("t", "z", False, False),
    ] == read  # fmt: skip
    for leaf in leaves(source):
        cut = source[leaf.source(0) : leaf.source(len(leaf.text))]
        assert leaf.text == (cut if leaf.is_number else json.loads(f'"{cut}"'))


def test_each_decoded_character_knows_its_source() -> None:
    """Escapes are six characters long, pairs of them twelve."""
    source = '{"k":"a\\n\\u0041\\ud83d\\ude80\\ud83dz"}'
    leaf = list(leaves(source))[1]

    assert "a\nA\U0001f680\ud83dz" == leaf.text
    assert ["a", "\\n", "\\u0041", "\\ud83d\\ude80", "\\ud83d", "z"] == [
        source[leaf.source(at) : leaf.source(at + 1)] for at in range(len(leaf.text))
    ]


@pytest.mark.parametrize(
    ("text", "is_json"),
    [
        ("{}", True),
        (' [1, "x"]\n', True),
        ("", False),
        ("{", False),
        ("[x]", False),
        ('"x"', False),
        ("{]", False),
        ("7", False),
    ],
)
def test_only_whole_objects_and_arrays_count_as_json(text: str, is_json: bool) -> None:
    """Prose in brackets is prose."""
    assert is_json is is_json_text(text)
