"""Measure `fsdm place`: its time and memory, how bytes are balanced, and what moves as workers and chunks come and go.

Chunks have the sizes of real ones (4 to 391 MB), workers two capacities, 1 and 2 in turn. `fresh`: all of them placed
at once; `again`: with all confirmed and nothing changed. `join`, `leave`, `grow`: rounds in which all that was asked
for is confirmed, until nothing changes; moved bytes against the least that there could be. `zones`: balance in four
zones. `command`: the command itself, from a list on disk to all that it publishes. Each runs in a process of its own;
nothing is bounded, so all of it is one round. How full the workers are is said of the time before they come or go.
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from fsdm.fleet.inventory import Chunks, Copies, Presence, Worker, Workers
from fsdm.fleet.placing import Bounds, Placement, place
from tools.bench.processes import in_process
from tools.bench.report import Figure, table, tell
from tools.bench.site import DATASET, scratch, write

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SIZES_MB: Final = (356, 391, 269, 219, 109, 44, 17, 4)
COPIES: Final = 3
BOUNDS: Final = Bounds()
ROUNDS: Final = 20
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Scale:
    """So many chunks and workers, in so many zones (0: each worker is one), and how full the workers are."""

    chunks: int
    workers: int
    full: float = 0.85
    zones: int = 0

    @property
    def what(self) -> str:
        zones = f", {self.zones} zones" if self.zones else ""
        return f"{self.chunks:,} chunks × {COPIES} on {self.workers:,} workers, {self.full:.0%} full{zones}"


def chunk_id(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def sizes_of(count: int) -> NDArray[np.int64]:
    """Return the bytes of so many chunks: the first ones are the same for any count."""
    random = np.random.default_rng(1)
    return random.choice(np.array(SIZES_MB), count).astype(np.int64) * 1_000_000


class Fleet:
    """Workers and chunks as they stand, with all that is in the lists confirmed."""

    def __init__(self, scale: Scale) -> None:
        self.size = sizes_of(scale.chunks + scale.chunks // 50)
        self.count = scale.chunks
        total = float(self.size[: self.count].sum()) * COPIES / scale.full
        units = sum(1 + number % 2 for number in range(scale.workers))
        self.workers = [
            Worker(f"w{n:05}", int(total / units * (1 + n % 2)), f"z{n % scale.zones}" if scale.zones else "")
            for n in range(scale.workers)
        ]
        self.listed: dict[str, NDArray[np.int64]] = {}
        self.chunks = self._chunks()

    def _chunks(self) -> Chunks:
        return Chunks.of([chunk_id(number) for number in range(self.count)], self.size[: self.count], COPIES)

    def grow(self) -> None:
        """Add the chunks that are there beyond the first ones."""
        numbers = np.argsort(np.array([chunk_id(number) for number in range(self.count)], "S32"))
        self.count = len(self.size)
        now = np.argsort(np.argsort(np.array([chunk_id(number) for number in range(self.count)], "S32")))
        self.listed = {name: now[numbers[mine]] for name, mine in self.listed.items()}
        self.chunks = self._chunks()

    def before(self, workers: Workers) -> Copies:
        count = len(workers)
        parts = [self.listed[w.name] * count + n for n, w in enumerate(workers.all) if w.name in self.listed]
        copies = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
        listed = np.array([worker.name in self.listed for worker in workers.all])
        live = copies[workers.presence[copies % count] == Presence.LIVE]
        return Copies(copies, np.empty(0, np.int64), live, listed, np.zeros(count, np.int64))

    def place(self) -> tuple[Workers, Placement]:
        """Place once, and take the lists for confirmed."""
        workers = Workers.of(self.workers)
        found = place(self.chunks, workers, self.before(workers), BOUNDS)
        stay = found.listed
        chunk, worker = np.divmod(stay, len(workers))
        order = np.argsort(worker, kind="stable")
        first = np.searchsorted(worker[order], np.arange(len(workers) + 1))
        self.listed = {
            one.name: chunk[order[first[n] : first[n + 1]]]
            for n, one in enumerate(workers.all)
            if one.presence != Presence.GONE
        }
        return workers, found

    def settle(self) -> tuple[int, int, Workers, Placement]:
        """Place until nothing is added; return the bytes and the copies between workers that moved."""
        moved, between, had = 0, 0, set(self.listed)
        for _ in range(ROUNDS):
            workers, found = self.place()
            if not found.added.size:
                return moved, between, workers, found
            moved += int(self.chunks.size[found.added // len(workers)].sum())
            old = np.array([worker.name in had for worker in workers.all])
            between += int((old[found.added % len(workers)] & (found.reasons != 0)).sum())
        raise RuntimeError(f"it has not come to rest after {ROUNDS} rounds")


def _took(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _fresh(scale: Scale) -> tuple[float, float, float, float, int]:
    """Place all at once: CPU s, peak MiB, deviation and worst of the fullness, and workers that are over."""
    fleet = Fleet(scale)
    took = _took(fleet.place)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    workers, found = fleet.place()
    full = found.loads.kept / workers.capacity
    against = full / full.mean()
    return took, peak, float(against.std()), float(np.abs(against - 1).max()), int((full > BOUNDS.full).sum())


def _again(scale: Scale) -> tuple[float, int]:
    """Place once more: CPU s, and the copies that are added or dropped."""
    fleet = Fleet(scale)
    fleet.settle()
    seen: list[Placement] = []
    took = _took(lambda: seen.append(fleet.place()[1]))
    return took, int(seen[0].added.size + seen[0].dropped.size)


def _join(scale: Scale) -> tuple[float, int]:
    """Add a worker: bytes moved against its share, and copies that moved between the others."""
    fleet = Fleet(scale)
    fleet.settle()
    new = replace(fleet.workers[0], name="x")
    fleet.workers.append(new)
    moved, between, workers, _ = fleet.settle()
    share = float(fleet.chunks.size.sum()) * COPIES * new.capacity_bytes / float(workers.capacity.sum())
    return moved / share, between


def _leave(scale: Scale) -> float:
    """Take one of a hundred workers: bytes moved against those that they had."""
    fleet = Fleet(scale)
    fleet.settle()
    count = max(scale.workers // 100, 1)
    gone = fleet.workers[1 :: scale.workers // count][:count]
    lost = sum(int(fleet.chunks.size[fleet.listed[worker.name]].sum()) for worker in gone)
    fleet.workers = [replace(w, presence=Presence.GONE) if w in gone else w for w in fleet.workers]
    return fleet.settle()[0] / lost


def _grow(scale: Scale) -> float:
    """Add 2 % of chunks: bytes moved against those of the new copies."""
    fleet = Fleet(scale)
    fleet.settle()
    old = int(fleet.chunks.size.sum())
    fleet.grow()
    return fleet.settle()[0] / ((int(fleet.chunks.size.sum()) - old) * COPIES)


def fresh(scales: list[Scale], _: Path) -> Iterator[Figure]:
    for scale in scales:
        took, peak, deviation, worst, over = in_process(_fresh, scale)
        goal_s, goal_mib = (5.0, 500.0 * 1e6 / MIB) if scale.chunks <= 500_000 else (10.0, None)
        yield Figure("fresh", f"{scale.what}: CPU", took, "s", 1, goal_s)
        yield Figure("fresh", f"{scale.what}: peak memory", peak, "MiB", 1, goal_mib)
        yield Figure("fresh", f"{scale.what}: fullness, standard deviation", 100 * deviation, "%", scale.workers, 2)
        yield Figure("fresh", f"{scale.what}: fullness, farthest from the mean", 100 * worst, "%", scale.workers, 5)
        yield Figure("fresh", f"{scale.what}: workers over their limit", over, "workers", scale.workers, 0)


def again(scales: list[Scale], _: Path) -> Iterator[Figure]:
    for scale in scales:
        took, changed = in_process(_again, scale)
        goal_s = 5.0 * max(scale.chunks / 500_000, 1)
        yield Figure("again", f"{scale.what}: nothing changed, CPU", took, "s", 1, goal_s)
        yield Figure("again", f"{scale.what}: nothing changed, copies moved", changed, "copies", 1, 0)


def join(scales: list[Scale], _: Path) -> Iterator[Figure]:
    for scale in (replace(scales[0], full=full) for full in (0.85, 0.94)):
        moved, between = in_process(_join, scale)
        yield Figure("join", f"{scale.what}: a worker joins, moved / its share", moved, "times", 1, 1.05)
        goal = 0 if scale.full <= 0.85 else None
        yield Figure("join", f"{scale.what}: a worker joins, moved between others", between, "copies", 1, goal)


def leave(scales: list[Scale], _: Path) -> Iterator[Figure]:
    for scale in (replace(scales[0], full=full) for full in (0.85, 0.935)):
        goal = 1.0 if scale.full <= 0.85 else 1.05
        moved = in_process(_leave, scale)
        yield Figure("leave", f"{scale.what}: 1 % leave, moved / lost", moved, "times", 1, goal)


def grow(scales: list[Scale], _: Path) -> Iterator[Figure]:
    for scale in (replace(scales[0], full=full) for full in (0.85, 0.925)):
        goal = 1.0 if scale.full <= 0.85 else 1.05
        moved = in_process(_grow, scale)
        yield Figure("grow", f"{scale.what}: 2 % more chunks, moved / new", moved, "times", 1, goal)


def zones(scales: list[Scale], _: Path) -> Iterator[Figure]:
    scale = replace(scales[0], zones=4)
    _took_s, _peak, deviation, worst, over = in_process(_fresh, scale)
    yield Figure("zones", f"{scale.what}: fullness, standard deviation", 100 * deviation, "%", scale.workers, 2)
    yield Figure("zones", f"{scale.what}: fullness, farthest from the mean", 100 * worst, "%", scale.workers, 5)
    yield Figure("zones", f"{scale.what}: workers over their limit", over, "workers", scale.workers, 0)


def _want(number: int, size: int) -> bytes:
    name = chunk_id(number).hex()
    parts = {part: f"https://lake.example/{name}/{part}.parquet" for part in ("blocks", "logs", "traces", "receipts")}
    files = {f"{part}.parquet": {"url": url, "size": size // len(parts)} for part, url in parts.items()}
    blocks = {"start": number * 10, "end": number * 10 + 10}
    want = {"id": name, "dataset_id": DATASET, "block_range": blocks, "files": files}
    return json.dumps(want).encode() + b"\n"


def _command(scale: Scale, directory: str) -> tuple[float, float, float]:
    """Run the command twice: CPU s of the first and the second run, and peak MiB."""
    fleet = Fleet(scale)
    chunks, workers = f"{directory}/chunks.jsonl", f"{directory}/workers.jsonl"
    write(chunks, b"".join(_want(number, size) for number, size in enumerate(fleet.size[: fleet.count].tolist())))
    lines = [json.dumps({"name": worker.name, "capacity": worker.capacity_bytes}) for worker in fleet.workers]
    write(workers, "\n".join(lines).encode())
    options = ["--workers", workers, "--to", f"{directory}/to", "--in-flight", "1000T"]
    took = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "fsdm", "place", chunks, *options], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return took[0], took[1], after.ru_maxrss / 1024


def command(scales: list[Scale], directory: Path) -> Iterator[Figure]:
    scale = scales[0]
    first, second, peak = _command(scale, str(directory))  # two processes of their own
    yield Figure("command", f"{scale.what}: fsdm place, all published, CPU", first, "s", 1)
    yield Figure("command", f"{scale.what}: fsdm place, nothing changed, CPU", second, "s", 1)
    yield Figure("command", f"{scale.what}: fsdm place, peak memory", peak, "MiB", 1)


Measure: TypeAlias = "Callable[[list[Scale], Path], Iterator[Figure]]"

CASES: Final[dict[str, Measure]] = {
    "fresh": fresh,
    "again": again,
    "join": join,
    "leave": leave,
    "grow": grow,
    "zones": zones,
    "command": command,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that only this bench takes."""
    parser.add_argument("--chunks", type=int, metavar="N", help="so many (default: 500,000; 20,000 with --quick)")
    parser.add_argument("--workers", type=int, metavar="N", help="so many (default: one for 250 chunks)")


def main(args: argparse.Namespace) -> int:
    """Measure and print."""
    count = args.chunks or (20_000 if args.quick else 500_000)
    scales = [Scale(count, args.workers or max(count // 250, 4))]
    if not (args.quick or args.chunks):
        scales.append(replace(scales[0], chunks=1_000_000))
    figures: list[Figure] = []
    errors: dict[str, str] = {}
    with scratch(args.dir) as base:
        for name in args.only:
            began = time.monotonic()
            try:
                figures += CASES[name](scales, base)
            except Exception as e:  # one that fails must not take the others' figures with it
                errors[name] = f"{type(e).__name__}: {e}"
            said = errors.get(name, "done")
            print(f"{name}: {said} after {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return tell(table(figures), figures, errors, args)
