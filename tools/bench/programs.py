"""The cost of whole processes: the start of one, an idle `fsdm run`, `fsdm ls`."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from tools.bench.processes import command, reconciler
from tools.bench.report import Figure, times
from tools.bench.site import DATASET, STRIDE, Site
from tools.support.proc import cpu_ns, memory_mib

if TYPE_CHECKING:
    from collections.abc import Iterator

START: Final = """
import sys, time
from fsdm.manager import DataManager
began = time.perf_counter_ns()
dm = DataManager(sys.argv[1])
ref = dm.find_chunk(sys.argv[2], int(sys.argv[3]))
print(time.perf_counter_ns() - began if ref else -1, flush=True)
sys.stdin.read()
"""


def start(site: Site) -> Iterator[Figure]:
    """Measure from DataManager(DIR), and from the process's start, to the first ref."""
    for chunks, goal_s in ((site.chunks, 0.1), (site.chunks * site.samples(20, 4), 1.5)):
        data_dir = site.shared(chunks)
        _time_start(data_dir, chunks)  # the page cache is warm from then on
        runs = [_time_start(data_dir, chunks) for _ in range(site.samples(7, 3))]
        inside, whole = zip(*runs, strict=True)
        what = f"start with {chunks:,} chunks → first ref"
        yield from times("start", what, inside, (50, "s", goal_s))
        yield from times("start", f"{what}, from the process's start", whole, (50, "s", None))


def _time_start(data_dir: str, chunks: int) -> tuple[int, int]:
    block = str((chunks - 1) * STRIDE)
    began = time.perf_counter_ns()
    with subprocess.Popen(
        [sys.executable, "-c", START, data_dir, DATASET, block], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        try:
            inside = int(run.stdout.readline() or b"-1")
            whole = time.perf_counter_ns() - began
        finally:
            run.kill()
    if inside < 0:
        raise RuntimeError("the first find_chunk gave no ref")
    return inside, whole


def idle(site: Site) -> Iterator[Figure]:
    """Measure what `fsdm run` takes while nothing happens."""
    seconds = site.samples(10, 4)
    with reconciler(site.shared(site.chunks)) as pid:
        before = cpu_ns(pid)
        time.sleep(seconds)
        percent = (cpu_ns(pid) - before) / seconds / 1e7
        now, at_most = memory_mib(pid, "VmRSS"), memory_mib(pid, "VmHWM")
    what = f"fsdm run, idle with {site.chunks:,} chunks"
    yield Figure("idle", f"{what}: CPU over {seconds} s", percent, "%", 1, 0.5)
    yield Figure("idle", f"{what}: memory now (VmRSS)", now, "MiB", 1)
    yield Figure("idle", f"{what}: memory at most (VmHWM)", at_most, "MiB", 1, 80)


def ls(site: Site) -> Iterator[Figure]:
    """Measure `fsdm --version` and `fsdm ls` as whole processes."""
    for what, line, lines, goal_ms in (
        ("fsdm --version", command("--version"), 1, 60),
        (f"fsdm ls of {site.chunks:,} chunks", command("ls", "-d", site.shared(site.chunks)), site.chunks, 163),
    ):
        taken = []
        for _ in range(site.samples(15, 5) + 1):
            began = time.perf_counter_ns()
            said = subprocess.run(line, capture_output=True, check=True).stdout
            taken.append(time.perf_counter_ns() - began)
            assert said.count(b"\n") >= lines
        yield from times("ls", what, taken[1:], (50, "ms", goal_ms))
