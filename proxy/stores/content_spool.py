"""Sealed content on its way to the store: one file for each exchange, beside the spool of rows.

Owns the folder and its bound. A file is written before the row of its exchange and outlives kill -9 like it; it goes
when the store has it, so a restart sends some again, which changes nothing. What will not open (another key, a torn
file) stays under its name and is tried again at the next start. Plain text never touches the disk.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from proxy.core.audit.content import Content, decode
from proxy.flow.content import ContentState
from proxy.stores.content_keys import ContentKeys, Unopenable

FOLDER: Final = "content"
_NAME: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class ContentFolder:
    """Holds sealed content in a folder; satisfies ``flow.content.ContentSpool``."""

    def __init__(self, folder: Path, keys: ContentKeys | None, max_bytes: int) -> None:
        """Take over what an earlier run left there; without ``keys`` nothing can be kept."""
        self._folder = folder
        self._keys = keys
        self._max_bytes = max_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()  # whose oldest is found at once, however many went
        self._kept = 0
        self._lost = 0
        self._unreadable: set[str] = set()
        self._has_folder = folder.is_dir()
        if self._has_folder:
            # An id begins with its time: the oldest goes first.
            self._sizes.update(
                (entry.name, entry.stat().st_size)
                for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
                if _NAME.match(entry.name)
            )
        self._bytes = sum(self._sizes.values())

    def keep(self, content: Content) -> bool:
        """Seal and write one; see the Protocol."""
        is_kept = self._keep(content)
        if is_kept:
            self._kept += 1
        else:
            self._lost += 1
        return is_kept

    def lose(self) -> None:
        """Count content that could not be put together."""
        self._lost += 1

    def _keep(self, content: Content) -> bool:
        if self._keys is None:
            return False
        sealed = self._keys.seal_waiting(content.id, content.encode())
        if self._bytes + len(sealed) > self._max_bytes:
            return False
        path = self._folder / content.id
        try:
            if not self._has_folder:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._has_folder = True
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                written = os.write(fd, sealed)
            finally:
                os.close(fd)
            if written != len(sealed):
                path.unlink()
                return False
        except OSError:
            return False
        self._sizes[content.id] = len(sealed)
        self._bytes += len(sealed)
        return True

    def read(self, max_items: int) -> list[Content]:
        """Return the oldest that open; see the Protocol."""
        if len(self._sizes) == len(self._unreadable) or self._keys is None:
            return []
        found: list[Content] = []
        for name in list(islice((name for name in self._sizes if name not in self._unreadable), max_items)):
            try:
                found.append(decode(self._keys.open_waiting(name, (self._folder / name).read_bytes())))
            except FileNotFoundError:
                self.forget([name])
            except (OSError, Unopenable, ValueError):
                self._unreadable.add(name)
        return found

    def forget(self, ids: Sequence[str]) -> None:
        """Delete the files of these; one that will not go is sent again at the next start."""
        for name in ids:
            try:
                (self._folder / name).unlink(missing_ok=True)
            except OSError:
                self._unreadable.add(name)
                continue
            self._bytes -= self._sizes.pop(name, 0)

    def state(self) -> ContentState:
        """Return the numbers of this moment."""
        waiting = len(self._sizes) - len(self._unreadable)
        return ContentState(self._kept, self._lost, waiting, self._bytes, len(self._unreadable))
