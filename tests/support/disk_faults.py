"""A disk that goes wrong inside a sidecar process: syncs that fail or take long, and death at a chosen system call.

``hook`` writes a ``sitecustomize`` that the child imports before anything else; it replaces ``os.fdatasync``,
``os.posix_fallocate`` and ``Path.unlink`` and does as the plan file says, which the test may rewrite at any time. No
privilege and no tracer is needed. Every sync is noted with CLOCK_MONOTONIC, which all processes share.

Plan, one word a line: ``eio-at N`` the N-th sync fails · ``eio`` all fail · ``delay S`` each takes S seconds more ·
``slow-at N S`` the N-th does · ``die unlink|unlinked|created N`` SIGKILL before or after the N-th removal of a segment,
or between the N-th segment's creation and its first write.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_HOOK = """
import errno, os, pathlib, signal, time

plan_path, journal_path = os.environ["DISK_PLAN"], os.environ["DISK_JOURNAL"]
real_sync, real_room, real_unlink = os.fdatasync, os.posix_fallocate, pathlib.Path.unlink
counts = {"sync": 0, "unlink": 0, "unlinked": 0, "created": 0}

def plan():
    with open(plan_path) as file:
        return [line.split() for line in file if line.strip()]

def note(began_s, word):
    with open(journal_path, "a") as file:
        file.write(f"{began_s} {time.monotonic()} {word}\\n")

def fdatasync(fd):
    counts["sync"] += 1
    began_s = time.monotonic()
    for word, *rest in plan():
        if word == "delay":
            time.sleep(float(rest[0]))
        elif word == "slow-at" and counts["sync"] == int(rest[0]):
            time.sleep(float(rest[1]))
        elif word == "eio" or (word == "eio-at" and counts["sync"] == int(rest[0])):
            note(began_s, "eio")
            raise OSError(errno.EIO, os.strerror(errno.EIO))
    real_sync(fd)
    note(began_s, "ok")

def perhaps_die(where):
    counts[where] += 1
    for word, *rest in plan():
        if word == "die" and rest[0] == where and int(rest[1]) == counts[where]:
            note(time.monotonic(), "died")
            os.kill(os.getpid(), signal.SIGKILL)

def posix_fallocate(fd, offset, length):
    if os.fstat(fd).st_size == 0 and os.readlink(f"/proc/self/fd/{fd}").endswith(".seg"):
        perhaps_die("created")
    real_room(fd, offset, length)

def unlink(self, missing_ok=False):
    is_segment = self.name.endswith(".seg")
    if is_segment:
        perhaps_die("unlink")
    real_unlink(self, missing_ok=missing_ok)
    if is_segment:
        perhaps_die("unlinked")

os.fdatasync, os.posix_fallocate, pathlib.Path.unlink = fdatasync, posix_fallocate, unlink
"""


class Sync(NamedTuple):
    """One sync as the disk saw it; monotonic seconds."""

    began_s: float
    ended_s: float
    word: str
    """``ok``, ``eio`` or ``died``."""


class Disk:
    """The plan and the journal of one faulty disk."""

    def __init__(self, folder: Path, plan: str = "") -> None:
        """``folder`` gets the hook, the plan and the journal."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sitecustomize.py").write_text(_HOOK)
        self._plan, self._journal, self._folder = folder / "plan", folder / "journal", folder
        self.set(plan)

    def env(self) -> dict[str, str]:
        """Return what a sidecar's environment needs."""
        path = os.pathsep.join([str(self._folder), *filter(None, [os.environ.get("PYTHONPATH", "")])])
        return {"PYTHONPATH": path, "DISK_PLAN": str(self._plan), "DISK_JOURNAL": str(self._journal)}

    def set(self, plan: str) -> None:
        """Behave like this from the next call on."""
        partial = self._folder / "plan.partial"
        partial.write_text(plan + "\n")
        partial.replace(self._plan)

    def syncs(self) -> list[Sync]:
        """Return every sync so far, in order."""
        if not self._journal.exists():
            return []
        lines = [line.split() for line in self._journal.read_text().splitlines()]
        return [Sync(float(began), float(ended), word) for began, ended, word in lines]
