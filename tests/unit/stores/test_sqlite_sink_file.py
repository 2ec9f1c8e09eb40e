"""The SQLite sink and the file beneath it: what is committed must be in the file that the path names."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from proxy.core.audit.payload import encode_end
from proxy.core.audit.row import Row, Stamp, merge
from proxy.stores.sqlite_sink import SqliteSink
from tests.support.audit import typical_exchange


def row(number: int) -> Row:
    found = merge(None, encode_end(typical_exchange(number)), Stamp("w", 1, number))
    assert found is not None
    return found


def count(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        found: int = connection.execute("SELECT count(*) FROM audit").fetchone()[0]
    return found


async def test_file_deleted_while_running_is_made_anew(tmp_path: Path) -> None:
    """Rows committed to a deleted file would be gone without a word."""
    path = tmp_path / "audit.db"
    sink = SqliteSink(path)
    await sink.open()
    await sink.insert([row(1)])
    for file in tmp_path.glob("audit.db*"):
        file.unlink()

    await sink.insert([row(2)])
    await sink.close()

    assert 1 == count(path)
