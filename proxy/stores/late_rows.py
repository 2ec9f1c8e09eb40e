"""Rows that arrive after their person was erased: from a spool that was away, a replay, a restored volume.

Owns what a sink knows of the store's tombstones, and the keyed subject that stands for a person there. Whoever
erases counts the store's ``tombstones`` up; a sink looks at that number inside each transaction, so a row is
either there before the erasure looks for it, or comes without a name.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from typing import Final

from proxy.core.audit.chain import erase
from proxy.core.audit.row import Row

_MAX_KNOWN: Final = 8192


def subject_of(salt: str, user: str) -> str:
    """Return the keyed pseudonym of a person: 32 hex digits."""
    return hmac.digest(salt.encode(), user.encode("utf-8", "replace"), "sha256").hex()[:32]


class LateRows:
    """Erases the rows of erased people before they are stored; costs nothing while nobody was erased."""

    def __init__(self) -> None:
        self._salt = ""
        self._before: dict[str, int] = {}
        self._subjects: dict[str, str] = {}
        self.version = ""
        """The store's count of tombstones that ``learn`` heard of."""

    def learn(self, version: str, salt: str, tombstones: Iterable[tuple[str, int]]) -> None:
        """Take over what the store knows: subject, and the Unix ms before which its rows are erased."""
        if salt != self._salt:
            self._subjects.clear()
        self.version, self._salt, self._before = version, salt, dict(tombstones)

    def met(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows as they may be stored."""
        if not self._before:
            return rows
        return [self._met(row) for row in rows]

    def _subject(self, user: str) -> str:
        found = self._subjects.get(user)
        if found is None:
            if len(self._subjects) >= _MAX_KNOWN:
                self._subjects.clear()
            found = self._subjects[user] = subject_of(self._salt, user)
        return found

    def _met(self, row: Row) -> Row:
        if not row.user_id or row.ts >= self._before.get(self._subject(row.user_id), row.ts):
            return row
        return erase(row)
