"""What one simulated provider is told at start, and how an answer is spoken.

Owns the two frozen settings objects and the reading of their units. Knows nothing of HTTP.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

DEFAULT_MODELS = (
    "gpt-4o-mini", "gpt-4o", "gpt-4.1-mini", "o4-mini", "llama-3.3-70b-versatile", "gemini-2.5-flash",
    "claude-sonnet-4-5", "text-embedding-3-small", "whisper-1", "tts-1", "gpt-image-1", "gpt-realtime",
)  # fmt: skip

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_UNITS_BYTES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


class BadSetting(ValueError):
    """A setting or a fault description cannot be understood; the message says what was expected."""


def parse_duration(text: str) -> float:
    """Return seconds for ``200ms``, ``1.5s``, ``2m`` or a bare number of seconds.

    Raises:
        BadSetting: No number, a negative number or a unit other than us, ms, s, m, h.
    """
    match = _NUMBER.fullmatch(text.strip())
    factor = _UNITS_S.get((match[2] or "s").lower()) if match else None
    if match is None or factor is None:
        raise BadSetting(f"expected a duration like 200ms, 1.5s or 2m, got {text!r}")
    return float(match[1]) * factor


def parse_size(text: str) -> int:
    """Return bytes for ``300MiB``, ``64kB`` or a bare number of bytes.

    Raises:
        BadSetting: No number, a negative number or a unit other than B, kB, MB, GB, KiB, MiB, GiB.
    """
    match = _NUMBER.fullmatch(text.strip())
    factor = _UNITS_BYTES.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise BadSetting(f"expected a size like 64KiB or 300MiB, got {text!r}")
    return int(float(match[1]) * factor)


def parse_flag(text: str) -> bool:
    """Return the truth of ``1``, ``true``, ``yes``, ``on`` and of their opposites.

    Raises:
        BadSetting: Any other word.
    """
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise BadSetting(f"expected yes or no, got {text!r}")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadSetting(f"expected a number, got {text!r}") from None
    if not 0 <= value < 1e12:
        raise BadSetting(f"expected a number from 0 up, got {text!r}")
    return value


def _count(text: str) -> int:
    return int(_number(text))


def _eol(text: str) -> str:
    if text not in ("lf", "crlf", "cr"):
        raise BadSetting(f"expected lf, crlf or cr, got {text!r}")
    return text


@dataclass(frozen=True, slots=True)
class Speech:
    """How an answer sounds and how fast it comes. Every field can be set per request (see README)."""

    tokens: int = 20
    """Length of the default text, in tokens (words); echoed text keeps its own length."""
    text: str = ""
    """Said instead of the default text."""
    latency: float = 0.0
    """Seconds from the whole request to the first byte of the answer."""
    first_token: float = 0.0
    """Seconds from the head of a stream to its first content event."""
    rate: float = 0.0
    """Content events per second; 0 sends as fast as the reader takes them."""
    chars: int = 0
    """Characters per content event; 0 sends one word per event."""
    utf16: bool = False
    """Cut text by UTF-16 unit, so an emoji may arrive as two lone surrogates (as some providers do)."""
    split: int = 0
    """Cut the bytes on the wire every so many bytes, inside events and UTF-8 too; 0 keeps events whole."""
    gap: float = 0.0
    """Seconds between the pieces that ``split`` makes."""
    batch: int = 1
    """Events per write when nothing paces the stream."""
    voice: int = 0
    """Which default text is spoken; two voices never begin alike."""
    eol: str = "lf"
    """Line ends of the event stream: lf, crlf or cr."""
    bom: bool = False
    """Begin the event stream with a byte order mark."""
    comments: bool = False
    """Put a comment line before every event."""
    nospace: bool = False
    """Write ``data:`` without the space after it."""
    multiline: bool = False
    """Spread each JSON payload over two ``data:`` lines."""
    fields: bool = False
    """Add ``event:``, ``id:`` and ``retry:`` lines to OpenAI-style events."""
    tight_end: bool = False
    """Leave out the blank line after the last event."""
    encode: str = ""
    """Content coding of every answer: gzip, deflate, zstd, or empty for none; flushed per event."""
    prompt_tokens: int = -1
    completion_tokens: int = -1
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    """Usage figures; -1 counts what was really asked and said."""
    usage: bool = True
    """False leaves the usage object out of every answer."""
    finish: str = ""
    """Finish reason to report instead of the natural one (``length``, ``content_filter``)."""
    served: str = ""
    """Model name to report instead of the one asked for."""
    remaining_requests: int = 9999
    remaining_tokens: int = 149984
    """Figures of the x-ratelimit-remaining-* headers."""
    set_cookie: str = ""
    """Value of a Set-Cookie header to send along."""


_READERS = {"int": _count, "float": parse_duration, "bool": parse_flag, "str": str}
_SPEECH_READERS: dict[str, Any] = {f.name: _READERS[str(f.type)] for f in fields(Speech)}
_SPEECH_READERS.update({"rate": _number, "eol": _eol, "split": parse_size})
SPEECH_KEYS = frozenset(_SPEECH_READERS)


def speech_with(speech: Speech, changes: Mapping[str, str]) -> Speech:
    """Return ``speech`` with the given fields replaced, each read from text in its own unit.

    Raises:
        BadSetting: An unknown field or a value that cannot be read; the message names the field.
    """
    values: dict[str, Any] = {}
    for key, text in changes.items():
        reader = _SPEECH_READERS.get(key)
        if reader is None:
            raise BadSetting(f"unknown setting {key!r}{did_you_mean(key, SPEECH_KEYS)}")
        try:
            values[key] = reader(text)
        except BadSetting as problem:
            raise BadSetting(f"{key}: {problem}") from None
    return replace(speech, **values)


def did_you_mean(word: str, known: frozenset[str] | set[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the simulated provider listens and how it behaves when nobody says otherwise."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes any free port."""
    admin_port: int | None = None
    """A listener of its own for /__sim__/; None serves it on the same port."""
    speech: Speech = Speech()
    fault: str = ""
    """Fault applied to every request until changed (``429:retry_after=2``)."""
    api_keys: tuple[str, ...] = ()
    """Accepted credentials; empty accepts every caller."""
    models: tuple[str, ...] = DEFAULT_MODELS
    strict_models: bool = False
    """Answer 404 model_not_found for a model that is not listed."""
    max_body_bytes: int = 512 * 1024 * 1024
    keepalive_s: float = 75.0
    """Idle connections are closed after this long; 0 keeps them for ever."""
    journal_path: str | None = None
    journal_entries: int = 10_000
    journal_body_bytes: int = 256 * 1024
    """How much of each request body the journal keeps; the digest always covers all of it."""
    journal_total_bytes: int = 128 * 1024 * 1024
    """How much of all request bodies together the journal keeps; the oldest bodies go first."""
    bench: bool = False
    """Answer every POST below /v1/ with one fixed answer, as cheaply as possible, unjournalled."""
    bench_events: int = 60
    bench_interval_s: float = 0.0
    """Seconds between the events of a bench stream; 0 writes one event per turn of the loop."""
    extra_headers: tuple[tuple[str, str], ...] = field(default=())
