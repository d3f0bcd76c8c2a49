"""The cases `gc`, `victims` and `budget`: what goes, how it is chosen, and how well the cache is kept."""

from __future__ import annotations

import bisect
import itertools
import os
import random
import sys
import time
from collections import OrderedDict
from contextlib import ExitStack, suppress
from threading import Thread
from typing import TYPE_CHECKING, Final

from fsdm import Client, DataChunk
from fsdm.model.errors import FsdmError
from fsdm.model.layout import Layout
from fsdm.store.catalog import Catalog
from fsdm.store.eviction import choose
from tools.bench.processes import PATIENCE_S, in_process, process, receive, reconciler, serve
from tools.bench.report import Figure, percentile, times
from tools.bench.site import CONTENT, DATASET, STRIDE, Site, a_chunk, cache_chunks, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

GOAL_S: Final = 2.0
ACQUIRERS: Final = 64
ASKED: Final = 1000  # chunks
FITS: Final = 300  # of them
SIZE: Final = 20_000
THREADS: Final = 8  # of a process


def gc(site: Site) -> Iterator[Figure]:
    """Evict all but those that are held, while others are hit; the hits are compared with those before it."""
    data_dir, chunks = site.empty("gc"), site.chunks
    held = range(0, chunks, 10)
    cache_chunks(data_dir, range(chunks))
    with reconciler(data_dir, "--brake", "off"), process(hit_again, data_dir, held) as (_, hitter):
        receive(hitter)
        time.sleep(site.samples(4, 1))
        hitter.send(None)
        idle = receive(hitter)
        with Client(data_dir) as client:
            client.available_places()
            began = time.monotonic_ns()
            outcomes = [one.outcome for one in client.gc(timeout_s=120)]
            took = time.monotonic_ns() - began
        hitter.send(None)
        busy = receive(hitter)
    counts = {outcome: outcomes.count(outcome) for outcome in set(outcomes)}
    if counts.get("evicted") != chunks - len(held):
        raise RuntimeError(f"not all went, or one that was held: {counts}")
    what = f"gc --to 0 of {chunks:,} chunks, {len(held)} of them held"
    yield Figure("gc", f"{what}: all judged", took / 1e9, "s", 1, GOAL_S * chunks / 5000)
    p99, before = percentile(busy, 99), percentile(idle, 99)
    yield Figure("gc", "an acquire of a held chunk before it (p99)", before / 1e3, "µs", len(idle))
    yield Figure("gc", "an acquire of a held chunk meanwhile (p99)", p99 / 1e3, "µs", len(busy))
    yield Figure("gc", "meanwhile against before", p99 / before, "times", len(busy), 2)


def hit_again(connection: Connection, data_dir: str, held: range) -> None:
    """Hold these chunks, and acquire them again by another client; at each word send the times since the last one."""
    taken: list[int] = []
    with Client(data_dir) as holder, Client(data_dir) as client, ExitStack() as stack:
        for number in held:
            stack.enter_context(holder.hold_chunk(DATASET, number * STRIDE))
        connection.send(True)
        for number in itertools.cycle(held):
            began = time.perf_counter_ns()
            client.acquire(place_of(number).chunk_id).close()
            taken.append(time.perf_counter_ns() - began)
            time.sleep(0.0005)
            if connection.poll(0):
                connection.recv()
                connection.send(taken)
                taken = []


def victims(site: Site) -> Iterator[Figure]:
    """Measure the choice of what is evicted, in a process of its own."""
    for chunks, goal_s in ((site.chunks, 0.1), (site.chunks * 20, 1.0)):
        data_dir = site.empty(f"victims-{chunks}")
        cache_chunks(data_dir, range(chunks))
        taken = in_process(choose_again, data_dir, site.samples(5, 2))
        yield from times("victims", f"choosing victims among {chunks:,}", taken, (50, "s", goal_s))


def choose_again(data_dir: str, runs: int) -> list[int]:
    """Choose ten victims among all that is here, again and again; return the times."""
    layout, taken = Layout(data_dir), []
    catalog = Catalog(layout)
    catalog.update()
    places = catalog.all_places()
    for _ in range(runs):
        began = time.perf_counter_ns()
        chosen = choose(layout, places, 10 * len(CONTENT), time.time())
        taken.append(time.perf_counter_ns() - began)
        assert len(chosen) == 10
    return taken


def budget(site: Site) -> Iterator[Figure]:
    """Have many acquire chunks by Zipf for two minutes, under a budget that takes a part of them."""
    layout, seconds = Layout(site.empty("budget")), site.samples(120, 5)
    limit = FITS * SIZE
    with process(serve) as (_, source), ExitStack() as stack:
        url = receive(source)
        with Client(layout.root) as client:
            for number in range(ASKED):
                client.register(sized(a_chunk(number, url, size=SIZE, name="timed")))
        stack.enter_context(reconciler(layout.root, "--max-bytes", str(limit), "--jobs", "16", "--brake", "off"))
        ours = [
            stack.enter_context(process(acquire_by_zipf, layout.root, seed, seconds))[1]
            for seed in range(ACQUIRERS // THREADS)
        ]
        most, fetches = watched(layout, source, time.monotonic() + seconds)
        asked = sorted(one for connection in ours for one in receive(connection, 2 * PATIENCE_S))
        fetches += drained(source)
    failed = sum(not served for _, _, served in asked)
    hits = 1 - fetches / len(asked)
    simulated = lru([number for _, number, _ in asked], FITS)
    what = f"{ACQUIRERS} acquirers by Zipf, {seconds} s, room for {FITS} of {ASKED:,}"
    yield Figure("budget", f"{what}: most bytes against the budget", most / limit, "times", 1, 1)
    yield Figure("budget", f"{what}: acquires", len(asked), "", len(asked))
    yield Figure("budget", f"{what}: acquires not served", failed, "", len(asked), 0)
    yield Figure("budget", f"{what}: hit rate", hits * 100, "%", len(asked))
    yield Figure("budget", f"{what}: hit rate of an LRU", simulated * 100, "%", len(asked))
    yield Figure("budget", f"{what}: the LRU's against it", simulated / hits, "times", len(asked), 1.05)


def sized(chunk: DataChunk) -> DataChunk:
    """Return the chunk with the sizes of its files declared: so a fetch that begins is known to fit."""
    files = {name: {"url": source.url, "size": SIZE} for name, source in chunk.files.items()}
    return DataChunk(id=chunk.id, dataset_id=chunk.dataset_id, block_range=chunk.block_range, files=files)


def drained(source: Connection) -> int:
    """Return how many requests the source has had since the last time."""
    requests = 0
    while source.poll(0):
        source.recv()
        requests += 1
    return requests


def watched(layout: Layout, source: Connection, until: float) -> tuple[int, int]:
    """Return the most bytes of files that were there together, until this moment (monotonic), and the requests.

    What two looks in a row have seen was there between them, all of it; a single look sees no one moment.
    """
    most, requests, before = 0, 0, dict[int, int]()
    while time.monotonic() < until:
        # in the order in which a file goes through them: so none is missed on its way
        seen = {ino: size for parent in (layout.partial, layout.chunks, layout.trash) for ino, size in _files(parent)}
        most = max(most, sum(size for ino, size in seen.items() if ino in before))
        before = seen
        requests += drained(source)
        time.sleep(0.01)
    return most, requests


def _files(parent: str) -> Iterator[tuple[int, int]]:
    for directory, _, names in os.walk(parent):
        for name in names if os.path.basename(directory) == "data" else ():
            with suppress(FileNotFoundError):
                found = os.lstat(f"{directory}/{name}")
                yield found.st_ino, found.st_size


def acquire_by_zipf(connection: Connection, data_dir: str, seed: int, seconds: float) -> None:
    """Acquire chunks in several threads; send when each was begun, its number, and whether it was served."""
    asked = list[tuple[float, int, bool]]()
    weights = [*itertools.accumulate(1 / rank for rank in range(1, ASKED + 1))]
    places = [place_of(number) for number in range(ASKED)]
    deadline = time.monotonic() + seconds

    def acquire(rng: random.Random, client: Client) -> None:
        while (began := time.monotonic()) < deadline:
            number = bisect.bisect(weights, rng.random() * weights[-1])
            served = True
            try:
                with client.acquire(places[number].chunk_id, timeout_s=PATIENCE_S):
                    time.sleep(0.005)
            except FsdmError as e:
                served = False
                print(f"not served: {e!r:.300}", file=sys.stderr, flush=True)
            asked.append((began, number, served))

    with Client(data_dir) as client:
        threads = [Thread(target=acquire, args=(random.Random(seed * THREADS + n), client)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    connection.send(asked)


def lru(numbers: list[int], capacity: int) -> float:
    """Return the hit rate of an LRU that keeps so many."""
    kept, hits = OrderedDict[int, None](), 0
    for number in numbers:
        hits += number in kept
        kept[number] = None
        kept.move_to_end(number)
        if len(kept) > capacity:
            kept.popitem(last=False)
    return hits / len(numbers)
