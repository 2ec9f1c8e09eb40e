"""Stand-ins and normal forms."""

import pytest

from proxy.core.redaction.actions import is_own_mark, mask, pseudonym
from proxy.core.redaction.normal import normal_form


@pytest.mark.parametrize(
    ("kind", "value", "masked"),
    [
        ("CREDIT_CARD", "4111 1111 1111 1111", "**** **** **** 1111"),
        ("CPF", "529.982.247-25", "***.***.*47-25"),
        ("EMAIL", "ana@x.com", "***@*.com"),
        ("X", "1234", "**34"),
        ("X", "1", "*"),
        ("PASSWORD", "hunter2hunter2", "*" * 14),
        ("X", "", ""),
    ],
)
def test_mask_shows_at_most_four_and_never_most_of_a_value(kind: str, value: str, masked: str) -> None:
    """Four of sixteen digits tell a card apart; four of five letters tell a name."""
    assert masked == mask(kind, value)


@pytest.mark.parametrize(
    ("kind", "value", "normal"),
    [
        ("EMAIL", "Ana@X.com", "ana@x.com"),
        ("CPF", "529.982.247-25", "52998224725"),
        ("IBAN", "DE89 3704", "de893704"),
        ("API_KEY", "sk-AbC", "sk-AbC"),
        ("IP_ADDRESS", "10.0.0.1", "10.0.0.1"),
        ("X", "---", "---"),
    ],
)
def test_normal_form_is_what_two_spellings_share(kind: str, value: str, normal: str) -> None:
    """Secrets count letter by letter, numbers by their digits."""
    assert normal == normal_form(kind, value)


def test_pseudonym_depends_on_key_type_and_value() -> None:
    """Two tenants cannot compare their people."""
    made = {
        pseudonym(key, kind, value) for key in (b"a", b"b") for kind in ("X", "Y") for value in ("1", "2", "\ud83d")
    }

    assert 12 == len(made)
    assert all(len(one) == 8 for one in made)


@pytest.mark.parametrize(
    ("text", "is_own"),
    [("[CPF-12345]", True), ("[CPF-12345b]", True), ("[CPF:12345678]", True), ("[CPF_REDACTED]", True), ("[CPF-123456]", False),
     ("[cpf-12345]", False), ("CPF-12345]", False), ("[CPF:123456789]", False), ("[x [CPF-12345]", True)],
)  # fmt: skip
def test_only_the_exact_form_counts_as_ours(text: str, is_own: bool) -> None:
    """Brackets must be no place to hide a value."""
    start = text.upper().index("CPF") + 4

    assert is_own is is_own_mark(text, start, start + 5)
