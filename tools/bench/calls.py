"""The time of download_chunk and delete_chunk beside eight downloads, and of a file here."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final

from fsdm import DataManager
from fsdm.model.layout import DATA, Layout
from tools.bench.processes import MIB, in_process, process, receive, reconciler, serve, until
from tools.bench.report import times
from tools.bench.site import FULL_SPEED, Site, a_chunk, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm import DataChunk
    from tools.bench.report import Figure

DRIP: Final = 4 * MIB  # bytes a second of each of eight slow downloads


def disk(site: Site) -> Iterator[Figure]:
    """Measure the making of a file here: download_chunk and delete_chunk cost no less."""
    directory, taken = site.empty("disk"), []
    for number in range(site.samples(500, 200)):
        began = time.perf_counter_ns()
        write(f"{directory}/{number}", b"")
        taken.append(time.perf_counter_ns() - began)
    yield from times("disk", "this disk: an empty file made", taken, (50, "µs", None))


def calls(site: Site) -> Iterator[Figure]:
    """Measure both calls beside slow and fast downloads, spaced and in a burst."""
    here, client, each = "in their process", "in a client", f"{DRIP // MIB} MiB/s each"
    for where, speed, rate, pause_s in (
        (here, each, DRIP, 0.001),
        (here, f"{each}, a burst", DRIP, 0.0),
        (client, each, DRIP, 0.001),
        (here, "at full speed", FULL_SPEED, 0.001),
        (client, "at full speed", FULL_SPEED, 0.001),
    ):
        data_dir, pairs = site.empty(f"calls {where} {speed}"), site.samples(1000, 300)
        with process(serve) as (_, source), reconciler(data_dir) if where == client else nullcontext():
            both = in_process(_time_calls, data_dir, receive(source), rate, pairs, pause_s, where == here)
        for call, taken in zip(("download_chunk", "delete_chunk"), both, strict=True):
            what = f"{call} {where}, eight downloads {speed}"
            yield from times("calls", what, taken, (50, "µs", 150), (99.9, "ms", 5))


def _time_calls(
    data_dir: str, url: str, rate: int, pairs: int, pause_s: float, reconcile: bool
) -> tuple[list[int], list[int]]:
    layout = Layout(data_dir)
    both: tuple[list[int], list[int]] = ([], [])
    with DataManager(data_dir, reconcile=reconcile) as dm:
        eight = [a_chunk(number, url, files=400, size=16 * MIB, rate=rate) for number in range(8)]
        for chunk in eight:
            dm.download_chunk(chunk)
        until(lambda: all(_receiving(layout, chunk) for chunk in eight), "eight downloads run")
        for chunk in [a_chunk(number, url) for number in range(8, 8 + pairs)]:
            pair = (partial(dm.download_chunk, chunk), partial(dm.delete_chunk, chunk.id))
            for call, taken in zip(pair, both, strict=True):
                if pause_s:
                    time.sleep(pause_s)
                began = time.perf_counter_ns()
                call()
                taken.append(time.perf_counter_ns() - began)
        assert all(_receiving(layout, chunk) for chunk in eight), "a download has ended"
    return both


def _receiving(layout: Layout, chunk: DataChunk) -> bool:
    first = f"{layout.partial_of(chunk.id)}/{DATA}/0.parquet"
    return os.path.exists(first) and os.path.getsize(first) > 0
