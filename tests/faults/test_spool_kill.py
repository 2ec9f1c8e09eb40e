"""kill -9 at any instant loses no row: real processes, real files, real SIGKILL (AU-02, AU-03, AU-18)."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxy.core.audit.row import Row
from proxy.stores.spool import DiskSpool

pytestmark = pytest.mark.faults
REPOSITORY = Path(__file__).resolve().parents[2]


class Journal:
    """What killed writers said, over all their lives."""

    def __init__(self) -> None:
        self.begun: set[int] = set()
        self.ended: set[int] = set()
        self.delivered: set[int] = set()

    def hear(self, output: bytes) -> None:
        book = {"b": self.begun, "e": self.ended, "d": self.delivered}
        for line in output.decode().split("\n")[:-1]:
            word, number = line.split()
            book[word].add(int(number))


def run_writer(folder: Path, first: int, *options: str, kill_after_s: float | None = None) -> bytes:
    """Run a writer until it dies, and return its journal."""
    command = [sys.executable, "-m", "tests.support.spool_writer", str(folder), str(first), *options]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY)
    assert writer.stdout is not None
    assert writer.stderr is not None
    output = b""
    if kill_after_s is not None:
        output += writer.stdout.read(1)  # it has begun
        time.sleep(kill_after_s)  # noqa: TID251 - no event loop here
        writer.kill()
    output += writer.stdout.read()
    errors = writer.stderr.read().decode()
    code = writer.wait(30)
    writer.stdout.close()
    writer.stderr.close()
    assert -signal.SIGKILL == code, errors
    return output


def recovered(folder: Path) -> list[Row]:
    """Return every row a new process finds, as it would deliver them; leaves them where they are."""
    spool = DiskSpool(folder, max_bytes=8 << 20, segment_bytes=64 * 1024)
    rows: list[Row] = []
    while not (batch := spool.read_batch(500)).is_empty:
        rows += batch.rows
    assert 0 == spool.state().damaged_stretches
    spool.close()
    return rows


def assert_nothing_is_missing(journal: Journal, rows: list[Row]) -> None:
    found = {int(row.id[-12:], 16) for row in rows}
    finished = {int(row.id[-12:], 16) for row in rows if row.status == "success"}

    assert journal.begun <= found | journal.delivered
    assert journal.ended <= finished | journal.delivered


def test_thirty_kills_at_random_instants_lose_nothing(tmp_path: Path) -> None:
    """The promise of the audit, restart after restart on the same spool (AU-02)."""
    dice = random.Random(7)
    for spool in range(5):
        folder, journal = tmp_path / str(spool), Journal()
        for life in range(6):
            journal.hear(run_writer(folder, 1 + life * 1_000_000, kill_after_s=dice.uniform(0.0, 0.06)))
            assert_nothing_is_missing(journal, recovered(folder))


@pytest.mark.parametrize("phase", ["before-write", "torn-write", "after-write"])
def test_kill_at_the_kth_write_loses_nothing(tmp_path: Path, phase: str) -> None:
    """Before, in the middle of, and after the write, for the first writes of a life (AU-03)."""
    for k in (*range(1, 9), 40, 173):
        journal = Journal()
        folder = tmp_path / str(k)
        journal.hear(run_writer(folder, 1, "--die-at", str(k), "--die", phase))
        assert_nothing_is_missing(journal, recovered(folder))


def test_kill_at_the_kth_sync_loses_nothing(tmp_path: Path) -> None:
    """The same with durability: fsync (AU-03)."""
    for k in (1, 2, 3, 7, 15, 40):
        journal = Journal()
        folder = tmp_path / str(k)
        journal.hear(run_writer(folder, 1, "--fsync", "--die-at", str(k), "--die", "sync"))
        assert_nothing_is_missing(journal, recovered(folder))


@pytest.mark.parametrize("phase", ["create", "delete"])
def test_kill_around_a_new_and_a_removed_segment_restarts_cleanly(tmp_path: Path, phase: str) -> None:
    """Between create and first write, before and after unlink (AU-18)."""
    for k in range(1, 6):
        journal = Journal()
        folder = tmp_path / str(k)
        journal.hear(run_writer(folder, 1, "--die-at", str(k), "--die", phase))
        assert_nothing_is_missing(journal, recovered(folder))
        journal.hear(run_writer(folder, 10_000_000, kill_after_s=0.02))
        assert_nothing_is_missing(journal, recovered(folder))


def test_spool_of_a_killed_owner_can_be_taken_at_once(tmp_path: Path) -> None:
    """A restarted container must not wait for a lock nobody holds (AU-24)."""
    run_writer(tmp_path, 1, kill_after_s=0.01)
    started_s = time.monotonic()
    recovered(tmp_path)

    assert time.monotonic() - started_s < 2.0
