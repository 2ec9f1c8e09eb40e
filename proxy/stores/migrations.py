"""The numbered SQL files of each audit store, and where a database stands among them.

Owns reading the files beside it. Does not run them: each sink does, inside one transaction and under a
lock, because several sidecars may start against the same database at once. A fresh install is nothing
but all migrations in order.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple

Dialect = Literal["postgres", "sqlite"]

_NUMBERED = re.compile(r"(\d{4})_(\w+)\.sql")


class Migration(NamedTuple):
    """One step of the schema."""

    version: int
    name: str
    sql: str


@cache
def migrations(dialect: Dialect) -> tuple[Migration, ...]:
    """Return all migrations of a dialect in order; versions are 1, 2, 3, …"""
    found = []
    for entry in (files("proxy.stores") / "sql" / dialect).iterdir():
        match = _NUMBERED.fullmatch(entry.name)
        if match is not None:
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    return tuple(sorted(found))


@cache
def statement(dialect: Dialect, name: str) -> str:
    """Return one SQL statement by the name of its file, without ``.sql``."""
    return (files("proxy.stores") / "sql" / dialect / f"{name}.sql").read_text(encoding="utf-8")
