"""A process of its own for large bodies: no document, however large, holds the event loop up.

The parser and the walk keep the interpreter to themselves for as long as a document is large (a million keys: more than
a second), so beside the loop means in another process. It is started when the first large body comes, takes one at a
time, and ends after a while without any. Values travel over an anonymous pipe between the two and nowhere else.

Run as a module it is the far end: jobs on stdin, results on stdout.
"""

from __future__ import annotations

import asyncio
import pickle
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final

from proxy.core.dialect import Dialect
from proxy.core.redaction import Verdict
from proxy.core.routing.problems import Problem
from proxy.flow.intake import Request
from proxy.flow.large_bodies import Failure, Job, Reader, ReadJob, RedactJob, Result, joined
from proxy.terms.errors import RedactionFault
from proxy.terms.redaction import RedactionPlan

IDLE_S: Final = 20.0
"""The process ends after so long without a job."""
JOB_MAX_S: Final = 120.0
MAX_MEMORY_BYTES: Final = 3 << 30
_HEAD: Final = struct.Struct(">IQ")
"""Length of the pickled part and of the bytes behind it."""
_READ_BYTES: Final = 1 << 20
_KILLED_S: Final = 1.0
"""A killed process is gone in less."""


@dataclass(frozen=True, slots=True)
class _FarEnd:
    process: subprocess.Popen[bytes]
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader


class BodyWorker:
    """The near end; implements ``flow.large_bodies.LargeBodies``."""

    def __init__(self, hash_key: bytes, notice: Callable[[str], None]) -> None:
        """``notice`` hears when the process had to be ended."""
        self._hash_key = hash_key
        self._notice = notice
        self._turn = asyncio.Lock()
        self._far: _FarEnd | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def read(self, body: bytes, dialect: Dialect) -> Request | Problem:
        """Return what a JSON body asks for."""
        result = await self._ask(ReadJob(dialect), body)
        assert isinstance(result, (Request, Problem))
        return result

    async def redact(self, body: bytes, dialect: Dialect, content_type: bytes, plan: RedactionPlan) -> Verdict:
        """Decide what may leave in place of a body."""
        result = await self._ask(RedactJob(dialect, content_type, plan, self._hash_key), body)
        assert not isinstance(result, (Request, Problem, Failure))
        return result

    async def _ask(self, job: Job, body: bytes) -> Result:
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            try:
                async with asyncio.timeout(JOB_MAX_S):
                    result, out, rows = await self._exchange(job, body)
            except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError) as exc:
                self._end()
                self._notice(type(exc).__name__)
                raise RedactionFault(f"the process for large bodies failed: {type(exc).__name__}") from exc
            except BaseException:  # cancelled half-way: what it is about to say belongs to nobody
                self._end()
                raise
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._end)
        if isinstance(result, Failure):
            raise RedactionFault(f"a large body could not be read: {result.error}")
        return await joined(result, body, out, rows)

    async def _exchange(self, job: Job, body: bytes) -> tuple[Result, bytes, list[tuple[str, str, str]]]:
        if self._far is None or self._far.process.poll() is not None:
            self._end()
            self._far = await _start()
        stdin, stdout = self._far.stdin, self._far.stdout
        told = pickle.dumps(job)
        stdin.write(_HEAD.pack(len(told), len(body)) + told)
        for at in range(0, len(body), _READ_BYTES):  # in pieces: one write would copy it all at once
            stdin.write(body[at : at + _READ_BYTES])
            await stdin.drain()
        size, more = _HEAD.unpack(await stdout.readexactly(_HEAD.size))
        result, rows = pickle.loads(await stdout.readexactly(size))  # noqa: S301 - see above
        pieces: list[bytes] = []
        while more:
            piece = await stdout.read(min(more, _READ_BYTES))
            if not piece:
                raise EOFError
            pieces.append(piece)
            more -= len(piece)
        return result, b"".join(pieces), rows

    def _end(self) -> None:
        far, self._far = self._far, None
        if far is not None:
            far.process.kill()
            far.stdin.close()
            far.process.wait(_KILLED_S)

    def close(self) -> None:
        """End the process."""
        if self._idle is not None:
            self._idle.cancel()
        self._end()


async def _start() -> _FarEnd:
    """Start the process. By ``Popen``, which does not copy this process's page tables as the loop's own spawning does."""
    loop = asyncio.get_running_loop()
    command = [sys.executable, "-m", "proxy.server.body_worker"]
    process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own module, and a millisecond
        command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    reader = asyncio.StreamReader(_READ_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), process.stdout)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, process.stdin)
    return _FarEnd(process, asyncio.StreamWriter(transport, protocol, None, loop), reader)


def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Carry out jobs until the pipe closes."""
    reader = Reader()
    while head := stdin.read(_HEAD.size):
        size, more = _HEAD.unpack(head)
        job = pickle.loads(stdin.read(size))  # noqa: S301 - see above
        result, out, rows = reader.carry_out(job, stdin.read(more))
        told = pickle.dumps((result, rows))
        stdout.write(_HEAD.pack(len(told), len(out)) + told)
        stdout.write(out)
        stdout.flush()


def main() -> None:
    """Be the far end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
