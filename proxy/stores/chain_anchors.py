"""Where the chain stood at the beginning of each segment, so that a replay makes the same hashes.

Owns the file ``chain.json`` of a spool directory. As long as every segment is there the chain can be followed
from the beginning of its opening; when the first ones have been sent and removed, the others need to know how
it stood. So the file is written before a segment goes, at no other time: once in some ten thousand rows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.core.audit.chain import Chain
from proxy.stores.segment import Segment

_NAME: Final = "chain.json"
_NEVER: Final = 2**63 - 1
"""Behind every number: rows of a segment without a secret (an older release, a damaged header) join no chain."""


class ChainAnchors:
    """Knows the chain at the beginning of every segment that was reached, over restarts."""

    def __init__(self, directory: Path, *, is_synced: bool) -> None:
        """``is_synced`` makes the file survive a power cut, like the segments."""
        self._path = directory / _NAME
        self._is_synced = is_synced
        self._known: dict[int, Chain] = {}
        self._latest: Chain | None = None
        """Behind everything that was read; where a segment not reached yet will begin."""
        self._current: Chain | None = None
        self._load()

    def reach(self, segment: Segment) -> Chain:
        """Return the chain to go on with in this segment, whose rows are about to be read."""
        header = segment.header
        if not any(header.secret):
            self._current = Chain(segment.writer, header.epoch, _NEVER, 0, b"")
            return self._current
        for chain in (self._known.get(segment.first_seq), self._current, self._latest):
            if chain is not None and (chain.writer, chain.epoch) == (segment.writer, header.epoch):
                begins = chain.copy()
                break
        else:
            begins = Chain.begin(segment.writer, header.epoch)
        self._known[segment.first_seq] = begins
        self._current = begins.copy()
        return self._current

    def keep(self, segments: list[Segment]) -> None:
        """Write down where these segments begin, before another one is removed. Raises OSError."""
        left = {segment.first_seq for segment in segments}
        self._known = {first_seq: chain for first_seq, chain in self._known.items() if first_seq in left}
        self._latest = self._current.copy() if self._current is not None else self._latest
        text = orjson.dumps(
            {
                "segments": {str(first_seq): _plain(chain) for first_seq, chain in self._known.items()},
                "latest": None if self._latest is None else _plain(self._latest),
            }
        )
        beside = self._path.with_suffix(".new")
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text)
            if self._is_synced:
                os.fdatasync(fd)
        finally:
            os.close(fd)
        beside.rename(self._path)

    def _load(self) -> None:
        """Read the file; one that is missing or damaged means chains begin anew, which verifying will tell."""
        try:
            found = orjson.loads(self._path.read_bytes())
            self._known = {int(first_seq): _chain(values) for first_seq, values in found["segments"].items()}
            self._latest = None if found["latest"] is None else _chain(found["latest"])
        except (OSError, ValueError, KeyError, TypeError):
            self._known, self._latest = {}, None


def _plain(chain: Chain) -> list[Any]:
    return [chain.writer, chain.epoch, chain.seq, chain.position, chain.hash.hex()]


def _chain(values: list[Any]) -> Chain:
    writer, epoch, seq, position, digest = values
    return Chain(writer, epoch, seq, position, bytes.fromhex(digest))
