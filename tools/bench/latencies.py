"""The latency of `fsdm run`: from a marker, or from the end of a ref, to what comes of it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from fsdm import DataManager
from fsdm.model.layout import Layout
from tools.bench.processes import process, receive, reconciler, serve, until
from tools.bench.report import times
from tools.bench.site import DATASET, STRIDE, Site, a_chunk, place_of, put_chunks, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from fsdm import DataChunk
    from tools.bench.report import Figure


def want(site: Site) -> Iterator[Figure]:
    """Measure from the rename into want/ to the first byte asked for, and to the publishing."""
    layout, taken = Layout(site.shared(site.chunks)), []
    with process(serve) as (_, source), reconciler(layout.root):
        url = receive(source)
        for number in site.extra(site.samples(150, 40) + 1):
            taken.append(_time_want(layout, a_chunk(number, url, name="timed"), source))
            _touch_delete(layout, number)
            _forgotten(layout, number)
    asked, published = zip(*taken[1:], strict=True)  # the first one connects, and meets colder code
    yield from times("want", "marker in want/ → first byte asked", asked, (50, "ms", 10), (99, "ms", None))
    yield from times("want", "marker in want/ → available, 1 kB", published, (50, "ms", None))


def _time_want(layout: Layout, chunk: DataChunk, source: Connection) -> tuple[int, int]:
    temporary, marker, path = f"{layout.want}/.{chunk.id}", layout.want_marker(chunk.id), layout.path(chunk.place)
    write(temporary, chunk.to_json())
    began = time.monotonic_ns()
    os.rename(temporary, marker)
    asked = receive(source) - began
    published = until(lambda: os.path.exists(path), "a small chunk is published") - began
    until(lambda: not os.path.exists(marker), "its marker is removed")
    return asked, published


def delete(site: Site) -> Iterator[Figure]:
    """Measure from `touch delete/ID` to the chunk's leaving chunks/."""
    layout, numbers, taken = Layout(site.shared(site.chunks)), site.extra(site.samples(200, 50)), []
    put_chunks(layout.root, numbers)
    with reconciler(layout.root):
        for number in numbers:
            began = _touch_delete(layout, number)
            taken.append(_gone(layout, number) - began)
            _forgotten(layout, number)
    yield from times("delete", "touch delete/ID → gone from chunks/", taken, (50, "ms", 10), (99, "ms", None))


def release(site: Site) -> Iterator[Figure]:
    """Measure from the end of a deleted chunk's last ref to its leaving chunks/."""
    layout, numbers = Layout(site.shared(site.chunks)), site.extra(site.samples(200, 40))
    put_chunks(layout.root, numbers)
    with reconciler(layout.root):
        closed = _time_closes(layout, numbers[::2])
        killed = [_time_kill(layout, number) for number in numbers[1::2]]
    for how, taken in (("by close()", closed), ("by SIGKILL", killed)):
        what = f"last ref dropped {how} → gone from chunks/"
        yield from times("release", what, taken, (50, "ms", 20), (99, "ms", 100))


def hold(connection: Connection, data_dir: str) -> None:
    """Take a ref to the chunk of each number that comes; close it at the next word; send when."""
    with DataManager(data_dir, reconcile=False) as dm:
        while True:
            ref = dm.find_chunk(DATASET, connection.recv() * STRIDE)
            assert ref is not None
            connection.send(True)
            connection.recv()
            now = time.monotonic_ns()
            ref.close()
            connection.send(now)


def _time_closes(layout: Layout, numbers: range) -> list[int]:
    taken = []
    with process(hold, layout.root) as (_, holder):
        for number in numbers:
            _hold_a_deleted_one(layout, holder, number)
            holder.send(None)
            gone = _gone(layout, number)
            taken.append(gone - receive(holder))
            _forgotten(layout, number)
    return taken


def _time_kill(layout: Layout, number: int) -> int:
    with process(hold, layout.root) as (child, holder):
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
    write(layout.delete_marker(place_of(number).chunk_id), b"")
    return began


def _gone(layout: Layout, number: int) -> int:
    path = layout.path(place_of(number))
    return until(lambda: not os.path.exists(path), "a deleted chunk is gone")


def _forgotten(layout: Layout, number: int) -> None:
    marker = layout.delete_marker(place_of(number).chunk_id)
    until(lambda: not os.path.exists(marker), "the marker of a deleted chunk is removed")
