#!/usr/bin/env python3
"""Cover each core module by its own test file alone: proxy/core/x/y.py by tests/unit/core/x/test_y.py.

A module that only others' tests reach is a module nobody can change with confidence. Prints what is missing;
exits 1 when a module that has a test file of its own is not fully covered by it, or with --all when one has none.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def own_test(module: Path) -> Path:
    """Return where the module's test file stands, whether it exists or not."""
    within = module.relative_to(ROOT / "proxy")
    return ROOT / "tests/unit" / within.parent / f"test_{module.stem}.py"


def uncovered(module: Path, test: Path) -> str:
    """Run the one test file; return the report's line for the module when it is not fully covered."""
    with tempfile.TemporaryDirectory() as folder:
        data = f"--data-file={folder}/data"
        name = str(module.relative_to(ROOT))
        run = [sys.executable, "-m", "coverage", "run", data, "--rcfile=/dev/null", "--branch", f"--include={name}"]
        done = subprocess.run(
            [*run, "-m", "pytest", "-q", "-x", str(test)], cwd=ROOT, check=False, capture_output=True, text=True
        )
        if done.returncode:
            return f"{name}: its tests fail\n{done.stdout[-2000:]}"
        report = [sys.executable, "-m", "coverage", "report", data, "--rcfile=/dev/null", "--show-missing"]
        lines = subprocess.run(report, cwd=ROOT, check=False, capture_output=True, text=True).stdout.splitlines()
    row = next((line for line in lines if line.startswith(name)), f"{name} never imported")
    return "" if " 100%" in row else row


def main() -> int:
    """Check every core module; arguments are parts of paths to look at."""
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    modules = sorted(path for path in (ROOT / "proxy/core").rglob("*.py") if path.name != "__init__.py")
    picked = [path for path in modules if not wanted or any(part in str(path) for part in wanted)]
    alone = [path for path in picked if not own_test(path).exists()]
    gaps = [gap for path in picked if path not in alone and (gap := uncovered(path, own_test(path)))]
    for path in alone:
        print(f"{path.relative_to(ROOT)}: no {own_test(path).relative_to(ROOT)}")
    for gap in gaps:
        print(gap)
    print(f"{len(picked) - len(alone) - len(gaps)} of {len(picked)} core modules fully covered by their own tests")
    return 1 if gaps or (alone and "--all" in sys.argv) else 0


if __name__ == "__main__":
    raise SystemExit(main())
