"""The time of find_chunk."""

from __future__ import annotations

import fcntl
import math
import os
import random
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

from fsdm import DataManager
from fsdm.model.layout import READY, Layout, Place
from fsdm.store.block_index import BlockIndex
from tools.bench.processes import in_process, settle
from tools.bench.report import Figure, times
from tools.bench.site import BLOCKS, DATASET, STRIDE, Site, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class Finds(NamedTuple):
    """The times of a new ref, of a second ref to a held chunk, and of the protocol's bare system calls."""

    new: list[int]
    second: list[int]
    bare: list[int]


def find(site: Site) -> Iterator[Figure]:
    """Measure find_chunk in a client, and in the process that reconciles, beside the system calls that it takes."""
    rounds = site.samples(3, 1)
    for reconcile, where in ((False, "a client"), (True, "the reconciling process")):
        taken = in_process(_time_finds, site.shared(site.chunks), site.chunks, rounds, reconcile)
        what = f"find_chunk in {where}, {site.chunks:,} chunks"
        yield from times("find", f"{what}: a new ref", taken.new, (50, "µs", 25), (99, "µs", None))
        yield from times("find", f"{what}: a second ref to a held chunk", taken.second, (50, "µs", 5))
        bare = statistics.median(taken.bare)
        for ref, some, goal in (("a new ref", taken.new, 1.5), ("a second ref", taken.second, 0.45)):
            ratio = statistics.median(some) / bare
            yield Figure("find", f"{what}: {ref}, against the bare system calls", ratio, "times", len(some), goal)


def _time_finds(data_dir: str, chunks: int, rounds: int, reconcile: bool) -> Finds:
    layout, taken = Layout(data_dir), Finds([], [], [])
    with DataManager(data_dir, reconcile=reconcile) as dm:
        if reconcile:
            settle(os.getpid())
        dm.find_chunk(DATASET, 0)
        for number in random.Random(1).sample(range(chunks), chunks) * rounds:
            place = place_of((number + chunks // 2) % chunks)  # another one: what is looked at twice is faster
            taken.bare.append(_time_bare(layout.path(place), layout.delete_marker(place.chunk_id)))
            block = number * STRIDE + BLOCKS // 2
            began = time.perf_counter_ns()
            ref = dm.find_chunk(DATASET, block)
            between = time.perf_counter_ns()
            again = dm.find_chunk(DATASET, block)
            ended = time.perf_counter_ns()
            taken.new.append(between - began)
            taken.second.append(ended - between)
            assert ref is not None
            assert again is not None
            ref.close()
            again.close()
    return taken


def _time_bare(path: str, marker: str) -> int:
    """Time the steps of "Reading" in the protocol, in plain Python: stat, stat, open, flock, fstatat, stat."""
    ready = f"{path}/{READY}"
    began = time.perf_counter_ns()
    os.path.exists(marker)
    os.stat(ready)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.stat(READY, dir_fd=fd)
    os.path.exists(marker)
    ended = time.perf_counter_ns()
    os.close(fd)
    return ended - began


def ranges(site: Site) -> Iterator[Figure]:
    """Measure the same with a million block ranges in the index, against what is on disk alone."""
    count = site.samples(1_000_000, 100_000)
    few, many = in_process(_time_ranges, site.shared(site.chunks), site.chunks, count)
    what = f"find_chunk, a new ref, {count:,} ranges in the index"
    yield from times("ranges", what, many, (50, "µs", None))
    ratio = statistics.median(many) / statistics.median(few)
    yield Figure("ranges", f"{what}, against {site.chunks:,}", ratio, "times", len(many), 1.5)


def _time_ranges(data_dir: str, chunks: int, count: int) -> tuple[list[int], list[int]]:
    """Time both in turns, so that both see the same noise."""
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
            for dm, taken in ((small, few), (large, many)):
                began = time.perf_counter_ns()
                ref = dm.find_chunk(DATASET, number * STRIDE)
                taken.append(time.perf_counter_ns() - began)
                assert ref is not None
                ref.close()
        assert len(dataset.index) >= count, "the listing was taken again: the ranges are gone"
    return few, many


def _between(chunks: int, count: int) -> Iterator[str]:
    """Make names of ranges in the gaps between the chunks on disk, to `count` with them."""
    each = math.ceil((count - chunks) / chunks)
    width = (STRIDE - BLOCKS) // each
    for number in range(chunks):
        for start in range(number * STRIDE + BLOCKS, number * STRIDE + BLOCKS + each * width, width):
            yield Place.of(DATASET, range(start, start + width), f"{start:064x}").name
