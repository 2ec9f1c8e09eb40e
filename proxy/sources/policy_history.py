"""Every revision of the policies that was put in force: its texts, its cases, when, by whom and why.

Owns one folder of bounded size: a file per revision, the pin that keeps an older revision in force until the policy
folder changes, and the rollout under way. Knows no meaning of a policy. Any failure of the disk is an OSError; a file that is damaged counts as absent.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from proxy.core.policy.revisions import Activation, Kept, Pin, Step, Texts
from proxy.core.policy.rollout import Remembered, remembered_from

MAX_REVISIONS: Final = 50
_MAX_TIMES: Final = 20
_NAME = re.compile(r"[0-9a-f]{12}\Z")
_PIN: Final = "pin"
_NOTE: Final = "note"
_ROLLOUT: Final = "rollout"


class PolicyHistory:
    """The folder of kept revisions."""

    def __init__(self, folder: Path, max_revisions: int = MAX_REVISIONS) -> None:
        self.folder = folder
        self._max_revisions = max_revisions

    def record(
        self, revision: str, files: Sequence[tuple[str, str]], cases: Sequence[tuple[str, str]], at: Activation
    ) -> None:
        """Keep a revision that has just been put in force; the oldest beyond the limit go. Raises OSError.

        A revision that comes into force again keeps its newest texts (comments may differ) and the times before. A
        note left by ``announce`` says by whom and why.
        """
        note = self._read(_NOTE)
        if note.get("revision") == revision:
            at = Activation(at.at_ms, str(note.get("by", "")), str(note.get("why", "")), at.step)
            self._remove(_NOTE)
        before = self.all()
        last = next(iter(before), None)
        known = next((one for one in before if one.revision == revision), None)
        times = known.times if known is not None else ()
        if last is None or last.revision != revision or not times or times[-1].step is not at.step:
            times = (*times, at)[-_MAX_TIMES:]
        self._write(revision, asdict(Kept(revision, _plain(files), _plain(cases), times)))
        others = [one for one in before if one.revision != revision]
        if len(others) >= self._max_revisions:
            whole = self.last_whole()  # what stands behind a canary stays, however many canaries there were
            for old in others[self._max_revisions - 1 :]:
                if old.revision != whole:
                    self._remove(old.revision)

    def note(self, revision: str, at: Activation) -> None:
        """Write down what became of a kept revision. Raises OSError."""
        known = self.find(revision)
        if known is not None:
            times = (*known.times, at)[-_MAX_TIMES:]
            self._write(revision, asdict(Kept(revision, known.files, known.cases, times)))

    def last_whole(self) -> str | None:
        """Return the revision that was put in force for everybody last."""
        found = [(t.at_ms, kept.revision) for kept in self.all() for t in kept.times if t.step is Step.IN_FORCE]
        return max(found)[1] if found else None

    def keep_rollout(self, rollout: Remembered | None) -> None:
        """Remember a rollout over a restart; None: forget it. Raises OSError."""
        if rollout is None:
            self._remove(_ROLLOUT)
        else:
            self._write(_ROLLOUT, rollout.document())

    def rollout(self) -> Remembered | None:
        """Return the rollout that is remembered."""
        return remembered_from(self._read(_ROLLOUT))

    def all(self) -> list[Kept]:
        """Return every kept revision, the one put in force last first."""
        try:
            names = [name.removesuffix(".json") for name in os.listdir(self.folder) if name.endswith(".json")]
        except OSError:
            return []
        kept = [found for name in names if (found := self.find(name)) is not None]
        return sorted(kept, key=lambda one: (one.times[-1].at_ms, one.revision), reverse=True)

    def find(self, revision: str) -> Kept | None:
        """Return a kept revision, or None."""
        if _NAME.match(revision) is None:
            return None
        plain = self._read(revision)
        try:
            return Kept(
                str(plain["revision"]),
                tuple((str(name), str(text)) for name, text in plain["files"]),
                tuple((str(name), str(text)) for name, text in plain["cases"]),
                tuple(_activation(time) for time in plain["times"]) or _refuse(),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def announce(self, revision: str, by: str, why: str) -> None:
        """Say who is about to bring a revision into the policy folder, and why; ``record`` takes it up. Raises OSError."""
        self._write(_NOTE, {"revision": revision, "by": by, "why": why})

    def pin(self, pin: Pin) -> None:
        """Remember a pin over a restart. Raises OSError."""
        self._write(_PIN, asdict(pin))

    def unpin(self) -> None:
        """Forget the pin."""
        self._remove(_PIN)

    def pinned(self) -> Pin | None:
        """Return the pin, if there is one."""
        plain = self._read(_PIN)
        try:
            return Pin(*(str(plain[key]) for key in ("revision", "digest", "by", "why")))
        except KeyError:
            return None

    def _read(self, name: str) -> dict[str, Any]:
        try:
            plain = json.loads((self.folder / f"{name}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return plain if isinstance(plain, dict) else {}

    def _write(self, name: str, plain: dict[str, Any]) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self.folder / f"{name}.json", json.dumps(plain, ensure_ascii=False), 0o600)

    def _remove(self, name: str) -> None:
        (self.folder / f"{name}.json").unlink(missing_ok=True)


def restore_texts(folder: Path, kept: Kept) -> list[str]:
    """Write a revision's texts into the policy folder and take away the ``*.yaml`` that it did not have.

    Everything is on disk under other names before the first name changes, so that a watcher which wants to see the
    folder at rest never takes a mixture. Returns the names that changed.

    Raises:
        OSError: The folder cannot be written; nothing was changed when that shows while writing.
    """
    wanted = dict((*kept.files, *kept.cases))
    present = {name for name in os.listdir(folder) if name.endswith(".yaml") and not name.startswith((".", "#"))}
    changed = [n for n, text in wanted.items() if n not in present or (folder / n).read_bytes() != text.encode()]
    ready: list[tuple[Path, Path]] = []
    try:
        for name in changed:
            beside = _beside(folder / name)
            ready.append((beside, folder / name))
            _write_synced(beside, wanted[name], 0o644)
        for beside, path in ready:
            os.replace(beside, path)
    except OSError:
        for beside, _ in ready:
            beside.unlink(missing_ok=True)
        raise
    for name in sorted(present - wanted.keys()):
        (folder / name).unlink()
        changed.append(name)
    return sorted(changed)


def write_atomically(path: Path, text: str, mode: int) -> None:
    """Replace a file in one step, on disk before it is seen. Raises OSError."""
    beside = _beside(path)
    try:
        _write_synced(beside, text, mode)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _write_synced(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _plain(files: Sequence[tuple[str, str]]) -> Texts:
    return tuple(sorted((name.rsplit("/", 1)[-1], text) for name, text in files))


def _activation(plain: dict[str, Any]) -> Activation:
    step = Step(plain.get("step", Step.IN_FORCE))
    return Activation(int(plain["at_ms"]), str(plain["by"]), str(plain["why"]), step)


def _refuse() -> tuple[Activation, ...]:
    raise ValueError("a revision that was never in force")
