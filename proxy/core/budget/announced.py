"""What providers say of their own limits, and how fast that lets us go.

Owns the reading of their headers and 429 bodies, and one pace per target. What is announced only ever tightens: it is
asked besides our own limits, never instead of them.

``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` is OpenAI's form, which Groq and Azure share: a reset is the
time until the limit is whole again (``6m0s``, ``7.66s``, ``120ms``; Azure: seconds). Anthropic writes
``anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}`` with the moment of the reset (RFC 3339). All of them
refill steadily, so room grows by ``(limit - remaining) / reset`` a second; that is the pace we keep near the wall.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

HINT: Final = b"ratelimit-"
"""Without this in the header lines there is nothing to read."""

_LINE: Final = re.compile(
    rb"\r\n(?:x-ratelimit-(limit|remaining|reset)-(requests|tokens)"
    rb"|anthropic-ratelimit-(requests|tokens)-(limit|remaining|reset)):[ \t]*([^\r\n]{1,64})",
    re.IGNORECASE,
)
_NAME: Final = re.compile(
    rb"x-ratelimit-(limit|remaining|reset)-(requests|tokens)|anthropic-ratelimit-(requests|tokens)-(limit|remaining|reset)",
    re.IGNORECASE,
)
_MAX_DIGITS: Final = 18
_SPAN: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?\Z")
_SAID: Final = re.compile(
    rb"(?:try again in|retry after) (?:(\d{1,4})h)?(?:(\d{1,4})m(?!s))?(\d{1,6}(?:\.\d{1,6})?)\s?(ms|s\b|second)",
    re.IGNORECASE,
)
_BODY_BYTES: Final = 4096
_NEAR_RATIO: Final = 0.1
"""Above this part of a limit nobody is paced, and nothing is remembered."""
_NEAR_LEAST: Final = 3
MAX_PAUSE_S: Final = 3600.0


class Said(NamedTuple):
    """What a provider said of one limit. ``reset_s`` is None when it did not say."""

    limit: int
    remaining: int
    reset_s: float | None


class Announcement(NamedTuple):
    """What a provider said with one answer."""

    requests: Said | None
    tokens: Said | None


def read_announcement(lines: bytes, now_unix_s: float) -> Announcement | None:
    """Read the header lines of an answer; None when they say nothing of limits."""
    said: dict[tuple[bytes, bytes], bytes] = {}
    for what, unit, unit_2, what_2, value in _LINE.findall(lines):
        said[(unit or unit_2).lower(), (what or what_2).lower()] = value
    if not said:
        return None
    return Announcement(_said(said, b"requests", now_unix_s), _said(said, b"tokens", now_unix_s))


def _said(said: dict[tuple[bytes, bytes], bytes], unit: bytes, now_unix_s: float) -> Said | None:
    remaining = _whole(said.get((unit, b"remaining")))
    if remaining is None:
        return None
    limit = _whole(said.get((unit, b"limit")))
    return Said(limit if limit is not None else -1, remaining, _reset_s(said.get((unit, b"reset")), now_unix_s))


def _whole(value: bytes | None) -> int | None:
    text = value.strip() if value is not None else b""
    if text[:1] == b"-" and text[1:].isdigit():
        return 0
    return int(text) if text.isdigit() else None


def _reset_s(value: bytes | None, now_unix_s: float) -> float | None:
    """Read a span, a number of seconds or a moment."""
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    found = _SPAN.match(text)
    if text and found is not None:
        days, hours, minutes, seconds, ms = (float(part or 0) for part in found.groups())
        return min(MAX_PAUSE_S * 24, days * 86400 + hours * 3600 + minutes * 60 + seconds + ms / 1000)
    if text.replace(".", "", 1).isdigit():
        return min(MAX_PAUSE_S * 24, float(text))
    try:
        moment = datetime.fromisoformat(text)
        return max(0.0, moment.timestamp() - now_unix_s) if moment.tzinfo is not None else None
    except ValueError:
        return None


def wait_in_body(body: bytes) -> float | None:
    """Return the seconds that the text of a 429 asks for: ``try again in 7.66s``, ``retry after 26 seconds``."""
    found = _SAID.search(body[:_BODY_BYTES])
    if found is None:
        return None
    hours, minutes, number, unit = found.groups()
    seconds = float(number) / 1000.0 if unit.lower() == b"ms" else float(number)
    return min(MAX_PAUSE_S, int(hours or 0) * 3600 + int(minutes or 0) * 60 + seconds)


class Nearness:
    """Whether answers with the same header lines say that a limit is near: a look at the few values that tell.

    Only for answers that certainly say of every limit that it is far; others have to be read.
    """

    __slots__ = ("_told",)

    def __init__(self, lines: Iterable[tuple[bytes, bytes, int | None]]) -> None:
        """Take each line's name and value, and where among the values that change it is; None: it does not change."""
        told: dict[tuple[bytes, bytes], tuple[bytes, int | None]] = {}
        for name, value, place in lines:
            named = _NAME.fullmatch(name)
            if named is not None:
                what, unit, unit_2, what_2 = named.groups()
                told[(unit or unit_2).lower(), (what or what_2).lower()] = value, place
        self._told = [
            (told.get((unit, b"limit"), (b"", None)), told[unit, b"remaining"])
            for unit in (b"requests", b"tokens")
            if (unit, b"remaining") in told and (unit, b"reset") in told
        ]
        """Limit and what remains of it, for each limit whose end is told."""

    def may_be(self, values: Sequence[bytes]) -> bool:
        """Say whether the lines have to be read, by the values that change."""
        for (limit, limit_at), (remaining, remaining_at) in self._told:
            if limit_at is not None:
                limit = values[limit_at]
            if remaining_at is not None:
                remaining = values[remaining_at]
            if not (limit.isdigit() and remaining.isdigit() and len(limit) < _MAX_DIGITS > len(remaining)):
                return True
            if not _is_far(int(limit), int(remaining)):
                return True
        return False


def nearness(lines: Sequence[tuple[bytes, bytes, int | None]]) -> Nearness | None:
    """Return how answers with these lines are looked at; None: they do not speak of limits."""
    return Nearness(lines) if any(name.find(HINT) >= 0 for name, _, _ in lines) else None


class _Wall:
    """One limit near its end: what is left, and how fast it comes back."""

    __slots__ = ("at_s", "left", "limit", "rate", "whole_at_s")

    def __init__(self, said: Said, now_s: float) -> None:
        reset_s = said.reset_s or 0.0
        self.limit = max(said.limit, said.remaining, 1)
        self.left = float(said.remaining)
        self.at_s = now_s
        self.whole_at_s = now_s + reset_s
        # Without a limit to refill to, everything comes back at the reset and nothing before it.
        self.rate = (said.limit - said.remaining) / reset_s if said.limit > said.remaining and reset_s > 0.0 else 0.0

    def wait_s(self, need: int, now_s: float) -> float:
        if now_s >= self.whole_at_s:
            return 0.0
        short = min(need, self.limit) - self.left - self.rate * (now_s - self.at_s)
        if short <= 0.0:
            return 0.0
        left_s = self.whole_at_s - now_s
        return min(left_s, short / self.rate) if self.rate else left_s

    def take(self, need: int, now_s: float) -> None:
        self.left += self.rate * (now_s - self.at_s) - need
        self.at_s = now_s


class Paces:
    """The pace of every target that has said it is near a limit. Times are monotonic seconds."""

    MAX_TARGETS = 4096

    __slots__ = ("_walls", "heard", "is_idle", "pauses")

    def __init__(self) -> None:
        self._walls: dict[str, tuple[_Wall | None, _Wall | None]] = {}
        self.heard: dict[str, bytes] = {}
        """Target -> what it said last, unless that was seen to be far from its limits."""
        self.pauses: dict[str, float] = {}
        """Target -> second until which it takes nothing."""
        self.is_idle = True
        """Nobody has to be paced."""

    def _look(self) -> None:
        self.is_idle = not self._walls and not self.pauses

    def hear(self, target: str, lines: bytes, now_s: float, now_unix_s: float) -> float:
        """Take note of an answer's header lines; return for how long the target takes nothing at all, or 0."""
        at = lines.find(HINT)
        if at < 0 or self.heard.get(target) == (told := lines[at : at + 512]):
            return 0.0
        if len(self.heard) >= self.MAX_TARGETS:
            self.heard.clear()
        self.heard[target] = told
        announcement = read_announcement(lines, now_unix_s)
        if announcement is None:
            return 0.0
        walls = _near(announcement.requests, now_s), _near(announcement.tokens, now_s)
        if walls == (None, None):
            self._walls.pop(target, None)
            self._look()
            return 0.0
        if len(self._walls) >= self.MAX_TARGETS:
            self._walls.clear()
        self._walls[target] = walls
        self._look()
        return walls[0].wait_s(1, now_s) if walls[0] is not None else 0.0

    def hear_far(self, target: str) -> bool:
        """The target says that it is far from its limits; False: it was near them, so the whole of its word matters."""
        if target in self._walls:
            return False
        self.heard.pop(target, None)
        return True

    def pause(self, target: str, for_s: float, now_s: float) -> None:
        """The target takes nothing for so long; a longer pause stands."""
        if len(self.pauses) >= self.MAX_TARGETS:
            self.pauses = {name: until_s for name, until_s in self.pauses.items() if until_s > now_s}
        until_s = now_s + min(for_s, MAX_PAUSE_S)
        self.pauses[target] = max(until_s, self.pauses.get(target, 0.0))
        self._look()

    def wait_s(self, target: str, tokens: int, now_s: float) -> tuple[float, bool]:
        """Return how long to wait before this target may be asked, and whether for its tokens."""
        until_s = self.pauses.get(target)
        if until_s is not None:
            if until_s > now_s:
                return until_s - now_s, False
            del self.pauses[target]
            self._look()
        walls = self._walls.get(target)
        if walls is None:
            return 0.0, False
        requests, of_tokens = walls
        wait_s = requests.wait_s(1, now_s) if requests is not None else 0.0
        token_wait_s = of_tokens.wait_s(tokens, now_s) if of_tokens is not None else 0.0
        return max(wait_s, token_wait_s), token_wait_s > wait_s

    def take(self, target: str, tokens: int, now_s: float) -> None:
        """The target is about to be asked."""
        walls = self._walls.get(target)
        if walls is None:
            return
        requests, of_tokens = walls
        if requests is not None:
            requests.take(1, now_s)
        if of_tokens is not None:
            of_tokens.take(tokens, now_s)
        if all(wall is None or now_s >= wall.whole_at_s for wall in walls):
            del self._walls[target]
            self._look()


def _near(said: Said | None, now_s: float) -> _Wall | None:
    """Return the wall when it is near enough to pace for, and its end is known."""
    if said is None or not said.reset_s:
        return None
    return None if _is_far(said.limit, said.remaining) else _Wall(said, now_s)


def _is_far(limit: int, remaining: int) -> bool:
    return limit > 0 and remaining > max(_NEAR_LEAST, limit * _NEAR_RATIO)
