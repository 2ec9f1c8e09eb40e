"""What the first text of an exchange gets, said once for all exchanges, and what each value gets one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.redaction import Vault
from proxy.core.redaction.seen import is_ordinary
from proxy.core.redaction.tags import Numbers, Spans
from proxy.terms.redaction import Finding

KINDS = ("EMAIL", "CPF", "CREDIT_CARD", "MINE2", "A_B", "A-B")
VALUES = ("ana@x.com", "ANA@x.com", "529.982.247-25", "52998224725", 'q"uo', "\ud83d", "[EMAIL-1]")


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, list[Finding]]:
    """A text and its findings."""
    text, found = draw(st.sampled_from(["", "x", "see [1] "])), []
    for kind, value in draw(
        st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(VALUES)), min_size=1, max_size=6)
    ):
        found.append(Finding(len(text), len(text) + len(value), kind, 1.0))
        text += value + draw(st.sampled_from(["", " ", ", and "]))
    return text, found


@given(st.lists(texts(), min_size=1, max_size=3), st.sampled_from([b"", b"key"]), st.sampled_from([(), ("EMAIL1",)]))
def test_values_of_an_exchange_get_what_they_would_get_one_by_one(
    conversation: list[tuple[str, list[Finding]]], key: bytes, reserved: tuple[str, ...]
) -> None:
    """The first text takes a way of its own, prepared when it comes again; nobody may see a difference."""
    plain = Numbers({}, frozenset(reserved), key)
    expected = [plain.put_away(text, found) for text, found in conversation]
    remembered = [(text, Spans(found)) for text, found in conversation]

    for _ in range(3):  # the first time, the second, and prepared
        vault = Vault(reserved, key)
        assert expected == [vault.put_away(text, found) for text, found in remembered]
        assert len(plain.tags) == len(vault)
        assert [(*identity, tag) for identity, tag in plain.tags.items()] == vault.rows()


@given(texts())
def test_counts_and_values_of_a_first_text_need_no_numbering(conversation: tuple[str, list[Finding]]) -> None:
    """What is asked of every exchange with values is known before they are taken in one by one."""
    text, found = conversation
    vault, other = Vault(), Vault()
    told = vault.put_away(text, Spans(found))
    other.put_away(text, found)
    counts = vault.counts()
    answer = told.encode("utf-8", "surrogatepass")

    assert other.rows()
    assert counts == other.counts()
    assert other.splice(answer, lambda _: False) == vault.splice(answer, lambda _: False)
    assert counts == vault.counts()
    vault.close()
    assert vault.is_empty
    assert not len(vault)


def test_placeholders_written_otherwise_stand_among_those_as_they_were_given() -> None:
    """A model that changes one of them must not make the rest unknown."""
    vault = Vault()
    vault.put_away("ana@x.com", Spans([Finding(0, 9, "EMAIL", 1.0)]))

    assert b'"ana@x.com ana@x.com ana@x.com"' == vault.splice(b'"[EMAIL-1] [e-mail 1] [EMAIL-1]"', lambda _: False)


def test_text_of_many_types_is_taken_apart_alike_however_often_it_comes() -> None:
    """Short ones are prepared for the next time, long ones are not."""
    for size in (1, 16, 17):
        spans = Spans([Finding(at * 3, at * 3 + 2, f"KIND{'ABCDEFGHIJKLMNOPQ'[at]}", 1.0) for at in range(size)])
        text = "12," * size
        expected = ["", *["12", ","] * size]

        for _ in range(3):
            assert expected == spans.take_apart(text)


def test_answer_with_one_list_is_not_asked_for_company() -> None:
    """Log probabilities and citations stand in lists; an answer without another list has none."""
    vault = Vault()
    vault.tag("EMAIL", "ana@x.com")
    asked: list[bytes] = []

    def has_company(data: bytes) -> bool:
        asked.append(data)
        return True

    assert b'{"choices":[{"a":"ana@x.com","b":[]}]}' == vault.splice(
        b'{"choices":[{"a":"[EMAIL-1]","b":[]}]}', has_company
    )
    assert not asked
    for spelled in (b'{"choices":[{"a":"[EMAIL-1]","b":[1]}]}', b'{"choices":[{"a":"[EMAIL-1]","b":[ {}]}]}'):
        assert vault.splice(spelled, has_company) is None
    assert 2 == len(asked)


def test_ordinary_text_is_read_as_it_stands() -> None:
    """Only such a text may be known by itself, without a question to the walk that met it."""
    assert is_ordinary("Obrigada, ação às 10;30")
    assert is_ordinary("")
    for text in ("[EMAIL-1]", "a\\u0041", '{"a": 1}', " x", "a;base64,QUJD", "\uff3bEMAIL-1\uff3d", "half \ud83d"):
        assert not is_ordinary(text)
