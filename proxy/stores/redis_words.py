"""Operations of ``budgets.lua`` as keys and words.

Owns the names of keys and the order of words. Knows no connection and no event loop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files

from proxy.core.budget.calendar import Calendar, period_of
from proxy.core.budget.central import CentralCounter, CentralVerdict, Charge

SCRIPT = (files("proxy.stores") / "budgets.lua").read_text(encoding="utf-8")
KEEP_S = 90_000
"""An abandoned reservation is forgotten after a day and an hour: no exchange lasts longer."""
TOMBSTONE_S = 60
_WHYS = {-1: "paused", -2: "closed", -3: "cancelled"}
_MAX_KNOWN = 50_000

Word = str | int | float


class Words:
    """Writes operations for one namespace, and remembers the epochs that replies bring."""

    def __init__(self, namespace: str, lease_s: float, unix_s: Callable[[], float]) -> None:
        self._prefix = f"readygate:{{{namespace}}}:"
        self._lease_s = lease_s
        self._unix_s = unix_s
        self._epochs: dict[str, int] = {}
        self._shapes: dict[CentralCounter, tuple[str, str, tuple[Word, ...], float]] = {}
        self.common = tuple(
            self._prefix + name for name in ("reservations", "expiries", "sentinels", "pauses", "members")
        )

    def key(self, counter: CentralCounter) -> str:
        """Return the name of a counter's key; whoever is counted apart appears as a digest only."""
        return self._shape(counter)[0]

    def _shape(self, counter: CentralCounter) -> tuple[str, str, tuple[Word, ...], float]:
        """Return key, sentinel and the words of the shape, and until when these hold (boundaries move on)."""
        known = self._shapes.get(counter)
        now_s = self._unix_s()
        if known is not None and now_s < known[3]:
            return known
        if len(self._shapes) >= _MAX_KNOWN:
            self._shapes.clear()
        sentinel = f"{counter.rule}|{counter.dimension.value}"
        whose = ""
        if counter.partition:
            whose = "|" + hashlib.blake2b(counter.partition.encode(), digest_size=16).hexdigest()
        until_s = float("inf")
        words: tuple[Word, ...]
        if counter.shape is None:
            words = ("s", self._lease_s)
        elif isinstance(counter.shape, Calendar):
            bounds, until_s = _bounds(counter.shape, counter.zone, now_s)
            words = ("c", *bounds)
        else:
            shape = counter.shape
            words = ("w", repr(shape.window_s / shape.slices), shape.slices + 1)
        key = f"{self._prefix}c:{sentinel}{whose}"
        found = self._shapes[counter] = (key, sentinel, words, until_s)
        return found

    def _counter(self, counter: CentralCounter, index: dict[str, int]) -> list[Word]:
        key, _, words, _ = self._shape(counter)
        place = index.setdefault(key, len(index) + len(self.common) + 1)
        return [place, words[0], counter.limit, *words[1:]]

    def acquire(self, rid: str, charges: Sequence[Charge], pauses: Sequence[str], index: dict[str, int]) -> list[Word]:
        """Return the words that charge all counters or none; ``index`` collects the keys of the batch."""
        words: list[Word] = ["A", rid, KEEP_S, len(pauses), *pauses, len(charges)]
        for counter, amount in charges:
            sentinel = self._shape(counter)[1]
            words += self._counter(counter, index)
            words += (amount, sentinel, self._epochs.get(sentinel, 0))
        return words

    def verdict(self, charges: Sequence[Charge], reply: Sequence[int]) -> CentralVerdict:
        """Read the reply to ``acquire``."""
        granted, wait_ms, short = reply[0], reply[1], reply[2]
        for (counter, _), epoch in zip(charges, reply[4::2], strict=True):
            self._epochs[self._shape(counter)[1]] = epoch
        why = _WHYS.get(short, "")
        return CentralVerdict(granted == 1, wait_ms / 1000.0, -1 if why else short - 1, why, tuple(reply[3::2]))

    def settle(
        self, rid: str, charges: Sequence[Charge], spent: Sequence[int], index: dict[str, int], *, marks: bool
    ) -> list[Word]:
        """Return the words that correct charges; ``marks``: an unknown reservation is to be refused when it comes."""
        words: list[Word] = ["S", rid, TOMBSTONE_S, int(marks), len(charges)]
        for (counter, amount), used in zip(charges, spent, strict=True):
            words += self._counter(counter, index)
            words += (amount, used)
        return words

    def renew(self, key: str, rids: Sequence[str], index: dict[str, int]) -> list[Word]:
        """Return the words that keep slots for another lease."""
        place = index.setdefault(key, len(index) + len(self.common) + 1)
        return ["R", self._lease_s, place, len(rids), *rids]

    def look(self, counters: Sequence[CentralCounter], index: dict[str, int]) -> list[Word]:
        """Return the words that read counters without charging them."""
        words: list[Word] = ["V", len(counters)]
        for counter in counters:
            words += self._counter(counter, index)
        return words


def _bounds(kind: Calendar, zone: str, now_s: float) -> tuple[tuple[float, ...], float]:
    """Return four boundaries: of the period before this moment, of this one, and of the two after; and the next.

    The store decides by its own clock which of them is the latest past one, so clocks need not agree.
    """
    start_s, end_s = period_of(kind, zone, now_s)
    before_s, _ = period_of(kind, zone, start_s - 1.0)
    _, after_s = period_of(kind, zone, end_s + 1.0)
    return (before_s, start_s, end_s, after_s), end_s
