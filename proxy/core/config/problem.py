"""What is wrong with a file of ours, and where: the one shape all loaders report.

Owns the address (file, line, column) and its rendering. Knows no YAML and no schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Mark(NamedTuple):
    """A place in a file. ``line`` and ``column`` count from 1; a column is one character."""

    file: str
    line: int = 1
    column: int = 1


CASE_FAILED = "case-failed"
"""Code of the problem that a case beside the policies does not hold."""


class Severity(StrEnum):
    """Whether a problem stops the file from being used."""

    ERROR = "error"
    """The file is refused."""
    LINT = "lint"
    """The file is used; something in it deserves a look."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about a file. ``message`` says what is wrong, ``suggestion`` what to write instead.

    Neither ever holds the value of a secret.
    """

    file: str
    line: int
    column: int
    code: str
    message: str
    suggestion: str = ""
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        tail = f" ({self.suggestion})" if self.suggestion else ""
        return f"{self.file}:{self.line}:{self.column}: {self.severity}[{self.code}]: {self.message}{tail}"

    @property
    def is_error(self) -> bool:
        """True when the file is refused because of this."""
        return self.severity is Severity.ERROR


def error(mark: Mark, code: str, message: str, suggestion: str = "") -> Problem:
    """Build a problem that refuses the file."""
    return Problem(mark.file, mark.line, mark.column, code, message, suggestion)


def lint(mark: Mark, code: str, message: str, suggestion: str = "") -> Problem:
    """Build a problem that is told and does not stop the file."""
    return Problem(mark.file, mark.line, mark.column, code, message, suggestion, Severity.LINT)


def has_errors(problems: list[Problem] | tuple[Problem, ...]) -> bool:
    """Say whether one of the problems refuses its file."""
    return any(problem.is_error for problem in problems)


def in_order(problems: list[Problem]) -> tuple[Problem, ...]:
    """Return the problems by file, line and column, each once."""
    unique = dict.fromkeys(problems)
    return tuple(sorted(unique, key=lambda p: (p.file, p.line, p.column, p.code)))
