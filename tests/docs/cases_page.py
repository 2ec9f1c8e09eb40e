"""Writes docs/cases.md: every case of the catalogue and the tests that hold it.

Run: ``make reference`` (``python -m tests.docs.cases_page``). A test holds a case when it names its id, by house
habit at the end of its docstring: ``… loses nothing (AU-02).`` The catalogue itself is cases.tsv beside this file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cases.md"
CATALOGUE = Path(__file__).with_name("cases.tsv")
ID = re.compile(r"\b(?:AU|BR|HT|LC|RL|SE|SO|UF)-\d\d\b")

HEAD = """# Cases

What must hold when the world misbehaves, and the tests that show it. Generated from the tests by `make reference`: a test
belongs to the cases that it names. Tests in `integration`, `faults` and `e2e` start whole sidecars, real databases or real
processes; those in `unit` and `property` hold the part that decides.

Invariants: **I1** every request that got a byte has exactly one row; **I2** no duplicate ids; **I3** no row without a
request; **I4** outcome and bytes agree with what caller and provider saw; **I5** attempts in rows are requests at the
provider; **I6** spend stays within its bound; **I7** reservations and gauges return to nothing; **I8**, **I9** no key and no
personal value outside its place; **I10** memory per abusive request is bounded; **I11** liveness answers throughout; **I12**
one well-framed answer per request; **I13** descriptors, tasks and connections return; **I14** series do not grow with input;
**I15** every error has the four keys; **I16** health tells the truth.

Oracles, each a command with an exit code: **O1** callers' and provider's journals against rows, **O2** no id twice
(`python -m tests.support.oracles`), **O3** the chain (`readygate audit verify`), **O4** canaries nowhere, **O5** the
largest sliding window, **O6** nothing left over, **O7** the prober's report.
"""


def catalogue() -> dict[str, dict[str, str]]:
    """Return family -> id -> what the case says."""
    families: dict[str, dict[str, str]] = {}
    cases: dict[str, str] = {}
    for line in CATALOGUE.read_text().splitlines():
        if line.startswith("## "):
            cases = families.setdefault(line[3:], {})
        elif not line.startswith("#"):
            name, _, text = line.partition("\t")
            cases[name] = text
    return families


def tests_by_case() -> dict[str, list[tuple[str, str, bool]]]:
    """Return id -> file below ``tests/``, test and whether it is a slow one, in order."""
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        text = file.read_text()
        if not ID.search(text):
            continue
        for name, source in test_functions(text):
            for case in sorted(set(ID.findall(source))):
                where = str(file.relative_to(ROOT / "tests"))
                found.setdefault(case, []).append((where, name, "pytest.mark.slow" in source))
    return found


def test_functions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the source, decorators included, of every test in a module."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield node.name, "\n".join(lines[first - 1 : node.end_lineno])


def cell(text: str) -> str:
    """Return a text as it may stand in a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def render() -> str:
    """Return the whole page."""
    held = tests_by_case()
    lines = [HEAD]
    for family, cases in catalogue().items():
        covered = sum(name in held for name in cases)
        lines += [
            f"## {family}",
            "",
            f"{covered} of {len(cases)} have a test.",
            "",
            "| case | says | tests |",
            "|---|---|---|",
        ]
        for name, says in cases.items():
            tests = "<br>".join(
                f"`{where}` {test}{' (slow)' if is_slow else ''}" for where, test, is_slow in held.get(name, [])
            )
            lines.append(f"| {name} | {cell(says)} | {tests or '–'} |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    PAGE.write_text(render())
    print(f"{PAGE.relative_to(ROOT)}: {sum(map(len, tests_by_case().values()))} tests of cases")
