"""``readygate init``: a first pair of files that works, and starters that do what they say."""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path
from types import ModuleType

import pytest

from proxy.cli import check, init
from proxy.cli import test as test_verb

ROOT = Path(__file__).parents[3]
STARTERS = sorted(p.stem for p in (ROOT / "policies/starters").glob("*.yaml") if not p.name.endswith(".cases.yaml"))


def run(verb: ModuleType, name: str, *arguments: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = verb.run(parser.parse_args([name, *arguments]))
    return code, out.getvalue()


def test_the_promised_starters_are_there() -> None:
    """The README names them."""
    assert ["cost-guard", "default", "gdpr", "hipaa", "lgpd", "local-first", "observe-first", "pci"] == STARTERS


@pytest.mark.parametrize("name", ["default.yaml", "default.cases.yaml"])
def test_the_default_starter_is_the_policy_of_this_repository(name: str) -> None:
    """Two copies, so that an installed `init` has it, too; they must not drift apart."""
    here, starter = ((ROOT / folder / name).read_text() for folder in ("policies", "policies/starters"))

    assert here.replace("$schema=../docs", "$schema=../../docs") == starter


@pytest.mark.parametrize("starter", STARTERS)
def test_a_starter_passes_its_cases_with_every_rule_touched(starter: str) -> None:
    """Each says what it does, and its cases prove it."""
    path = ROOT / "policies/starters" / f"{starter}.yaml"
    arguments = ("-c", str(ROOT / "config.yaml"), "--policies", str(path))

    assert (0, "") == (run(check, "check", *arguments)[0], "")
    code, out = run(test_verb, "test", *arguments, "--require-coverage")
    assert 0 == code, out
    assert "What it does not do" in path.read_text()


@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize("provider", [None, "gemini"])
def test_what_init_writes_loads_and_holds(tmp_path: Path, starter: str, provider: str | None) -> None:
    """The next command it prints works."""
    chosen = ["--provider", provider] if provider else []
    code, out = run(init, "init", str(tmp_path / "new"), "--starter", starter, "--yes", *chosen)
    assert 0 == code, out

    arguments = ("-c", str(tmp_path / "new" / "config.yaml"))
    assert 0 == run(check, "check", *arguments)[0]
    code, out = run(test_verb, "test", *arguments, "--require-coverage")
    assert 0 == code, out
    if provider is not None:
        assert "gemini" in (tmp_path / "new" / "policies" / f"{starter}.yaml").read_text()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A second run in the same folder must not cost anybody a file."""
    assert 0 == run(init, "init", str(tmp_path), "--yes")[0]
    (tmp_path / "config.yaml").write_text("mine")
    code, out = run(init, "init", str(tmp_path), "--yes")

    assert 2 == code
    assert "is there already" in out
    assert "mine" == (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--starter", "gdrp"], "there are cost-guard, default"),
        (["--starter", "cost-guard", "--provider", "groq"], "asks groq anyway"),
    ],
)
def test_wrong_choices_are_told(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    """With what there is to choose from."""
    code, out = run(init, "init", str(tmp_path), "--yes", *arguments)

    assert 2 == code
    assert complaint in out
    assert [] == list(tmp_path.iterdir())


def test_list_shows_every_starter_in_a_sentence() -> None:
    """Choosing needs no second window."""
    code, out = run(init, "init", "--list")

    assert 0 == code
    assert STARTERS == [line.split()[0] for line in out.splitlines()]
