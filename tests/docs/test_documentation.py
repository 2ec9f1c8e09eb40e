"""What a reader is told is what the program does: settings, codes, metrics, verbs, targets and folders."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from proxy.cli import VERBS
from tests.docs import cases_page, reference_page

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def read(name: str) -> str:
    return (ROOT / name).read_text()


def make_targets() -> dict[str, str]:
    """Return every target that a person may call -> what `make help` says about it."""
    text = read("Makefile")
    named = set(" ".join(re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)).split())
    said = dict(re.findall(r"^([a-z][a-z0-9-]*):[^#\n]*## (.+)$", text, re.MULTILINE))
    return {name: said.get(name, "") for name in sorted(named | set(said))}


def test_reference_page_is_what_the_tables_say() -> None:
    """Every setting, error code, metric and verb is listed, because the page is made from them: `make reference`."""
    assert reference_page.render() == reference_page.PAGE.read_text(), "stale: run `make reference`"


def test_cases_page_is_what_the_tests_name() -> None:
    """Who asks whether a case is held finds the test: `make reference`."""
    assert cases_page.render() == cases_page.PAGE.read_text(), "stale: run `make reference`"


def test_no_test_names_a_case_that_is_not_in_the_catalogue() -> None:
    """A mistyped id would hold nothing."""
    known = {name for cases in cases_page.catalogue().values() for name in cases}

    assert set() == set(cases_page.tests_by_case()) - known


def test_every_setting_says_what_it_means() -> None:
    """A key without a sentence is a key nobody dares to change."""
    page = reference_page.PAGE.read_text()
    keys = re.findall(r"^\| `([^`]+)` \| [^|]*\| [^|]*\| (.*) \|$", page, re.MULTILINE)

    assert len(keys) > 50
    assert [] == [key for key, meaning in keys if len(meaning.strip()) < 5]


def test_every_admin_call_says_what_it_does() -> None:
    """The table of calls is made from the code; a row without a sentence helps nobody."""
    routes = list(reference_page.admin_routes())

    assert len(routes) >= 9
    assert [] == [path for _, path, _, _, does in routes if not does]


def test_make_help_lists_every_target() -> None:
    """`make help` is the only index; a target it does not show does not exist for a newcomer."""
    shown = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=30).stdout
    targets = make_targets()

    assert [] == [name for name, text in targets.items() if not text]
    assert [] == [name for name in targets if not re.search(rf"^\s+{name}\s", shown, re.MULTILINE)]


def test_readme_begins_with_the_two_commands_that_ci_runs() -> None:
    """The promise of the README is what CI keeps."""
    readme = read("README.md")

    assert "make run" in readme
    assert "make test" in readme
    assert "step make test" in read(".ci/run")


def test_readme_names_every_verb() -> None:
    """A verb that only `--help` knows is found by nobody."""
    readme = read("README.md")

    assert [] == [verb for verb in VERBS if f"readygate {verb}" not in readme]


def test_tests_readme_has_a_row_for_every_folder() -> None:
    """Each folder answers one question, and says with which command and in what time."""
    text = read("tests/README.md")
    folders = {
        path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith((".", "_"))
    }

    assert [] == sorted(name for name in folders if f"`tests/{name}/`" not in text)


def test_tests_readme_names_only_targets_that_exist() -> None:
    """A command that fails when pasted costs the reader's trust in all others."""
    named = set(
        re.findall(r"`make ([a-z][a-z0-9-]*)", read("tests/README.md") + read("README.md") + read("deploy/README.md"))
    )

    assert set() == named - set(make_targets())


PAGES = [*sorted(page.name for page in ROOT.glob("*.md")), "deploy/README.md", "proxy/README.md", "tests/README.md"]


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page: str) -> None:
    """A dead link is the first thing a newcomer meets."""
    folder = (ROOT / page).parent
    targets = [
        target for target in LINK.findall(read(page)) if "://" not in target and not target.startswith("mailto:")
    ]

    assert [] == [target for target in targets if not (folder / target).exists()]


def test_changelog_has_an_entry_for_this_version() -> None:
    """Operators read what moved before they roll out."""
    version = re.search(r'^__version__ = "([^"]+)"$', read("proxy/__init__.py"), re.MULTILINE)

    assert version is not None
    assert f"## {version[1]}" in read("CHANGELOG.md")
