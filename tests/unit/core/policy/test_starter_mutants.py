"""Broken copies of every starter policy and of its cases: misspelt, repeated, emptied, of another type, without a unit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.core.config.load import parse_settings
from proxy.core.policy.case_checks import check_cases
from proxy.core.policy.cases import parse_cases
from proxy.core.policy.load import parse_policies
from proxy.core.redaction.detect import KNOWN_KINDS
from tests.support.mutants import Mutant, mutants_of

STARTERS = Path(__file__).parents[4] / "policies" / "starters"
FILES = sorted(path.name for path in STARTERS.glob("*.yaml"))
PROVIDERS = ("openai", "groq", "azure", "local", "gemini")
CONFIG = "version: 1\nprices: prices.yaml\nproviders:\n" + "".join(
    f'  {name}: {{base_url: "http://127.0.0.1:1/v1", region: eu}}\n' for name in PROVIDERS
)
FREE = frozenset({"providers", "headers", "row", "redactions", "findings", "answer_findings", "body"})
"""Maps of cases whose keys are the author's own, or a request's; ``check`` looks them up, misspelling them is no typing mistake."""
SETTINGS = parse_settings(CONFIG, "config.yaml", Path("/")).settings
assert SETTINGS is not None


def lines_told(name: str, text: str) -> set[int]:
    """Return the lines of a file about which something is said."""
    assert SETTINGS is not None
    if not name.endswith(".cases.yaml"):
        return {problem.line for problem in parse_policies([(name, text)], SETTINGS, KNOWN_KINDS).problems}
    policy = (STARTERS / name.replace(".cases.yaml", ".yaml")).read_text()
    policies = parse_policies([("policy", policy)], SETTINGS, KNOWN_KINDS).policies
    assert policies is not None
    cases, problems = parse_cases([(name, text)])
    return {problem.line for problem in (*problems, *check_cases(cases, policies, SETTINGS, KNOWN_KINDS))}


def mutants(name: str) -> list[Mutant]:
    text = (STARTERS / name).read_text()
    is_free = {n for n, line in enumerate(text.splitlines(), 1) if "row: {" in line}  # any value may be expected there
    free = FREE if name.endswith(".cases.yaml") else frozenset[str]()
    # Types may be written in upper case; they stand far to the right, in rows of tables, while keys begin their lines.
    found = [mutant for mutant in mutants_of(text, free) if mutant.line not in is_free]
    return [
        mutant for mutant in found if not re.fullmatch("misspell [a-z_]+ as [A-Z_]+", mutant.what) or mutant.column < 10
    ]


@pytest.mark.parametrize("every", [31, pytest.param(1, marks=pytest.mark.slow)])
def test_no_mutant_of_a_starter_or_its_cases_is_ignored(every: int) -> None:
    """6,500 of them: each is refused or linted at the line where it was broken."""
    missed, count = [], 0
    for name in FILES:
        before = lines_told(name, (STARTERS / name).read_text())
        for mutant in mutants(name)[::every]:
            count += 1
            if mutant.line not in lines_told(name, mutant.text) - before:
                missed.append((name, mutant.what, mutant.line))

    assert [] == missed
    assert count > 6000 // every
