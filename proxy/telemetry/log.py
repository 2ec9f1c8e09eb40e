"""Log lines: one JSON object (or one readable line) per record, on standard error.

Owns the root logger's handler. Every value is encoded, so that no input can forge a line; aiohttp's own
loggers are kept from repeating header lines.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Final

import orjson

from proxy.core.config.settings import LogFormat, LogSettings

LOGGER: Final = logging.getLogger("readygate")


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, Any] = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        row.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            # The type and place of an error, never its text: messages may quote what was being read.
            row["error"] = record.exc_info[0].__name__
            row["at"] = _place(record.exc_info[2])
        return orjson.dumps(row, default=str).decode("utf-8")


class PlainLines(logging.Formatter):
    """``12:00:01 info  event key=value``, for people at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = getattr(record, "fields", {})
        shown = "".join(f" {key}={orjson.dumps(value, default=str).decode()}" for key, value in fields.items())
        error = f" error={record.exc_info[0].__name__}" if record.exc_info and record.exc_info[0] else ""
        text = record.getMessage().encode("unicode_escape").decode("ascii")
        return f"{clock} {record.levelname.lower():7} {text}{shown}{error}"


def _place(traceback: Any) -> str:
    """Return file:line of the innermost frame."""
    place = ""
    while traceback is not None:
        place = f"{traceback.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def set_up(settings: LogSettings) -> None:
    """Install the one handler."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.format is LogFormat.JSON else PlainLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    LOGGER.setLevel(settings.level.value.upper())
    for noisy in ("aiohttp.server", "aiohttp.access", "aiohttp.client"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
