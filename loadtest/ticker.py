"""An exact clock for a fixed rate: the kernel's timerfd, read by the event loop. Linux only.

uvloop's timers and its ``time()`` count in whole milliseconds, which would add half a millisecond of noise to every
latency measured.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from time import perf_counter
from typing import Self

_CLOCK_MONOTONIC = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("it_interval", _Timespec), ("it_value", _Timespec)]


class Ticker:
    """Calls ``on_tick(due_at)`` every ``period_s``, with the ``perf_counter`` at which the tick was due.

    A late wake-up delivers every tick it missed, each with its own due time.

    Raises:
        OSError: The kernel refused the timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, period_s: float, on_tick: Callable[[float], None]) -> None:
        self._loop = loop
        self._period_s = period_s
        self._on_tick = on_tick
        self._fd = -1
        self._next_at = 0.0

    def __enter__(self) -> Self:
        self._fd = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        period = _Timespec(int(self._period_s), round(self._period_s % 1 * 1e9))
        self._next_at = perf_counter() + self._period_s
        if _libc.timerfd_settime(self._fd, 0, ctypes.byref(_Itimerspec(period, period)), None) < 0:
            os.close(self._fd)
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        self._loop.add_reader(self._fd, self._expired)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _expired(self) -> None:
        for _ in range(int.from_bytes(os.read(self._fd, 8), "little")):
            self._on_tick(self._next_at)
            self._next_at += self._period_s
