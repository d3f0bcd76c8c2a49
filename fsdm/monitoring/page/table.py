"""The state of each chunk, read again only where its files have changed. Belongs to one thread.

What is available is told from names alone, and its size once READY was read; a chunk with a marker, a partial or a
failure is read again when one of these has another stamp. Invariant: a dataset's version changes whenever anything that
its coverage is made of does; so what was made of a version holds as long as that is the one.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fsdm.model.layout import is_id
from fsdm.status.chunk_status import ChunkStatus, Stamp, read_chunk_status
from fsdm.status.coverage import Coverage, cover, is_placed
from fsdm.store.scan import look

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fsdm.model.layout import Layout, Place
    from fsdm.model.state import State
    from fsdm.status.progress import Survey
    from fsdm.status.survey import Surveyor

READ_S: Final = 0.05  # of each look, for chunks that are to be read again; the others are read by the next one

_Stamps = dict[str, Stamp]


class ChunkTable:
    """The chunks of one data directory, after each look of a surveyor."""

    def __init__(self, layout: Layout, surveyor: Surveyor, *, read_s: float = READ_S) -> None:
        self._layout = layout
        self._surveyor = surveyor
        self._read_s = read_s
        self._places: dict[str, tuple[Place, ...]] = {}
        self._here: defaultdict[str, set[str]] = defaultdict(set)  # by dataset: the ids with a directory
        self._pending: dict[str, ChunkStatus] = {}  # those with anything besides
        self._stamps: dict[str, tuple[Stamp | None, ...]] = {}
        self._late: set[str] = set()  # to be read again
        self._running: frozenset[str] = frozenset()
        self.is_counting = True  # some sizes are not known yet: they count as 0
        self._versions: Counter[str] = Counter()
        self._covered: dict[str, tuple[int, Coverage]] = {}

    def refresh(self, survey: Survey) -> None:
        """Take in what has changed up to this survey, which is the surveyor's last one."""
        for chunk_id in self._surveyor.changed:
            self._move(chunk_id)
        stamps = self._stamp_all()
        changed = {one for one in stamps.keys() | self._stamps.keys() if stamps.get(one) != self._stamps.get(one)}
        self._stamps = stamps
        self._late |= changed | (self._surveyor.changed & stamps.keys())
        until = time.monotonic() + self._read_s
        for chunk_id in list(self._late):
            if time.monotonic() > until:
                break
            self._late.discard(chunk_id)
            self._read(chunk_id)
        running = frozenset(one.id for one in survey.running)
        for chunk_id in running ^ self._running:
            self._touch(self._pending.get(chunk_id))
        self._running = running
        if self.is_counting and not self._surveyor.is_counting:
            self._versions.update(self._here.keys())
        self.is_counting = self._surveyor.is_counting

    @property
    def is_complete(self) -> bool:
        """Return whether everything that has changed was read."""
        return not (self._late or self.is_counting)

    def datasets(self) -> dict[str, int]:
        """Return the version of each dataset that any chunk is of."""
        of_wants = (chunk.dataset_id for chunk in self._pending.values() if is_placed(chunk))
        return {one: self._versions[one] for one in sorted({*self._here, *filter(None, of_wants)})}

    def count(self, dataset_id: str) -> int:
        """Count the chunks of a dataset that have a directory."""
        return len(self._here.get(dataset_id, ()))

    def unplaced(self) -> list[ChunkStatus]:
        """List the chunks whose blocks are not known, or cannot be."""
        return [chunk for _, chunk in sorted(self._pending.items()) if not is_placed(chunk)]

    def status(self, chunk_id: str) -> ChunkStatus | None:
        """Return how a chunk stands; None where nothing is known of it."""
        pending = self._pending.get(chunk_id)
        if pending is not None:
            if chunk_id in self._running:  # perhaps in spite of a failure: then it is tried again
                return replace(pending, state="downloading", size_bytes=0, total_bytes=None, error=None)
            return pending
        places = self._places.get(chunk_id)
        if not places:
            return None
        place, size = places[0], self._surveyor.size_of(chunk_id)
        state: State = "unready" if self._surveyor.is_unready(chunk_id) else "available"
        return ChunkStatus(chunk_id, state, place.dataset_id, place.block_range, size or 0, size)

    def ids(self) -> Iterator[str]:
        """Iterate over the ids that anything is known of."""
        yield from self._places
        yield from (one for one in self._pending if one not in self._places)

    def coverage(self, dataset_id: str) -> tuple[int, Coverage] | None:
        """Return a dataset's version and its coverage; None where there is no chunk of it."""
        version = self._versions[dataset_id]
        known = self._covered.get(dataset_id)
        if known is not None and known[0] == version:
            return known
        of_wants = (one.id for one in self._pending.values() if one.dataset_id == dataset_id and is_placed(one))
        chunks = list(self._statuses({*self._here.get(dataset_id, ()), *of_wants}))
        if not chunks:
            self._covered.pop(dataset_id, None)
            return None
        self._covered[dataset_id] = version, cover(dataset_id, chunks)
        return self._covered[dataset_id]

    def _statuses(self, ids: Iterable[str]) -> Iterator[ChunkStatus]:
        return filter(None, map(self.status, ids))

    def _move(self, chunk_id: str) -> None:
        for place in self._places.pop(chunk_id, ()):
            self._here[place.dataset_id].discard(chunk_id)
            self._versions[place.dataset_id] += 1
            if not self._here[place.dataset_id]:
                del self._here[place.dataset_id]
        places = self._surveyor.catalog.places(chunk_id)
        if places:
            self._places[chunk_id] = places
        for place in places:
            self._here[place.dataset_id].add(chunk_id)
            self._versions[place.dataset_id] += 1

    def _read(self, chunk_id: str) -> None:
        before, found = self.status(chunk_id), None
        if chunk_id in self._stamps:
            found = read_chunk_status(self._layout, look(self._layout, self._surveyor.catalog, chunk_id))
        self._pending.pop(chunk_id, None)
        if found is not None:
            self._pending[chunk_id] = found
        after = self.status(chunk_id)
        if before != after:  # a download's record is written all the time, which changes nothing here
            self._touch(before)
            self._touch(after)

    def _touch(self, chunk: ChunkStatus | None) -> None:
        if chunk is not None and chunk.dataset_id is not None:
            self._versions[chunk.dataset_id] += 1

    def _stamp_all(self) -> dict[str, tuple[Stamp | None, ...]]:
        layout = self._layout
        found = [*map(_stamps, (layout.want, layout.delete, layout.verify, layout.partial, layout.failed))]
        return {one: tuple(stamps.get(one) for stamps in found) for one in set().union(*found)}


def _stamps(directory: str) -> _Stamps:
    """Stamp the entries of a directory that are named as ids; none where it may not be listed."""
    stamps: _Stamps = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if is_id(entry.name):
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    stamps[entry.name] = found.st_ino, found.st_mtime_ns, found.st_size
    except OSError:
        return {}  # the survey tells that
    return stamps
