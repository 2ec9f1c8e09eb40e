"""Made-up people whose numbers are valid: what a redaction rule must find and an app must get back.

Everything is derived from an integer seed, so two processes agree without talking. No real person's data.
"""

from __future__ import annotations

from dataclasses import dataclass

_FIRST = ("ana", "bruno", "carla", "diego", "elisa", "fabio", "gilda", "heitor")
_LAST = ("souza", "oliveira", "moraes", "teixeira", "barbosa", "cardoso", "fontes", "ribeiro")


@dataclass(frozen=True, slots=True)
class Person:
    """One made-up person; every value is unique to its seed (below 10**7) and passes its checksum."""

    email: str
    phone: str
    cpf: str
    cnpj: str
    card: str


def person(seed: int) -> Person:
    """Build the person of a seed."""
    return Person(
        email=f"{_FIRST[seed % 8]}.{_LAST[seed // 8 % 8]}{seed}@mail-{seed % 97}.com.br",
        phone=f"+55 11 9{8_000 + seed % 1_000:04d}-{seed // 1_000 % 10_000:04d}",
        cpf=cpf(100_000_000 + seed * 7919 % 800_000_000),
        cnpj=cnpj(10_000_000 + seed * 104_729 % 80_000_000),
        card=card(seed),
    )


def cpf(base: int) -> str:
    """Nine digits plus the two check digits, formatted ``ddd.ddd.ddd-dd``."""
    digits = f"{base:09d}"
    for length in (9, 10):
        digits += _mod11(digits, range(length + 1, 1, -1))
    return f"{digits[:3]}.{digits[3:6]}.{digits[6:9]}-{digits[9:]}"


def cnpj(base: int) -> str:
    """Eight digits, branch 0001 and the two check digits, formatted ``dd.ddd.ddd/0001-dd``."""
    digits = f"{base:08d}0001"
    for first in (5, 6):
        digits += _mod11(digits, [*range(first, 1, -1), *range(9, 1, -1)])
    return f"{digits[:2]}.{digits[2:5]}.{digits[5:8]}/{digits[8:12]}-{digits[12:]}"


def card(seed: int) -> str:
    """A 16-digit Visa-range number whose Luhn sum is right, in groups of four."""
    digits = f"453201{seed % 1_000_000_000:09d}"
    doubled = (int(digit) * (2 if place % 2 == 0 else 1) for place, digit in enumerate(digits))
    digits += str(-sum(value - 9 if value > 9 else value for value in doubled) % 10)
    return " ".join(digits[start : start + 4] for start in range(0, 16, 4))


def _mod11(digits: str, weights: range | list[int]) -> str:
    rest = sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True)) % 11
    return "0" if rest < 2 else str(11 - rest)
