"""Bytes in disguise are told from text."""

import pytest

from proxy.core.redaction.dataurl import is_base64, without_data

PNG = "data:image/png;base64," + "iVBORw0K" * 10


@pytest.mark.parametrize(
    ("text", "readable", "hidden"),
    [
        ("no url", "no url", 0),
        (PNG, " " * len(PNG), len(PNG)),
        (f"a ![x]({PNG}) b", f"a ![x]({' ' * len(PNG)}) b", len(PNG)),
        (f"{PNG} {PNG}==!", f"{' ' * len(PNG)} {' ' * (len(PNG) + 2)}!", 2 * len(PNG) + 2),
        ("x;base64,ana@x.com", "x;base64,ana@x.com", 0),
        ("data:text/plain,ana@x.com", "data:text/plain,ana@x.com", 0),
    ],
)
def test_only_the_url_is_hidden(text: str, readable: str, hidden: int) -> None:
    """The words around it are read."""
    assert (readable, hidden) == without_data(text)


def test_long_payload_is_followed_over_slices() -> None:
    """Twenty megabytes of image are one URL."""
    text = "data:;base64," + "QUJD" * 100_000

    assert (" " * len(text) + " x", len(text)) == without_data(text + " x")


@pytest.mark.parametrize(
    ("text", "is_it"), [("QUJD" * 40_000, True), ("QUJD==", True), ("QU JD", False), ("a@b", False), ("", True)]
)
def test_base64_is_nothing_but_base64(text: str, is_it: bool) -> None:
    """One other character makes it text."""
    assert is_it is is_base64(text)
