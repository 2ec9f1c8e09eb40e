"""Group commit: one thread that syncs the spool's files, many exchanges that wait for the same sync.

Owns the thread, the frames that are written but not yet safe, and who waits for them. Does not decide
where frames go: after a failed sync the file is not to be trusted again (a second sync may lie), so the
spool is asked for a new one and the frames are written there from memory. Only the sync itself runs in
the thread; every piece of state belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from proxy.stores.segment import Segment
from proxy.terms.errors import SpoolUnavailable

_Post = Callable[[Callable[[], None]], object]


class _Job(NamedTuple):
    """Files to sync, and how many frames are safe once that has worked."""

    target: int
    segments: list[Segment]
    fds: list[int]
    post: _Post


class FrameMover(Protocol):
    """What group commit asks of the spool."""

    def move(self, frames: list[bytes]) -> Segment:
        """Write these frames into a new segment and return it. Raises OSError."""
        ...

    def sync_failed(self, reason: str, *, is_final: bool) -> None:
        """A sync failed; ``is_final`` when the second try failed too."""
        ...

    def sync_worked(self) -> None:
        """Everything written before the sync is safe."""
        ...


class GroupCommit:
    """Makes appended frames safe, in as few syncs as the disk's pace allows."""

    def __init__(self, fdatasync: Callable[[int], None] = os.fdatasync) -> None:
        """``fdatasync`` takes a file descriptor and raises OSError; tests bring their own."""
        self._fdatasync = fdatasync
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsynced: deque[bytes] = deque()
        self._dirty: dict[Segment, int] = {}
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._is_busy = False
        self._is_closed = False
        self._failures = 0
        self.appended = 0
        self.synced = 0
        self.syncs = 0

    def bind(self, directory: Path, mover: FrameMover) -> None:
        """Join this to its spool; called once by the spool."""
        self._directory = directory
        self._mover = mover

    @property
    def is_alive(self) -> bool:
        """False when the thread was started and has died."""
        return self._thread is None or self._thread.is_alive()

    def note(self, segment: Segment, frame: bytes) -> None:
        """A frame was written to this segment and wants to become safe."""
        self.appended += 1
        self._unsynced.append(frame)
        if segment not in self._dirty and self._failures < 2:
            self._dirty[segment] = os.dup(segment.fd)
        if self._loop is not None and not self._is_busy and self._failures < 2:
            self._start(self._loop)

    def waiter(self, mark: int | None = None) -> asyncio.Future[None] | None:
        """Return a future that is done when the first ``mark`` frames (None: all so far) are safe; None if they are.

        It fails with SpoolUnavailable when they can be synced neither here nor elsewhere.

        Raises:
            SpoolUnavailable: That has happened already.
        """
        target = self.appended if mark is None else mark
        if self.synced >= target:
            return None
        if self._failures >= 2:
            raise SpoolUnavailable("the spool's disk refuses to sync")
        self._loop = loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append((target, waiter))
        if not self._is_busy:
            self._start(loop)
        return waiter

    def sync_now(self) -> None:
        """Make everything safe before returning, without the thread: at shutdown, or with no event loop.

        Raises:
            SpoolUnavailable: as ``durable``.
        """
        while self.synced < self.appended:
            if not self._dirty and not self._move():
                raise SpoolUnavailable("the spool's disk refuses to be written")
            job = self._job(lambda callback: callback())
            self._finish(job, self._run(job))
            if self._failures >= 2:
                raise SpoolUnavailable("the spool's disk refuses to sync")

    def retry(self) -> None:
        """Try once more with what could not be synced; the outcome is heard by the spool."""
        if not self._is_busy and self._unsynced and self._move() and self._loop is not None:
            self._start(self._loop)

    def close(self) -> None:
        """End the thread and sync what is left.

        Raises:
            SpoolUnavailable: The last sync failed; the frames are written but not safe.
        """
        self._is_closed = True
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        try:
            self.sync_now()
        finally:
            self._give_up()
            self._forget_files()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="spool-sync", daemon=True)
            self._thread.start()
        self._is_busy = True
        self._jobs.put(self._job(loop.call_soon_threadsafe))

    def _job(self, post: _Post) -> _Job:
        return _Job(self.appended, list(self._dirty), list(self._dirty.values()), post)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            failure = self._run(job)
            try:
                job.post(partial(self._hear, job, failure))
            except RuntimeError:
                return  # the loop has been closed: nobody is left to tell

    def _run(self, job: _Job) -> OSError | None:
        """Sync the job's files; runs in the thread and touches nothing that changes."""
        try:
            for segment, fd in zip(job.segments, job.fds, strict=True):
                self._fdatasync(fd)
                if segment.is_new:
                    _sync_directory(self._directory)
        except OSError as exc:
            return exc
        return None

    def _hear(self, job: _Job, failure: OSError | None) -> None:
        if not self._is_closed:
            self._finish(job, failure)

    def _finish(self, job: _Job, failure: OSError | None) -> None:
        self._is_busy = False
        self.syncs += 1
        if failure is None:
            self._worked(job)
        else:
            self._failed(failure)
        if self._loop is not None and not self._is_closed and self.synced < self.appended and self._failures < 2:
            self._start(self._loop)

    def _worked(self, job: _Job) -> None:
        for _ in range(job.target - self.synced):
            self._unsynced.popleft()
        self.synced = job.target
        self._failures = 0
        for segment, fd in zip(job.segments, job.fds, strict=True):
            segment.is_new = False
            if segment.is_sealed:
                os.close(fd)
                del self._dirty[segment]
        self._mover.sync_worked()
        waiting, self._waiters = self._waiters, []
        for target, waiter in waiting:
            if target > self.synced:
                self._waiters.append((target, waiter))
            elif not waiter.done():
                waiter.set_result(None)

    def _failed(self, failure: OSError) -> None:
        self._failures += 1
        is_final = self._failures >= 2
        self._mover.sync_failed(failure.strerror or str(failure), is_final=is_final)
        if is_final:
            self._forget_files()  # a second sync of the same file may claim what the first denied
            self._give_up()
        elif not self._move():
            self._give_up()

    def _move(self) -> bool:
        """Write all frames that are not safe into a new segment; False when that fails too."""
        self._forget_files()
        try:
            segment = self._mover.move(list(self._unsynced))
        except OSError as exc:
            self._failures = 2
            self._mover.sync_failed(exc.strerror or str(exc), is_final=True)
            return False
        self._dirty[segment] = os.dup(segment.fd)
        return True

    def _give_up(self) -> None:
        waiting, self._waiters = self._waiters, []
        for _, waiter in waiting:
            if not waiter.done():
                waiter.set_exception(SpoolUnavailable("the spool's disk refuses to sync"))

    def _forget_files(self) -> None:
        for fd in self._dirty.values():
            os.close(fd)
        self._dirty.clear()


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
