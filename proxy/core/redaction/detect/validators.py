"""Check digits and number rules, by name: the one table detectors, table rows and custom types pick from.

Every function takes the value reduced to its letters and digits, letters in upper case (wallets: as written), and
says whether it could have been issued. Knows nothing about text, separators or labels.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.core.redaction.detect import arithmetic
from proxy.core.redaction.detect import validators_americas as americas
from proxy.core.redaction.detect import validators_asia as asia
from proxy.core.redaction.detect import validators_europe as europe

Validator = Callable[[str], bool]

VALIDATORS: dict[str, Validator] = {
    "luhn": arithmetic.luhn,
    "cpf": americas.cpf,
    "cnpj": americas.cnpj,
    "card": americas.card,
    "card_labelled": americas.card_labelled,
    "br_rg": americas.br_rg,
    "br_titulo": americas.br_titulo,
    "br_cnh": americas.br_cnh,
    "br_pis": americas.br_pis,
    "br_cns": americas.br_cns,
    "us_ssn": americas.us_ssn,
    "us_ssn_form": americas.us_ssn_form,
    "us_ssn_labelled": americas.us_ssn_labelled,
    "us_itin": americas.us_itin,
    "us_ein": americas.us_ein,
    "us_routing": americas.us_routing,
    "us_npi": americas.us_npi,
    "us_mbi": americas.us_mbi,
    "ca_sin": americas.ca_sin,
    "mx_curp": americas.mx_curp,
    "mx_rfc": americas.mx_rfc,
    "ar_cuit": americas.ar_cuit,
    "cl_rut": americas.cl_rut,
    "iban": europe.iban,
    "uk_nino": europe.uk_nino,
    "uk_nhs": europe.uk_nhs,
    "de_tax_id": europe.de_tax_id,
    "fr_nir": europe.fr_nir,
    "fr_siret": europe.fr_siret,
    "es_nif": europe.es_nif,
    "es_nie": europe.es_nie,
    "it_fiscal_code": europe.it_fiscal_code,
    "pt_nif": europe.pt_nif,
    "nl_bsn": europe.nl_bsn,
    "be_nrn": europe.be_nrn,
    "pl_pesel": europe.pl_pesel,
    "se_personnummer": europe.se_personnummer,
    "fi_hetu": europe.fi_hetu,
    "no_fnr": europe.no_fnr,
    "dk_cpr": europe.dk_cpr,
    "ch_ahv": europe.ch_ahv,
    "ie_pps": europe.ie_pps,
    "ro_cnp": europe.ro_cnp,
    "eu_vat": europe.eu_vat,
    "vat_digits": europe.vat_digits,
    "tr_tckn": asia.tr_tckn,
    "ru_inn": asia.ru_inn,
    "za_id": asia.za_id,
    "cn_ric": asia.cn_ric,
    "kr_rrn": asia.kr_rrn,
    "kr_rrn_checked": asia.kr_rrn_checked,
    "jp_my_number": asia.jp_my_number,
    "sg_nric": asia.sg_nric,
    "hk_id": asia.hk_id,
    "verhoeff": asia.verhoeff,
    "in_aadhaar": asia.in_aadhaar,
    "in_pan": asia.in_pan,
    "in_gstin": asia.in_gstin,
    "au_tfn": asia.au_tfn,
    "au_abn": asia.au_abn,
    "base58check": asia.base58check,
    "bech32": asia.bech32,
}
"""Every check a table row or a custom type may name."""
