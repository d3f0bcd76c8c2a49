"""Measures what fsdm promises about speed and size, beside the goals.

    python -m tools.bench [base] [--quick] [--only NAME …] [--chunks N] [--dir DIR] [--json FILE|-]
    python -m tools.bench transfers …    see `transfers`

The data directories are made of chunks that are written directly; a figure is the median (or the percentile that is
named) of many samples. Whatever is not the thing measured runs in another process: the source,
the holder of a ref, the reconciler where its caller is a client. Times across processes are CLOCK_MONOTONIC, which is
one clock for the whole machine. Only loopback is talked to, every wait is bounded, and all that was made is removed,
at the end: ext4 does not give an inode away again for minutes after its removal, and looks at all of these for each new
file. So a run right after another one shows `download_chunk` and `delete_chunk` slower; `this disk` says how slow.

A goal is "at most". Other work on the machine shows in the figures: repeat before believing a miss.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing
import os
import random
import shutil
import socket
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from blake3 import blake3

from fsdm import DataChunk, DataManager
from fsdm.model.documents import FileEntry, Manifest
from fsdm.model.layout import DATA, READY, Layout, Place
from fsdm.store.block_index import BlockIndex
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem
from fsdm.store.leader_lock import reconciler_owner
from tools.bench import transfers
from tools.bench.report import Figure, table, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess

P = ParamSpec("P")
T = TypeVar("T")

DATASET: Final = hashlib.sha256(b"bench").hexdigest()
BLOCKS: Final = 10  # a chunk covers so many
STRIDE: Final = 2000  # and the next on disk begins so much further on: there is room for other ranges between
CONTENT: Final = b"tiny\n"
PATIENCE_S: Final = 30.0
MIB: Final = 1 << 20
DRIP: Final = 4 * MIB  # bytes a second of each of eight slow downloads
FULL_SPEED: Final = 0

# forked from a process that has imported fsdm and has no threads: a new process costs milliseconds
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    ["fsdm.manager", "fsdm.model.documents", "concurrent.futures.process", "socketserver"]
)


# -------------------------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True, slots=True)
class Site:
    """Where a bench works, and how much it does: `full` samples, or `quick` ones."""

    base: Path
    chunks: int
    quick: bool

    def samples(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def empty(self, name: str) -> str:
        """A data directory without chunks."""
        return make(str(self.base / name))

    def shared(self, chunks: int) -> str:
        """The data directory with so many available chunks; who changes it puts it back."""
        path = str(self.base / f"{chunks}-chunks")
        if not os.path.exists(path):
            put_chunks(make(path), range(chunks))
        return path


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that so many percent do not exceed (nearest rank)."""
    return sorted(samples)[max(math.ceil(len(samples) * percent / 100) - 1, 0)]


def us(samples: Sequence[int], percent: float = 50) -> float:
    """A percentile of nanoseconds, in µs."""
    return percentile(samples, percent) / 1e3


def ms(samples: Sequence[int], percent: float = 50) -> float:
    """A percentile of nanoseconds, in ms."""
    return percentile(samples, percent) / 1e6


# ------------------------------------------------------------------------------------------------ directories and waits


def place_of(number: int) -> Place:
    """Where the chunk with this number stands."""
    start = number * STRIDE
    return Place.of(DATASET, range(start, start + BLOCKS), hashlib.sha256(b"%d" % number).hexdigest())


def make(data_dir: str) -> str:
    """A new data directory."""
    layout = Layout(data_dir)
    make_layout(layout, FileSystem())
    os.makedirs(layout.dataset(DATASET))
    return data_dir


def put_chunks(data_dir: str, numbers: range) -> None:
    """Put available chunks of one tiny file each into a data directory that nobody reconciles."""
    with ProcessPoolExecutor(2, _processes) as pool:
        list(pool.map(_write_chunks, [data_dir] * 2, [numbers[::2], numbers[1::2]]))
    time.sleep(0.05)  # a listing taken within two clock ticks of the last change would not be kept


def _write_chunks(data_dir: str, numbers: range) -> None:
    layout = Layout(data_dir)
    files = {"blocks.parquet": FileEntry(size=len(CONTENT), blake3=blake3(CONTENT).hexdigest())}
    for at, number in enumerate(numbers):
        if at % 10_000 == 0:  # a file has 65,000 links at most (ext4)
            tiny = f"{data_dir}/tiny-{time.monotonic_ns()}-{number}"
            _write(tiny, CONTENT)
        place = place_of(number)
        path = layout.path(place)
        manifest = Manifest(id=place.chunk_id, dataset_id=DATASET, block_range=place.block_range, files=files)
        os.mkdir(path)
        os.mkdir(f"{path}/{DATA}")
        os.link(tiny, f"{path}/{DATA}/blocks.parquet")
        _write(f"{path}/{READY}", manifest.to_json())


def remove_chunks(base: Path) -> None:
    """Remove the chunks of all data directories, many at once: some disks take a millisecond for each freed block."""
    datasets = [str(path) for path in base.glob(f"*/chunks/{DATASET}")]
    with ProcessPoolExecutor(8, _processes) as pool:
        for dataset in datasets:
            list(pool.map(_remove_every_eighth, [dataset] * 8, range(8)))


def _remove_every_eighth(dataset: str, first: int) -> None:
    for name in os.listdir(dataset):
        if zlib.crc32(name.encode()) % 8 == first:
            shutil.rmtree(f"{dataset}/{name}")


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, data)
    os.close(fd)


def until(check: Callable[[], Any], what: str, pause_s: float = 0.0001) -> int:
    """Wait until `check` is true; CLOCK_MONOTONIC of that moment, in nanoseconds."""
    deadline = time.monotonic() + PATIENCE_S
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(pause_s)
    return time.monotonic_ns()


def cpu_ns(pid: int) -> int:
    """The CPU time that a process has used: utime + stime, but not in ticks of 10 ms (clock_getcpuclockid(3))."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def settle(pid: int) -> None:
    """Wait until a process has come to rest: the reconciler looks at every chunk once when it starts."""
    deadline = time.monotonic() + PATIENCE_S
    before, window_s = cpu_ns(pid), 0.5
    while time.monotonic() < deadline:
        time.sleep(window_s)
        used, before = cpu_ns(pid) - before, cpu_ns(pid)
        if used < 0.02 * window_s * 1e9:
            return


# ------------------------------------------------------------------------------------------------------ other processes


def in_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns in a process of its own."""
    with ProcessPoolExecutor(1, _processes) as pool:
        return pool.submit(work, *args, **kwargs).result(PATIENCE_S * 4)


@contextmanager
def process(work: Callable[..., None], *args: object) -> Iterator[tuple[ForkServerProcess, Connection]]:
    """A process that runs `work(connection, *args)`, and our end of the connection; killed afterwards."""
    ours, theirs = _processes.Pipe()
    child = _processes.Process(target=work, args=(theirs, *args), daemon=True)
    child.start()
    theirs.close()
    try:
        yield child, ours
    finally:
        child.kill()
        child.join(PATIENCE_S)
        ours.close()


def receive(connection: Connection) -> Any:
    """What the other process sends, in time."""
    if not connection.poll(PATIENCE_S):
        raise TimeoutError(f"another process said nothing for {PATIENCE_S:g} s")
    return connection.recv()


@cache
def has_cli() -> bool:
    """Whether the command line is there; else the same is done through the API."""
    return subprocess.run([sys.executable, "-m", "fsdm", "--version"], capture_output=True, check=False).returncode == 0


def command(verb: str, data_dir: str) -> list[str]:
    """The command that reconciles (`run`) or lists (`ls`) a data directory."""
    if has_cli():
        return [sys.executable, "-m", "fsdm", verb, "-d", data_dir]
    calls = {
        "run": "import threading; dm = DataManager(sys.argv[1]); threading.Event().wait()",
        "ls": "print(*DataManager(sys.argv[1], reconcile=False).list_chunks(), sep='\\n')",
    }
    return [sys.executable, "-c", f"import sys; from fsdm import DataManager; {calls[verb]}", data_dir]


@contextmanager
def reconciler(data_dir: str) -> Iterator[int]:
    """`fsdm run`, at rest; its pid. Stopped afterwards."""
    run = subprocess.Popen(command("run", data_dir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: reconciler_owner(Layout(data_dir)), "fsdm run has LOCK", 0.01)
        settle(run.pid)
        yield run.pid
    finally:
        run.terminate()
        try:
            run.wait(10)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()


class _Server(socketserver.ThreadingTCPServer):
    """Answers GET /SIZE/RATE/NAME with SIZE bytes at RATE bytes a second (0: at full speed)."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, asked: Connection) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = asked
        self.mutex = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """A transfer was stopped: nothing to say."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while head := self.request.recv(65536):
            now = time.monotonic_ns()
            while b"\r\n\r\n" not in head:
                head += self.request.recv(65536)
            size, rate, name = head.split()[1].decode().strip("/").split("/")
            if name == "timed":
                with self.server.mutex:
                    self.server.asked.send(now)
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % int(size))
            self._body(int(size), int(rate))

    def _body(self, size: int, rate: int) -> None:
        part = bytes(min(size, rate // 20 if rate else MIB))
        for sent in range(0, size, len(part)):
            self.request.sendall(part[: size - sent])
            if rate:
                time.sleep(0.05)


def serve(connection: Connection) -> None:
    """Send our URL, then the moment of each request for `timed`."""
    os.nice(19)  # a real source is on another machine: it takes nothing from what is measured
    with _Server(connection) as server:
        connection.send(f"http://127.0.0.1:{server.server_address[1]}")
        server.serve_forever()


# ----------------------------------------------------------------------------------------------------------- find_chunk


def find(site: Site) -> Iterator[Figure]:
    """find_chunk in a client, and in the process that reconciles."""
    rounds = site.samples(3, 1)
    for reconcile, who in ((False, "a client"), (True, "the reconciling process")):
        new, second = in_process(_time_finds, site.shared(site.chunks), site.chunks, rounds, reconcile)
        what = f"find_chunk in {who}, {site.chunks:,} chunks"
        yield Figure("find", f"{what}: a new ref (p50)", us(new), "µs", len(new), 25)
        yield Figure("find", f"{what}: a new ref (p99)", us(new, 99), "µs", len(new))
        yield Figure("find", f"{what}: a second ref to a held chunk (p50)", us(second), "µs", len(second), 5)


def _time_finds(data_dir: str, chunks: int, rounds: int, reconcile: bool) -> tuple[list[int], list[int]]:
    with DataManager(data_dir, reconcile=reconcile) as dm:
        if reconcile:
            settle(os.getpid())
        dm.find_chunk(DATASET, 0)
        new, second = [], []
        for number in random.Random(1).sample(range(chunks), chunks) * rounds:
            block = number * STRIDE + BLOCKS // 2
            began = time.perf_counter_ns()
            ref = dm.find_chunk(DATASET, block)
            between = time.perf_counter_ns()
            again = dm.find_chunk(DATASET, block)
            ended = time.perf_counter_ns()
            new.append(between - began)
            second.append(ended - between)
            assert ref is not None
            assert again is not None
            ref.close()
            again.close()
    return new, second


def ranges(site: Site) -> Iterator[Figure]:
    """The same with a million block ranges in the index, against what is on disk alone."""
    count = site.samples(1_000_000, 100_000)
    few, many = in_process(_time_ranges, site.shared(site.chunks), site.chunks, count)
    what = f"find_chunk, a new ref, {count:,} ranges in the index"
    yield Figure("ranges", f"{what} (p50)", us(many), "µs", len(many))
    ratio = statistics.median(many) / statistics.median(few)
    yield Figure("ranges", f"{what}, against {site.chunks:,}", ratio, "times", len(many), 1.5)


def _time_ranges(data_dir: str, chunks: int, count: int) -> tuple[list[int], list[int]]:
    """In turns, so that both see the same noise."""
    small, large = DataManager(data_dir, reconcile=False), DataManager(data_dir, reconcile=False)
    with small, large:
        for dm in (small, large):
            dm.find_chunk(DATASET, 0)
        # there is no other way to a million ranges than a million directories
        dataset = large._catalog._datasets[DATASET]  # noqa: SLF001
        dataset.index = BlockIndex.of([*dataset.index, *_between(chunks, count)])
        few: list[int] = []
        many: list[int] = []
        for number in random.Random(1).sample(range(chunks), chunks):
            for dm, times in ((small, few), (large, many)):
                began = time.perf_counter_ns()
                ref = dm.find_chunk(DATASET, number * STRIDE)
                times.append(time.perf_counter_ns() - began)
                assert ref is not None
                ref.close()
        assert len(dataset.index) >= count, "the listing was taken again: the ranges are gone"
    return few, many


def _between(chunks: int, count: int) -> Iterator[Place]:
    """Ranges in the gaps between the chunks on disk, to `count` with them."""
    each = math.ceil((count - chunks) / chunks)
    width = (STRIDE - BLOCKS) // each
    for number in range(chunks):
        for start in range(number * STRIDE + BLOCKS, number * STRIDE + BLOCKS + each * width, width):
            yield Place.of(DATASET, range(start, start + width), f"{start:064x}")


# ------------------------------------------------------------------------------------------------------ while eight run


def disk(site: Site) -> Iterator[Figure]:
    """What making a file costs here: the least that download_chunk and delete_chunk can cost."""
    directory, taken = site.empty("disk"), []
    for number in range(site.samples(500, 200)):
        began = time.perf_counter_ns()
        _write(f"{directory}/{number}", b"")
        taken.append(time.perf_counter_ns() - began)
    yield Figure("disk", "this disk: an empty file made (p50)", us(taken), "µs", len(taken))


def calls(site: Site) -> Iterator[Figure]:
    """download_chunk and delete_chunk while eight downloads run: slow and fast ones, spaced calls and a burst."""
    here, client, each = "in their process", "in a client", f"{DRIP // MIB} MiB/s each"
    for who, speed, rate, pause_s in (
        (here, each, DRIP, 0.001),
        (here, f"{each}, a burst", DRIP, 0.0),
        (client, each, DRIP, 0.001),
        (here, "at full speed", FULL_SPEED, 0.001),
        (client, "at full speed", FULL_SPEED, 0.001),
    ):
        data_dir, pairs = site.empty(f"calls {who} {speed}"), site.samples(1000, 300)
        with process(serve) as (_, source), reconciler(data_dir) if who == client else nullcontext():
            times = in_process(_time_calls, data_dir, receive(source), rate, pairs, pause_s, who == here)
        for call, taken in zip(("download_chunk", "delete_chunk"), times, strict=True):
            what = f"{call} {who}, eight downloads {speed}"
            yield Figure("calls", f"{what} (p50)", us(taken), "µs", len(taken), 150)
            yield Figure("calls", f"{what} (p99.9)", ms(taken, 99.9), "ms", len(taken), 10)


def _time_calls(
    data_dir: str, url: str, rate: int, pairs: int, pause_s: float, reconcile: bool
) -> tuple[list[int], list[int]]:
    layout = Layout(data_dir)
    times: tuple[list[int], list[int]] = ([], [])
    with DataManager(data_dir, reconcile=reconcile) as dm:
        eight = [a_chunk(number, url, files=400, size=16 * MIB, rate=rate) for number in range(8)]
        for chunk in eight:
            dm.download_chunk(chunk)
        until(lambda: all(_receiving(layout, chunk) for chunk in eight), "eight downloads run")
        for chunk in [a_chunk(number, url) for number in range(8, 8 + pairs)]:
            both = (partial(dm.download_chunk, chunk), partial(dm.delete_chunk, chunk.id))
            for call, taken in zip(both, times, strict=True):
                if pause_s:
                    time.sleep(pause_s)
                began = time.perf_counter_ns()
                call()
                taken.append(time.perf_counter_ns() - began)
        assert all(_receiving(layout, chunk) for chunk in eight), "a download has ended"
    return times


def a_chunk(
    number: int, url: str, *, files: int = 1, size: int = 1000, rate: int = FULL_SPEED, name: str = "untimed"
) -> DataChunk:
    """A chunk to want, whose files the source serves at this rate."""
    place = place_of(number)
    sources = {f"{n}.parquet": f"{url}/{size}/{rate}/{name}" for n in range(files)}
    return DataChunk(id=place.chunk_id, dataset_id=DATASET, block_range=place.block_range, files=sources)


def _receiving(layout: Layout, chunk: DataChunk) -> bool:
    first = f"{layout.partial_of(chunk.id)}/{DATA}/0.parquet"
    return os.path.exists(first) and os.path.getsize(first) > 0


# ------------------------------------------------------------------------------------------------------------ latencies


def want(site: Site) -> Iterator[Figure]:
    """From the marker's rename into want/ to the first byte that the source reads, and to the chunk's publishing."""
    data_dir, times = site.shared(site.chunks), []
    with process(serve) as (_, source), reconciler(data_dir):
        url = receive(source)
        for number in _extra(site, site.samples(150, 40) + 1):
            times.append(_time_want(Layout(data_dir), a_chunk(number, url, name="timed"), source))
            _touch_delete(Layout(data_dir), number)
            _forgotten(Layout(data_dir), number)
    asked, published = zip(*times[1:], strict=True)  # the first one connects, and meets colder code
    yield Figure("want", "marker in want/ → first byte asked (p50)", ms(asked), "ms", len(asked), 10)
    yield Figure("want", "marker in want/ → first byte asked (p99)", ms(asked, 99), "ms", len(asked))
    yield Figure("want", "marker in want/ → available, 1 kB (p50)", ms(published), "ms", len(published))


def _time_want(layout: Layout, chunk: DataChunk, source: Connection) -> tuple[int, int]:
    temporary, marker, path = f"{layout.want}/.{chunk.id}", layout.want_marker(chunk.id), layout.path(chunk.place)
    _write(temporary, chunk.to_json())
    began = time.monotonic_ns()
    os.rename(temporary, marker)
    asked = receive(source) - began
    published = until(lambda: os.path.exists(path), "a small chunk is published") - began
    until(lambda: not os.path.exists(marker), "its marker is removed")
    return asked, published


def delete(site: Site) -> Iterator[Figure]:
    """From `touch delete/ID` to the chunk's leaving chunks/."""
    data_dir, numbers, taken = site.shared(site.chunks), _extra(site, site.samples(200, 50)), []
    put_chunks(data_dir, numbers)
    with reconciler(data_dir):
        layout = Layout(data_dir)
        for number in numbers:
            began = _touch_delete(layout, number)
            taken.append(_gone(layout, number) - began)
            _forgotten(layout, number)
    yield Figure("delete", "touch delete/ID → gone from chunks/ (p50)", ms(taken), "ms", len(taken), 10)
    yield Figure("delete", "touch delete/ID → gone from chunks/ (p99)", ms(taken, 99), "ms", len(taken))


def _extra(site: Site, count: int) -> range:
    """Numbers of chunks beside the shared ones."""
    return range(site.chunks, site.chunks + count)


def release(site: Site) -> Iterator[Figure]:
    """From the end of a deleted chunk's last ref to its leaving chunks/."""
    data_dir, numbers = site.shared(site.chunks), _extra(site, site.samples(200, 40))
    put_chunks(data_dir, numbers)
    with reconciler(data_dir):
        closed = _time_closes(data_dir, numbers[::2])
        killed = [_time_kill(data_dir, number) for number in numbers[1::2]]
    for how, taken in (("by close()", closed), ("by SIGKILL", killed)):
        what = f"last ref dropped {how} → gone from chunks/"
        yield Figure("release", f"{what} (p50)", ms(taken), "ms", len(taken), 20)
        yield Figure("release", f"{what} (p99)", ms(taken, 99), "ms", len(taken), 100)


def hold(connection: Connection, data_dir: str) -> None:
    """Take a ref to the chunk of each number that comes, say so; close it at the next word, and send when."""
    with DataManager(data_dir, reconcile=False) as dm:
        while True:
            ref = dm.find_chunk(DATASET, connection.recv() * STRIDE)
            assert ref is not None
            connection.send(True)
            connection.recv()
            now = time.monotonic_ns()
            ref.close()
            connection.send(now)


def _time_closes(data_dir: str, numbers: range) -> list[int]:
    layout, taken = Layout(data_dir), []
    with process(hold, data_dir) as (_, holder):
        for number in numbers:
            _hold_a_deleted_one(layout, holder, number)
            holder.send(None)
            gone = _gone(layout, number)
            taken.append(gone - receive(holder))
            _forgotten(layout, number)
    return taken


def _time_kill(data_dir: str, number: int) -> int:
    layout = Layout(data_dir)
    with process(hold, data_dir) as (child, holder):
        _hold_a_deleted_one(layout, holder, number)
        began = time.monotonic_ns()
        child.kill()
        taken = _gone(layout, number) - began
        _forgotten(layout, number)
    return taken


def _hold_a_deleted_one(layout: Layout, holder: Connection, number: int) -> None:
    holder.send(number)
    receive(holder)
    _touch_delete(layout, number)
    time.sleep(0.02 + 0.01 * (number % 10))  # the reconciler tries less and less often: meet it in all its moods


def _touch_delete(layout: Layout, number: int) -> int:
    began = time.monotonic_ns()
    _write(layout.delete_marker(place_of(number).chunk_id), b"")
    return began


def _gone(layout: Layout, number: int) -> int:
    path = layout.path(place_of(number))
    return until(lambda: not os.path.exists(path), "a deleted chunk is gone")


def _forgotten(layout: Layout, number: int) -> None:
    marker = layout.delete_marker(place_of(number).chunk_id)
    until(lambda: not os.path.exists(marker), "the marker of a deleted chunk is removed")


# ------------------------------------------------------------------------------------------------------ whole processes


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
    """From DataManager(DIR) to the first ref, in a fresh process; in the second figure with the imports before it."""
    for chunks, goal_s in ((site.chunks, 0.1), (site.chunks * site.samples(20, 4), 1.5)):
        runs = site.samples(7, 3)
        data_dir = site.shared(chunks)
        _time_start(data_dir, chunks)  # the page cache is warm from then on
        inside, whole = zip(*[_time_start(data_dir, chunks) for _ in range(runs)], strict=True)
        what = f"start with {chunks:,} chunks → first ref"
        yield Figure("start", f"{what} (p50)", ms(inside) / 1e3, "s", runs, goal_s)
        yield Figure("start", f"{what}, from the process's start (p50)", ms(whole) / 1e3, "s", runs)


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
    """What `fsdm run` takes while nothing happens."""
    seconds = site.samples(10, 4)
    how = "fsdm run" if has_cli() else "DataManager"
    with reconciler(site.shared(site.chunks)) as pid:
        before = cpu_ns(pid)
        time.sleep(seconds)
        percent = (cpu_ns(pid) - before) / seconds / 1e7
        memory = _memory_mib(pid)
    what = f"{how}, idle with {site.chunks:,} chunks"
    yield Figure("idle", f"{what}: CPU over {seconds} s", percent, "%", 1, 0.5)
    yield Figure("idle", f"{what}: memory now (VmRSS)", memory["VmRSS"], "MiB", 1)
    yield Figure("idle", f"{what}: memory at most (VmHWM)", memory["VmHWM"], "MiB", 1, 80)


def _memory_mib(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if line.startswith("Vm"))
    return {name: int(text.split()[0]) / 1024 for name, text in fields.items()}


def ls(site: Site) -> Iterator[Figure]:
    """`fsdm ls` as a whole process."""
    data_dir, taken = site.shared(site.chunks), []
    for _ in range(site.samples(15, 5) + 1):
        began = time.perf_counter_ns()
        listed = subprocess.run(command("ls", data_dir), capture_output=True, check=True).stdout
        taken.append(time.perf_counter_ns() - began)
        assert listed.count(b"\n") >= site.chunks
    how = "fsdm ls" if has_cli() else "python -c 'list_chunks()'"
    yield Figure("ls", f"{how} of {site.chunks:,} chunks (p50)", ms(taken[1:]), "ms", len(taken) - 1, 250)


# ----------------------------------------------------------------------------------------------------------- the output


BASE: Final[dict[str, Callable[[Site], Iterator[Figure]]]] = {
    "disk": disk,
    "calls": calls,  # before the others: on ext4 making a file is slow for minutes after many were removed
    "find": find,
    "ranges": ranges,
    "want": want,
    "delete": delete,
    "release": release,
    "start": start,
    "idle": idle,
    "ls": ls,
}


def measure(benches: dict[str, Callable[[Site], Iterator[Figure]]], site: Site) -> tuple[list[Figure], dict[str, str]]:
    """The figures of each, and the errors of those that could not be measured."""
    figures, errors = [], {}
    for name, bench in benches.items():
        began = time.monotonic()
        try:
            figures += list(bench(site))
        except Exception as e:  # one that fails must not take the others' figures with it
            errors[name] = f"{type(e).__name__}: {e}"
        print(f"{name}: {errors.get(name, 'done')} after {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return figures, errors


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; `base` is what is measured where nothing else is said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benches = parser.add_subparsers(dest="bench", required=True)
    base = benches.add_parser("base", help="what one machine's disk and processor can do")
    base.add_argument("--only", nargs="+", choices=BASE, default=list(BASE), metavar="NAME", help=", ".join(BASE))
    base.add_argument("--quick", action="store_true", help="fewer samples, and smaller where it takes long to build")
    base.add_argument("--chunks", type=int, metavar="N", help="so many on disk (default: 5000, or 1000 with --quick)")
    base.add_argument("--dir", type=Path, help="work below this directory (default: the system's temporary one)")
    base.add_argument("--json", metavar="FILE", help="write the figures there as JSON; - is stdout")
    transfers.add_arguments(benches.add_parser("transfers", help="fsdm beside others that move the same bytes"))
    named = argv and (not argv[0].startswith("-") or argv[0] in {"-h", "--help"})
    return parser.parse_args(argv if named else ["base", *argv])


def main(argv: Sequence[str]) -> int:
    """Measure, print. 0, or 1 where a figure could not be had; a missed goal is no error."""
    args = arguments(argv)
    os.environ["PYTHONSAFEPATH"] = "1"  # all processes import the fsdm that this one does, not one that lies in the cwd
    if args.bench == "transfers":
        return transfers.main(args)
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="fsdm-bench-") as base:
        site = Site(Path(base), args.chunks or (1000 if args.quick else 5000), args.quick)
        try:
            figures, errors = measure({name: BASE[name] for name in args.only}, site)
            tell(table(figures), figures, errors, args)
        finally:
            remove_chunks(site.base)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
