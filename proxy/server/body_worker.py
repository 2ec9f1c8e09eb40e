"""A process of its own for large bodies: no document, however large, holds the event loop up.

The parser and the walk keep the interpreter to themselves for as long as a document is large (a million keys: more than
a second), so beside the loop means in another process. It is started when the first large body comes, takes one at a
time, and ends after a while without any. Values travel over an anonymous pipe between the two and nowhere else. A
thread sits at the near end of the pipe: it waits in system calls, where nobody waits for it.

Run as a module it is the far end: jobs on stdin, results on stdout.
"""

from __future__ import annotations

import asyncio
import fcntl
import pickle
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import IO, Final

from proxy.core.dialect import Dialect
from proxy.core.redaction import Vault, Verdict
from proxy.core.routing.problems import Problem
from proxy.flow.forms import Form, Shaped
from proxy.flow.intake import Request
from proxy.flow.large_answers import AnswerJob, ReadAnswer
from proxy.flow.large_bodies import (
    ROWS_AT_ONCE,
    Done,
    Failure,
    FitJob,
    Job,
    Reader,
    ReadJob,
    RedactJob,
    RenameJob,
    Result,
    Row,
    joined,
)
from proxy.terms.errors import RedactionFault
from proxy.terms.redaction import RedactionPlan

IDLE_S: Final = 20.0
"""The process ends after so long without a job."""
JOB_MAX_S: Final = 120.0
MAX_MEMORY_BYTES: Final = 3 << 30
_HEAD: Final = struct.Struct(">IIQ")
"""Length of the pickled part, number of pickled lists of rows, bytes behind them."""
_SIZE: Final = struct.Struct(">I")
_WRITE_BYTES: Final = 1 << 20
_PIPE_BYTES: Final = 1 << 20
_FarEnd = subprocess.Popen[bytes]


class BodyWorker:
    """The near end; implements ``flow.large_bodies.LargeBodies``."""

    def __init__(self, hash_key: bytes, notice: Callable[[str], None]) -> None:
        """``notice`` hears when the process had to be ended."""
        self._hash_key = hash_key
        self._notice = notice
        self._turn = asyncio.Lock()
        self._thread: ThreadPoolExecutor | None = None
        self._far: _FarEnd | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def read(self, body: bytes, dialect: Dialect) -> Request | Problem:
        """Return what a JSON body asks for."""
        result = await joined(*await self._ask(ReadJob(dialect), body))
        assert isinstance(result, (Request, Problem))
        return result

    async def redact(self, body: bytes, dialect: Dialect, content_type: bytes, plan: RedactionPlan) -> Verdict:
        """Decide what may leave in place of a body."""
        result = await joined(*await self._ask(RedactJob(dialect, content_type, plan, self._hash_key), body))
        assert not isinstance(result, (Request, Problem, ReadAnswer, Done, Shaped, Failure))
        return result

    async def rename(self, body: bytes, model: str) -> bytes:
        """Return a request body asking for another model."""
        return (await self._ask(RenameJob(model), body))[2]

    async def shape(self, body: bytes, form: Form) -> tuple[Shaped, bytes]:
        """Return a request body in a target's form, and what became of it."""
        result, _, out, _ = await self._ask(form, body)
        assert isinstance(result, Shaped)
        return result, out

    async def fit(self, body: bytes, job: FitJob) -> tuple[tuple[int | None, bool], bytes]:
        """Return a request body as budgets need it."""
        result, _, out, _ = await self._ask(job, body)
        assert isinstance(result, Done)
        return result.fitted, out

    async def answer(self, body: bytes, job: AnswerJob, vault: Vault | None) -> tuple[ReadAnswer, bytes]:
        """Return what the caller gets of a whole answer."""
        result, _, out, _ = await self._ask(replace(job, hash_key=self._hash_key), body, vault)
        assert isinstance(result, ReadAnswer)
        return result, out

    async def _ask(self, job: Job, body: bytes, vault: Vault | None = None) -> tuple[Result, bytes, bytes, list[Row]]:
        """Return the result, the body that was sent, the one that came back, and rows of a vault."""
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            try:
                async with asyncio.timeout(JOB_MAX_S):
                    result, out, rows = await self._exchange(job, body, vault)
            except (OSError, EOFError, TimeoutError) as exc:
                self._end()
                self._notice(type(exc).__name__)
                raise RedactionFault(f"the process for large bodies failed: {type(exc).__name__}") from exc
            except BaseException:  # cancelled half-way: what it is about to say belongs to nobody
                self._end()
                raise
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._end)
        if isinstance(result, Failure):
            raise RedactionFault(f"a large body could not be read: {result.error}")
        return result, body, out, rows

    async def _exchange(self, job: Job, body: bytes, vault: Vault | None) -> tuple[Result, bytes, list[Row]]:
        if self._far is None or self._thread is None or self._far.poll() is not None:
            self._end()
            self._far = _start()
            self._thread = ThreadPoolExecutor(1, "large-bodies")
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, _carried_over, self._far, job, body, vault
        )

    def _end(self) -> None:
        far, self._far = self._far, None
        thread, self._thread = self._thread, None
        if far is not None:
            far.kill()  # and the thread reads the end of the pipe
        if thread is not None:
            if far is not None:
                thread.submit(_bury, far)
            thread.shutdown(wait=False)

    def close(self) -> None:
        """End the process."""
        if self._idle is not None:
            self._idle.cancel()
        self._end()


def _start() -> _FarEnd:
    """Start the process. By ``Popen``, which does not copy this process's page tables as the loop's own spawning does."""
    command = [sys.executable, "-m", "proxy.server.body_worker"]
    process = subprocess.Popen(  # noqa: S603 - our own module, and a millisecond
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return process


def _bury(far: _FarEnd) -> None:
    """Wait for a killed process, which takes a while to give its memory back, and let go of its pipes."""
    far.wait()
    for pipe in (far.stdin, far.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not yet written stays unwritten
                pipe.close()


# --- the pipe, the same for both ends ------------------------------------------------------------------


def _tell(pipe: IO[bytes], told: bytes, rows: list[bytes], body: bytes) -> None:
    """Write one message. No call is given much: the interpreter is this thread's between two system calls only."""
    pipe.write(_HEAD.pack(len(told), len(rows), len(body)) + told)
    for some in rows:
        pipe.write(_SIZE.pack(len(some)) + some)
    whole = memoryview(body)
    for at in range(0, len(body), _WRITE_BYTES):
        pipe.write(whole[at : at + _WRITE_BYTES])
    pipe.flush()


def _packed(rows: list[Row]) -> list[bytes]:
    """Pickle rows some at a time: one call for all of them would keep everybody waiting."""
    left = iter(rows)
    packed: list[bytes] = []
    while some := list(islice(left, ROWS_AT_ONCE)):
        packed.append(pickle.dumps(some))
    return packed


def _hear(pipe: IO[bytes]) -> tuple[bytes, list[Row], bytes] | None:
    """Read one message; None at the end of the pipe. A body is read into its place, never copied."""
    try:
        size, count, more = _HEAD.unpack(_exactly(pipe, _HEAD.size))
        told, rows = _exactly(pipe, size), list[Row]()
        for _ in range(count):
            rows += pickle.loads(_exactly(pipe, _SIZE.unpack(_exactly(pipe, _SIZE.size))[0]))  # noqa: S301 - see above
        return told, rows, _exactly(pipe, more)
    except EOFError:
        return None


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    """Read so many bytes.

    Raises:
        EOFError: The other end is gone in the middle of it.
    """
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _carried_over(far: _FarEnd, job: Job, body: bytes, vault: Vault | None) -> tuple[Result, bytes, list[Row]]:
    """Have a job carried out at the far end; blocks.

    Raises:
        OSError, EOFError: The far end is gone.
    """
    assert far.stdin is not None
    assert far.stdout is not None
    _tell(far.stdin, pickle.dumps(job), [] if vault is None else _packed(vault.rows()), body)
    heard = _hear(far.stdout)
    if heard is None:
        raise EOFError
    told, rows, out = heard
    result: Result = pickle.loads(told)  # noqa: S301 - see above
    return result, out, rows


def serve(stdin: IO[bytes], stdout: IO[bytes]) -> None:
    """Carry out jobs until the pipe closes."""
    reader = Reader()
    while heard := _hear(stdin):
        told, rows, body = heard
        result, out, made = reader.carry_out(pickle.loads(told), body, rows)  # noqa: S301 - see above
        _tell(stdout, pickle.dumps(result), _packed(made), out)


def main() -> None:
    """Be the far end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
