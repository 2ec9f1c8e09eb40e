"""Durations and sizes."""

from __future__ import annotations

import pytest

from proxy.core.config.units import UnitMissing, UnitUnknown, parse_duration, parse_size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "500ms"), (2.0, "2s"), (300.0, "5m"), (3600.0, "1h"), (7_776_000.0, "90d"), (1.5, "1.5s")],
)
def test_duration_reads_as_seconds(seconds: float, text: str) -> None:
    """Every unit of the file's language."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(
    ("size", "text"), [(512, "512B"), (65536, "64KiB"), (33554432, "32MiB"), (1 << 30, "1GiB"), (1536, "1.5KiB")]
)
def test_size_reads_as_bytes(size: int, text: str) -> None:
    """Every unit of the file's language."""
    assert size == parse_size(text)


@pytest.mark.parametrize("text", ["5", "0", "1.5", "-3"])
def test_bare_number_is_told_apart(text: str) -> None:
    """The commonest mistake gets its own message."""
    with pytest.raises(UnitMissing):
        parse_duration(text)
    with pytest.raises(UnitMissing):
        parse_size(text)


@pytest.mark.parametrize("text", ["5 sec", "5S", "-5s", "s", "5s5", "1h30m", "", "1e3s", "٣s"])
def test_unknown_duration_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(UnitUnknown):
        parse_duration(text)


@pytest.mark.parametrize(("text", "guess"), [("32MB", "MiB"), ("32mib", "MiB"), ("1G", "GiB"), ("5m", "MiB")])
def test_size_in_other_units_gets_a_guess(text: str, guess: str) -> None:
    """MB means 1000 to some and 1024 to others, so it is refused with the way out."""
    with pytest.raises(UnitUnknown, match=f"did you mean {guess}"):
        parse_size(text)


def test_part_of_a_byte_is_refused() -> None:
    """Half a byte is a slip."""
    with pytest.raises(UnitUnknown, match="whole number"):
        parse_size("0.3B")
