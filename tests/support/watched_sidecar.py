"""``readygate`` with a beat of its own on the event loop, every two milliseconds: what holds it is written down.

A beat that comes late says how late and how much CPU time this process used since the one before: whatever held the
loop, a callback or another thread with the interpreter, used that time; a loop that was only not scheduled did not.
Run as ``python -m tests.support.watched_sidecar serve -c …``; the file STALLS names gets a line per late beat:
monotonic seconds, seconds late, seconds held.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from proxy.cli import main
from proxy.flow.heartbeat import Heartbeat

BEAT_S = 0.002
TOLD_FROM_S = 0.004
_its_own_run = Heartbeat.run


async def run(heart: Heartbeat) -> None:
    """Beat beside the sidecar's own heart."""
    with Path(os.environ["STALLS"]).open("a", buffering=1) as stalls:
        watch = _Watch(asyncio.get_running_loop(), stalls)
        watch.beat()
        await _its_own_run(heart)


class _Watch:
    def __init__(self, loop: asyncio.AbstractEventLoop, stalls: Any) -> None:
        self._loop = loop
        self._stalls = stalls
        self._last_s = time.monotonic()
        self._last_cpu_s = time.process_time()

    def beat(self) -> None:
        now_s, cpu_s = time.monotonic(), time.process_time()
        late_s, used_s = now_s - self._last_s - BEAT_S, cpu_s - self._last_cpu_s
        if late_s > TOLD_FROM_S:
            self._stalls.write(f"{now_s:.4f} {late_s:.4f} {min(late_s, used_s):.4f}\n")
        self._last_s, self._last_cpu_s = now_s, cpu_s
        self._loop.call_later(BEAT_S, self.beat)


if __name__ == "__main__":
    Heartbeat.run = run  # type: ignore[method-assign]
    sys.exit(main())
