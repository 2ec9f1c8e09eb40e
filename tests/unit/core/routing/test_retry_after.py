"""``retry-after`` in every form that providers send, and in those that attackers do."""

from __future__ import annotations

import pytest

from proxy.core.routing.retry_after import parse_retry_after

NOW_S = 1_700_000_000.0
"""Tue, 14 Nov 2023 22:13:20 GMT."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2", 2.0),
        (" 2 ", 2.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("86400", 300.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tuesday, 14-Nov-23 22:13:50 GMT", 30.0),
        ("Tue Nov 14 22:13:50 2023", 30.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        ("Wed, 15 Nov 2023 22:13:20 GMT", 300.0),
    ],
)
def test_seconds_and_dates_are_read_and_clamped(value: str, expected: float) -> None:
    """From nothing to five minutes; a date is measured against the answer's arrival."""
    assert expected == parse_retry_after(value, NOW_S)


@pytest.mark.parametrize(
    "value",
    [None, "", "soon", "nan", "inf", "-inf", "1e9", "0x10", "1_0", "--1", ".", "-", "٣", "9" * 65, "x" * 10_000,
     "Tue, 99 Nov 2023 22:13:50 GMT", "Tue, 14 Nov 999999 22:13:50 GMT"],
)  # fmt: skip
def test_nonsense_says_nothing(value: str | None) -> None:
    """No exception and no infinite wait comes out of a header."""
    assert parse_retry_after(value, NOW_S) is None


def test_milliseconds_are_finer_and_win() -> None:
    """As the official SDKs read the pair."""
    assert parse_retry_after("2", NOW_S, "1250") == 1.25
    assert parse_retry_after("2", NOW_S, "soon") == 2.0
    assert parse_retry_after(None, NOW_S, "900000") == 300.0
