"""Adjacent text parts of one message, read as the model reads them: without the gap between them.

Owns the joining and the way back from joined offsets to parts. Does not know what is looked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter
from typing import Any, NamedTuple

_REACH = 160
"""How many characters on each side of a joint are read; no value that may straddle one is longer."""
_GAP = "\n\n"

Piece = tuple[int, int, int]
"""Part number, start and end in that part's text."""


class Seam(NamedTuple):
    """The neighbourhood of the joints of one run of text parts."""

    text: str
    segments: list[tuple[int, int, int, int]]
    """(offset in ``text``, length, part number, offset in the part)."""

    def pieces(self, start: int, end: int) -> list[Piece]:
        """Return what ``text[start:end]`` is in the parts, or nothing when it is not contiguous there."""
        pieces: list[Piece] = []
        covered = 0
        first = max(0, bisect_right(self.segments, start, key=itemgetter(0)) - 1)
        for nth in range(first, len(self.segments)):
            offset, length, part, inner = self.segments[nth]
            if offset >= end:
                break
            begin, stop = max(start, offset), min(end, offset + length)
            if begin < stop:
                pieces.append((part, inner + begin - offset, inner + stop - offset))
                covered += stop - begin
        return pieces if covered == end - start and len({piece[0] for piece in pieces}) == len(pieces) else []


def seams(parts: list[Any]) -> Iterator[Seam]:
    """Yield one seam for each run of two or more adjacent parts with text."""
    run: list[tuple[int, str]] = []
    for at, part in enumerate(parts):
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str):
            run.append((at, text))
            continue
        if len(run) > 1:
            yield _seam(run)
        run = []
    if len(run) > 1:
        yield _seam(run)


def _seam(run: list[tuple[int, str]]) -> Seam:
    pieces: list[str] = []
    segments: list[tuple[int, int, int, int]] = []
    offset = 0
    for at, text in run:
        if len(text) <= 2 * _REACH:
            cuts = [(0, text)]
        else:
            cuts = [(0, text[:_REACH]), (len(text) - _REACH, text[-_REACH:])]
        for nth, (inner, piece) in enumerate(cuts):
            if nth:
                pieces.append(_GAP)
                offset += len(_GAP)
            segments.append((offset, len(piece), at, inner))
            pieces.append(piece)
            offset += len(piece)
    return Seam("".join(pieces), segments)
