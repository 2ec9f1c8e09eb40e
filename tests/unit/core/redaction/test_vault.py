"""Placeholders: how they are made, recognised and forgotten."""

import pickle

import pytest

from proxy.core.redaction import Vault
from proxy.core.redaction.vault import folded_tags
from tests.unit.core.redaction.doubles import vault_of


@pytest.mark.parametrize(
    "written",
    [
        "[EMAIL-1]", "[email-1]", "[Email-1]", "[EMAIL\\-1]", "[EMAIL -1]", "[EMAIL- 1]", "[ EMAIL-1 ]", "[EMAIL 1]",
        "\uff3bEMAIL-1\uff3d", "\uff3bEMAIL\uff0d1\uff3d", "\\[EMAIL-1\\]", "\\[EMAIL\\-1\\]", "[EMAIL\u20111]",
        "[EMAIL_1]", "\\u005bEMAIL-1\\u005d", "\\uff3bEMAIL-1\\uff3d",
    ],
)  # fmt: skip
def test_placeholder_is_recognised_however_a_model_writes_it(written: str) -> None:
    """Models change case, spacing and escapes; the user must get the value all the same."""
    assert "<ana@x.com>" == vault_of("ana@x.com").restore_text(f"<{written}>")


@pytest.mark.parametrize(
    ("text", "restored"),
    [
        ("[EMAIL-1][EMAIL-2]", "ab"),
        ("[[EMAIL-1]]", "[a]"),
        ("[EMAIL-1", "[EMAIL-1"),
        ("[EMAIL-99]", "[EMAIL-99]"),
        ("[EMAIL-12] [EMAIL-1]", "l a"),
        ("[link]([EMAIL-1]) `[EMAIL-2]`", "[link](a) `b`"),
        ("[EMAIL-1\n]", "[EMAIL-1\n]"),
        ("[EMAIL-1 " + "x" * 80 + "]", "[EMAIL-1 " + "x" * 80 + "]"),
        ("[x\\u005bEMAIL-1]", "[xa"),
        ("[1] [a-1] [EMAIL]", "[1] [a-1] [EMAIL]"),
    ],
)
def test_neighbours_and_look_alikes_are_told_apart(text: str, restored: str) -> None:
    """Brackets are common in answers; only known placeholders are touched."""
    assert restored == vault_of(*"abcdefghijkl").restore_text(text)


def test_restored_value_is_not_read_again() -> None:
    """A value that looks like a placeholder must not cascade."""
    assert "[EMAIL-2]" == vault_of("[EMAIL-2]", "b").restore_text("[EMAIL-1]")


def test_type_name_becomes_a_tag_without_underscore_and_with_a_letter_at_the_end() -> None:
    """Markdown escapes underscores; a digit at the end would run into the number."""
    vault = Vault()

    assert "[CREDIT-CARD-1]" == vault.tag("CREDIT_CARD", "1")
    assert "[MINE2-X-1]" == vault.tag("MINE2", "1")
    assert "x 1 1" == vault.restore_text("x [credit card 1] [MINE2\\-X\\-1]")


def test_reserved_numbers_are_skipped() -> None:
    """Numbers the text already uses are not given out."""
    vault = Vault(["EMAIL1", "EMAIL2B"])

    assert "[EMAIL-2]" == vault.tag("EMAIL", "A@x")
    assert "[EMAIL-2c]" == vault.tag("EMAIL", "a@x")


def test_more_spellings_than_letters_get_numbers_of_their_own() -> None:
    """There is always another placeholder."""
    vault = Vault()
    values = ["1" + "-" * at + "2" for at in range(60)]
    tags = [vault.tag("CPF", value) for value in values]

    assert 60 == len(set(tags))
    assert values == [vault.restore_text(tag) for tag in tags]


def test_closed_vault_knows_nothing() -> None:
    """The mapping dies with its exchange."""
    vault = vault_of("ana@x.com")
    vault.close()

    assert vault.is_empty
    assert "[EMAIL-1]" == vault.restore_text("[EMAIL-1]")


def test_vault_never_shows_or_leaves_its_values() -> None:
    """Tracebacks, logs and pickles must not leak."""
    vault = vault_of("ana@x.com", "b")

    assert "<Vault 2 placeholders>" == repr(vault) == str(vault)
    with pytest.raises(TypeError, match="never"):
        pickle.dumps(vault)


def test_keyed_placeholder_depends_on_the_value_alone() -> None:
    """A history that was cut or reordered keeps its placeholders, so a provider's cache of prompts holds."""
    one, other = Vault(key=b"k"), Vault(key=b"k")
    values = [f"user{n}@x.com" for n in range(50)]
    forward = {value: one.tag("EMAIL", value) for value in values}
    backward = {value: other.tag("EMAIL", value) for value in reversed(values)}

    assert forward == backward
    assert len(values) == len(set(forward.values()))
    assert forward["user1@x.com"] != Vault(key=b"l").tag("EMAIL", "user1@x.com")


def test_keyed_placeholders_of_one_value_are_kin_and_each_comes_back_as_it_was() -> None:
    """The model sees that two spellings are one person's number."""
    vault = Vault(key=b"k")
    plain, dotted = vault.tag("CPF", "52998224725"), vault.tag("CPF", "529.982.247-25")

    assert plain[: len("[CPF-12345")] == dotted[: len("[CPF-12345")]
    assert "52998224725 529.982.247-25" == vault.restore_text(f"{plain} {dotted.lower()}")


def test_keyed_placeholder_steps_aside_for_text_that_looks_like_it() -> None:
    """Two meanings of one placeholder would put a value where none was."""
    tag = Vault(key=b"k").tag("EMAIL", "ana@x.com")
    vault = Vault(folded_tags(f"see {tag}"), key=b"k")
    longer = vault.tag("EMAIL", "ana@x.com")

    assert longer != tag
    assert f"ana@x.com {tag}" == vault.restore_text(f"{longer} {tag}")


@pytest.mark.parametrize(
    ("value", "needs"),
    [("+55\u00a011 98765\u20114321", False), ("jos\u00e9@x.com", False), ("a\u2028b", False), ('a"b', True), ("a\\b", True),
     ("a\nb", True), ("a\x7fb", True), ("a\ud83db", True)],
)  # fmt: skip
def test_only_values_that_json_spells_otherwise_need_escaping(value: str, needs: bool) -> None:
    """With such a value in the vault every event of a stream is parsed; a copied phone number must not do that."""
    assert needs == vault_of("ana@x.com", value).needs_escaping


def test_vault_that_took_rows_restores_alike() -> None:
    """The process that found the values hands them over."""
    vault, other = vault_of("ana@x.com", 'q"uo'), Vault()
    other.take(vault.rows())

    assert 'ana@x.com q"uo' == other.restore_text("[EMAIL-1] [EMAIL-2]")
    assert other.needs_escaping
