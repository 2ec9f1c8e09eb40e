"""The validators beside python-stdnum, which was written by other people from the same laws."""

from __future__ import annotations

import importlib
import random
import re
import string

import pytest

from proxy.core.redaction.detect import VALIDATORS
from proxy.core.redaction.detect.catalog import ALL_KINDS

SEEDS = {k.check: re.sub(r"[\W_]", "", k.example).upper() for k in ALL_KINDS if k.check} | {
    "luhn": "4111111111111111",
    "us_ssn": "536228726",
    "verhoeff": "223456789012",
    "za_id": "7503305044089",
    "in_aadhaar": "234123412346",
}
SEEDS["us_ssn_labelled"] = SEEDS["us_ssn_form"]
SAME = {
    "luhn": "luhn", "verhoeff": "verhoeff", "cpf": "br.cpf", "cnpj": "br.cnpj", "us_ssn": "us.ssn", "us_ein": "us.ein",
    "ca_sin": "ca.sin", "cl_rut": "cl.rut", "iban": "iban", "uk_nhs": "gb.nhs", "fr_siret": "fr.siret",
    "es_nif": "es.dni", "es_nie": "es.nie", "nl_bsn": "nl.bsn", "ch_ahv": "ch.ssn", "tr_tckn": "tr.tckimlik", "ru_inn": "ru.inn",
    "au_tfn": "au.tfn", "au_abn": "au.abn", "in_aadhaar": "in_.aadhaar", "pt_nif": "pt.nif",
}  # fmt: skip
"""Agree on every number."""
WIDER = {
    "us_itin": "us.itin", "ar_cuit": "ar.cuit", "de_tax_id": "de.idnr", "be_nrn": "be.nn", "pl_pesel": "pl.pesel",
    "no_fnr": "no.fodselsnummer", "dk_cpr": "dk.cpr", "ie_pps": "ie.pps", "ro_cnp": "ro.cnp", "za_id": "za.idnr",
    "mx_curp": "mx.curp", "jp_my_number": "jp.in_", "in_pan": "in_.pan", "in_gstin": "in_.gstin", "mx_rfc": "mx.rfc",
    "it_fiscal_code": "it.codicefiscale", "fr_nir": "fr.nir",
    "us_ssn_form": "us.ssn", "us_ssn_labelled": "us.ssn",
}  # fmt: skip
"""Accept whatever the oracle accepts, and more: numbers of future dates, of test systems, of newer rules."""


def _numbers(seed: str, count: int, is_valid: object) -> list[str]:
    """Return mutations of a number, walking on from each valid one, so that a good part of them is valid."""
    rng = random.Random(seed)
    current, numbers = seed, [seed]
    while len(numbers) < count:
        value = list(current)
        for _ in range(rng.choice((1, 1, 2, 3))):
            i = rng.randrange(len(value))
            value[i] = rng.choice(string.digits if value[i].isdigit() else string.ascii_uppercase)
        numbers.append("".join(value))
        if is_valid(numbers[-1]):  # type: ignore[operator]
            current = numbers[-1]
    return numbers


@pytest.mark.parametrize(("name", "module"), sorted(SAME.items()))
def test_check_agrees_with_oracle(name: str, module: str) -> None:
    """A wrong weight lets real numbers through unredacted, or redacts order numbers."""
    oracle = importlib.import_module(f"stdnum.{module}").is_valid
    numbers = _numbers(SEEDS[name], 1500, oracle)

    assert [] == [n for n in numbers if oracle(n) is not VALIDATORS[name](n)]
    assert sum(oracle(n) for n in numbers) > 20


@pytest.mark.parametrize(("name", "module"), sorted(WIDER.items()))
def test_check_accepts_all_the_oracle_accepts(name: str, module: str) -> None:
    """Where our rule is wider on purpose it still must not lose a valid number."""
    oracle = importlib.import_module(f"stdnum.{module}").is_valid
    numbers = _numbers(SEEDS[name], 1500, oracle)

    assert [] == [n for n in numbers if oracle(n) and not VALIDATORS[name](n)]
    assert sum(oracle(n) for n in numbers) > 20


@pytest.mark.parametrize(
    "country", ["at", "be", "de", "dk", "es", "fi", "fr", "it", "lu", "nl", "pl", "pt", "se", "hr", "ie"]
)
def test_vat_accepts_all_the_oracle_accepts(country: str) -> None:
    """VAT numbers of each country with a check of its own."""
    oracle = importlib.import_module("stdnum.eu.vat").is_valid
    seeds = {
        "at": "ATU13585627", "be": "BE0428759497", "de": "DE136695976", "dk": "DK13585628", "es": "ES54362315K", "fi": "FI20774740",
        "fr": "FR40303265045", "it": "IT00743110157", "lu": "LU15027442", "nl": "NL004495445B01", "pl": "PL8567346215",
        "pt": "PT501964843", "se": "SE123456789701", "hr": "HR33392005961", "ie": "IE6433435F",
    }  # fmt: skip
    numbers = [n for n in _numbers(seeds[country], 1200, oracle) if n[:2] == country.upper()]

    assert oracle(seeds[country])
    assert [] == [n for n in numbers if oracle(n) and not VALIDATORS["eu_vat"](n)]


@pytest.mark.parametrize(
    ("country", "size"),
    [
        ("BG", 9),
        ("CY", 8),
        ("CZ", 8),
        ("EE", 9),
        ("EL", 9),
        ("HU", 8),
        ("LT", 9),
        ("LV", 11),
        ("MT", 8),
        ("RO", 8),
        ("SI", 8),
        ("SK", 10),
    ],
)
def test_vat_of_countries_without_a_check_of_ours_is_not_lost(country: str, size: int) -> None:
    """There only form and prefix are looked at, so every number the oracle takes must pass."""
    oracle = importlib.import_module("stdnum.eu.vat").is_valid
    rng = random.Random(country)
    suffix = "L" if country == "CY" else ""
    numbers = [country + "".join(rng.choices(string.digits, k=size)) + suffix for _ in range(4000)]

    assert [] == [n for n in numbers if oracle(n) and not VALIDATORS["eu_vat"](n)]


def test_addresses_of_wallets_agree_with_the_oracle() -> None:
    """Base58check and bech32, mutated: an address is either right or not one."""
    oracle = importlib.import_module("stdnum.bitcoin").is_valid
    for name, seed in (
        ("base58check", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"), ("bech32", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
    ):  # fmt: skip
        numbers = [seed, *(seed[:i] + ("2" if seed[i] != "2" else "3") + seed[i + 1 :] for i in range(4, len(seed)))]

        assert [] == [n for n in numbers if bool(oracle(n)) is not VALIDATORS[name](n)]


@pytest.mark.parametrize("row", [k for k in ALL_KINDS if k.check], ids=lambda k: k.name)
def test_example_of_the_table_passes_its_check(row: object) -> None:
    """The examples go into the docs; people try them."""
    value = re.sub(r"[\W_]", "", row.example)  # type: ignore[attr-defined]
    check = VALIDATORS[row.check]  # type: ignore[attr-defined]

    assert check(value if row.name == "CRYPTO_WALLET" else value.upper())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "valid", "invalid"),
    [
        ("br_titulo", "004356870906", "004356870907"),
        ("br_cnh", "97625655678", "97625655679"),
        ("br_pis", "12056874107", "12056874108"),
        ("br_cns", "700000000000005", "700000000000006"),
        ("us_npi", "1234567893", "1234567890"),
        ("us_mbi", "1EG4TE5MK73", "1SG4TE5MK73"),
        ("us_routing", "121000358", "421042111"),
        ("uk_nino", "AB123456C", "BG123456C"),
        ("fr_nir", "295109912611193", "295109912611199"),
        ("se_personnummer", "8803200016", "8803200018"),
        ("fi_hetu", "131052308T", "131052308U"),
        ("cn_ric", "11010519491231002X", "110105194912310021"),
        ("sg_nric", "S1234567D", "S1234567A"),
        ("hk_id", "G123456A", "G1234563"),
        ("base58check", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb"),
        ("bech32", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5"),
        ("card", "4111111111111111", "4111111111111112"),
        ("card_labelled", "6759649826438453", "6759649826438454"),
        ("dk_cpr", "2110625629", "3113625629"),
        ("kr_rrn", "9601211234567", "9613211234567"),
    ],
)
def test_published_number_passes_and_its_neighbour_fails(name: str, valid: str, invalid: str) -> None:
    """Numbers from the issuers' own documents, for checks no oracle knows."""
    assert VALIDATORS[name](valid)
    assert not VALIDATORS[name](invalid)
