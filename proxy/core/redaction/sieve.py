"""Replaces the new findings of one lane while its text grows.

Owns the characters that wait for a verdict, and what was moved by how much. Does not judge (``judge.py``) and puts no
values back.
"""

from __future__ import annotations

from typing import Final

from proxy.core.redaction.edits import Move
from proxy.core.redaction.judge import Run
from proxy.core.redaction.judge_json import AnyJudge
from proxy.core.redaction.marks import Marks

_GATHERED: Final = 512
"""So many characters of a text that is only counted are judged at once."""


class Sieve:
    """One lane's text in, the same without what policy replaces out."""

    __slots__ = ("_held", "_judge", "_read", "_waiting", "moves")

    def __init__(self, marks: Marks, *, is_json: bool) -> None:
        self._judge = AnyJudge(marks, is_json=is_json)
        self._held = ""
        self._waiting: list[str] = []
        self._read = 0
        self.moves: list[Move] = []

    @property
    def is_holding(self) -> bool:
        return bool(self._held or self._waiting)

    def feed(self, piece: str) -> str:
        """Take the next piece and return what can be given out."""
        runs = self._judge.feed(piece)
        if not runs:
            if piece:
                self._waiting.append(piece)
            return ""
        self._gather()
        self._held += piece
        return self._apply(runs)

    def finish(self) -> str:
        """Return what was held; the text may go on afterwards, as a new beginning behind what was."""
        self._gather()
        return self._apply(self._judge.finish())

    def _gather(self) -> None:
        """Join what waited: piece by piece, a long text that is buffered would be copied with each of them."""
        if self._waiting:
            self._held += "".join(self._waiting)
            self._waiting.clear()

    def _apply(self, runs: list[Run]) -> str:
        held = self._held
        if not runs:
            return ""
        if len(runs) == 1 and runs[0][1] is None:
            size = runs[0][0]
            self._held = held[size:]
            self._read += size
            return held[:size]
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


class Tally(Sieve):
    """Counts what a lane's text holds: the text goes on as it came, so it need not be judged piece by piece."""

    __slots__ = ("_is_open",)

    def __init__(self, marks: Marks, *, is_json: bool) -> None:
        super().__init__(marks, is_json=is_json)
        self._is_open = False

    @property
    def is_holding(self) -> bool:
        """True until ``finish``, so that nobody forgets to call it."""
        return self._is_open

    def feed(self, piece: str) -> str:
        """Take the next piece and return it."""
        self._held += piece
        self._is_open = True
        if len(self._held) >= _GATHERED:
            self._judge.feed(self._held)
            self._held = ""
        return piece

    def finish(self) -> str:
        """Judge the rest; nothing is to be given out."""
        self._judge.feed(self._held)
        self._judge.finish()
        self._held = ""
        self._is_open = False
        return ""
