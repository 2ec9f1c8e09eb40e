"""Rows the audit store will never take, kept as JSON lines beside the spool.

Owns one file of bounded size. A row is synced before its place in the spool is given up, so it is never in
neither. A full file takes no more: rows then wait in the spool until somebody has looked and moved it away,
because a store that refuses so many is broken in a way no software should paper over.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import orjson

from proxy.core.audit.row import Row, named

MAX_BYTES: Final = 16 * 1024 * 1024
"""About ten thousand rows."""


class DeadLetterFile:
    """Appends refused rows with the reason; satisfies ``flow.audit_ports.DeadLetters``."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes

    def keep(self, row: Row, reason: str) -> None:
        """Append one row and sync it.

        Raises:
            OSError: The disk fails, or the file would grow beyond its limit.
        """
        columns = named(row) | {name: value and value.hex() for name, value in (("hash", row.hash), ("seal", row.seal))}
        line = orjson.dumps({"reason": reason, "row": columns}, default=repr, option=orjson.OPT_APPEND_NEWLINE)
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size + len(line) > self._max_bytes:
                raise OSError(f"{self._path.name} is full ({self._max_bytes} bytes): move it away")
            os.write(fd, line)
            os.fsync(fd)
        finally:
            os.close(fd)
