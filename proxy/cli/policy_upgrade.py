"""``readygate policy upgrade``: policy files in the current version of their language, comments and layout kept.

Owns the verb's output and the writing. What changes is decided in ``core/policy/versions``, where the loader gets it from, too: an
upgraded file means what it meant, under the same revision.
"""

from __future__ import annotations

import argparse
import difflib
import stat
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

from proxy.cli.audit_store import EXIT_FINDING, EXIT_GOOD, EXIT_UNUSABLE, Unusable, find_settings
from proxy.core.audit.render import json_line
from proxy.core.config.language import CannotRewrite
from proxy.core.policy.versions import POLICY_LANGUAGE, upgraded
from proxy.sources.files import CASES_SUFFIX
from proxy.sources.policy_history import write_atomically

_SUFFIX: Final = ".yaml"


class _File(NamedTuple):
    """One policy file: as it is, and as it would be."""

    path: Path
    before: str
    after: str
    version: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="policy files or folders; left out: the config's folder"
    )
    parser.add_argument("--write", action="store_true", help="write the files; left out: only show what would change")


def run(args: argparse.Namespace) -> int:
    """Show or write what an older file looks like today; return the exit code. Raises Unusable."""
    files, trouble = _read([Path(path) for path in args.paths] or [find_settings(Path(args.config)).policies])
    old = [file for file in files if file.after != file.before]
    if args.write and not trouble:
        for file in old:
            try:
                write_atomically(file.path, file.after, stat.S_IMODE(file.path.stat().st_mode))
            except OSError as exc:
                raise Unusable(f"{file.path} cannot be written: {exc.strerror}") from None
    if args.format == "json":
        print(json_line(_document(files, trouble, has_written=args.write and not trouble)), end="")
    else:
        for file in old:
            print(f"wrote {file.path}" if args.write and not trouble else "\n".join(_diff(file)))
        if not trouble:
            print(_summary(len(files), len(old), has_written=args.write))
    for text in trouble:
        print(f"readygate policy upgrade: {text}; nothing was written", file=sys.stderr)
    if trouble:
        return EXIT_UNUSABLE
    return EXIT_FINDING if old and not args.write else EXIT_GOOD


def _read(paths: list[Path]) -> tuple[list[_File], list[str]]:
    """Return the files, and why some cannot be rewritten."""
    files: list[_File] = []
    trouble: list[str] = []
    for path in [found.resolve() for given in paths for found in _files_of(given)]:
        try:
            before = path.read_bytes().decode("utf-8")
            made = upgraded(before, str(path))
        except OSError as exc:
            raise Unusable(f"{path}: {exc.strerror}") from None
        except UnicodeDecodeError:
            trouble.append(f"{path} is no UTF-8 text")
        except CannotRewrite as exc:
            trouble.append(str(exc))
        else:
            files.append(_File(path, before, made.text, made.version))
    return files, trouble


def _files_of(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    found = [path for path in sorted(given.glob(f"*{_SUFFIX}")) if not path.name.startswith((".", "#"))]
    return [path for path in found if not path.name.endswith(CASES_SUFFIX)]


def _document(files: list[_File], trouble: list[str], *, has_written: bool) -> dict[str, Any]:
    return {
        "current": POLICY_LANGUAGE.current,
        "files": [
            {"file": str(file.path), "version": file.version, "is_changed": file.after != file.before} for file in files
        ],
        "written": has_written,
        "trouble": trouble,
    }


def _diff(file: _File) -> list[str]:
    lines = difflib.unified_diff(
        file.before.splitlines(), file.after.splitlines(), f"{file.path}", f"{file.path} (upgraded)", lineterm=""
    )
    return ["".join(char if char.isprintable() or char == "\t" else "?" for char in line) for line in lines]


def _summary(count: int, old: int, *, has_written: bool) -> str:
    current = f"version {POLICY_LANGUAGE.current}"
    if not old:
        return f"{count} file{'' if count == 1 else 's'}, all in {current}"
    if has_written:
        return f"{old} of {count} rewritten in {current}; they mean what they meant, under the same revision"
    says = "; ".join(step.says for step in POLICY_LANGUAGE.steps)
    return f"{old} of {count} in an older version, read as {current} ({says}); --write rewrites them"
