"""What a process and its children have used: CPU, memory, descriptors. Reads the kernel's figures only.

CPU is the kernel's own sum of run time, in nanoseconds, by each process's CPU clock; only children that have
ended come in clock ticks of 10 ms (from their parent's account), which is why loads run for a second.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
# Linux: the clock of another process is its id inverted, shifted, with 2 for the scheduler's count.
_SCHEDULER_CLOCK = 2


def family(pid: int) -> list[int]:
    """A process and all that descend from it, living now."""
    found, left = [], [pid]
    while left:
        member = left.pop()
        found.append(member)
        for task in _list(Path(f"/proc/{member}/task")):
            left += [int(child) for child in _read(task / "children").split()]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time so far, of the process and of all its children, ended ones as well."""
    return sum(_own_seconds(member) + _ended_children_seconds(member) for member in family(pid))


def memory_bytes(pid: int) -> int:
    """Proportional set size of the family: what would be free again without it."""
    total = 0
    for member in family(pid):
        for line in _read(Path(f"/proc/{member}/smaps_rollup")).splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def descriptors(pid: int) -> int:
    """Open descriptors of the family."""
    return sum(len(_list(Path(f"/proc/{member}/fd"))) for member in family(pid))


def _own_seconds(pid: int) -> float:
    try:
        return time.clock_gettime_ns((~pid << 3) | _SCHEDULER_CLOCK) / 1e9
    except OSError:  # it has just ended: its parent's account has it now, or will at the next reading
        return 0.0


def _ended_children_seconds(pid: int) -> float:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / _TICK if fields else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _list(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []
