"""What ``readygate audit`` prints: rows and sums as table, JSON or CSV, and a bar for what takes long.

Owns the shape of the output; ``core/audit/render`` makes values safe to show.
"""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Final, TextIO

from proxy.core.audit.render import cell, csv_text, json_line
from proxy.flow.audit_reading import Record

FORMATS: Final = ("table", "json", "jsonl", "csv")
_TABLE: Final = (
    "time", "status", "http", "provider", "model", "app", "user", "tokens", "cost", "latency", "pii", "id",
)  # fmt: skip
_CELL_CHARS: Final = 80
_BAR_AFTER_S: Final = 2.0
_BAR_EVERY_S: Final = 0.2
_BAR_CHARS: Final = 30


class Printer:
    """Prints rows as they come; the head of a table or CSV once."""

    def __init__(self, style: str, out: TextIO) -> None:
        self._style = style
        self._out = out
        self._has_head = False

    def rows(self, records: Sequence[Record]) -> None:
        """Print these rows."""
        if self._style in {"json", "jsonl"}:
            self._out.writelines(json_line(record) for record in records)
        elif self._style == "csv":
            lines = [[cell(value) for value in record.values()] for record in records]
            self._out.write(csv_text([*self._head(list(records[0]) if records else []), *lines]))
        else:
            write_table([*self._head(_TABLE), *map(_line, records)], self._out)
        self._out.flush()

    def _head(self, names: Sequence[str]) -> list[Sequence[str]]:
        if self._has_head or not names:
            return []
        self._has_head = True
        return [names]


class Progress:
    """A bar on a terminal for whatever takes more than two seconds; elsewhere nothing."""

    def __init__(self, total: int, out: TextIO, now_s: Callable[[], float]) -> None:
        self._total = total
        self._out = out
        self._now_s = now_s
        self._is_terminal = out.isatty()
        self._started_s = now_s()
        self._next_s = self._started_s + _BAR_AFTER_S
        self._is_shown = False

    def show(self, done: int) -> None:
        """So many of the total are done."""
        now_s = self._now_s()
        if not self._is_terminal or now_s < self._next_s:
            return
        self._next_s, self._is_shown = now_s + _BAR_EVERY_S, True
        ratio = min(1.0, done / self._total) if self._total else 1.0
        spent_s = now_s - self._started_s
        left = f", {spent_s * (1 - ratio) / ratio:,.0f} s left" if ratio else ""
        bar = "#" * round(ratio * _BAR_CHARS)
        self._out.write(f"\r[{bar:<{_BAR_CHARS}}] {ratio:4.0%} {done:,} of {self._total:,}{left}   ")
        self._out.flush()

    def end(self) -> None:
        """Take the bar away."""
        if self._is_shown:
            self._out.write("\r" + " " * 79 + "\r")
            self._out.flush()


def write_sums(sums: Sequence[Record], style: str, out: TextIO) -> None:
    """Print grouped figures as a table or CSV."""
    if not sums:
        return
    lines = [tuple(cell(value) for value in record.values()) for record in sums]
    if style == "csv":
        out.write(csv_text([tuple(sums[0]), *lines]))
    else:
        write_table([tuple(sums[0]), *lines], out)


def write_table(lines: Sequence[Sequence[str]], out: TextIO) -> None:
    """Print aligned columns; what callers put into names cannot move the cursor or start a new line."""
    if not lines:
        return
    seen = [[_printable(text) for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*seen, strict=True)]
    out.writelines(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in seen
    )


@contextmanager
def open_export(path: str | None) -> Iterator[TextIO]:
    """Give where an export is written: standard output, or a file that is put in place when the block ends well.

    The file is readable by its owner alone; a name that ends in ``.gz`` compresses. Raises OSError.
    """
    if path is None:
        yield sys.stdout
        return
    partial = Path(f"{path}.partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            if path.endswith(".gz"):
                with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed, TextIOWrapper(packed, "utf-8") as out:
                    yield out
            else:
                with TextIOWrapper(file, "utf-8", newline="") as out:
                    yield out
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _line(record: Record) -> tuple[str, ...]:
    tokens = "" if record["tokens_in"] is None else f"{record['tokens_in']}/{record['tokens_out']}"
    return (
        f"{record['ts']:%Y-%m-%d %H:%M:%S}", record["status"], cell(record["http_status"] or ""),
        record["provider"], record["model_served"] or record["model_asked"], record["app"], record["user_id"],
        tokens, "" if record["cost_usd"] is None else f"{record['cost_usd']:.6f}",
        "" if record["latency_ms"] is None else f"{record['latency_ms']:.0f} ms",
        ",".join(f"{kind.lower()}={count}" for kind, count in record["findings"].items()), record["id"],
    )  # fmt: skip


def _printable(text: str) -> str:
    text = text[:_CELL_CHARS]
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
