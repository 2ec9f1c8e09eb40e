"""docs/kinds.md, made from the tables the detector itself reads. ``python -m tests.docs.kinds_page`` writes it.

Owns the page's layout; every fact in it comes from the tables, so the page cannot promise what the detector does not do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from proxy.core.policy.custom_types import ALIASES
from proxy.core.redaction.detect import OPT_IN_KINDS, VALIDATORS
from proxy.core.redaction.detect.announced import STEMS
from proxy.core.redaction.detect.announced_other import WORDS as OTHER_STEMS
from proxy.core.redaction.detect.catalog import ALL_KINDS
from proxy.core.redaction.detect.kinds import Kind
from proxy.core.redaction.detect.tables.issuers import FORMS, ISSUERS
from proxy.core.redaction.detect.tables.negative import NEGATIVE_WORDS
from tests.docs.label_languages import languages_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/kinds.md"

HEAD = """\
# What redaction recognises

Made by `make reference` from the detector's tables; do not edit. Try it: `echo 'write to ana@example.com' | readygate redact --explain`.

A policy calls a type by its name in any case, or by the names of other tools (below). *Strong*: reported wherever it stands, by form and
check digit. *Label*: only with one of its words within 48 characters before the value, as a JSON key, a column header or right behind it.
*Opt-in*: only where a rule names the type; a `default` does not reach it. On overlap the lower priority number wins, then the longer value.
Findings carry a confidence: 0.95 form and check, 0.9 label and check, 0.85 bare digits with a check, 0.7 a label alone (for types
without a check, and right before a value of the right form whose check digit is wrong); `min_score` cuts there.
Labels are matched whole, without regard to case and accents; keys are split at `_`, `-` and humps (`customerTaxId`).
"""


def cell(text: str) -> str:
    """Return text as it may stand in a table cell."""
    return text.replace("|", "\\|").replace("\n", " ").strip()


def mode_of(kind: Kind) -> str:
    """Return how a type gets reported."""
    return "opt-in" if kind.name in OPT_IN_KINDS else kind.mode


def check_of(kind: Kind) -> str:
    """Return the first sentence about a type's validator."""
    if not kind.check:
        return ""
    said = (VALIDATORS[kind.check].__doc__ or "").strip().splitlines()[0]
    return f"`{kind.check}`: {said}"


def forms_of(kind: Kind) -> str:
    """Return the written forms of a type, a digit as 0 and a letter as A."""
    forms = [*kind.strong, *kind.soft, *kind.labelled]
    shown = ", ".join(f"`{form}`" for form in forms[:4])
    more = f" and {len(forms) - 4} more" if len(forms) > 4 else ""
    counted = f"{' or '.join(map(str, kind.counts))} digits" if kind.counts else ""
    return "; ".join(part for part in (shown + more, counted) if part)


def labels_of(kind: Kind) -> str:
    """Return the words that announce a type."""
    shown = ", ".join(kind.labels[:5])
    return shown + (f" and {len(kind.labels) - 5} more" if len(kind.labels) > 5 else "")


def kinds_section() -> Iterator[str]:
    """Yield the table of types."""
    yield "\n## Types\n"
    yield "| type | what it is | country | reported | priority | forms | check | announced by | example | source |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for kind in sorted(ALL_KINDS, key=lambda k: k.name):
        cells = (
            f"`{kind.name.lower()}`", kind.title, kind.countries, mode_of(kind), str(kind.priority), forms_of(kind),
            check_of(kind), labels_of(kind), f"`{kind.example}`", kind.source,
        )  # fmt: skip
        yield "| " + " | ".join(cell(text) for text in cells) + " |"


def secret_words(*, is_password: bool) -> list[str]:
    """Return the words that announce a secret."""
    latin = sorted(stem.decode("latin-1").replace("_", " ") for stem, kind in STEMS.items() if kind is is_password)
    return latin + [word for word, kind in OTHER_STEMS.items() if kind is is_password]


def labels_section() -> Iterator[str]:
    """Yield every word that announces a type, and the languages they are in."""
    yield "\n## Words that announce a type\n"
    yield "Told by the words themselves; a type with none here is announced by its abbreviation alone, which is the same in every language.\n"
    yield "| type | languages | words |"
    yield "|---|---|---|"
    for kind in sorted(ALL_KINDS, key=lambda k: k.name):
        if kind.labels:
            words = ", ".join(dict.fromkeys(kind.labels))
            yield f"| `{kind.name.lower()}` | {languages_of(kind.labels, kind.countries)} | {cell(words)} |"
    for is_password, name in ((False, "api_key"), (True, "password")):
        yield f"| `{name}` | {languages_of(secret_words(is_password=is_password))} | below |"


def secrets_section() -> Iterator[str]:
    """Yield what makes an API key or a password."""
    yield "\n## Keys known by their form (`api_key`)\n"
    yield "| issuer | begins with |"
    yield "|---|---|"
    by_issuer: dict[str, list[str]] = {}
    for issuer in ISSUERS:
        by_issuer.setdefault(issuer.sub, []).extend(issuer.prefixes)
    for sub, prefixes in sorted(by_issuer.items()):
        yield f"| {sub.lower()} | {', '.join(f'`{prefix}`' for prefix in prefixes)} |"
    yield "\nKnown by a mark inside: " + ", ".join(form.sub.lower() for form in FORMS) + "."
    for is_password, name in ((False, "api_key"), (True, "password")):
        words = secret_words(is_password=is_password)
        yield f"\nWords that announce a `{name}` (values must be dense enough and no template): {', '.join(words)}."


def words_section() -> Iterator[str]:
    """Yield negative words, aliases and validators."""
    yield "\n## Words that speak against\n"
    yield f"After these a number is taken for none of the above unless its form is strong: {', '.join(NEGATIVE_WORDS)}."
    yield "\n## Names of other tools\n"
    yield ", ".join(f"`{alias}` = `{name.lower()}`" for alias, name in sorted(ALIASES.items())) + "."
    yield "\n## Validators for types of your own\n"
    yield "| name | rule |"
    yield "|---|---|"
    for name, check in sorted(VALIDATORS.items()):
        yield f"| `{name}` | {cell((check.__doc__ or '').strip().splitlines()[0])} |"


def render() -> str:
    """Return the whole page."""
    return (
        "\n".join([HEAD.rstrip("\n"), *kinds_section(), *labels_section(), *secrets_section(), *words_section()]) + "\n"
    )


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render())
    print(f"{PAGE.relative_to(ROOT)}: {len(render().splitlines())} lines")
