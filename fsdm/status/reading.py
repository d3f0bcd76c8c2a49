"""Reading how every chunk stands, by the files alone; where nothing is pending that costs little more than its READY.

Chunks come by dataset and block, then those that have no directory, each once.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from fsdm.model.state import Oddity
from fsdm.status.chunk_status import ChunkStatus, count_known, index_errors, read_chunk_status, read_surroundings
from fsdm.store.catalog import Catalog
from fsdm.store.eviction import victim_at
from fsdm.store.filesystem import exists
from fsdm.store.holders import held_places
from fsdm.store.ready_sizes import ReadySizes
from fsdm.store.scan import look, scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.model.layout import Layout, Place
    from fsdm.status.chunk_status import Status


def read_status(layout: Layout) -> Status:
    """Read how all chunks stand, and what concerns all of them."""
    reading = StatusReading(layout)
    chunks = {chunk.id: chunk for chunk in reading.each()}
    return replace(reading.rest(), chunks=chunks)


class StatusReading:
    """A reading of all chunks, one after the other: who only shows them needs no room for all."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._catalog = Catalog(layout)
        self._catalog.update()
        self._snapshot = scan(layout, self._catalog)
        self._oddities = list(self._snapshot.oddities)
        self.some_known = _has_entries(layout.known)
        self._some_indexes = exists(layout.index)
        self._sizes = ReadySizes(layout)
        self._counts: Counter[str] = Counter()

    def each(self) -> Iterator[ChunkStatus]:
        """Yield how each chunk stands."""
        left = {*self._snapshot.ids, *self._catalog.repeated_ids()}  # of these there is more than one directory
        looked: set[str] = set()
        with closing(self._sizes):
            for place in self._catalog.each_place():
                chunk_id = place.chunk_id
                if chunk_id in looked:
                    continue
                status = None if chunk_id in left else self._at_rest(place, chunk_id)
                if status is None:
                    looked.add(chunk_id)
                    status = self._take(chunk_id)
                if status is not None:
                    yield self._counted(status)
        for chunk_id in sorted(left - looked):
            status = self._take(chunk_id)
            if status is not None:
                yield self._counted(status)

    def rest(self) -> Status:
        """Read what concerns all chunks, and count those that were yielded."""
        counts = {
            "known": count_known(self._layout),
            "fetching": self._counts["downloading"],
            "available": self._counts["available"],
            "held": len(held_places(self._layout, self._catalog.each_place())),
            "cached": self._counts["cached"],
            "failing": self._counts["failed"] - self._counts["given_up"],
            "given_up": self._counts["given_up"],
        }
        return replace(read_surroundings(self._layout), oddities=tuple(self._oddities), counts=counts)

    def _counted(self, status: ChunkStatus) -> ChunkStatus:
        self._counts[status.state] += 1
        if status.cached:
            self._counts["cached"] += 1
        if status.given_up:
            self._counts["given_up"] += 1
        return status

    def _take(self, chunk_id: str) -> ChunkStatus | None:
        state = look(self._layout, self._catalog, chunk_id)
        if state.verify is not None and state.verify.fault is not None:
            self._oddities.append(Oddity(self._layout.verify_marker(chunk_id), f"it {state.verify.fault}"))
        return read_chunk_status(self._layout, state)

    def _at_rest(self, place: Place, chunk_id: str) -> ChunkStatus | None:
        """Read a chunk of which nothing is pending; None where it has to be looked at."""
        size = None if self._catalog.is_stray(place) else self._sizes.of(place)
        if size is None:
            return None
        errors = index_errors(self._layout, (place,)) if self._some_indexes else ()
        known = self.some_known and exists(self._layout.known_marker(chunk_id))
        return ChunkStatus(
            chunk_id,
            "available",
            place.dataset_id,
            place.block_range,
            size,
            size,
            index_errors=errors,
            least_bytes=size,
            known=known,
            cached=known and victim_at(self._layout, place) is not None,
        )


def _has_entries(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return any(True for _ in entries)
    except OSError:  # of before there were any; or this user may not list it, and so not see them
        return os.path.isdir(directory)
