"""Replaces the new findings of one lane while its text grows.

Owns the characters that wait for a verdict, and what was moved by how much. Does not judge (``judge.py``) and puts no
values back.
"""

from __future__ import annotations

from proxy.core.redaction.edits import Move
from proxy.core.redaction.judge import Run
from proxy.core.redaction.judge_json import AnyJudge
from proxy.core.redaction.marks import Marks


class Sieve:
    """One lane's text in, the same without what policy replaces out."""

    __slots__ = ("_held", "_judge", "_read", "moves")

    def __init__(self, marks: Marks, *, is_json: bool) -> None:
        self._judge = AnyJudge(marks, is_json=is_json)
        self._held = ""
        self._read = 0
        self.moves: list[Move] = []

    @property
    def is_holding(self) -> bool:
        return bool(self._held)

    def feed(self, piece: str) -> str:
        """Take the next piece and return what can be given out."""
        self._held += piece
        return self._apply(self._judge.feed(piece))

    def finish(self) -> str:
        """Return what was held; the text may go on afterwards, as a new beginning behind what was."""
        return self._apply(self._judge.finish())

    def _apply(self, runs: list[Run]) -> str:
        held = self._held
        pieces: list[str] = []
        at = 0
        for size, stand_in in runs:
            if stand_in is None:
                pieces.append(held[at : at + size])
            else:
                pieces.append(stand_in)
                self.moves.append((self._read + at + size, len(stand_in) - size))
            at += size
        self._held = held[at:]
        self._read += at
        return "".join(pieces)
