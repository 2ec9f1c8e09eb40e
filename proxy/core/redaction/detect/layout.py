"""Tables in text: which cell stands under which header (CSV, TSV, Markdown, psql, aligned columns, SQL INSERT, HTML).

Owns the recognition of rows and columns. Knows no kind; whether a header means something is asked of the caller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import accumulate, islice

Cell = tuple[int, int, str]
"""(start, end, header) of a cell's text, quotes left out."""

_DELIMITERS = (",", ";", "\t", "|")
_HEADER = re.compile(r"[\"'`]?\s*[^\W\d][\w .()/\-#º°]{0,40}[\"'`]?")
_NO_HEADER = re.compile(r"[^\w\s.()/\-#º°\"'`,;|]")
"""What stands in no line of headers between delimiters: most lines of code and of prose hold one."""
_RULE_CHARS = frozenset("|:-+= ")
_RULE = re.compile(r"[\s|:\-+=]+")
_INSERT = re.compile(r"(?i)\binsert\s+into\s+[\w.\"`\[\]]{1,80}\s*\(([^()]{1,600})\)\s*values\s*(?=\()")
_TUPLE_ITEM = re.compile(r"\s*(?:N?'((?:[^'\\]|''|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|([^,()'\"]*))\s*([,)])")
_ITEM = r"(?:\"(?:[^\"\\]|\\.)*+\"|[^\s\[\]{}\",][^\[\]{}\",]{0,39}+)"
"""Possessive throughout: blanks belong to one side of a comma only, or an array that never ends is tried in all ways."""
_ARRAY = re.compile(rf"\[\s*+({_ITEM}(?:\s*+,\s*+{_ITEM})++)\s*+\]")
_ARRAY_ITEM = re.compile(r"\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\",]+?))\s*(?:,|$)")
_QUOTED_CELL = {
    d: re.compile(rf"[ ]*(?:\"((?:[^\"]|\"\")*)\"|([^{re.escape(d)}]*))[ ]*(?:{re.escape(d)}|$)") for d in _DELIMITERS
}
_ALIGNED_NAME = re.compile(r"[^\W\d_][\w.\-]{0,40}(?: [\w.\-]{1,20}){0,3}")
"""A header in columns set apart by blanks; there a name of several words has one blank between them."""
_MARKED_ROW = re.compile(r"(?i)<tr\b[^<>]{0,200}>(.*?)(?=<tr\b|</tr|</table|</thead|\Z)", re.DOTALL)
_MARKED_CELL = re.compile(r"(?i)<t([hd])\b[^<>]{0,200}>\s*(?:<[a-z][^<>]{0,80}>\s*)*([^<>]*)")
_MAX_COLUMNS = 200
_MAX_CELL = 48


def cells(text: str, is_named: Callable[[str], bool]) -> Iterator[Cell]:
    """Yield the cells that stand under a header the caller knows."""
    if "\n" in text:
        yield from _delimited(text, is_named)
    if '["' in text:
        yield from _arrays(text, is_named)
    if "nsert" in text or "NSERT" in text:
        for statement in _INSERT.finditer(text):
            yield from _inserted(text, statement, is_named)
    if "<th" in text or "<TH" in text:
        yield from _marked_up(text, is_named)


def _delimited(text: str, is_named: Callable[[str], bool]) -> Iterator[Cell]:
    lines, starts = _lines(text)
    may_not_be_header = _NO_HEADER.search
    i = 0
    for candidate in [
        at
        for at, line in enumerate(lines[:-1])
        if line and (not may_not_be_header(line) or ("  " in line and "  " in line.strip()))
    ]:
        if candidate < i:
            continue  # a row of the table before
        header_line, following = lines[candidate], lines[candidate + 1]
        below = 2 if following[:1] in _RULE_CHARS and candidate + 2 < len(lines) and _RULE.fullmatch(following) else 1
        delimiter = _header_delimiter(header_line, lines[candidate + below])
        headers = _headers(header_line, delimiter, is_named) if delimiter else []
        i = candidate + 1
        columns = [] if delimiter or "  " not in header_line else _aligned_columns(header_line, is_named)
        while columns and i < len(lines) and lines[i].strip():
            yield from _aligned((starts[i], lines[i]), columns)
            i += 1
        if not headers or not delimiter:
            continue
        i += below - 1
        named = [(column, header) for column, header in enumerate(headers) if header]
        while i < len(lines):
            row = _row(lines[i], delimiter, len(headers), named)
            if row is None:
                break
            if not _RULE.fullmatch(lines[i]):
                for start, end, header in row:
                    yield starts[i] + start, starts[i] + end, header
            i += 1


def _row(line: str, delimiter: str, size: int, named: list[tuple[int, str]]) -> list[Cell] | None:
    """Return the cells of a line that are not empty and whose columns the caller knows, None when it has more cells or fewer."""
    if '"' in line:
        spans = _split(line, delimiter)
        if len(spans) != size:
            return None
        return [(*spans[column], header) for column, header in named if spans[column][1] > spans[column][0]]
    cells = line.split(delimiter)
    if len(cells) != size:
        return None
    found: list[Cell] = []
    at = before = 0
    for column, header in named:
        at += sum([len(cell) for cell in cells[before:column]]) + column - before
        before = column
        cell = cells[column].lstrip()
        if cell:
            start = at + len(cells[column]) - len(cell)
            found.append((start, start + len(cell.rstrip()), header))
    return found


def _lines(text: str) -> tuple[list[str], list[int]]:
    """Return the lines of a text without their ends, and where each starts."""
    lines = text.split("\n")
    starts = list(accumulate([len(line) + 1 for line in lines], initial=0))
    if "\r" in text:
        lines = [line.rstrip("\r") for line in lines]
    return lines, starts


def _aligned_columns(line: str, is_named: Callable[[str], bool]) -> list[tuple[int, int, int, str]]:
    """Return (end of the header before it, start, end, name) of the headers the caller knows in a line of names set apart by blanks."""
    if "  " not in line.strip():
        return []
    found = list(islice(_ALIGNED_NAME.finditer(line), _MAX_COLUMNS))
    if len(found) < 2 or sum([len(name[0]) for name in found]) < len(line) - line.count(" "):
        return []
    lefts = [0, *[name.end() for name in found]]
    return [(left, *name.span(), name[0]) for left, name in zip(lefts, found, strict=False) if is_named(name[0])]


def _aligned(line: tuple[int, str], columns: list[tuple[int, int, int, str]]) -> Iterator[Cell]:
    """Yield the cells of a line under columns set apart by blanks."""
    at, text = line
    for left, start, end, header in columns:
        if start >= len(text):
            break  # many columns, and many short lines below
        cell = _under(text, left, start, end)
        if cell is not None:
            yield at + cell[0], at + cell[1], header


def _under(line: str, left: int, start: int, end: int) -> tuple[int, int] | None:
    """Return the cell of a line that is flush with the columns [start, end), on either side."""
    size = len(line)
    if end <= size and not line[end - 1].isspace() and (end == size or line[end].isspace()):
        begin = line.rfind("  ", left, end)
        return max(begin + 2 if begin >= 0 else left, end - _MAX_CELL), end
    if start < size and not line[start].isspace() and (not start or line[start - 1].isspace()):
        stop = line.find("  ", start, start + _MAX_CELL)
        return start, stop if stop >= 0 else min(len(line), start + _MAX_CELL)
    return None


def _header_delimiter(line: str, following: str) -> str:
    """Return the delimiter two lines share in number, or an empty string."""
    for delimiter in _DELIMITERS:
        count = line.count(delimiter)
        if 0 < count < _MAX_COLUMNS and following.count(delimiter) >= count:
            return delimiter
    return ""


def _headers(line: str, delimiter: str, is_named: Callable[[str], bool]) -> list[str]:
    """Return a header per column, empty where it names nothing; [] when the line is no header."""
    names = [line[start:end].strip() for start, end in _split(line, delimiter)]
    inner = names[1:-1] if delimiter == "|" and not names[0] and not names[-1] else names
    if len(inner) < 1 or not all([_HEADER.fullmatch(n) for n in inner]):
        return []
    known = [n if n and is_named(n) else "" for n in names]
    return known if any(known) else []


def _split(line: str, delimiter: str) -> list[tuple[int, int]]:
    """Return the spans of a line's cells without blanks and quotes around them."""
    spans: list[tuple[int, int]] = []
    if '"' in line:
        for found in _QUOTED_CELL[delimiter].finditer(line):
            spans.append(found.span(1) if found[1] is not None else found.span(2))
            if found.end() >= len(line):
                if line.endswith(delimiter):
                    spans.append((len(line), len(line)))
                break
        return spans
    at = 0
    for cell in line.split(delimiter):
        lead = len(cell) - len(cell.lstrip())
        spans.append((at + lead, at + len(cell.rstrip()) if cell.strip() else at + lead))
        at += len(cell) + 1
    return spans


def _arrays(text: str, is_named: Callable[[str], bool]) -> Iterator[Cell]:
    """Yield the cells of rows written as JSON arrays under an array of names: ``{"columns": ["dob"], "rows": [["…"]]}``."""
    headers: list[str] = []
    for array in _ARRAY.finditer(text):
        items = [
            (found.span(1) if found[1] is not None else found.span(2), found[1])
            for found in islice(_ARRAY_ITEM.finditer(array[1]), _MAX_COLUMNS)
        ]
        if headers and len(items) == len(headers):
            for header, ((start, end), _) in zip(headers, items, strict=True):
                if header:
                    yield array.start(1) + start, array.start(1) + end, header
        elif all([name is not None and _HEADER.fullmatch(name) for _, name in items]):
            headers = [name if name and is_named(name) else "" for _, name in items]
            headers = headers if any(headers) else []


def _inserted(text: str, statement: re.Match[str], is_named: Callable[[str], bool]) -> Iterator[Cell]:
    names = [name.strip(' "`[]\n\t') for name in statement[1].split(",")]
    headers = [n if is_named(n) else "" for n in names]
    at = statement.end()
    while at < len(text) and text[at] == "(" and any(headers):
        at += 1
        for header in headers:
            item = _TUPLE_ITEM.match(text, at)
            if item is None:
                return
            group = next((g for g in (1, 2, 3) if item[g] is not None), 3)
            if header and item[group]:
                yield item.start(group), item.end(group), header
            at = item.end()
            if item[4] == ")":
                break
        rest = re.compile(r"\s*,\s*(?=\()").match(text, at)
        if rest is None:
            return
        at = rest.end()


def _marked_up(text: str, is_named: Callable[[str], bool]) -> Iterator[Cell]:
    """Yield the cells of HTML tables whose first row holds their headers."""
    headers: list[str] = []
    for row in _MARKED_ROW.finditer(text):
        found = list(_MARKED_CELL.finditer(text, *row.span(1)))
        if len(found) > 1 and all([cell[1] in "hH" for cell in found]):
            names = [cell[2].strip() for cell in found]
            headers = [name if name and is_named(name) else "" for name in names]
        elif len(found) == len(headers):
            for header, cell in zip(headers, found, strict=True):
                if header and cell[2].strip():
                    yield cell.start(2), cell.start(2) + len(cell[2].rstrip()), header
