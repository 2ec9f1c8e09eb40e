"""Types a policy brings itself, and the names it may call types by.

Owns the keys of ``redaction.types``, their checks at the line that causes them, and other tools' names of our types.
Knows no text but the author's own examples and the everyday lines a checker brings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from proxy.core.config.kinds import Number, Text
from proxy.core.config.problem import Mark, Problem, error, lint
from proxy.core.config.schema import Key, ListOf, Section, Table, closest
from proxy.core.redaction.detect import KNOWN_KINDS, VALIDATORS, finder_of, why_unsound
from proxy.core.redaction.detect.custom import MAX_TERMS, MAX_TYPES
from proxy.terms.redaction import CustomType

MAX_HIT_RATIO = 0.01
"""A type that fires on more than this share of everyday lines is probably too broad."""
_MAX_EXAMPLES = 50
_MAX_CONTEXT = 50

ALIASES = {
    "EMAIL_ADDRESS": "EMAIL", "PHONE_NUMBER": "PHONE", "CRYPTO": "CRYPTO_WALLET", "IBAN_CODE": "IBAN", "IP": "IP_ADDRESS",
    "BR_CPF": "CPF", "BR_CNPJ": "CNPJ", "US_BANK_NUMBER": "US_BANK_ROUTING", "ABA_ROUTING_NUMBER": "US_BANK_ROUTING",
    "IT_VAT_CODE": "EU_VAT", "SG_NRIC_FIN": "SG_NRIC", "FI_PERSONAL_IDENTITY_CODE": "FI_HETU", "IN_AADHAR": "IN_AADHAAR",
    "ES_DNI": "ES_NIF", "SSN": "US_SSN", "ITIN": "US_ITIN", "NHS": "UK_NHS", "NINO": "UK_NINO", "SE_PIN": "SE_PERSONNUMMER",
    "SE_PERSONAL_IDENTITY_NUMBER": "SE_PERSONNUMMER", "ZA_ID_NUMBER": "ZA_ID", "TR_NATIONAL_ID": "TR_TCKN",
    "DE_STEUER_ID": "DE_TAX_ID", "CREDIT_CARD_NUMBER": "CREDIT_CARD", "CREDITCARD": "CREDIT_CARD", "DOB": "DATE_OF_BIRTH",
    "URL_WITH_CREDENTIALS": "URL_CREDENTIALS", "SECRET": "API_KEY", "AUTH_TOKEN": "API_KEY", "MAC": "MAC_ADDRESS",
    "CHINA_RESIDENT_ID_NUMBER": "CN_RIC", "HONG_KONG_ID_NUMBER": "HK_ID", "JAPAN_INDIVIDUAL_NUMBER": "JP_MY_NUMBER",
    "MEXICO_CURP_NUMBER": "MX_CURP", "US_EMPLOYER_IDENTIFICATION_NUMBER": "US_EIN", "BRAZIL_CPF_NUMBER": "CPF",
    "US_SOCIAL_SECURITY_NUMBER": "US_SSN", "FRANCE_NIR": "FR_NIR", "US_NPI_NUMBER": "US_NPI", "IMEI_HARDWARE_ID": "IMEI",
}  # fmt: skip
"""What Presidio, Google and common speech call our types."""


def parse_type(text: str) -> str:
    """Return the type's inner name: upper case, well-known other names replaced."""
    upper = text.strip().upper().replace("-", "_").replace(" ", "_")
    return ALIASES.get(upper, upper)


def _parse_label(text: str) -> str:
    if len(text) > 60:
        raise ValueError("a word or a short phrase, at most 60 characters")
    return text


_EXAMPLES = Table(
    "examples",
    "Texts tried when the policy is loaded; one that does otherwise refuses the file.",
    (
        Key("match", ListOf(Text("a text"), max_items=_MAX_EXAMPLES), "Texts with a value.", "[]", '["EMP-123456"]'),
        Key("no_match", ListOf(Text("a text"), max_items=_MAX_EXAMPLES), "Texts without.", "[]", '["EMP-12"]'),
    ),
)

TYPE = Table(
    "type",
    "A type of your own: a pattern or a list of terms.",
    (
        Key("name", Text("a name", parse_type), "What rules call it.", is_required=True, example="employee_id"),
        Key("pattern", Text("an RE2 pattern"), "What its values look like.", None, '"EMP-[0-9]{6}"'),
        Key(
            "terms",
            ListOf(Text("a word or phrase"), 1, MAX_TERMS),
            "Words and phrases themselves, in any case; instead of a pattern.",
            None,
            '["Project Bluebird"]',
        ),
        Key(
            "context",
            ListOf(Text("a word or phrase", _parse_label), max_items=_MAX_CONTEXT),
            "Words of which one must stand before a value (48 characters), as a label, key or column header.",
            "[]",
            "[employee, badge]",
        ),
        Key("validator", Text("a validator's name"), "A check digit rule of docs/kinds.md.", None, "luhn"),
        Key("confidence", Number(0.0, 1.0, is_whole=False), "How sure a finding is.", "0.8", "0.8"),
        Key("examples", _EXAMPLES, "Texts tried at load.", "{}", '{match: ["EMP-123456"]}'),
    ),
    homes={"patterns": "pattern, one a type", "regex": "pattern", "score": "confidence", "min_score": "a rule"},
)

TYPES_KEY = Key(
    "types",
    ListOf(TYPE, max_items=MAX_TYPES),
    "Types of your own, for both directions.",
    "[]",
    '[{name: employee_id, pattern: "EMP-[0-9]{6}"}]',
)


def compile_type(section: Section) -> CustomType:
    """Return one type as the detector takes it."""
    examples: Section = section["examples"]
    return CustomType(
        section["name"],
        section["pattern"] or "",
        tuple(section["context"].values),
        section["validator"] or "",
        tuple(examples["match"].values),
        tuple(examples["no_match"].values),
        section["confidence"],
        tuple(section["terms"].values) if section["terms"] is not None else (),
    )


def check_types(redaction: Section, everyday: Sequence[str] = ()) -> Iterator[Problem]:
    """Yield what is wrong with a policy's own types, each at the line that causes it.

    Args:
        everyday: Lines with nothing to redact; a type that fires on many of them is told to be too broad.
    """
    seen: dict[str, Mark] = {}
    for section, mark in redaction["types"]:
        if not section.is_good("name", "pattern", "terms", "context", "validator", "examples"):
            continue
        name: str = section["name"]
        if name in seen:
            text = f"another type is called {name.lower()} already, on line {seen[name].line}"
            yield error(section.at("name"), "duplicate-name", text, "give it another name")
        seen.setdefault(name, mark)
        row = compile_type(section)
        problem = _why_refused(section, row)
        if problem is not None:
            yield problem
            continue
        yield from _check_examples(section, row, finder_of(row))
        yield from _check_breadth(section, row, everyday)


def _why_refused(section: Section, row: CustomType) -> Problem | None:
    if row.validator and row.validator not in VALIDATORS:
        hint = closest(row.validator, VALIDATORS) or "known: " + ", ".join(sorted(VALIDATORS))
        return error(section.at("validator"), "unknown-validator", f"no validator {row.validator!r}", hint)
    reason = why_unsound(row, KNOWN_KINDS)
    if not reason:
        return None
    if why_unsound(row._replace(name="X"), KNOWN_KINDS) == "":
        return error(section.at("name"), "bad-name", f"{row.name.lower()!r} cannot be a type: {reason}")
    at = "terms" if row.terms else "pattern"
    if row.labels and not why_unsound(row._replace(labels=()), KNOWN_KINDS):
        at = "context"
    hint = "patterns are RE2: no look-around, no back-references" if at == "pattern" else ""
    return error(section.at(at), "bad-pattern", f"type {row.name.lower()} is refused: {reason}", hint)


def _check_examples(section: Section, row: CustomType, holds: Callable[[str], bool]) -> Iterator[Problem]:
    examples: Section = section["examples"]
    for wanted, key in ((True, "match"), (False, "no_match")):
        for text, mark in examples[key]:
            if holds(text) is not wanted:
                said = "holds no value of" if wanted else "holds a value of"
                hint = "mend the pattern, the context words or the example"
                yield error(mark, "failed-example", f"the example {said} {row.name.lower()}", hint)
    if row.pattern and not row.must_match:
        text = f"type {row.name.lower()} has no example that must match: a typo in its pattern would go unseen"
        yield lint(section.at("name"), "no-example", text, "give `examples: {match: […]}`")


def _check_breadth(section: Section, row: CustomType, everyday: Sequence[str]) -> Iterator[Problem]:
    if not everyday:
        return
    holds = finder_of(row)
    hits = sum(holds(line) for line in everyday)
    if hits > MAX_HIT_RATIO * len(everyday):
        text = (
            f"type {row.name.lower()} fires on {hits} of {len(everyday)} everyday lines with nothing to redact "
            f"({hits / len(everyday):.1%})"
        )
        hint = "make the pattern longer, or add `context` words or a `validator`"
        yield lint(section.at("terms" if row.terms else "pattern"), "broad-type", text, hint)
