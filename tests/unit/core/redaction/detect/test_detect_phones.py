"""The phone plan beside libphonenumber, from which it was derived."""

from __future__ import annotations

import random

import phonenumbers
import pytest

from proxy.core.redaction.detect.phones import is_brazilian, is_international, is_nanp, is_national_shape, is_plausible


def _numbers() -> list[str]:
    """Return an example of every region and type, and mutations of its last digits."""
    rng = random.Random(5)
    numbers = []
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in (0, 1, 2):
            example = phonenumbers.example_number_for_type(region, kind)
            if example is not None:
                whole = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)[1:]
                numbers += [whole, whole[:-3] + "".join(rng.choices("0123456789", k=3))]
    return numbers


def test_every_valid_international_number_is_known() -> None:
    """A plan that misses a region leaks its numbers."""
    valid = [n for n in _numbers() if phonenumbers.is_valid_number(phonenumbers.parse("+" + n))]

    assert len(valid) > 600
    assert [] == [n for n in valid if not is_international(n)]


@pytest.mark.parametrize("digits", ["123", "999123456789", "1234567890123456", "550000000000", "00", ""])
def test_number_of_no_plan_is_refused(digits: str) -> None:
    """A plus before any digits (+1234567890123456) is no telephone."""
    assert not is_international(digits)


@pytest.mark.parametrize(
    ("shape", "digits", "expected"),
    [
        (b"000-000-0000", "4155550132", True),
        (b"000-000-0000", "1155550132", False),
        (b"00 00000-0000", "11987654321", True),
        (b"00 00000-0000", "20987654321", False),
        (b"(00) 00000-0000", "11987654321", True),
        (b"(0000) 00000000", "202412345678", False),
        (b"00 00 00 00 00", "0612345678", True),
        (b"00 00 00 00 00", "5612345678", False),
        (b"0000 000 0000", "09171234567", True),
        (b"0 (000) 000 0000", "09171234567", True),
        (b"000-0000-0000", "09012345678", True),
        (b"0000000000", "0612345678", False),
    ],
)
def test_national_format_is_told_from_shape_and_first_digits(shape: bytes, digits: str, expected: bool) -> None:
    """Without a label only a national format with its own first digits counts."""
    assert expected is is_national_shape(shape, digits)


def test_brazilian_and_american_rules() -> None:
    """Area codes that were never assigned are order numbers."""
    assert is_brazilian("11987654321")
    assert is_brazilian("1132654321")
    assert not is_brazilian("2098765432")
    assert not is_brazilian("11787654321")
    assert is_nanp("4155550132")
    assert not is_nanp("4151550132")
    assert not is_nanp("0155550132")
    assert is_plausible("4515986")
    assert not is_plausible("0000000")
    assert not is_plausible("123456")
