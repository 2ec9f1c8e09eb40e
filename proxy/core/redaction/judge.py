"""Judges one growing text: what may go on, what is replaced, what has to wait.

Owns the part that is not decided yet and the neighbourhood a decision needs. It answers in runs over the characters it
was given, so whoever feeds it (plain text, a string inside JSON source) keeps its own spelling. For every way of cutting
a text into pieces the runs come to the same. Does not know events, documents or placeholders.
"""

from __future__ import annotations

from typing import Final, Protocol

from proxy.core.redaction.marks import LONG, Marks
from proxy.terms.errors import RedactionFault
from proxy.terms.redaction import Finding

LEFT: Final = 96
"""How many characters before a value may speak for or against it."""
_TAIL: Final = 256
"""How much of the end of a swallowed value is kept, to see where it ends."""
MAX_HOLD: Final = LONG + _TAIL + LEFT
"""More characters than this are never kept per text (``buffer`` apart)."""
MAX_BUFFERED: Final = 8 << 20

Run = tuple[int, str | None]
"""So many characters of the input, in order, and what stands in their place; None: they stay as they are."""


class Judge(Protocol):
    """Takes a text piece by piece and answers in runs."""

    def feed(self, text: str) -> list[Run]:
        """Take the next characters; return what is decided by now."""
        ...

    def finish(self) -> list[Run]:
        """The text is over: decide the rest."""
        ...


class TextJudge:
    """Judges plain text. Holds at most ``MAX_HOLD`` characters, a word in the mean."""

    __slots__ = ("_context", "_held", "_is_swallowing", "_marks", "_waiting", "_waiting_size")

    def __init__(self, marks: Marks, label: str = "") -> None:
        """``label`` is the name the text stands under; it is read as if written before it."""
        self._marks = marks
        self._context = f"{label}: "[-LEFT:] if label else ""
        self._held = ""
        self._waiting: list[str] = []
        self._waiting_size = 0
        self._is_swallowing = False

    def feed(self, text: str) -> list[Run]:
        """Take the next characters; return what is decided by now."""
        if self._marks.is_buffered:
            self._waiting.append(text)
            self._waiting_size += len(text)
            if self._waiting_size > MAX_BUFFERED:
                raise RedactionFault("an answer is too long to be buffered")
            return []
        self._held += text
        return self._decide(is_final=False)

    def finish(self) -> list[Run]:
        """The text is over: decide the rest. More may follow as a new beginning behind what was."""
        if self._waiting:
            self._held += "".join(self._waiting)
            self._waiting, self._waiting_size = [], 0
        return self._decide(is_final=True) if self._held else []

    def _decide(self, *, is_final: bool) -> list[Run]:
        text = self._context + self._held
        base = len(self._context)
        found = [f for f in self._marks.find(text) if f.end > base and (f.start >= base or self._marks.is_hasty)]
        cut = len(text) if is_final else max(base, self._marks.live_start(text))
        for f in found:
            if f.start < cut < f.end or (f.end == len(text) and not is_final):
                cut = min(cut, max(f.start, base))
        runs: list[Run] = []
        if self._is_swallowing:
            end = self._swallow(text, found, base, cut, runs, is_final=is_final)
            if end is None:
                return runs
            base, cut = end, max(cut, end)
        self._release(text, found, base, cut, runs)
        if not is_final:
            self._swallow_long(found, cut, runs)
        return runs

    def _release(self, text: str, found: list[Finding], base: int, cut: int, runs: list[Run]) -> None:
        """Decide ``text[base:cut]``."""
        at = base
        for f in found:
            if f.end <= at:
                continue
            start = max(f.start, at)
            if start >= cut:
                break
            stand_in = self._marks.settle(f.kind, text[f.start : f.end])
            if stand_in is None:
                continue
            if start > at:
                runs.append((start - at, None))
            runs.append((f.end - start, stand_in))
            at = f.end
        if cut > at:
            runs.append((cut - at, None))
        self._context, self._held = text[max(0, cut - LEFT) : cut], text[cut:]

    def _swallow_long(self, found: list[Finding], cut: int, runs: list[Run]) -> None:
        """Give out the stand-in of a value that is long and may go on, and begin to drop the value."""
        long = next((f for f in found if f.start >= cut and f.end - f.start > LONG), None)
        if long is None:
            return
        size = long.end - long.start
        stand_in = self._marks.settle(long.kind, self._held[:size])
        if stand_in is None:  # counted; it goes on as text
            runs.append((size, None))
            self._context, self._held = self._held[:size][-LEFT:], self._held[size:]
            return
        runs.append((0, stand_in))
        self._is_swallowing = True
        self._shorten(runs)

    def _swallow(
        self, text: str, found: list[Finding], base: int, cut: int, runs: list[Run], *, is_final: bool
    ) -> int | None:
        """Go on dropping a value; return where it ended, None when it may go on."""
        value = next((f for f in found if f.start <= base < f.end), None)
        if value is not None and not is_final and cut <= base:
            self._shorten(runs)
            return None
        end = value.end if value is not None else _word_end(text, base)
        runs.append((end - base, ""))
        self._is_swallowing = False
        return end

    def _shorten(self, runs: list[Run]) -> None:
        """Drop the middle of a value that is being swallowed: its beginning and its end tell what it is."""
        spare = len(self._held) - LONG - _TAIL
        if spare > 0:
            joint = "." if "." in self._held[LONG : LONG + spare] else ""  # the parts of a token
            runs.append((spare - len(joint), ""))
            self._held = self._held[:LONG] + joint + self._held[LONG + spare :]


def _word_end(text: str, start: int) -> int:
    """Return where the run without blanks and quotes that begins at ``start`` ends."""
    at = start
    while at < len(text) and text[at] not in " \t\r\n\"'<>`":
        at += 1
    return at
