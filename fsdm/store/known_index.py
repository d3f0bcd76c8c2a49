"""The index of registered chunks by dataset and block, for one client.

It is that of `known.names` (`store.known_names`), where there is one, and of what has come into `known/` since, which
is read when a block is first asked for, and kept. Thread-safe. Invariant: it only says where to look: what is
registered under an id is told by `known/ID` itself.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from fsdm.model.layout import Layout, Place
from fsdm.store.block_index import BlockIndex
from fsdm.store.known_names import NEVER_NS, KnownNames, identity_of, listed, place_in
from fsdm.store.markers import known_chunk


class KnownIndex:
    """The registrations of one data directory, as of their last listing."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._mutex = threading.Lock()
        self._names: KnownNames | None = None
        self._identity: tuple[int, int] | None = None  # of the file that was last looked at
        self._named: dict[str, BlockIndex] = {}  # of it, by dataset
        self._others: set[str] = set()  # ids of which it says something else than their registrations
        self._datasets: dict[str, BlockIndex] = {}  # of what it does not name
        self._places: dict[str, Place | None] = {}  # of these; None where one cannot be taken
        self._mtime_ns = NEVER_NS  # of a listing that may be trusted

    def candidates(self, dataset_id: str, block: int) -> list[Place]:
        """List the places that registered chunks with this block would have, in no order."""
        with self._mutex:
            self._refresh()
            if self._names is not None and dataset_id not in self._named:
                self._named[dataset_id] = self._names.index(dataset_id)
            read, named = (kind.get(dataset_id, BlockIndex()) for kind in (self._datasets, self._named))
            found = [Place(dataset_id, name) for name in read.candidates(block)]
            places = (Place(dataset_id, name) for name in named.candidates(block))
            return found + [place for place in places if place.chunk_id not in self._others]

    def correct(self, chunk_id: str) -> None:
        """Read a registration anew that is not what this index says, or has gone."""
        with self._mutex:
            self._others.add(chunk_id)
            self._drop(chunk_id)
            chunk = known_chunk(self._layout, chunk_id)
            if chunk is not None:
                self._keep({chunk_id: chunk.place})

    def _refresh(self) -> None:
        with suppress(FileNotFoundError):
            if os.stat(self._layout.known).st_mtime_ns == self._mtime_ns:
                return
        if self._look_at_names():
            return
        mtime_ns, ids = listed(self._layout)
        for chunk_id in self._places.keys() - ids:
            self._drop(chunk_id)
        ids -= self._places.keys()
        if self._names is not None:
            named = (place.chunk_id for place in self._names.each())
            ids.difference_update(chunk_id for chunk_id in named if chunk_id not in self._others)
        self._keep({chunk_id: place_in(self._layout, chunk_id) for chunk_id in ids})
        self._mtime_ns = mtime_ns

    def _look_at_names(self) -> bool:
        """Map the file where it is another one; tell whether it names all that stands in `known/`."""
        path, identity = self._layout.known_names, None
        with suppress(FileNotFoundError):
            identity = identity_of(os.stat(path, follow_symlinks=False))
        if identity == self._identity:
            return False
        self._identity, self._names = identity, KnownNames.open(path)
        for kept in (self._named, self._others, self._datasets, self._places):
            kept.clear()
        if self._names is None or os.stat(self._layout.known).st_mtime_ns != self._names.mtime_ns:
            return False
        self._mtime_ns = self._names.mtime_ns
        return True

    def _drop(self, chunk_id: str) -> None:
        place = self._places.pop(chunk_id, None)
        if place is not None:
            self._datasets[place.dataset_id].discard(place.name)

    def _keep(self, read: dict[str, Place | None]) -> None:
        came: dict[str, list[str]] = {}
        for chunk_id, place in read.items():
            self._places[chunk_id] = place
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
