"""Rows the audit store will never take, kept as JSON lines beside the spool.

Owns one file. A row is synced before its place in the spool is given up, so it is never in neither.
"""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from proxy.core.audit.row import Row


class DeadLetterFile:
    """Appends refused rows with the reason; satisfies ``flow.audit_ports.DeadLetters``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, row: Row, reason: str) -> None:
        """Append one row and sync it. Raises OSError."""
        columns = row._asdict() | {"hash": None}
        line = orjson.dumps({"reason": reason, "row": columns}, default=repr, option=orjson.OPT_APPEND_NEWLINE)
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line)
            os.fsync(fd)
        finally:
            os.close(fd)
