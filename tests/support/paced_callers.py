"""Callers with a timetable, in a process of their own: how long an answer takes, counted from when it was due to be asked for.

A caller that is late because the answer before was late counts the lateness, so a stall shows in every request it delayed.
``python -m tests.support.paced_callers PORT RATE CALLERS`` asks until its input ends, then prints one JSON list of
[due (monotonic seconds), milliseconds, policy revision].
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.support.sidecar_process import ROOT
from tests.support.wire import caller, chat


class Timed(NamedTuple):
    """One answer."""

    due_s: float
    """Monotonic: comparable in every process of this machine."""
    took_ms: float
    revision: str


def _call(port: int, first_s: float, every_s: float, is_over: threading.Event, told: list[Timed]) -> None:
    request = chat("write to ana.souza@example.com")
    with caller(port, 20) as wire:
        due_s = first_s
        while not is_over.is_set():
            time.sleep(max(0.0, due_s - time.monotonic()))  # noqa: TID251 - no event loop here
            wire.send(request)
            answer = wire.message()
            assert 200 == answer.status
            told.append(Timed(due_s, (time.monotonic() - due_s) * 1000, str(answer.get("x-readygate-policy"))))
            due_s += every_s


def main() -> None:
    """Ask until the input ends."""
    port, rate, callers = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    every_s, begin_s = callers / rate, time.monotonic() + 0.1
    is_over, told = threading.Event(), list[Timed]()
    threads = [
        threading.Thread(target=_call, args=(port, begin_s + number / rate, every_s, is_over, told))
        for number in range(callers)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    is_over.set()
    for thread in threads:
        thread.join()
    json.dump(told, sys.stdout)


class PacedCallers:
    """Callers that are asking; ``answers`` is filled when they have stopped."""

    def __init__(self) -> None:
        self.answers: list[Timed] = []

    def between(self, from_s: float, to_s: float) -> list[Timed]:
        """Return the answers that were due in a span of monotonic time."""
        return [answer for answer in self.answers if from_s <= answer.due_s < to_s]


@contextmanager
def paced_callers(port: int, rate: float, callers: int = 4) -> Iterator[PacedCallers]:
    """Ask ``rate`` times a second over so many connections until the block is left."""
    command = [sys.executable, "-m", "tests.support.paced_callers", str(port), str(rate), str(callers)]
    running = PacedCallers()
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield running
        out, _ = process.communicate("", timeout=30)
    assert 0 == process.returncode
    running.answers = [Timed(*one) for one in json.loads(out)]


if __name__ == "__main__":
    main()
