"""What may be asked of the audit store: filters, groups and the mark between two pages.

Owns the names that the command line and the admin API share, and how their texts are read. Knows no SQL
dialect and no database: a condition is a column of ours, an operator of ours and a value that travels as
a parameter, so nothing a person types becomes part of a statement.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from proxy.terms.outcomes import Status

Value = str | int | float | bool | datetime
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MAX_TEXT: Final = 1024
_MAX_CURSOR: Final = 200


class FilterField(NamedTuple):
    """One thing rows can be chosen by: its name as asked for, and what it means in the table."""

    name: str
    column: str
    operator: str
    parse: Callable[[str, datetime], Value]
    """Takes the text and the present moment. Raises ValueError saying what was expected."""
    what: str


class Condition(NamedTuple):
    """``column operator value``."""

    column: str
    operator: str
    value: Value


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows are wanted: those that meet every condition."""

    conditions: tuple[Condition, ...] = ()

    def but(self, column: str, operator: str, value: Value) -> RowFilter:
        """Return this filter with its conditions on this column and operator replaced by one."""
        kept = (one for one in self.conditions if (one.column, one.operator) != (column, operator))
        return RowFilter((*kept, Condition(column, operator, value)))


class Cursor(NamedTuple):
    """The last row of a page: the next page begins behind it, whatever has been inserted meanwhile."""

    ts_ms: int
    id: str

    def text(self) -> str:
        """Return it as one word, safe in a URL."""
        return base64.urlsafe_b64encode(f"{self.ts_ms}.{self.id}".encode()).decode().rstrip("=")


def parse_cursor(text: str) -> Cursor:
    """Return the cursor that ``Cursor.text`` wrote.

    Raises:
        ValueError: It is none of ours.
    """
    trouble = ValueError("cursor: expected the next_cursor of an earlier answer")
    if not text.isascii() or len(text) > _MAX_CURSOR:
        raise trouble
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
        ts_ms, _, exchange_id = plain.partition(".")
        if not re.fullmatch(r"-?\d{1,15}", ts_ms):
            raise trouble
        return Cursor(int(ts_ms), str(UUID(exchange_id)))
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise trouble from None


def parse_moment(text: str, now: datetime) -> datetime:
    """Return the moment of ``15m``, ``24h``, ``7d`` (before now) or an ISO date or time, UTC unless it says otherwise.

    Raises:
        ValueError: Neither, or a time no calendar has.
    """
    ago = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhdw])", text)
    trouble = ValueError(f"expected 15m, 24h, 7d or a date like 2026-11-21T08:00, got {shown(text)}")
    try:
        if ago is not None:
            return now - timedelta(seconds=float(ago[1]) * _UNITS_S[ago[2]])
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise trouble from None


def parse_filter(asked: Mapping[str, str], now: datetime) -> RowFilter:
    """Return the filter that these names and texts ask for.

    Raises:
        ValueError: An unknown name or a text that is not its kind; the message begins with the name.
    """
    conditions = []
    for name, text in asked.items():
        known = FILTERS.get(name)
        if known is None:
            raise ValueError(f"{shown(name)}: expected one of {', '.join(FILTERS)}")
        try:
            conditions.append(Condition(known.column, known.operator, known.parse(text, now)))
        except ValueError as exc:
            raise ValueError(f"{name}: {exc}") from None
    return RowFilter(tuple(conditions))


def parse_groups(text: str) -> tuple[str, ...]:
    """Return the columns that ``provider,status`` groups by, in that order, each once.

    Raises:
        ValueError: A name that cannot be grouped by.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in GROUPS]
    if unknown or not names:
        raise ValueError(f"by: expected some of {', '.join(GROUPS)}, got {shown(','.join(unknown) or text)}")
    return tuple(GROUPS[name] for name in names)


def shown(text: str) -> str:
    """Return what somebody typed as a message may show it: quoted, bounded, nothing that moves a cursor."""
    return repr(text[:60]) if text.isprintable() else ascii(text[:60])


def clause(wanted: RowFilter, mark: Callable[[int], str], more: Iterable[Condition] = ()) -> tuple[str, list[Value]]:
    """Return the WHERE clause (or nothing) and the values of its placeholders.

    Args:
        wanted: The filter.
        mark: Placeholder of the n-th value, from 1: ``$1`` or ``?``.
        more: Conditions beside the filter's own.
    """
    conditions = [*wanted.conditions, *more]
    parts = [f"{one.column} {one.operator} {mark(number)}" for number, one in enumerate(conditions, 1)]
    return ("WHERE " + " AND ".join(parts) if parts else ""), [one.value for one in conditions]


def _text(text: str, _: datetime) -> Value:
    if len(text) > _MAX_TEXT or "\x00" in text:
        raise ValueError(f"expected at most {_MAX_TEXT} characters and no NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text, got half a character") from None
    return text


def _id(text: str, _: datetime) -> Value:
    try:
        return str(UUID(text))
    except ValueError:
        raise ValueError(f"expected an id like 01a1fdbe-0000-7000-8000-000000000000, got {shown(text)}") from None


def _status(text: str, _: datetime) -> Value:
    words = [status.value for status in Status]
    if text not in words:
        raise ValueError(f"expected one of {', '.join(words)}, got {shown(text)}")
    return text


def _http_status(text: str, _: datetime) -> Value:
    if not re.fullmatch(r"[0-9]{1,3}", text):
        raise ValueError(f"expected a status like 429, got {shown(text)}")
    return int(text)


def _number(text: str, _: datetime) -> Value:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"expected a number, got {shown(text)}")
    return value


def _claim(text: str, _: datetime) -> Value:
    if text not in {"yes", "no"}:
        raise ValueError(f"expected yes or no, got {shown(text)}")
    return text == "yes"


FILTERS: Final[dict[str, FilterField]] = {
    one.name: one
    for one in (
        FilterField("since", "ts", ">=", parse_moment, "from this moment: 15m, 24h, 7d ago, or a date or time (UTC)"),
        FilterField("until", "ts", "<", parse_moment, "before this moment"),
        FilterField("id", "id", "=", _id, "the exchange of this x-readygate-id"),
        FilterField("app", "app", "=", _text, "only this app"),
        FilterField("user", "user_id", "=", _text, "only this user"),
        FilterField("conversation", "conversation", "=", _text, "only this conversation"),
        FilterField("provider", "provider", "=", _text, "only this provider"),
        FilterField("model", "model_served", "=", _text, "only this model, as served"),
        FilterField("model_asked", "model_asked", "=", _text, "only this model, as asked for"),
        FilterField("route", "route", "=", _text, "only this route"),
        FilterField("policy", "policy", "=", _text, "only this policy"),
        FilterField("revision", "policy_revision", "=", _text, "only this policy revision"),
        FilterField("status", "status", "=", _status, f"only this status: {', '.join(Status)}"),
        FilterField("http_status", "http_status", "=", _http_status, "only this HTTP status"),
        FilterField("code", "error_code", "=", _text, "only this error code"),
        FilterField("pii", "pii_detected", "=", _claim, "yes or no: whether anything personal was found"),
        FilterField("min_cost", "cost_usd", ">=", _number, "cost at least so many USD"),
        FilterField("max_cost", "cost_usd", "<=", _number, "cost at most so many USD"),
        FilterField("min_latency", "latency_ms", ">=", _number, "took at least so many milliseconds"),
    )
}

GROUPS: Final = {
    "provider": "provider",
    "model": "model_served",
    "status": "status",
    "app": "app",
    "user": "user_id",
    "route": "route",
    "policy": "policy",
    "revision": "policy_revision",
    "code": "error_code",
}
"""What statistics can be counted by -> its column."""
DEFAULT_GROUPS: Final = ("provider", "model_served", "status")
