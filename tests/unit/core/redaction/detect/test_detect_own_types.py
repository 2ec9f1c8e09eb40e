"""Types of the policy, and kinds that are looked for only when a rule names them."""

from __future__ import annotations

import time

import pytest

from proxy.core.redaction.detect import KNOWN_KINDS, OPT_IN_KINDS, CustomType, build_detector, finder_of

TERMS = CustomType("CODE_NAME", terms=("Project Bluebird", "Bluebird", "@acme", "João Ação", "C-137"))
EVERYTHING = build_detector(KNOWN_KINDS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("about project  BLUEBIRD today", ["project  BLUEBIRD"]),
        ("a bluebird, bluebirds and xbluebird", ["bluebird"]),
        ("project\nbluebird", ["project\nbluebird"]),
        ("ask @ACME or joão ação; C-137 but not C-1375", ["@ACME", "joão ação", "C-137"]),
        ("João Açãozinha", []),
    ],
)
def test_terms_are_found_whole_and_in_any_case(text: str, found: list[str]) -> None:
    """A list of code names must not eat words that merely begin like one."""
    assert found == [text[f.start : f.end] for f in build_detector(frozenset(), (TERMS,)).find(text)]


def test_thousands_of_terms_cost_no_more_than_a_few() -> None:
    """The list of all customers is a list people will use."""
    many = CustomType("CUSTOMER", terms=tuple(f"Customer Number {n:05} Ltd" for n in range(5000)))
    detector = build_detector(frozenset(), (many,))
    text = "the quick brown fox " * 500 + "Customer Number 04711 Ltd"
    detector.find(text)
    began = time.thread_time()

    assert ["CUSTOMER"] == [f.kind for f in detector.find(text)]
    assert time.thread_time() - began < 0.1


def test_types_that_overlap_do_not_hide_each_other() -> None:
    """A type whose validator says no must leave the text to the next one."""
    first = CustomType("LONG_ID", r"[0-9]{8}", validator="luhn")
    second = CustomType("SHORT_ID", r"[0-9]{3}$")

    assert [(5, 8, "SHORT_ID")] == [f[:3] for f in build_detector(frozenset(), (first, second)).find("12345678")]


def test_finder_tries_one_type_alone() -> None:
    """Examples in a policy say what the author's pattern does, whatever else is in the text."""
    holds = finder_of(CustomType("STAFF_ID", r"[0-9]{7}", labels=("staff id",), validator="luhn"))

    assert holds("staff id: 1234566")
    assert not holds("staff id: 1234567")
    assert not holds("order 1234566")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ('{"name": "Ana Maria de Souza", "plan": "x"}', "PERSON", "Ana Maria de Souza"),
        ("Nome completo: João da Silva\nPlano: básico", "PERSON", "João da Silva"),
        ("Vorname: Jürgen", "PERSON", "Jürgen"),
        ("prénom = Zoé", "PERSON", "Zoé"),
        ("lastName: O'Neil", "PERSON", "O'Neil"),
        ("endereço: Rua das Flores, 123, apto 4\n", "ADDRESS", "Rua das Flores, 123, apto 4"),
        ('"billing_address": "12 Long Road, Springfield"', "ADDRESS", "12 Long Road, Springfield"),
        ("cvv: 123", "CVV", "123"),
        ("código de segurança é 4321", "CVV", "4321"),
    ],
)
def test_labelled_free_text_is_found_when_asked_for(text: str, kind: str, value: str) -> None:
    """Names and addresses have no form; their label is all there is."""
    assert (kind, value) in [(f.kind, text[f.start : f.end]) for f in EVERYTHING.find(text)]
    assert [] == [f for f in build_detector().find(text) if f.kind in OPT_IN_KINDS]
    assert EVERYTHING.may_contain(text.encode())


@pytest.mark.parametrize(
    "text",
    ['{"name": "lookup_customer"}', '"name": "Paris"', "username: Ana Souza", "name: x", "address: none", "cvv: 12345", "ip address: 10.1.2.3"],
)  # fmt: skip
def test_labels_alone_do_not_make_a_name(text: str) -> None:
    """`name` is the commonest key of all, tools and cities have one too."""
    assert [] == [f for f in EVERYTHING.find(text) if f.kind in OPT_IN_KINDS]
