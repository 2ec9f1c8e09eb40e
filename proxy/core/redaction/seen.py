"""What the detector said about texts that come again: a conversation sends its whole history with every turn.

Owns the memory and its bounds. It holds hashes and spans, never a text or a value. Safe among threads: entries are
immutable, and what two threads lose against each other is only looked for once more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from proxy.terms.redaction import Finding

if TYPE_CHECKING:
    from proxy.core.redaction.scan import Detector

_MIN_CHARS = 96
"""Shorter texts are searched faster than they are looked up."""
_MAX_CHARS = 1 << 16
_MAX_ENTRIES = 4096
_MAX_FINDINGS = 64
"""Bounds: with both at their worst the memory holds some 40 MB; with ordinary chats about 2 MB."""


Key = int | bytes


def _digest(text: str) -> Key:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


_KEY_OF: Final[Callable[[str], Key]] = hash if sys.flags.hash_randomization else _digest
"""64 bits under a secret of this process: nobody can make two texts alike, and chance does so once in 10**15 look-ups."""


class FindingMemory:
    """What was found in texts, by their hashes. The older half goes when the newer one is full, so what is used stays."""

    __slots__ = ("_max_entries", "_new", "_old")

    key_of: Final = staticmethod(_KEY_OF)
    """Text -> what it is known by."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._new: dict[Key, list[Finding]] = {}
        self._old: dict[Key, list[Finding]] = {}

    def recall(self, key: Key) -> list[Finding] | None:
        """Return what was found, None when that is not known; the list is shared and must not be changed."""
        found = self._new.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.keep(key, found)
        return found

    def keep(self, key: Key, found: list[Finding]) -> None:
        """Remember what was found, unless it is too much."""
        if len(found) > _MAX_FINDINGS:
            return
        if len(self._new) >= self._max_entries // 2:
            self._old, self._new = self._new, {}
        self._new[key] = found


class Remembering:
    """A detector that remembers its last answers; the same findings, sooner."""

    __slots__ = ("_inner", "_memory", "is_silent", "may_contain")

    def __init__(self, inner: Detector) -> None:
        self._inner = inner
        self.may_contain = inner.may_contain
        self.is_silent = inner.is_silent
        self._memory = FindingMemory(_MAX_ENTRIES)

    def find(self, text: str) -> list[Finding]:
        """Return what the detector finds; the list is shared and must not be changed."""
        if not _MIN_CHARS <= len(text) <= _MAX_CHARS:
            return self._inner.find(text)
        key = _KEY_OF(text)
        found = self._memory.recall(key)
        if found is None:
            found = self._inner.find(text)
            self._memory.keep(key, found)
        return found

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        """Return what the detector finds under a name; these texts are short, so nothing is remembered."""
        return self._inner.find_labelled(text, label)
