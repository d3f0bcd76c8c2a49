"""The index of registered chunks by dataset and block, for one client.

It is built from all documents in `known/` when a block is first asked for, and kept: from then on only those are read
whose names have come since. Thread-safe. Invariant: it only says where to look: what is registered under an id is told
by `known/ID` itself.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from fsdm.model.layout import Layout, Place, is_id
from fsdm.model.state import granule_ns
from fsdm.store.block_index import BlockIndex
from fsdm.store.markers import known_chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_MTIME = -1


class KnownIndex:
    """The registrations of one data directory, as of their last listing."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._mutex = threading.Lock()
        self._datasets: dict[str, BlockIndex] = {}
        self._places: dict[str, Place | None] = {}  # of each name that was read; None where it cannot be taken
        self._mtime_ns = NO_MTIME  # of a listing that may be trusted

    def candidates(self, dataset_id: str, block: int) -> list[Place]:
        """List the places that registered chunks with this block would have, the responsible one first."""
        with self._mutex:
            self._refresh()
            index = self._datasets.get(dataset_id)
            names = () if index is None else tuple(index.candidates(block))
        return [Place(dataset_id, name) for name in names]

    def correct(self, chunk_id: str) -> None:
        """Read a registration anew that is not what this index says, or has gone."""
        with self._mutex:
            self._drop(chunk_id)
            self._read([chunk_id])

    def _refresh(self) -> None:
        try:
            mtime_ns, before_ns = os.stat(self._layout.known).st_mtime_ns, time.time_ns()
            if mtime_ns == self._mtime_ns:
                return
            with os.scandir(self._layout.known) as entries:
                names = {entry.name for entry in entries if is_id(entry.name)}
        except FileNotFoundError:
            mtime_ns, before_ns, names = NO_MTIME, 0, set()
        for chunk_id in self._places.keys() - names:
            self._drop(chunk_id)
        self._read(names - self._places.keys())
        # a registration that comes after this listing may still give the same mtime
        self._mtime_ns = mtime_ns if before_ns - mtime_ns > granule_ns(mtime_ns) else NO_MTIME

    def _drop(self, chunk_id: str) -> None:
        place = self._places.pop(chunk_id, None)
        if place is not None:
            self._datasets[place.dataset_id].discard(place.name)

    def _read(self, ids: Iterator[str] | set[str] | list[str]) -> None:
        came: dict[str, list[str]] = {}
        for chunk_id in ids:
            chunk = known_chunk(self._layout, chunk_id)
            self._places[chunk_id] = place = None if chunk is None else chunk.place
            if place is not None:
                came.setdefault(place.dataset_id, []).append(place.name)
        for dataset_id, names in came.items():
            index = self._datasets.get(dataset_id, BlockIndex())
            if len(names) > len(index):  # the first listing, mostly
                index = BlockIndex.of([*index, *names])
            else:
                for name in names:
                    index.add(name)
            self._datasets[dataset_id] = index
