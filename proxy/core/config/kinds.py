"""The kinds of single value a key may take: text, true/false, number, duration, size, percentage, one of a few words.

Owns how each is read and what to say when it is wrong. ``schema`` has maps and lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proxy.core.config import units
from proxy.core.config.problem import error
from proxy.core.config.schema import Kind, Problems, closest, scalar, wrong_type
from proxy.core.config.yaml_text import BAD, Bad, Node

_PERCENT = re.compile(r"[0-9]{1,3}(\.[0-9]{1,4})?")


@dataclass(frozen=True, eq=False)
class Text(Kind):
    """Text, optionally converted. ``parse`` raises ValueError with what is wrong; ``code`` names that problem."""

    what: str = "text"
    parse: Callable[[str], Any] | None = None
    code: str = "bad-value"
    is_private: bool = False
    """True: the text may hold something that must not be repeated in a message."""

    def read(self, node: Node, path: str, problems: Problems) -> Any:
        """Return the text, converted."""
        found = scalar(node, path, problems, self.what)
        if found is None:
            return BAD
        if not isinstance(found.value, str):
            wrong_type(node, path, problems, self.what, f'write "{found.text}" in quotes if it is text')
            return BAD
        if not found.value.strip():
            problems.append(error(node.mark, "no-value", f"`{path}` is empty", f"give {self.what} or delete the key"))
            return BAD
        if self.parse is None:
            return found.value
        try:
            return self.parse(found.value)
        except ValueError as exc:
            got = "" if self.is_private else f", got {found.value[:60]!r}"
            problems.append(error(node.mark, self.code, f"`{path}` expects {self.what}{got}", str(exc)))
            return BAD

    def json_schema(self) -> dict[str, Any]:
        """Return a string with something in it."""
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True, eq=False)
class Flag(Kind):
    """true or false."""

    what = "true or false"

    def read(self, node: Node, path: str, problems: Problems) -> bool | Bad:
        """Return the truth value."""
        found = scalar(node, path, problems, self.what)
        if found is None:
            return BAD
        if isinstance(found.value, bool):
            return found.value
        wrong_type(node, path, problems, self.what)
        return BAD

    def json_schema(self) -> dict[str, Any]:
        """Return a boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True, eq=False)
class Number(Kind):
    """A number within limits (inclusive); whole unless ``is_whole`` is False."""

    minimum: float
    maximum: float
    is_whole: bool = True

    @property
    def what(self) -> str:  # type: ignore[override]  # a read-only description, computed
        """Say what is expected."""
        return f"a {'whole ' if self.is_whole else ''}number from {self.minimum:.15g} to {self.maximum:.15g}"

    def read(self, node: Node, path: str, problems: Problems) -> int | float | Bad:
        """Return the number."""
        found = scalar(node, path, problems, self.what)
        if found is None:
            return BAD
        value = found.value
        if isinstance(value, bool) or not isinstance(value, int | float) or (self.is_whole and value != int(value)):
            is_quoted_number = found.is_quoted and found.text.strip().isdigit()
            wrong_type(node, path, problems, self.what, "write it without quotes" if is_quoted_number else "")
            return BAD
        if not self.minimum <= value <= self.maximum:
            problems.append(error(node.mark, "out-of-range", f"`{path}` expects {self.what}, got {found.text}"))
            return BAD
        return int(value) if self.is_whole else float(value)

    def json_schema(self) -> dict[str, Any]:
        """Return a number within the limits."""
        kind = "integer" if self.is_whole else "number"
        return {"type": kind, "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True, eq=False)
class Quantity(Kind):
    """A number with a unit, within limits (inclusive, written with units)."""

    what: str
    parse: Callable[[str], float]
    minimum: str
    maximum: str
    unit: str
    """The likeliest unit, for the suggestion."""

    def read(self, node: Node, path: str, problems: Problems) -> float | Bad:
        """Return seconds or bytes."""
        found = scalar(node, path, problems, self.what)
        if found is None:
            return BAD
        if isinstance(found.value, bool):
            wrong_type(node, path, problems, self.what)
            return BAD
        try:
            value = self.parse(found.text)
        except units.UnitMissing:
            text = f"`{path}` has no unit: expects {self.what}, got {found.text}"
            hint = f"write `{found.text}{self.unit}` if you mean that"
            problems.append(error(node.mark, "missing-unit", text, hint))
            return BAD
        except units.UnitUnknown as exc:
            text = f"`{path}` expects {self.what}, got {found.text[:40]!r}"
            problems.append(error(node.mark, "bad-unit", text, str(exc)))
            return BAD
        if not self.parse(self.minimum) <= value <= self.parse(self.maximum):
            text = f"`{path}` must be from {self.minimum} to {self.maximum}, got {found.text}"
            problems.append(error(node.mark, "out-of-range", text))
            return BAD
        return value

    def json_schema(self) -> dict[str, Any]:
        """Return a string of digits and a unit."""
        known = units.SECONDS if self.parse is units.parse_duration else units.BYTES
        return {"type": "string", "pattern": rf"^[0-9]+(\.[0-9]+)?\s*({'|'.join(known)})$"}


def duration(minimum: str, maximum: str) -> Quantity:
    """A time such as ``500ms``; read as float seconds."""
    return Quantity("a duration such as 500ms, 2s, 5m, 1h or 90d", units.parse_duration, minimum, maximum, "s")


def size(minimum: str, maximum: str) -> Quantity:
    """A size such as ``32MiB``; read as int bytes."""
    return Quantity("a size such as 64KiB, 32MiB or 1GiB", units.parse_size, minimum, maximum, "MiB")


@dataclass(frozen=True, eq=False)
class Percent(Kind):
    """A share written with its sign, such as ``10%``, within limits (inclusive, in per cent); read as 0 to 1."""

    minimum: float
    maximum: float
    hint: str = ""
    """What to do instead where the limits are passed."""

    what = "a percentage such as 10%"

    def read(self, node: Node, path: str, problems: Problems) -> float | Bad:
        """Return the share."""
        found = scalar(node, path, problems, self.what)
        if found is None:
            return BAD
        text = found.text.strip()
        digits = text.removesuffix("%").rstrip()
        if isinstance(found.value, bool) or _PERCENT.fullmatch(digits) is None:
            wrong_type(node, path, problems, self.what)
            return BAD
        if digits == text:
            told = f"`{path}` has no unit: expects {self.what}, got {found.text}"
            problems.append(error(node.mark, "missing-unit", told, f"write `{digits}%` if you mean that"))
            return BAD
        if not self.minimum <= float(digits) <= self.maximum:
            told = f"`{path}` must be from {self.minimum:g}% to {self.maximum:g}%, got {found.text}"
            problems.append(error(node.mark, "out-of-range", told, self.hint))
            return BAD
        return float(digits) / 100.0

    def json_schema(self) -> dict[str, Any]:
        """Return a string of digits and the sign."""
        return {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,4})?\s*%$"}


@dataclass(frozen=True, eq=False)
class Choice(Kind):
    """One of a few words; ``later`` names words that are known and do not act yet, with the reason."""

    values: tuple[str, ...]
    later: dict[str, str] = field(default_factory=dict)

    @property
    def what(self) -> str:  # type: ignore[override]  # a read-only description, computed
        """Say what is expected."""
        return "one of " + ", ".join(self.values) if len(self.values) > 1 else self.values[0]

    def read(self, node: Node, path: str, problems: Problems) -> str | Bad:
        """Return the word."""
        found = scalar(node, path, problems, self.what)
        if found is None:
            return BAD
        if isinstance(found.value, str) and found.value in self.values:
            return found.value
        if found.text in self.later:
            problems.append(error(node.mark, "unsupported", f"`{path}: {found.text}` {self.later[found.text]}"))
            return BAD
        if not isinstance(found.value, str):
            wrong_type(node, path, problems, self.what)
            return BAD
        text = f"`{path}` expects {self.what}, got {found.text[:60]!r}"
        problems.append(error(node.mark, "unknown-value", text, closest(found.text, self.values)))
        return BAD

    def json_schema(self) -> dict[str, Any]:
        """Return the words."""
        return {"enum": [str(value) for value in self.values]}
