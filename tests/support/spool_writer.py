"""A process that fills a spool and may be killed at any moment; its words on standard output are its journal.

``b N`` / ``e N``: the BEGIN / END of exchange N was accepted. ``d N``: row N was handed to a store.
Each word is written only after the fact, so whatever the journal says must survive.

Run: ``python -m tests.support.spool_writer FOLDER FIRST [--die-at K --die PHASE] [--fsync]``
"""

from __future__ import annotations

import argparse
import os
import random
import signal
from pathlib import Path

from proxy.core.audit.payload import encode_begin, encode_end
from proxy.stores.group_commit import GroupCommit
from proxy.stores.segment import Segment
from proxy.stores.spool import DiskSpool
from tests.support.audit import typical_exchange

PHASES = ("before-write", "torn-write", "after-write", "create", "delete", "sync")


def say(word: str, number: int) -> None:
    os.write(1, f"{word} {number}\n".encode())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(phase: str, at: int) -> None:
    """Make the process kill itself at the ``at``-th event of a kind."""
    seen = {"count": 0}

    def is_now() -> bool:
        seen["count"] += 1
        return seen["count"] == at

    real_write, real_create, real_delete = Segment.write, Segment.create.__func__, Segment.delete  # type: ignore[attr-defined]

    def write(self: Segment, data: bytes) -> None:
        if not is_now():
            return real_write(self, data)
        if phase == "torn-write":
            os.pwrite(self.fd, data[: len(data) // 2], self.data_end)
        if phase == "after-write":
            real_write(self, data)
        return die()

    def create(cls: type[Segment], *arguments: object) -> Segment:
        made: Segment = real_create(cls, *arguments)
        if is_now():
            die()
        return made

    def delete(self: Segment) -> None:
        if is_now():
            die()
        real_delete(self)
        if is_now():
            die()

    if phase.endswith("-write"):
        Segment.write = write  # type: ignore[method-assign]
    elif phase == "create":
        Segment.create = classmethod(create)  # type: ignore[assignment, method-assign]
    elif phase == "delete":
        Segment.delete = delete  # type: ignore[method-assign]


def syncing(phase: str, at: int) -> GroupCommit:
    seen = {"count": 0}

    def fdatasync(fd: int) -> None:
        seen["count"] += 1
        if phase == "sync" and seen["count"] == at:
            die()
        os.fdatasync(fd)

    return GroupCommit(fdatasync)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("--die-at", type=int, default=0)
    parser.add_argument("--die", choices=PHASES, default="after-write")
    parser.add_argument("--fsync", action="store_true")
    parser.add_argument("--count", type=int, default=1_000_000)
    args = parser.parse_args()
    syncs = syncing(args.die, args.die_at) if args.fsync else None
    spool = DiskSpool(args.folder, max_bytes=8 << 20, segment_bytes=64 * 1024, syncs=syncs)
    if args.die_at:
        arm(args.die, args.die_at)
    fill(spool, syncs, args.first, args.count, random.Random(args.first))


def fill(spool: DiskSpool, syncs: GroupCommit | None, first: int, count: int, dice: random.Random) -> None:
    """Run overlapping exchanges and a delivery that keeps a few hundred rows behind."""
    running: list[int] = []
    for number in range(first, first + count):
        facts = typical_exchange(number)
        spool.begin(facts.id, encode_begin(facts))
        say("b", number)
        running.append(number)
        while running and (dice.random() < 0.5 or len(running) > 20):
            ended = running.pop(dice.randrange(len(running)))
            facts = typical_exchange(ended)
            spool.end(facts.id, encode_end(facts))
            if syncs is not None and dice.random() < 0.2:
                syncs.sync_now()
            say("e", ended)
        if number % 100 == 0:
            batch = spool.read_batch(90)
            for row in batch.rows:
                say("d", int(row.id[-12:], 16))
            spool.acknowledge(batch.token)


if __name__ == "__main__":
    main()
