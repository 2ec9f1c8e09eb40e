"""``readygate`` with two buttons for tests: SIGUSR1 keeps the event loop busy for TROUBLE_S seconds, SIGUSR2 kills the
thread that syncs the spool. Run as ``python -m tests.support.troubled_sidecar serve -c …``.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

from proxy.cli import main


def hold_the_loop(*_: Any) -> None:
    """Compute, as a bug would: the interpreter is shared with the other threads, the loop does not turn."""
    end_s = time.monotonic() + float(os.environ.get("TROUBLE_S", "1"))
    while time.monotonic() < end_s:
        sum(range(1000))


def kill_the_writer(*_: Any) -> None:
    """Hand the thread a job that no thread survives."""
    for thread in threading.enumerate():
        if thread.name == "spool-sync":
            thread._target.__self__._jobs.put(object())  # type: ignore[attr-defined]  # a thread keeps what it runs


signal.signal(signal.SIGUSR1, hold_the_loop)
signal.signal(signal.SIGUSR2, kill_the_writer)
sys.exit(main())
