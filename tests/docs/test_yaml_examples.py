"""Every piece of YAML in the pages for users is in the language of this release: what is pasted must load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.core.config.config_table import CONFIG
from proxy.core.config.yaml_text import Map, parse_yaml
from proxy.core.policy.cases import parse_cases
from proxy.core.policy.policy_table import POLICY

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block[1], id=f"{page.name}:{page.read_text()[: block.start()].count(chr(10)) + 1}")
    for page in PAGES
    for block in re.finditer(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
]


def wrong_with(text: str) -> list[list[str]]:
    """Return what is wrong with a piece as each kind of file that it may be of."""
    node, problems = parse_yaml(text, "page")
    assert isinstance(node, Map), problems
    if "cases" in node.entries:
        return [[str(problem) for problem in parse_cases([("page", text)])[1]]]
    found: list[list[str]] = []
    for table in (POLICY, CONFIG):
        problems = []
        table.read(node, "", problems)
        found.append([str(problem) for problem in problems if problem.code != "missing-key"])
    return found


@pytest.mark.parametrize("text", BLOCKS)
def test_a_piece_of_yaml_in_the_docs_has_only_keys_and_values_that_exist(text: str) -> None:
    """A page that shows a key nobody knows costs its reader an hour. Pieces may lack what the whole file needs."""
    assert [] in wrong_with(text)


def test_there_are_pieces_to_look_at() -> None:
    """A pattern that finds nothing would hold for ever."""
    assert len(BLOCKS) >= 10
