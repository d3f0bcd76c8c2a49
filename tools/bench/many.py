"""The case `many`: whole verbs over many chunk directories, beside a fresh Python that sorts their names."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from fsdm.model.layout import Layout
from tools.bench.processes import command
from tools.bench.report import Figure
from tools.bench.site import DATASET, STRIDE, Site, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIZES: Final = (5_000, 30_000, 100_000)
MEMORY_MB: Final = 100.0
SORTS: Final = "import os, sys; print(len(sorted(os.listdir(sys.argv[1]))))"
FINDS: Final = "import sys, fsdm; fsdm.Client(sys.argv[1]).find_chunk(sys.argv[2], int(sys.argv[3])).close()"
AT: Final = 30_000  # chunks, for the goals below: how many times as long as the sorting
GOALS: Final = {
    "find": 4.0,
    "explain": 4.0,
    "hold": 4.0,
    "ls": 9.0,
    "status": 18.0,
    "map": 18.0,
    "the first find_chunk of a client": 4.0,
    "tab completion of an id": 5.0,
}


def many(site: Site) -> Iterator[Figure]:
    """Measure each verb in turns with the sorting, so that both see the same noise."""
    for chunks in (site.chunks,) if site.quick else SIZES:
        data_dir, runs = site.shared(chunks), site.samples(7, 2)
        sorts = [sys.executable, "-c", SORTS, Layout(data_dir).dataset(DATASET)]
        for what, argv in _commands(data_dir, chunks // 2).items():
            pairs = [(_run(sorts), _run(argv)) for _ in range(runs)]
            times = statistics.median(taken[0] for _, taken in pairs) / statistics.median(base[0] for base, _ in pairs)
            told = f"{what}, {chunks:,} chunks, against the sorting of their names"
            yield Figure("many", told, times, "times", runs, GOALS[what] if chunks == AT else None)
            memory_mb = max(taken[1] for _, taken in pairs) / 1000
            goal = MEMORY_MB if what in {"status", "map"} else None
            yield Figure("many", f"{what}, {chunks:,} chunks, resident", memory_mb, "MB", runs, goal)


def _commands(data_dir: str, number: int) -> dict[str, list[str]]:
    """Return a command line for each goal, about the chunk with this number."""
    block, chunk_id = str(number * STRIDE), place_of(number).chunk_id
    verbs = {
        "find": ["find", DATASET, block],
        "explain": ["explain", chunk_id],
        "hold": ["hold", DATASET, block, "--", "true"],
        "ls": ["ls"],
        "status": ["status"],
        "map": ["map"],
        "tab completion of an id": ["completion", f"--ids={chunk_id[:2]}"],
    }
    commands = {what: command("-d", data_dir, *argv) for what, argv in verbs.items()}
    client = [sys.executable, "-c", FINDS, data_dir, DATASET, block]
    return {what: commands.get(what, client) for what in GOALS}


def _run(argv: Sequence[str]) -> tuple[float, int]:
    """Return the seconds that a whole process takes, and the KB that it has at most."""
    began = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    took = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{argv} ended with {process.returncode}")
    return took, used.ru_maxrss
