"""The admin calls that read the audit: rows by page, one row, figures, an export.

Owns how many of them run at once and how long each may take. Every call opens a reader of its own and closes
it, so the rows that are being shipped never wait behind somebody's question. Knows no HTTP and no database.

Rows name people (user, conversation), so they need the role admin; figures need it only when they name users.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from proxy.core.audit.query import FILTERS, RowFilter, parse_cursor, parse_filter, parse_groups
from proxy.core.audit.render import cell, csv_text, json_line
from proxy.flow.audit_reading import AuditReader, Record, cursor_of, pages
from proxy.flow.ports import Clock
from proxy.terms.admin import AdminAnswer, AdminCall, AdminHandler, AdminRoute, Download, Refused, Role
from proxy.terms.errors import QueryTooSlow, SinkUnavailable

QUERY_S: Final = 10.0
"""No question to the store takes longer; each page of an export is one."""
_AT_ONCE: Final = 2
_MOST_WAITING: Final = 8
_PAGE_ROWS: Final = 100
_MOST_ROWS: Final = 500
_PERSONAL: Final = frozenset({"user", "conversation", "id"})
_NAMES: Final = tuple(FILTERS)


class _Busy(Exception):
    """Enough questions are being answered already."""


class AuditCalls:
    """Answers the calls; ``open_reader`` makes a reader, None where the store cannot be read back."""

    def __init__(self, open_reader: Callable[[], AuditReader] | None, clock: Clock) -> None:
        self._open_reader = open_reader
        self._clock = clock
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    def routes(self) -> tuple[AdminRoute, ...]:
        """Return the table of calls; the fixed paths come before the one with an id."""
        return (
            AdminRoute(
                "GET",
                "/audit",
                Role.ADMIN,
                self._guarded(self._rows),
                (*_NAMES, "limit", "cursor"),
                doc="Rows that match, newest first, in pages.",
            ),
            AdminRoute(
                "GET",
                "/audit/stats",
                Role.VIEWER,
                self._guarded(self._stats),
                (*_NAMES, "by"),
                doc="Sums of what matches.",
            ),
            AdminRoute(
                "GET",
                "/audit/export",
                Role.ADMIN,
                self._guarded(self._export),
                (*_NAMES, "format"),
                doc="Everything that matches, as a download.",
            ),
            AdminRoute(
                "GET", "/audit/{id}", Role.ADMIN, self._guarded(self._one), doc="One row with everything it holds."
            ),
        )

    @staticmethod
    def _guarded(answer: AdminHandler) -> AdminHandler:
        """Turn what may go wrong with the store or the question into refusals."""

        async def call(given: AdminCall) -> AdminAnswer:
            try:
                return await answer(given)
            except ValueError as exc:
                return Refused(400, "bad_request", str(exc), str(exc).partition(":")[0])
            except QueryTooSlow:
                return Refused(504, QueryTooSlow.code, f"The store did not answer in {QUERY_S:g} s; ask for less time.")
            except SinkUnavailable:
                return Refused(503, "audit_store_unavailable", "The audit store does not answer; /health says why.")
            except _Busy:
                return Refused(503, "audit_busy", "Enough questions are being answered; ask again in a moment.")

        return call

    async def _rows(self, call: AdminCall) -> AdminAnswer:
        asked = dict(call.query)
        limit_text, cursor_text = asked.pop("limit", str(_PAGE_ROWS)), asked.pop("cursor", None)
        if not limit_text.isascii() or not limit_text.isdigit() or not 1 <= int(limit_text[:6]) <= _MOST_ROWS:
            raise ValueError(f"limit: expected a number from 1 to {_MOST_ROWS}")
        limit = int(limit_text)
        wanted = self._wanted(asked)
        after = parse_cursor(cursor_text) if cursor_text is not None else None
        async with self._reader() as reader:
            found = await reader.rows(wanted, limit + 1, after)
        rows = found[:limit]
        return 200, {"rows": rows, "next_cursor": cursor_of(rows[-1]).text() if len(found) > limit else None}

    async def _one(self, call: AdminCall) -> AdminAnswer:
        wanted = self._wanted({"id": call.params["id"]})
        async with self._reader() as reader:
            found = await reader.rows(wanted, 1)
        return (200, found[0]) if found else Refused(404, "not_found", "No row has this id, or not yet.", "id")

    async def _stats(self, call: AdminCall) -> AdminAnswer:
        asked = dict(call.query)
        groups = asked.pop("by", "provider,model,status")
        by = parse_groups(groups)
        wanted = self._wanted(asked)
        if ("user_id" in by or _PERSONAL & asked.keys()) and not call.actor.role.permits(Role.ADMIN):
            return Refused(403, "permission_denied", "Figures of single users need the role admin.")
        async with self._reader() as reader:
            sums = await reader.sums(wanted, by)
            redactions = await reader.redactions(wanted)
            missing = await reader.shed_rows()
        return 200, {"sums": sums, "redactions": redactions, "missing_rows": missing}

    async def _export(self, call: AdminCall) -> AdminAnswer:
        asked = dict(call.query)
        style = asked.pop("format", "jsonl")
        if style not in {"jsonl", "csv"}:
            raise ValueError("format: expected jsonl or csv")
        wanted = self._wanted(asked)
        content_type = "text/csv" if style == "csv" else "application/x-ndjson"
        async with self._reader() as reader:
            await reader.rows(wanted, 1)  # whatever is wrong is told before the first byte
        return Download(self._pieces(wanted, style), content_type, f"audit.{style}")

    async def _pieces(self, wanted: RowFilter, style: str) -> AsyncIterator[bytes]:
        """Yield an export page by page; between two pages everything else has its turn."""
        is_first = True
        async with self._reader() as reader:
            async for page in pages(reader, wanted, oldest_first=True):
                yield _encoded(page, style, has_head=is_first)
                is_first = False

    def _wanted(self, asked: dict[str, str]) -> RowFilter:
        return parse_filter(asked, datetime.fromtimestamp(self._clock.unix_ms() / 1000, UTC))

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[AuditReader]:
        if self._open_reader is None:
            raise SinkUnavailable("this audit store cannot be read back")
        if self._waiting >= _MOST_WAITING:
            raise _Busy
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        reader = self._open_reader()
        try:
            yield reader
        finally:
            self._turns.release()
            await reader.close()


def _encoded(page: list[Record], style: str, *, has_head: bool) -> bytes:
    if style == "jsonl":
        return "".join(map(json_line, page)).encode()
    head = [list(page[0])] if has_head else []
    return csv_text([*head, *([cell(value) for value in row.values()] for row in page)]).encode()
