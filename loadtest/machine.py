"""What the kernel says about processes: CPU time, memory, cores. Linux only.

Knows nothing of gateways or requests. CPU time comes from the per-process CPU clock (nanoseconds, every thread, living
or ended); where that is refused, from utime + stime of ``/proc/PID/stat``, which is the same sum in clock ticks.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The fields of ``/proc/PID/stat`` that matter here."""

    pid: int
    parent: int
    own_ticks: int
    """utime + stime."""
    reaped_ticks: int
    """utime + stime of children that have ended and were waited for."""
    rss_pages: int


def parse_stat(text: str) -> ProcessStat:
    """Read one ``/proc/PID/stat`` line; the command name may hold spaces and brackets.

    Source: proc(5), fields 4, 14 to 17 and 24.
    """
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return ProcessStat(
        pid=int(head.split(" ", 1)[0]),
        parent=int(fields[1]),
        own_ticks=int(fields[11]) + int(fields[12]),
        reaped_ticks=int(fields[13]) + int(fields[14]),
        rss_pages=int(fields[21]),
    )


def all_processes() -> list[ProcessStat]:
    """Every process alive now; one that ends while we look is left out."""
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                found.append(parse_stat((entry / "stat").read_text()))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def family(root_pid: int, processes: Iterable[ProcessStat]) -> list[ProcessStat]:
    """The process ``root_pid`` and all its descendants."""
    by_parent: dict[int, list[ProcessStat]] = {}
    members = []
    for process in processes:
        by_parent.setdefault(process.parent, []).append(process)
        if process.pid == root_pid:
            members.append(process)
    for member in members:  # grows while we walk it: breadth first
        members.extend(by_parent.get(member.pid, ()))
    return members


def family_cpu_ns(root_pid: int) -> int:
    """CPU time used so far by a process tree, in nanoseconds."""
    return sum(_cpu_ns(member) + member.reaped_ticks * _TICK_NS for member in family(root_pid, all_processes()))


def _cpu_ns(process: ProcessStat) -> int:
    # clock_getcpuclockid(3) builds this id: all bits of the pid inverted, CPUCLOCK_SCHED in the low three bits.
    try:
        return time.clock_gettime_ns((~process.pid << 3) | 2)
    except OSError:
        return process.own_ticks * _TICK_NS


def family_rss_bytes(root_pid: int) -> int:
    """Resident memory of a process tree; pages shared by two of its processes count twice."""
    return sum(member.rss_pages for member in family(root_pid, all_processes())) * _PAGE_BYTES


def machine_busy_ns() -> int:
    """CPU time the whole machine has spent on anything but idling, in nanoseconds since boot."""
    with (_PROC / "stat").open() as stat:
        fields = [int(value) for value in stat.readline().split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) * _TICK_NS


def split_cores() -> tuple[int, int]:
    """Return (core for the gateway, core for provider and load); the same one twice when only one may be used."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[1] if len(cores) > 1 else cores[0]


def pinned(command: list[str], core: int) -> list[str]:
    """The command run by taskset on one core, with all its later threads and children; as it is without taskset."""
    return ["taskset", "-c", str(core), *command] if shutil.which("taskset") else command


def pause(seconds: float) -> None:
    """Wait. The drivers are plain programs: there is no event loop to block."""
    time.sleep(seconds)  # noqa: TID251 - see the docstring


def exit_on_sigterm() -> None:
    """Turn SIGTERM into an ordinary exit, so that what was started is stopped: gateways run in sessions of their own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def describe() -> dict[str, str]:
    """Name the machine, so that a reader does not compare absolute figures across machines."""
    model = "unknown"
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    kernel = os.uname()
    return {
        "cpu": model,
        "cores_allowed": str(len(os.sched_getaffinity(0))),
        "kernel": f"{kernel.sysname} {kernel.release}",
    }
