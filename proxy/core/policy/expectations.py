"""What a case expected against what happened: every difference, in words that name both.

Pure comparison; runs nothing and knows no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxy.core.policy.cases import Expected, TextCheck

_SHOWN: Final = 80
_PLAIN_KEYS: Final = (
    *("status", "code", "result", "policy", "route", "targets", "skipped"),
    *("redactions", "findings", "answer_findings"),
)


@dataclass(frozen=True, slots=True)
class Happened:
    """How an exchange ended, in the words of a case."""

    status: int
    code: str
    result: str
    policy: str
    route: str
    targets: tuple[str, ...]
    skipped: tuple[str, ...]
    sent: str
    answer: str
    redactions: Mapping[str, int]
    findings: Mapping[str, int]
    answer_findings: Mapping[str, int]
    headers: Mapping[str, str]
    row: Mapping[str, Any]
    access: tuple[str, ...] = ()
    """Access rules that refused, would have refused, or cut the request."""


def differences(expected: Expected, happened: Happened) -> list[str]:
    """Return one line per difference; none when the case holds."""
    found: list[str] = []
    for key in _PLAIN_KEYS:
        wanted, got = getattr(expected, key), getattr(happened, key)
        if wanted is not None and _plain(wanted) != _plain(got):
            found.append(f"{key}: expected {_show(_plain(wanted))}, got {_show(_plain(got))}")
    found += _text_differences("sent", expected.sent, happened.sent)
    found += _text_differences("answer", expected.answer, happened.answer)
    found += _map_differences("header", expected.headers, happened.headers)
    found += _map_differences("row", expected.row, happened.row)
    return found


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _text_differences(where: str, check: TextCheck, text: str) -> list[str]:
    missing = [f"{where}: {_show(piece)} is missing" for piece in check.contains if piece not in text]
    return missing + [f"{where}: {_show(piece)} must not be there" for piece in check.lacks if piece in text]


def _map_differences(where: str, wanted: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for key, value in wanted.items():
        if key not in got:
            found.append(f"{where} {key}: is missing")
        elif got[key] != value:
            found.append(f"{where} {key}: expected {_show(value)}, got {_show(got[key])}")
    return found
