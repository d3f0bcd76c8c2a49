"""The cases `hit` and `absent`: an acquire of what is here, and of what is not by many processes at once."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from fsdm import Client, DataChunk
from fsdm.model.layout import Layout
from tools.bench.processes import CONTEXT, process, receive, reconciler, serve, until
from tools.bench.report import Figure, times
from tools.bench.site import Site, a_chunk, cache_chunks, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

ASKERS: Final = 256
WRITTEN: Final = ("wchar", "write_bytes")


def hit(site: Site) -> Iterator[Figure]:
    """Measure an acquire of a chunk that is here, by id, and the bytes that its process writes meanwhile."""
    data_dir, samples = site.empty("hit"), site.samples(5000, 500)
    cache_chunks(data_dir, range(20))
    with reconciler(data_dir), process(acquire_again, data_dir, samples) as (_, asker):
        taken, written, changed = receive(asker)
    yield from times("hit", "acquire of a chunk that is here", taken, (50, "µs", 60), (99, "µs", None))
    yield Figure("hit", f"bytes written by {samples:,} such acquires", written, "bytes", samples, 0)
    yield Figure("hit", "acquire/ changed by them", changed, "", samples, 0)


def acquire_again(connection: Connection, data_dir: str, samples: int) -> None:
    """Acquire the same 20 chunks again and again; send the times, and what was written."""
    ids, taken = [place_of(number).chunk_id for number in range(20)], []
    directory = Layout(data_dir).acquire
    with Client(data_dir) as client:
        for chunk_id in ids:
            with client.acquire(chunk_id):
                pass
        noted, before = os.stat(directory).st_mtime_ns, _written()
        for number in range(samples):
            began = time.perf_counter_ns()
            with client.acquire(ids[number % 20]):
                pass
            taken.append(time.perf_counter_ns() - began)
        written = _written() - before
    connection.send((taken, written, int(os.stat(directory).st_mtime_ns != noted)))


def _written() -> int:
    """Return the bytes that this process has given to write(2) and to disks: proc_pid_io(5)."""
    with open("/proc/self/io") as file:
        counts = dict(line.split(": ") for line in file)
    return sum(int(counts[name]) for name in WRITTEN)


def absent(site: Site) -> Iterator[Figure]:
    """Have many processes acquire one chunk that is not here: how often it is fetched, and when all of them hold it."""
    layout, askers = Layout(site.empty("absent")), site.samples(ASKERS, 16)
    ready = CONTEXT.Barrier(askers + 1)
    spread, fetches = [], 0
    with process(serve) as (_, source), reconciler(layout.root), ExitStack() as stack:
        url = receive(source)
        with Client(layout.root) as client:
            runs = [a_chunk(number, url, name="timed", rate=4000) for number in range(site.samples(5, 1))]
            for chunk in runs:
                client.register(chunk)
        ours = [stack.enter_context(process(acquire_each, layout.root, runs, ready))[1] for _ in range(askers)]
        for chunk in runs:
            ready.wait(120)
            path = layout.path(chunk.place)
            published = until(partial(os.path.exists, f"{path}/READY"), "the chunk comes", 0.0002, 120)
            held = [receive(one) for one in ours]
            spread.append(max(held) - published)
            while source.poll(0):
                source.recv()
                fetches += 1
    what = f"an absent chunk, by {askers} processes"
    yield Figure("absent", f"{what}: requests for each", fetches / len(runs), "", len(runs), 1)
    yield from times("absent", f"{what}: published → all hold it", spread, (50, "ms", 50))


def acquire_each(connection: Connection, data_dir: str, chunks: list[DataChunk], ready: Barrier) -> None:
    """Acquire one chunk after the other, together with all others; send when it was held."""
    with Client(data_dir) as client:
        client.acquire  # noqa: B018 loaded before it is timed
        for chunk in chunks:
            ready.wait(120)
            with client.acquire(chunk.id, timeout_s=120):
                now = time.monotonic_ns()
            connection.send(now)
