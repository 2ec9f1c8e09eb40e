"""What is owed to one person: their rows erased, or handed over; each leaves an entry of its own.

Owns the words of that entry and the admin calls. Knows stores by a Protocol; the command line does the same over
it. Nothing here logs who it was about: entries hold the keyed subject.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from proxy.flow.content import ContentStore
from proxy.terms.admin import AdminAnswer, AdminCall, AdminRoute, Download, Refused, Role

MAX_USER_CHARS: Final = 1024
_OPENED_ROWS: Final = 16
"""Rows whose words are opened at a stretch: two milliseconds of the event loop, and 2 MiB, at the most."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did."""

    subject: str
    """The keyed pseudonym in tombstone and entry."""
    rows: int
    content_parts: int


class People(Protocol):
    """The rows of one person in one store. All raise SinkUnavailable."""

    async def erase(self, user: str, *, before_ms: int, actor: str) -> Erased:
        """Take this person's name from every row that began before, now and when such rows arrive later."""
        ...

    async def note_export(self, user: str, *, actor: str, now_ms: int) -> None:
        """Write the entry of an export that somebody else carries out."""
        ...

    async def note_content(self, exchange_id: str, *, actor: str, now_ms: int) -> None:
        """Write the entry of an exchange whose kept words somebody reads."""
        ...

    def rows(self, user: str, *, actor: str, now_ms: int) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield this person's rows, oldest first, as JSON takes them; the entry is written before the first."""
        ...


def people_routes(
    people: People, unix_ms: Callable[[], int], contents: ContentStore | None = None
) -> tuple[AdminRoute, ...]:
    """Return the admin calls; the person is named in the body, because addresses end in logs."""

    async def erase(call: AdminCall) -> AdminAnswer:
        user = _user(call)
        if isinstance(user, Refused):
            return user
        done = await people.erase(user, before_ms=unix_ms(), actor=call.actor.name)
        return 200, {"subject": done.subject, "rows": done.rows, "content_parts": done.content_parts}

    async def export(call: AdminCall) -> AdminAnswer:
        user = _user(call)
        if isinstance(user, Refused):
            return user
        pages = people.rows(user, actor=call.actor.name, now_ms=unix_ms())
        return Download(_lines(pages, contents), file_name="person.jsonl")

    return (
        AdminRoute(
            "POST", "/audit/people/erase", Role.ADMIN, erase, timeout_s=300.0, doc="Erase a person from the record."
        ),
        AdminRoute(
            "POST",
            "/audit/people/export",
            Role.ADMIN,
            export,
            timeout_s=30.0,
            doc="Hand over what the record holds of a person.",
        ),
    )


def _user(call: AdminCall) -> str | Refused:
    user = call.body.get("user") if isinstance(call.body, dict) else None
    if not isinstance(user, str) or not 1 <= len(user) <= MAX_USER_CHARS or len(call.body) != 1:
        return Refused(400, "invalid_request", 'Expected {"user": "…"} and nothing else.', "user")
    return user


async def with_content(rows: list[dict[str, Any]], contents: ContentStore) -> list[dict[str, Any]]:
    """Return rows with ``content`` where words of them are kept. Raises SinkUnavailable."""
    found = await contents.read([row["id"] for row in rows])
    return [{**row, "content": found[row["id"]]} if row["id"] in found else row for row in rows]


async def _lines(pages: AsyncIterator[list[dict[str, Any]]], contents: ContentStore | None) -> AsyncIterator[bytes]:
    async for page in pages:
        if contents is None:
            yield _text(page)
            continue
        for start in range(0, len(page), _OPENED_ROWS):
            yield _text(await with_content(page[start : start + _OPENED_ROWS], contents))


def _text(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z) for row in rows)
