"""What is installed is what is written: a wheel without a page or a migration starts here and fails at a customer's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """A wheel built by the pinned backend from a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    shutil.copy(ROOT / "pyproject.toml", source)
    shutil.copytree(ROOT / "proxy", source / "proxy", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, "--wheel-dir", str(source / "out"), str(source)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "BackendUnavailable" in done.stderr or "unsatisfied" in done.stderr:
        pytest.skip("the build backend is not installed: make setup-dev")
    assert 0 == done.returncode, done.stderr[-3000:]
    return zipfile.Path(next((source / "out").glob("*.whl")))


def test_wheel_holds_every_file_of_the_package(wheel: zipfile.Path) -> None:
    """Pages, SQL, tables and READMEs are read at run time; none may be left behind."""
    inside = {name for name in wheel.root.namelist() if not name.endswith("/")}
    written = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "proxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert set() == written - inside
    assert set() == {name for name in inside - written if name.startswith("proxy/")}


def test_wheel_brings_the_command_and_nothing_else_at_the_top(wheel: zipfile.Path) -> None:
    """`tests` or `loadtest` in site-packages would shadow other projects' own."""
    tops = {name.split("/", 1)[0] for name in wheel.root.namelist()}
    entry = next(name for name in wheel.root.namelist() if name.endswith("entry_points.txt"))

    assert "proxy" in tops
    assert 2 == len(tops), tops
    assert b"readygate = proxy.cli:main" in wheel.root.read(entry)
