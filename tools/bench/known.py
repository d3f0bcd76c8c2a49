"""The case `known`: a data directory with a million registrations, of which next to nothing is here."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from fsdm import Client
from fsdm.model.layout import Layout
from fsdm.store.leader_lock import read_lock
from tools.bench.processes import CONTEXT, in_process, settle, starting, until
from tools.bench.report import Figure, times
from tools.bench.site import DATASET, STRIDE, Site, cache_chunks, place_of, write
from tools.support.proc import cpu_ns, memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsdm.store.refs import ChunkRef

KNOWN: Final = 1_000_000
HERE: Final = 1_000


def known(site: Site) -> Iterator[Figure]:
    """Measure the start, the rest and the memory of `fsdm run`, and acquire and find by a block."""
    layout, count = Layout(site.empty("known")), site.samples(KNOWN, 20_000)
    cache_chunks(layout.root, range(HERE))
    with ProcessPoolExecutor(2, CONTEXT) as pool:
        list(pool.map(_register, [layout.root] * 2, [range(HERE, count, 2), range(HERE + 1, count, 2)]))
    what = f"with {count:,} known"
    began = time.monotonic_ns()
    with starting(layout.root, "--brake", "off") as pid:
        has_lock = until(lambda: read_lock(layout), "fsdm run has LOCK", 0.005, 120)
        yield Figure("known", f"fsdm run {what}: start → LOCK", (has_lock - began) / 1e9, "s", 1, 3)
        marker = layout.evict_marker(DATASET)  # of no chunk: it is removed once the loop makes its passes
        write(marker, b"")
        answered = until(lambda: not os.path.exists(marker), "the loop answers", 0.005, 120)
        yield Figure("known", f"fsdm run {what}: start → its loop answers", (answered - began) / 1e9, "s", 1, 3)
        settle(pid)
        seconds = site.samples(20, 2)
        before = cpu_ns(pid)
        time.sleep(seconds)
        percent = (cpu_ns(pid) - before) / seconds / 1e7
        yield Figure("known", f"fsdm run {what}: CPU at rest over {seconds} s", percent, "%", 1, 0.5)
        for again in ("first", "second"):
            asks, finds, mib = in_process(ask_by_block, layout.root)
            yield Figure("known", f"{again} client {what}: first acquire by a block", asks[0] / 1e9, "s", 1)
            yield from times("known", f"{again} client {what}: later acquires by a block", asks[1:], (50, "µs", None))
            yield from times("known", f"{again} client {what}: find", finds, (50, "µs", 10))
            yield Figure("known", f"{again} client {what}: memory", mib, "MiB", 1)
        yield Figure("known", f"fsdm run {what}: memory at most", memory_mib(pid, "VmHWM"), "MiB", 1, 300)


def _register(data_dir: str, numbers: range) -> None:
    layout = Layout(data_dir)
    for number in numbers:
        place = place_of(number)
        blocks = {"start": place.block_range.start, "end": place.block_range.stop}
        files = {"blocks.parquet": "http://127.0.0.1/tiny"}
        document = {"id": place.chunk_id, "dataset_id": DATASET, "block_range": blocks, "files": files}
        write(layout.known_marker(place.chunk_id), json.dumps(document).encode())


def ask_by_block(data_dir: str) -> tuple[list[int], list[int], float]:
    """Acquire and find chunks that are here, by blocks, in a new client; return the times, and the memory in MiB."""
    blocks = [number * STRIDE + 1 for number in range(0, HERE, 7)]
    with Client(data_dir) as client:
        asks = [_time(partial(client.acquire, (DATASET, block))) for block in blocks]
        finds = [_time(partial(client.hold_chunk, DATASET, block)) for block in blocks]
        return asks, finds, memory_mib(os.getpid(), "VmRSS")


def _time(take: Callable[[], ChunkRef]) -> int:
    began = time.perf_counter_ns()
    ref = take()
    taken = time.perf_counter_ns() - began
    ref.close()
    return taken
