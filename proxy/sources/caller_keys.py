"""The caller keys' file on disk: read, watched by content, and changed whole.

Owns the file's lock and its replacement in one step. Does not know what a key opens.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from proxy.core.config.caller_keys import CallerKeysResult, KeyRecord, parse_caller_keys, render_caller_keys
from proxy.core.config.problem import Mark, error
from proxy.core.config.yaml_text import MAX_BYTES


def read_caller_keys(path: Path) -> CallerKeysResult:
    """Read and parse the file; one that cannot be read is a problem."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        problem = error(
            Mark(str(path)),
            "missing-file",
            f"the caller keys cannot be read: {reason}",
            "`readygate keys create` makes the file",
        )
        return CallerKeysResult(None, (problem,))
    return parse_caller_keys(text, str(path))


async def watch_caller_keys(
    path: Path, every_s: float, known: CallerKeysResult | None
) -> AsyncIterator[CallerKeysResult]:
    """Yield what the file says whenever that is something else than what is known."""
    while True:
        found = await asyncio.to_thread(read_caller_keys, path)
        if found != known:
            known = found
            yield found
        await asyncio.sleep(every_s)


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Keep others who change the file waiting. Raises OSError where no lock can be made."""
    with path.with_name(path.name + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def replace_caller_keys(path: Path, keys: Sequence[KeyRecord]) -> None:
    """Put a new file in the old one's place; a reader sees one of the two, whole."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "w") as file:
            file.write(render_caller_keys(keys))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(name, path.stat().st_mode & 0o777)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
