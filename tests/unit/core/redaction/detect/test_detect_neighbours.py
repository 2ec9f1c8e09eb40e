"""Two values with one blank or line break between them: neither may hide the other, in one piece or in many."""

from __future__ import annotations

import itertools

import pytest

from proxy.core.redaction.detect import build_detector
from tests.property.test_detect_stream import _streamed

DETECTOR = build_detector()
VALUES = {
    "address": "ana.canary@example.org",
    "cpf": "529.982.247-25",
    "cnpj": "11.222.333/0001-81",
    "bare card": "4539148803436467",
    "card in fours": "4539 1488 0343 6467",
    "telephone": "+55 11 98765-4321",
    "telephone with area code": "(415) 555-2671",
    "iban": "DE89 3704 0044 0532 0130 00",
    "ipv4": "203.0.113.77",
    "ipv6": "2001:db8::8a2e:370:7334",
    "mac": "00:1A:2B:3C:4D:5E",
    "token": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "ssn": "536-22-8745",
}


@pytest.mark.parametrize("first", VALUES)
@pytest.mark.parametrize("gap", [" ", "\n"], ids=["blank", "line"])
def test_value_beside_any_other_is_found_whole(first: str, gap: str) -> None:
    """A list or a log line has them side by side."""
    for second in VALUES.values():
        pair = (VALUES[first], second)
        text = f"x {gap.join(pair)} y"
        found = {(f.start, f.end) for f in DETECTOR.find(text)}

        assert {(2, 2 + len(pair[0])), (len(text) - 2 - len(pair[1]), len(text) - 2)} == found, text


def test_pairs_are_found_alike_in_pieces() -> None:
    """What a stream lets go of cannot be called back."""
    for first, second, size in itertools.product(VALUES.values(), VALUES.values(), (1, 7)):
        text = f"x {first} {second} y"
        found, _ = _streamed(DETECTOR, [text[at : at + size] for at in range(0, len(text), size)])

        assert [(f.start, f.end, f.kind) for f in DETECTOR.find(text, local=True)] == found, text


@pytest.mark.parametrize("count", [2, 3, 9, 30])
def test_cards_in_fours_behind_one_another_are_cards(count: int) -> None:
    """Each passes its check, which no long number does by chance; one that fails leaves a long number."""
    cards = " ".join([VALUES["card in fours"]] * count)

    assert count == len(DETECTOR.find(f"x {cards} y"))
    assert not DETECTOR.find(f"x {cards[:-1]}8 y")


BIRTHS = [
    "naci el 18 de agosto de 1976",
    "nasci em 13 de março de 1954, sou de Natal",
    "I was born the 3rd of March 1981 in",
    "born 12th of December, 1999 x",
    "geboren am 18. August 1976 in",
    "née le 18 août 1976 à",
    "naissance : 1er mai 1980 x",
    "nato il 18 agosto 1976 a",
    "geboren op 3 maart 1980 te",
    "urodzony 3 marca 1980 r",
    "fecha de nacimiento: 3 de septiembre del 1980 ok",
    "född 3 mars 1980 i",
    "né le 27 février 1957 à",
    "née le 7 juillet 1957 à",
    "urodzony 7 września 1957 w",
    "urodzony 7 października 1957 w",
    "narozen 7. května 1957 v",
    "narozen 7. září 1957 v",
]


@pytest.mark.parametrize("text", BIRTHS)
def test_date_of_birth_with_its_month_in_words_is_found_however_it_is_cut(text: str) -> None:
    """Months are words of small letters in most languages, with more small words between."""
    whole = [(f.start, f.end, f.kind) for f in DETECTOR.find(text, local=True)]
    assert ["DATE_OF_BIRTH"] == [kind for _, _, kind in whole]

    for pieces in ([text[:at], text[at:]] for at in range(1, len(text))):
        assert whole == _streamed(DETECTOR, pieces)[0], pieces
    assert whole == _streamed(DETECTOR, list(text))[0]
