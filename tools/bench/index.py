"""Measure indexes of keys: look-ups beside those of SQLite and DuckDB on the same keys, their making, and their cost.

`one`: a run of a million keys. `all`: 8 runs of 50 million keys over 5,000 chunks, warm, and with no page of them in
memory. `build`: 55 million keys in the tables of 500 chunks, by `fsdm run --once` with `index-jobs = 2`; then one key
by a process of its own, beside scans of all tables. `publish`: what the reconciler's process takes more for a chunk
with an index. `idle`: the same for a reconciler with nothing to do. Peers have the hashes that the runs have, in a
sorted table, and are asked in turns. All of it takes half an hour where nothing else runs; the load is told.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fsdm import DataChunk
from fsdm.model.layout import INDEX, Layout
from fsdm.store.index_runs import IndexRuns
from tools.bench import keys
from tools.bench.index_peers import DuckTable, SqliteTable, Table, drop_pages, scans
from tools.bench.nginx import server
from tools.bench.processes import PATIENCE_S, command, in_process, reconciler, settle, until
from tools.bench.report import Figure, percentile, table, tell
from tools.bench.site import DATASET, make, place_of, put_chunks, scratch, write
from tools.support.proc import cpu_ns

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

MIB: Final = 1 << 20
LOOK_S: Final = 0.5  # so often memory is asked for
TURN: Final = 500  # look-ups one behind the other: what another does between them takes caches away
COLD_SAMPLES: Final = 40


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes: keys of one run and of all, their chunks; rows and number of tables; look-ups; rounds; seconds."""

    one: int = 1_000_000
    all: int = 50_000_000
    chunks: int = 5_000
    rows: int = 110_000
    tables: int = 500
    samples: int = 2_000
    rounds: int = 15
    seconds: int = 20


FULL: Final = Scale()
QUICK: Final = Scale(one=20_000, all=80_000, chunks=200, rows=2_000, tables=4, samples=100, rounds=2, seconds=2)
RUNS: Final = 8


def load() -> str:
    """Tell how busy the machine is."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def _warm(tables: list[Table], found: keys.Runs) -> dict[str, list[int]]:
    """Look keys up in each of several tables in turns; return the nanoseconds of each, by its name."""
    taken: dict[str, list[int]] = {one.name: [] for one in tables}
    pairs = list(zip(found.keys, found.chunks, strict=True))
    for at in range(0, len(pairs), TURN):
        for one in tables:
            for key, owner in pairs[at : at + TURN]:
                began = time.perf_counter_ns()
                hits = one.find(key)
                taken[one.name].append(time.perf_counter_ns() - began)
                if owner not in hits:
                    raise RuntimeError(f"{one.name} has not found a key: {hits}")
    return taken


class FsdmRuns(Table):
    """The runs, as a client has them open."""

    name = "fsdm"

    def __init__(self, layout: Layout, numbers: dict[str, int]) -> None:
        self._runs = IndexRuns(layout)
        self._numbers = numbers
        self._directory = layout.runs_of(keys.INDEX_TX.name)

    def find(self, key: bytes) -> list[int]:
        return [self._numbers[chunk.place.chunk_id] for chunk in self._runs.find(keys.INDEX_TX.name, key)]

    def chill(self) -> None:
        self._runs.find(keys.INDEX_TX.name, b"not there")  # its files are open, as a client has them
        for run in self._runs._listed[keys.INDEX_TX.name].runs.values():  # noqa: SLF001 nothing else lets go of pages
            run.release_pages()
        drop_pages(self._directory)

    def size_bytes(self) -> int:
        return sum(entry.stat().st_size for entry in os.scandir(self._directory))


def _look_ups(
    case: str, count: int, chunks: int, runs: int, samples: int, goals: tuple[float, float | None], base: str
) -> list[Figure]:
    layout = Layout(make(f"{base}/{case}"))
    found = keys.put_runs(layout, count, chunks, runs, samples)
    time.sleep(0.05)  # a listing within two clock ticks of the last change would not be kept
    what = f"{count:,} keys, {chunks:,} chunks, {runs} run{'s' * (runs > 1)}"
    tables: list[Table] = [FsdmRuns(layout, {place_of(number).chunk_id: number for number in range(chunks)})]
    tables += [kind.made(f"{base}/{case}.{kind.name}", found.directory) for kind in (SqliteTable, DuckTable)]
    warm = _warm(tables, found)
    figures = []
    for one in tables:
        goal = goals[0] if one is tables[0] else None
        figures.append(
            Figure(
                case,
                f"{what}: {one.name}, warm (p50)",
                percentile(warm[one.name], 50) / 1e3,
                "µs",
                len(found.keys),
                goal,
            )
        )
    ratio = statistics.median(warm["SQLite"]) / statistics.median(warm["fsdm"])
    figures.append(Figure(case, f"{what}: SQLite / fsdm, warm (p50)", ratio, "times", len(found.keys)))
    for one in tables if goals[1] is not None else ():
        taken = []
        for key in found.keys[:: max(len(found.keys) // COLD_SAMPLES, 1)]:
            one.chill()
            began = time.perf_counter_ns()
            one.find(key)
            taken.append(time.perf_counter_ns() - began)
        goal_ms = goals[1] if one is tables[0] else None
        figures.append(
            Figure(
                case,
                f"{what}: {one.name}, no page in memory (p50)",
                percentile(taken, 50) / 1e6,
                "ms",
                len(taken),
                goal_ms,
            )
        )
    for one in tables:
        goal = 24.0 if one is tables[0] else None
        figures.append(Figure(case, f"{what}: {one.name}, bytes a key", one.size_bytes() / found.count, "B", 1, goal))
    return figures


def one(scale: Scale, base: Path) -> Iterator[Figure]:
    asked = ("one", scale.one, 200, 1, scale.samples, (5.0, None), str(base))
    yield from in_process(_look_ups, *asked, within_s=PATIENCE_S * 20)


def all_(scale: Scale, base: Path) -> Iterator[Figure]:
    asked = ("all", scale.all, scale.chunks, RUNS, scale.samples, (25.0, 5.0), str(base))
    yield from in_process(_look_ups, *asked, within_s=PATIENCE_S * 120)


def _pss_mib(pids: list[int]) -> float:
    """Return the memory of processes, what they share counted once: proc_pid_smaps_rollup(5)."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total / 1024


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task").glob("*/children")
        found = [int(child) for path in children for child in path.read_text().split()]
    except OSError:
        return []
    return [pid, *(one for child in found for one in _family(child))]


def build(scale: Scale, base: Path) -> Iterator[Figure]:
    layout = Layout(make(str(base / "build")))
    keys.put_tables(layout, scale.tables, scale.rows)
    Path(layout.config).write_text(f"index-jobs = 2\n{keys.CONFIG}")
    what, count = f"{scale.tables * scale.rows:,} keys in {scale.tables} chunks", scale.tables * scale.rows
    before, began, peak = os.times(), time.monotonic(), 0.0
    with subprocess.Popen(command("run", "-d", layout.root, "--once", "--quiet"), stdout=subprocess.DEVNULL) as run:
        while run.poll() is None:
            peak = max(peak, _pss_mib(_family(run.pid)))
            time.sleep(LOOK_S)
    took, after = time.monotonic() - began, os.times()
    if run.returncode != 0:
        raise RuntimeError(f"fsdm run has ended with code {run.returncode}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    small = scale.tables < FULL.tables
    yield Figure("build", f"{what}: built and gathered", took, "s", 1, None if small else 300)
    yield Figure("build", f"{what}: CPU of all processes, on two cores", cpu / 2, "s", 1, None if small else 300)
    yield Figure("build", f"{what}: memory of all processes at once", peak, "MiB", 1, 500)
    own = sum(path.stat().st_size for path in Path(layout.chunks).glob(f"*/*/{INDEX}/{keys.INDEX_TX.name}"))
    gathered = sum(path.stat().st_size for path in Path(layout.runs_of(keys.INDEX_TX.name)).iterdir())
    yield Figure("build", f"{what}: bytes a key, over all chunks", gathered / count, "B", 1, 24)
    yield Figure("build", f"{what}: bytes a key, the chunks' own indexes with keys and places", own / count, "B", 1)
    chunk, row = scale.tables // 2, scale.rows // 3
    key = keys.key_of(chunk, row)
    find = command("find", "-d", layout.root, "--key", keys.INDEX_TX.name, key.hex(), "--json")
    taken = []
    for _ in range(5):
        began_ns = time.perf_counter_ns()
        told = subprocess.run(find, check=True, capture_output=True, text=True).stdout
        taken.append(time.perf_counter_ns() - began_ns)
        if place_of(chunk).chunk_id not in told:
            raise RuntimeError(f"the key was not found: {told}")
    found_ms = statistics.median(taken) / 1e6
    yield Figure("build", f"{what}: fsdm find --key, a whole process (p50)", found_ms, "ms", len(taken))
    for name, seconds in in_process(scans, layout.chunks, key, within_s=PATIENCE_S * 20).items():
        yield Figure("build", f"{what}: {name}", seconds * 1e3, "ms", 1)
        yield Figure("build", f"{what}: {name} / fsdm find", seconds * 1e3 / found_ms, "times", 1)


def publish(scale: Scale, base: Path) -> Iterator[Figure]:
    """Bring the same chunks to two reconcilers in turn, of which one makes an index."""
    if shutil.which("nginx") is None:
        raise RuntimeError("nginx is missing: the chunks come from it")
    plain, indexed = (Layout(make(str(base / name))) for name in ("plain", "indexed"))
    Path(indexed.config).write_text(keys.CONFIG)
    with server(base) as source, reconciler(plain.root) as one_pid, reconciler(indexed.root) as other_pid:
        keys.put_table(f"{base}/files/tx.parquet", 0, scale.rows)
        for name in ("logs", "traces", "blocks"):
            write(f"{base}/files/{name}.parquet", os.urandom(20 * MIB))
        taken: dict[str, list[tuple[int, int]]] = {plain.root: [], indexed.root: []}
        for number in range(scale.rounds + 1):
            for layout, pid in ((plain, one_pid), (indexed, other_pid)):
                taken[layout.root].append(_published(layout, pid, number, f"http://127.0.0.1:{source.full}"))
    cpu, wall = (
        {root: statistics.median(one[at] for one in all_[1:]) for root, all_ in taken.items()} for at in (0, 1)
    )
    what, rounds = "a chunk of 64 MB", scale.rounds
    yield Figure(
        "publish", f"{what}: CPU of the reconciler, without an index (p50)", cpu[plain.root] / 1e6, "ms", rounds
    )
    yield Figure(
        "publish", f"{what}: CPU of the reconciler, with an index (p50)", cpu[indexed.root] / 1e6, "ms", rounds
    )
    more = 100 * (cpu[indexed.root] - cpu[plain.root]) / wall[plain.root]
    yield Figure("publish", f"{what}: what an index adds, of its want → READY", max(more, 0.0), "%", rounds, 5)
    yield Figure("publish", f"{what}: want → READY, without an index (p50)", wall[plain.root] / 1e6, "ms", rounds)
    yield Figure("publish", f"{what}: want → READY, with an index (p50)", wall[indexed.root] / 1e6, "ms", rounds)


def _published(layout: Layout, pid: int, number: int, url: str) -> tuple[int, int]:
    """Want a chunk, and wait until it and its index are here; return CPU time, and that until READY, in nanoseconds."""
    place = place_of(number)
    files = {f"{name}.parquet": f"{url}/{name}.parquet?{number}" for name in ("tx", "logs", "traces", "blocks")}
    chunk = DataChunk(id=place.chunk_id, dataset_id=DATASET, block_range=place.block_range, files=files)
    settle(pid)
    before, began = cpu_ns(pid), time.monotonic_ns()
    temporary = f"{layout.want}/.new"
    write(temporary, chunk.to_json())
    os.rename(temporary, layout.want_marker(chunk.id))
    path = layout.path(place)
    ready = until(lambda: os.path.exists(f"{path}/READY"), "the chunk is here", 0.001) - began
    if os.path.exists(layout.config):
        until(lambda: os.path.exists(f"{path}/{INDEX}/{keys.INDEX_TX.name}"), "its index is made", 0.05)
        until(lambda: _is_gathered(layout, number + 1), "its keys are gathered", 0.05)
    settle(pid)
    return cpu_ns(pid) - before, ready


def _is_gathered(layout: Layout, count: int) -> bool:
    found = IndexRuns(layout)
    return len(found.find(keys.INDEX_TX.name, keys.key_of(0, 0))) == count


def idle(scale: Scale, base: Path) -> Iterator[Figure]:
    percents: list[float] = []
    what = f"fsdm run, idle with {scale.chunks:,} chunks"
    for name in ("no index", "an index of each"):
        root = make(str(base / name))
        put_chunks(root, range(scale.chunks))
        if percents:
            keys.put_small_indexes(Layout(root), scale.chunks)
            Path(Layout(root).config).write_text(keys.CONFIG)
            subprocess.run(command("run", "-d", root, "--once", "--quiet"), check=True, capture_output=True)
        with reconciler(root) as pid:
            before = cpu_ns(pid)
            time.sleep(scale.seconds)
            percents.append((cpu_ns(pid) - before) / scale.seconds / 1e7)
        yield Figure("idle", f"{what}, {name}: CPU over {scale.seconds} s", percents[-1], "%", 1, 0.5)
    yield Figure("idle", f"{what}: what the indexes add", percents[1] - percents[0], "%", 1, 0.05)


Measure: TypeAlias = "Callable[[Scale, Path], Iterator[Figure]]"

CASES: Final[dict[str, Measure]] = {"one": one, "all": all_, "build": build, "publish": publish, "idle": idle}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that only this bench takes."""
    parser.add_argument("--keys", type=int, metavar="N", help="of `all` (default: 50,000,000)")
    parser.add_argument(
        "--tables", type=int, metavar="N", help="chunks of `build`, of 110,000 keys each (default: 500)"
    )


def main(args: argparse.Namespace) -> int:
    """Measure and print."""
    given: dict[str, Any] = {name: value for name, value in (("all", args.keys), ("tables", args.tables)) if value}
    scale = replace(QUICK if args.quick else FULL, **given)
    figures: list[Figure] = []
    errors: dict[str, str] = {}
    for name in args.only:
        began = time.monotonic()
        try:
            with scratch(args.dir) as base:
                figures += CASES[name](scale, base)
        except Exception as e:  # one that fails must not take the others' figures with it
            errors[name] = f"{type(e).__name__}: {e}"
        said = errors.get(name, "done")
        print(f"{name}: {said} after {time.monotonic() - began:.1f} s; {load()}", file=sys.stderr, flush=True)
    return tell(table(figures), figures, errors, args)
