"""The load generator of the bench: raw sockets on uvloop, httptools for the answers, nothing else on the path.

Owns its connections and what it measured. A process of its own: reads one job (JSON) a line on standard input, runs it,
prints one result (JSON) a line. Every answer is verified: status, length, events, ``[DONE]``, expected value.
Latency of a fixed-rate job counts from the time a request was due, not from when a connection was free.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import cycle
from time import perf_counter, process_time
from typing import cast

import httptools
import uvloop

from loadtest.payloads import STREAM_EVENTS, Answer, Call, calls, plain_answer
from loadtest.ticker import Ticker

ANSWER_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to send where: a closed loop over ``connections``, or ``rate`` requests a second when that is above 0."""

    port: int
    answer: Answer
    with_findings: bool
    connections: int
    seconds: float
    rate: float = 0.0
    restores: bool = False
    """The gateway redacts: the value of the prompt must come back in the answer. Otherwise the placeholder must."""


@dataclass(slots=True)
class Result:
    """What one job saw. Latencies in milliseconds, times in seconds."""

    answered: int = 0
    events: int = 0
    """SSE events received, ``[DONE]`` not counted."""
    reads: int = 0
    """Pieces the socket handed over; against ``events`` it shows how much was gathered on the way."""
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """CPU of the generator itself."""
    unsent: int = 0
    """Requests of a fixed rate that found no free connection before the end."""
    latency_ms: dict[str, float] = field(default_factory=dict)
    first_byte_ms: dict[str, float] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90, p99 and mean of seconds, in milliseconds; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    last = len(ordered) - 1
    picked = {f"p{percent}": ordered[min(last, len(ordered) * percent // 100)] for percent in (50, 90, 99)}
    picked["mean"] = sum(ordered) / len(ordered)
    return {name: value * 1000 for name, value in picked.items()}


@cache
def _expected_plain_bytes(with_findings: bool) -> int:
    whole = plain_answer(with_findings=with_findings)
    return len(whole) - whole.index(b"\r\n\r\n") - 4


def fault_in(job: Job, call: Call, status: int, body: bytes) -> str | None:
    """Say what is wrong with an answer, or None. Pure, so that the verdict itself can be tested."""
    if status != 200:
        return f"status {status}"
    if job.with_findings:
        if job.restores and not _holds(body, call.must_hold):
            return "value not restored"
        if not job.restores and not (b"[EMA" in body and b"IL-1]" in body):
            return "placeholder lost"
    if job.answer is Answer.PLAIN:
        return None if job.with_findings or len(body) == _expected_plain_bytes(False) else f"length {len(body)}"
    if not body.endswith(b"data: [DONE]\n\n"):
        return "no [DONE]"
    events = body.count(b"data: ") - 1
    # Restoring may join two events into one; without findings every event must arrive.
    return None if job.with_findings or events == STREAM_EVENTS else f"{events} events"


def _holds(body: bytes, value: bytes) -> bool:
    """True when the text of an answer holds ``value``, be it cut in pieces over several events."""
    if value in body:
        return True
    text = ""
    for line in body.split(b"\n"):
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:]).get("choices", ()):
                text += choice.get("delta", {}).get("content") or ""
    return value.decode() in text


class Run:
    """One job in progress: the calls, the connections and the tally they share."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.next_call = cycle(
            calls(job.answer, with_findings=job.with_findings, host=f"127.0.0.1:{job.port}")
        ).__next__
        self.is_open = True
        self.result = Result()
        self.latencies: list[float] = []
        self.first_bytes: list[float] = []
        self.errors: Counter[str] = Counter()
        self.idle: list[Caller] = []
        self.due: deque[float] = deque()
        self.busy = 0
        self.drained = asyncio.Event()

    def release(self, caller: Caller) -> None:
        """A connection has its answer: give it the next request, or put it by."""
        if self.job.rate:
            if self.due:
                caller.send(self.due.popleft())
            else:
                self.idle.append(caller)
                self._check_drained()
        elif self.is_open:
            caller.send(perf_counter())
        else:
            self._check_drained()

    def fire(self, due_at: float) -> None:
        """One request of a fixed rate has fallen due."""
        if self.idle:
            self.idle.pop().send(due_at)
        else:
            self.due.append(due_at)

    def close(self) -> None:
        """No new requests; those under way may finish."""
        self.is_open = False
        self.result.unsent = len(self.due)
        self.due.clear()
        self._check_drained()

    def _check_drained(self) -> None:
        if not self.is_open and self.busy == 0:
            self.drained.set()

    def lost(self, why: str, *, was_busy: bool) -> None:
        """A connection failed; its request counts as an error."""
        self.errors[why] += 1
        self.busy -= was_busy
        self._check_drained()


class Caller(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._call: Call | None = None
        self._sent_at = 0.0
        self._pieces: list[bytes] = []
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not inherit from asyncio's

    def send(self, due_at: float) -> None:
        """Send the next request; ``due_at`` is the ``perf_counter`` its latency counts from."""
        if self._transport is None or self._is_over:
            return  # lost while it was idle: counted then
        self._call = self._run.next_call()
        self._sent_at = due_at
        self._run.busy += 1
        self._transport.write(self._call.wire)

    def data_received(self, data: bytes) -> None:
        self._run.result.reads += 1
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as broken:
            self._fail(f"unreadable answer: {type(broken).__name__}")

    def on_body(self, piece: bytes) -> None:
        if not self._pieces:
            self._run.first_bytes.append(perf_counter() - self._sent_at)
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        run, call = self._run, self._call
        if call is None:
            run.errors["answer without a request"] += 1
            return
        run.latencies.append(perf_counter() - self._sent_at)
        body = b"".join(self._pieces)
        self._pieces.clear()
        fault = fault_in(run.job, call, self._parser.get_status_code(), body)
        if fault:
            run.errors[fault] += 1
        if run.job.answer is not Answer.PLAIN:
            run.result.events += max(0, body.count(b"data: ") - 1)
        run.result.answered += 1
        self._call = None
        run.busy -= 1
        if not self._parser.should_keep_alive():
            run.errors["connection closed by the gateway"] += 1
        run.release(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._run.is_open or self._call is not None:
            self._fail("connection lost")

    def _fail(self, why: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        was_busy, self._call = self._call is not None, None
        if self in self._run.idle:
            self._run.idle.remove(self)
        self._run.lost(why, was_busy=was_busy)
        if self._transport is not None:
            self._transport.abort()

    def hang_up(self) -> None:
        """Close after the run, when losing the connection is no longer an error."""
        self._is_over = True
        if self._transport is not None:
            self._transport.close()


async def run_job(job: Job) -> Result:
    """Run one job to its end: load for ``job.seconds``, then wait for the answers under way."""
    loop = asyncio.get_running_loop()
    run = Run(job)
    try:
        callers = [
            (await loop.create_connection(lambda: Caller(run), "127.0.0.1", job.port))[1]
            for _ in range(job.connections)
        ]
    except OSError as refused:
        return Result(errors={f"cannot connect: {type(refused).__name__}": 1})
    started, cpu_started = perf_counter(), process_time()
    if job.rate:
        run.idle.extend(callers)
        with Ticker(loop, 1 / job.rate, run.fire):
            await asyncio.sleep(job.seconds)
    else:
        await _closed_loop(run, callers)
    run.close()
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await run.drained.wait()
    except TimeoutError:
        run.errors["no answer in time"] += run.busy
    run.result.elapsed_s = perf_counter() - started
    run.result.cpu_s = process_time() - cpu_started
    for caller in callers:
        caller.hang_up()
    run.result.latency_ms = percentiles(run.latencies)
    run.result.first_byte_ms = percentiles(run.first_bytes)
    run.result.errors = dict(run.errors)
    return run.result


async def _closed_loop(run: Run, callers: list[Caller]) -> None:
    # Paced streams all started at once would send all their events at once, for ever: spread the starts.
    gap_s = min(1.0, run.job.seconds / 3) / len(callers) if run.job.answer is Answer.STREAM_PACED else 0.0
    ends_at = perf_counter() + run.job.seconds
    for caller in callers:
        caller.send(perf_counter())
        if gap_s:
            await asyncio.sleep(gap_s)
    await asyncio.sleep(ends_at - perf_counter())


async def serve() -> None:
    """Jobs in, results out, until standard input ends."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        fields = json.loads(line)
        result = await run_job(Job(**{**fields, "answer": Answer(fields["answer"])}))
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    uvloop.run(serve())
