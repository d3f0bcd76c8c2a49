"""The CPU time, memory, descriptors and threads of processes, and how they grow."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def cpu_ns(pid: int) -> int:
    """Return the CPU time of a process, finer than in ticks of 10 ms: clock_getcpuclockid(3)."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def memory_mib(pid: int, name: str) -> float:
    """Return `VmRSS` (now) or `VmHWM` (at most) of a process: proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) / 1024


def descriptors(pid: int) -> int:
    """Count the open descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    """Count the threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def growth(samples: Sequence[tuple[float, float]]) -> float:
    """Return how much a line laid through (time, value) rises from the first to the last."""
    times = [at for at, _ in samples]
    if len(set(times)) < 2:
        return 0.0
    slope = statistics.linear_regression(times, [value for _, value in samples]).slope
    return slope * (times[-1] - times[0])
