"""config.yaml and the policy folder: read, and watched by content.

Owns which files count and what a consistent reading of a folder is. A change is seen by digest, not by time:
a ConfigMap swaps a symbolic link, and its files' times say nothing. Does not know what the text means.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from proxy.core.budget.prices import PriceTable
from proxy.core.config.load import ConfigResult, parse_settings
from proxy.core.config.price_table import PriceResult, parse_prices
from proxy.core.config.problem import Mark, Problem, error, in_order, lint
from proxy.core.config.settings import Settings
from proxy.core.config.yaml_text import MAX_BYTES

CASES_SUFFIX = ".cases.yaml"
SETTLE_S = 0.1
"""A folder must read the same twice, so far apart, before a change is believed: half-written files pass by."""
MAX_FILES = 1000


@dataclass(frozen=True, slots=True)
class FolderSnapshot:
    """The policy folder as it was at one moment."""

    files: tuple[tuple[str, str], ...]
    """Name (as shown in messages) and text, sorted by name."""
    digest: str
    """Changes when, and only when, a name, a text or a problem does."""
    problems: tuple[Problem, ...]
    """What could not be read."""
    cases: tuple[tuple[str, str], ...] = ()
    """The same of the ``*.cases.yaml`` files."""


def read_config(path: Path) -> ConfigResult:
    """Read and parse config.yaml; a file that cannot be read is one problem that says what to do."""
    shown = _shown(path)
    text, problem = _read_text(path, shown)
    if problem is not None:
        return ConfigResult(None, (_with_advice(problem, path),), {})
    result = parse_settings(text, shown, path.absolute().parent)
    if result.settings is None:
        return result
    missing = missing_files(result.settings, result.provider_marks)
    if not missing:
        return result
    return ConfigResult(None, in_order([*result.problems, *missing]), result.provider_marks)


def read_prices(path: Path) -> PriceResult:
    """Read and parse the price table."""
    shown = _shown(path)
    text, problem = _read_text(path, shown)
    if problem is not None:
        return PriceResult(None, (problem,))
    return parse_prices(text, shown)


async def watch_prices(path: Path, every_s: float) -> AsyncIterator[PriceResult]:
    """Yield the table whenever it means something else than before; the text it has now is known already."""
    known = await asyncio.to_thread(read_prices, path)
    while True:
        await asyncio.sleep(every_s)
        found = await asyncio.to_thread(read_prices, path)
        if (found.table and found.table.state, found.problems) != (known.table and known.table.state, known.problems):
            known = found
            yield found


def missing_files(settings: Settings, provider_marks: Mapping[str, Mark]) -> list[Problem]:
    """Return a problem for each file the settings name that cannot be read (not secrets: they may come later)."""
    found: list[Problem] = []
    for name, provider in settings.providers.items():
        if provider.ca_file is not None and not os.access(provider.ca_file, os.R_OK):
            mark = provider_marks.get(name, Mark("config.yaml"))
            text = f"`providers.{name}.ca_file`: {provider.ca_file} cannot be read"
            found.append(error(mark, "missing-file", text, "mount the file or correct the path"))
    return found


def read_policies(folder: Path) -> FolderSnapshot:
    """Read every ``*.yaml`` of the folder; ``*.cases.yaml`` apart. Never raises for what it finds there.

    A path to one policy file stands for a folder that holds this file and its cases alone.
    """
    shown = _shown(folder)
    only: tuple[str, ...] = ()
    if folder.name.endswith(".yaml") and folder.is_file():
        only = (folder.name, folder.name.removesuffix(".yaml") + CASES_SUFFIX)
        folder, shown = folder.parent, _shown(folder.parent)
    try:
        names = sorted(name for name in os.listdir(folder) if not only or name in only)
    except OSError as exc:
        return _snapshot([], [_folder_problem(folder, shown, exc)], [])
    files: list[tuple[str, str]] = []
    cases: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for name in names:
        path = folder / name
        if name.startswith((".", "#")) or name.endswith("~"):
            continue
        at = f"{shown}/{name}"
        if not name.endswith(".yaml"):
            if name.lower().endswith((".yml", ".json", ".yaml")):
                problems.append(lint(Mark(at), "not-read", "the file is not read", "end its name with .yaml"))
            continue
        text, problem = _read_text(path, at)
        if problem is not None:
            problems.append(problem)
        else:
            (cases if name.endswith(CASES_SUFFIX) else files).append((at, text))
    if not files and not problems:
        text = "the policy folder holds no *.yaml file, and without a policy nothing may pass"
        problems.append(error(Mark(shown), "no-policy", text, "add a policy such as default.yaml"))
    if len(files) > MAX_FILES:
        problems.append(error(Mark(shown), "too-many-files", f"more than {MAX_FILES} policy files"))
    return _snapshot(files, problems, cases)


def prices_of(settings: Settings) -> PriceTable | None:
    """Return the price table that settings name; None when they name none or it cannot be used."""
    return None if settings.prices is None else read_prices(settings.prices).table


async def watch_policies(folder: Path, interval_s: float, seen: str = "") -> AsyncIterator[FolderSnapshot]:
    """Yield the folder each time its content has changed and come to rest.

    Args:
        folder: What to watch; it may vanish and come back.
        interval_s: Time between two looks, in seconds.
        seen: Digest of what the caller has; the first yield differs from it.
    """
    while True:
        snapshot = await asyncio.to_thread(read_policies, folder)
        if snapshot.digest != seen:
            await asyncio.sleep(min(SETTLE_S, interval_s))
            again = await asyncio.to_thread(read_policies, folder)
            if again.digest == snapshot.digest:
                seen = again.digest
                yield again
        await asyncio.sleep(interval_s)


def _snapshot(files: list[tuple[str, str]], problems: list[Problem], cases: list[tuple[str, str]]) -> FolderSnapshot:
    digest = hashlib.sha256()
    for name, text in (*files, *cases):
        for part in (name, text):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
    for problem in problems:
        digest.update(str(problem).encode("utf-8", "surrogatepass"))
    return FolderSnapshot(tuple(files), digest.hexdigest(), tuple(problems), tuple(cases))


def _read_text(path: Path, shown: str) -> tuple[str, Problem | None]:
    """Return a file's text, or an empty string and why not. Reads one byte more than the limit at most."""
    try:
        # O_NONBLOCK: a FIFO in this place must not stop the reader
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return "", error(Mark(shown), "unreadable-file", "not a regular file")
            data = file.read(MAX_BYTES + 1)
    except OSError as exc:
        reason = (exc.strerror or type(exc).__name__).lower()
        return "", error(Mark(shown), "unreadable-file", f"the file cannot be read: {reason}")
    if len(data) > MAX_BYTES:
        text = f"the file is larger than {MAX_BYTES} bytes (1MiB)"
        return "", error(Mark(shown), "file-too-large", text, "split it")
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError as exc:
        good = data[: exc.start].decode("utf-8")
        at = Mark(shown, good.count("\n") + 1, len(good) - (good.rfind("\n") + 1) + 1)
        return "", error(at, "not-utf8", f"byte {data[exc.start]:#04x} is not UTF-8", "save the file as UTF-8")


def _shown(path: Path) -> str:
    """Return the path as a person standing here would write it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def _with_advice(problem: Problem, path: Path) -> Problem:
    if path.is_dir():
        text = "it is a folder, and -c names the file in it"
        return error(Mark(problem.file), "unreadable-file", text, f"did you mean {path / 'config.yaml'}?")
    if path.exists():
        return problem
    advice = "name it with -c PATH"
    try:
        near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1, cutoff=0.6)
    except OSError:
        advice = f"the folder {path.parent} does not exist either; name the file with -c PATH"
    else:
        advice = f"did you mean {path.parent / near[0]}?" if near else advice
    return error(Mark(problem.file), "missing-file", "there is no such config file", advice)


def _folder_problem(folder: Path, shown: str, exc: OSError) -> Problem:
    if isinstance(exc, FileNotFoundError):
        text = f"the policy folder {folder} does not exist, and without a policy nothing may pass"
        return error(Mark(shown), "missing-folder", text, "create it, or correct `policies:` in the config file")
    if isinstance(exc, NotADirectoryError):
        return error(Mark(shown), "missing-folder", f"{folder} is not a folder", "`policies:` names the folder")
    reason = (exc.strerror or type(exc).__name__).lower()
    return error(Mark(shown), "unreadable-folder", f"the policy folder {folder} cannot be read: {reason}")
