"""Measure the cost of a chunk with one file of 1 kB, beside that of the same file operations in plain Python.

A run: a loop of the file operations; all wants placed, then `fsdm run` started, until the last marker has gone; deletes
of all placed, until these and the trash have gone; the loop again. A figure is the CPU time of the reconciler's process
for each chunk, as a multiple of the loop's: from the moment that it has LOCK until it rests, less what that takes with
nothing to do. The wall time of the wants is from the process's start. All is in memory, nothing durable; medians.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fsdm import DataChunk
from fsdm.model.layout import READY, Layout
from fsdm.store.leader_lock import read_lock
from tools.bench.nginx import server
from tools.bench.processes import settle, starting, until
from tools.bench.report import Figure, table, tell
from tools.bench.site import DATASET, MEMORY, make, place_of, scratch, write
from tools.support.proc import cpu_ns

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

CASES: Final = {"200": 200, "5000": 5_000, "50000": 50_000}
RUNS: Final = {"200": 7, "5000": 3, "50000": 1}
QUICK: Final = ("200", "5000")
STARTS: Final = 5
LOOPS: Final = 1_000  # chunks in a loop of plain file operations
WITHIN_S: Final = 600.0
CONTENT: Final = os.urandom(1_000)
HOW: Final = ("--durability", "none", "--brake", "off")
GOAL_WANT, GOAL_DELETE, GOAL_WALL_S = 6.0, 2.5, 45.0


@dataclass(slots=True)
class Taken:
    """The cost of the runs of one case: CPU and wall times in nanoseconds."""

    loop: list[float] = field(default_factory=list)  # of a chunk
    want: list[float] = field(default_factory=list)
    delete: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)  # of all wants


def want_of(number: int, url: str) -> DataChunk:
    """Return the want of a chunk whose one file has a URL of its own."""
    place = place_of(number)
    files = {"blocks.parquet": f"{url}/1kB?{number}"}
    return DataChunk(id=place.chunk_id, dataset_id=DATASET, block_range=place.block_range, files=files)


def loop(base: Path, count: int) -> float:
    """Do the file operations of chunks that come and go; return the CPU time of one, in nanoseconds.

    Three directories, two documents written and one of them read, one file, two renames, and all of it removed.
    """
    with scratch(base) as directory:
        wants, partial, chunks, trash = (f"{directory}/{name}" for name in ("want", "partial", "chunks", "trash"))
        for path in (wants, partial, chunks, trash):
            os.mkdir(path)
        asked = [want_of(number, "http://127.0.0.1").to_json() for number in range(count)]
        began = time.process_time_ns()
        for number, want in enumerate(asked):
            marker, new, dataset, gone = (f"{path}/{number}" for path in (wants, partial, chunks, trash))
            write(marker, want)
            with open(marker, "rb") as file:
                document = json.loads(file.read())
            os.mkdir(dataset)
            os.mkdir(new)
            os.mkdir(f"{new}/data")
            write(f"{new}/data/blocks.parquet", CONTENT)
            write(f"{new}/READY", json.dumps(document).encode())
            os.rename(new, f"{dataset}/chunk")
            os.unlink(marker)
            os.rename(f"{dataset}/chunk", gone)
            os.unlink(f"{gone}/READY")
            os.unlink(f"{gone}/data/blocks.parquet")
            os.rmdir(f"{gone}/data")
            os.rmdir(gone)
            os.rmdir(dataset)
        return (time.process_time_ns() - began) / count


def start_ns(base: Path) -> float:
    """Return the CPU time of `fsdm run` with nothing to do, from LOCK until it rests."""
    with scratch(base) as directory, starting(data_dir := make(str(directory / "data")), *HOW) as pid:
        before = _with_lock(data_dir, pid)
        settle(pid)
        return cpu_ns(pid) - before


def _with_lock(data_dir: str, pid: int) -> int:
    """Wait until a process has LOCK; return its CPU time then."""
    until(lambda: read_lock(Layout(data_dir)), "fsdm run has LOCK", 0.001)
    return cpu_ns(pid)


def run(base: Path, url: str, count: int, idle_ns: float, taken: Taken) -> None:
    """Bring and delete so many chunks, with a loop before and after; add what it took."""
    taken.loop.append(loop(base, LOOPS))
    directory = Path(tempfile.mkdtemp(dir=base))
    layout = Layout(make(str(directory / "data")))
    for number in range(count):
        want = want_of(number, url)
        write(layout.want_marker(want.id), want.to_json())
    began = time.monotonic_ns()
    with starting(layout.root, *HOW) as pid:
        before = _with_lock(layout.root, pid)
        taken.wall.append(_emptied(layout.want) - began)
        settle(pid)
        between = cpu_ns(pid)
        taken.want.append((between - before - idle_ns) / count)
        here = sum(os.path.exists(f"{layout.path(place_of(number))}/{READY}") for number in range(count))
        if here != count:
            raise RuntimeError(f"{here} of {count} chunks came")
        for number in range(count):
            write(layout.delete_marker(place_of(number).chunk_id), b"")
        _emptied(layout.delete)
        _emptied(layout.trash)
        settle(pid)
        taken.delete.append((cpu_ns(pid) - between) / count)
        left = [path.name for path in Path(layout.chunks).glob("*/*")]
    if left:
        raise RuntimeError(f"{len(left)} of {count} chunks are left, though they were deleted: {left[0]}")
    shutil.rmtree(directory)
    taken.loop.append(loop(base, LOOPS))


def _emptied(directory: str) -> int:
    """Wait until there is nothing in a directory; return when, in nanoseconds of CLOCK_MONOTONIC."""
    return until(lambda: not _first(directory), f"{directory} is empty", 0.01, WITHIN_S)


def _first(directory: str) -> str | None:
    with os.scandir(directory) as entries:
        return next((entry.name for entry in entries), None)


def figures_of(name: str, taken: Taken) -> Iterator[Figure]:
    """Make figures of a case's medians."""
    count, runs = CASES[name], len(taken.want)
    plain = statistics.median(taken.loop)
    what = f"{count:,} chunks of 1 kB"
    yield Figure(name, f"{what}: file operations alone, CPU of a chunk", plain / 1e6, "ms", len(taken.loop))
    for step, each, goal in (
        ("want → READY", taken.want, GOAL_WANT),
        ("delete → gone", taken.delete, GOAL_DELETE),
    ):
        of_one = statistics.median(each)
        yield Figure(name, f"{what}: {step}, CPU of a chunk", of_one / 1e6, "ms", runs)
        yield Figure(name, f"{what}: {step}, against the file operations", of_one / plain, "times", runs, goal)
    goal_s = GOAL_WALL_S if count == CASES["50000"] else None
    yield Figure(name, f"{what}: wants placed → all READY", statistics.median(taken.wall) / 1e9, "s", runs, goal_s)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that only this bench takes."""
    parser.add_argument("--runs", type=int, metavar="N", help="so many of each (default: 7, 3 and 1; 1 with --quick)")


def main(args: argparse.Namespace) -> int:
    """Measure and print."""
    if shutil.which("nginx") is None:
        print("nginx is missing: the chunks come from it. Install it", file=sys.stderr)
        return 1
    figures: list[Figure] = []
    errors: dict[str, str] = {}
    with scratch(args.dir or MEMORY) as base, server(base) as source:
        write(f"{base}/files/1kB", CONTENT)
        idle_ns = statistics.median(start_ns(base) for _ in range(1 if args.quick else STARTS))
        for name in args.only:
            if args.quick and name not in QUICK:
                print(f"{name}: left out, for it takes long", file=sys.stderr)
                continue
            began, taken = time.monotonic(), Taken()
            try:
                for _ in range(args.runs or (1 if args.quick else RUNS[name])):
                    run(base, f"http://127.0.0.1:{source.full}", CASES[name], idle_ns, taken)
                figures += figures_of(name, taken)
            except Exception as e:  # one that fails must not take the others' figures with it
                errors[name] = f"{type(e).__name__}: {e}"
            print(f"{name}: {errors.get(name, 'done')} after {time.monotonic() - began:.1f} s", file=sys.stderr)
        return tell(table(figures), figures, errors, args)
