"""What the detector said about texts that come again: a conversation sends its whole history with every turn.

Owns the memory and its bounds. It holds hashes and spans, never a text or a value. Safe among threads: entries are
immutable, and what two threads lose against each other is only looked for once more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import blake2b
from typing import Final, Generic, TypeVar

from proxy.core.redaction.detectors import Detector
from proxy.core.redaction.jsonio import without_lone_surrogates
from proxy.core.redaction.tags import Spans
from proxy.terms.redaction import Finding

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


JSON_STARTS: Final = frozenset({"{", "[", " ", "\n", "\t", "\r"})


def is_ordinary(text: str) -> bool:
    """Tell whether a text is read as it stands: it holds no escape, bracket or data: URL, and does not begin like JSON."""
    return (
        "[" not in text
        and "\\" not in text
        and text[:1] not in JSON_STARTS
        and (";" not in text or ";base64," not in text)
        and (text.isascii() or ("\uff3b" not in text and without_lone_surrogates(text) is text))
    )


Kept = TypeVar("Kept", bound=list[Finding])


class FindingMemory(Generic[Kept]):
    """What was found in texts, by their hashes. The older half goes when the newer one is full, so what is used stays."""

    __slots__ = ("_max_entries", "_old", "newest")

    key_of: Final = staticmethod(_KEY_OF)
    """Text -> what it is known by."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self.newest: dict[Key, Kept] = {}
        """What came last, to look up without a call; what is not in here may yet be known."""
        self._old: dict[Key, Kept] = {}

    def recall(self, key: Key) -> Kept | None:
        """Return what was found, None when that is not known; the list is shared and must not be changed."""
        found = self.newest.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.keep(key, found)
        return found

    def keep(self, key: Key, found: Kept) -> None:
        """Remember what was found, unless it is too much."""
        if len(found) > _MAX_FINDINGS:
            return
        if len(self.newest) >= self._max_entries // 2:
            self._old, self.newest = self.newest, {}
        self.newest[key] = found


_NONE: Final = Spans([])
_NONE_ORDINARY: Final = Spans([], is_ordinary=True)


class Remembering:
    """A detector that remembers its last answers; the same findings, sooner."""

    __slots__ = ("_inner", "is_silent", "may_contain", "memory")

    def __init__(self, inner: Detector) -> None:
        self._inner = inner
        self.may_contain = inner.may_contain
        self.is_silent = inner.is_silent
        self.memory = FindingMemory[Spans](_MAX_ENTRIES)

    def find(self, text: str) -> list[Finding]:
        """Return what the detector finds; the list is shared and must not be changed."""
        return self._find(text, is_ordinary=False)

    def find_ordinary(self, text: str) -> list[Finding]:
        """Do the same for an ordinary text, and remember that it is one."""
        return self._find(text, is_ordinary=True)

    def _find(self, text: str, *, is_ordinary: bool) -> list[Finding]:
        if not _MIN_CHARS <= len(text) <= _MAX_CHARS:
            return self._inner.find(text)
        key = _KEY_OF(text)
        found = self.memory.recall(key)
        if found is None or found.is_ordinary < is_ordinary:
            came = self._inner.find(text) if found is None else found
            none = _NONE_ORDINARY if is_ordinary else _NONE
            found = Spans(came, is_ordinary=is_ordinary) if came else none
            self.memory.keep(key, found)
        return found

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        """Return what the detector finds under a name; these texts are short, so nothing is remembered."""
        return self._inner.find_labelled(text, label)
