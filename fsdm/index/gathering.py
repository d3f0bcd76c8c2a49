"""Gathering the indexes of chunks into runs over all of them: what is to be merged, and the new run put in place.

There is no state but the files: the chunks of a run stand in it. Invariants: a run is removed only when its living
chunks stand in others that are in place, or it is none; and after a merge there are at most RUNS_MAX.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.log import Log
from fsdm.index.merging import MergeJob
from fsdm.index.process import run
from fsdm.index.standing import stands
from fsdm.model.errors import IndexerError
from fsdm.model.index_format import IndexedChunk
from fsdm.model.layout import index_path
from fsdm.store.filesystem import exists
from fsdm.store.index_file import open_chunk_index
from fsdm.store.index_runs import mtime_of, open_run, run_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from fsdm.model.indexes import Index
    from fsdm.model.layout import Layout, Place
    from fsdm.store.filesystem import FileSystem

logger = Log("fsdm")

RUNS_MAX: Final = 8
BATCH_MAX: Final = 256  # chunks that are merged at once: each is a mapping
LATE_S: Final = 10.0  # so long a chunk waits for others that are being indexed
TIMEOUT_S: Final = 4 * 3600.0
DEAD_SHARE: Final = 0.5  # of the chunks in all runs: then all are merged, to be rid of them
DEAD_REST: Final = 100.0  # so many times as long as they were looked for in vain, that rests


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run in place: how many records it has, of which chunks, in how many bytes."""

    name: str
    count: int
    chunks: frozenset[IndexedChunk]
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge to be made, of these runs and of these chunks' indexes."""

    index: Index
    runs: tuple[str, ...]
    places: tuple[Place, ...]


def inputs_for(runs: Iterable[RunInfo], new_count: int) -> list[RunInfo]:
    """Choose the runs that so many new records are merged with: none while there is room, then the small ones. Pure.

    So thousands of batches, one by one, have each record written seven times; with one large batch it is once or twice.
    """
    waiting, taken, total = sorted(runs, key=lambda one: (one.count, one.name)), [], new_count
    if len(waiting) < RUNS_MAX:
        return []
    while waiting and (len(waiting) >= RUNS_MAX or waiting[0].count <= total):
        taken.append(waiting.pop(0))
        total += taken[-1].count
    return taken


def redundant(runs: Iterable[RunInfo], may_live: Callable[[IndexedChunk], bool]) -> list[RunInfo]:
    """Choose runs whose living chunks all stand in the others: a crash has kept a merge from removing them."""
    kept, gone = sorted(runs, key=lambda one: (one.count, one.name)), []
    for info in [*kept]:
        others = frozenset[IndexedChunk]().union(*(other.chunks for other in kept if other is not info))
        if all(chunk in others or not may_live(chunk) for chunk in info.chunks):
            kept.remove(info)
            gone.append(info)
    return gone


@dataclass(slots=True)
class Gathering:
    """The runs of one index. `look` belongs to one thread; `merge` may be run by another, one at a time."""

    layout: Layout
    fs: FileSystem
    index: Index
    runs: dict[str, RunInfo] = field(default_factory=dict)
    _mtime_ns: int | None = None
    _known: dict[Place, tuple[IndexedChunk, int]] = field(
        default_factory=dict
    )  # of indexes that stand, and their counts
    _since: float | None = None  # monotonic: when there was first something new
    _rests_until: float = 0.0  # monotonic: till then the dead are not looked for

    @property
    def directory(self) -> str:
        return self.layout.runs_of(self.index.name)

    def has_changed(self) -> bool:
        """Tell whether somebody else has changed the runs, as `rm -r` does. May raise OSError."""
        return self._mtime_ns is not None and mtime_of(self.directory) != self._mtime_ns

    def look(self, places: Collection[Place], indexed: Iterable[Place], *, is_calm: bool) -> Merge | None:
        """Return the merge that is due. May raise OSError.

        `places` are those of all chunks, `indexed` those with an index. `is_calm`: no other index is to come soon.
        """
        if self._mtime_ns is None or self.has_changed():
            self._read_runs(places)
        self._known = {place: known for place, known in self._known.items() if place in places}
        taken = {chunk for info in self.runs.values() for chunk in info.chunks}
        new = [place for place in sorted(indexed) if (chunk := self._chunk(place)) is not None and chunk not in taken]
        self._since = None if not new else self._since or time.monotonic()
        if self._is_mostly_dead(taken, places):
            return Merge(self.index, tuple(self.runs), tuple(new[:BATCH_MAX]))
        is_late = self._since is not None and time.monotonic() >= self._since + LATE_S
        if not new or not (is_calm or is_late or len(new) >= BATCH_MAX):
            return None
        batch = tuple(new[:BATCH_MAX])
        inputs = inputs_for(self.runs.values(), sum(self._known[place][1] for place in batch))
        return Merge(self.index, tuple(info.name for info in inputs), batch)

    def _is_mostly_dead(self, taken: Collection[IndexedChunk], places: Collection[Place]) -> bool:
        """Tell whether most chunks in the runs are dead; those that were evicted and are registered are not."""
        gone = [chunk for chunk in taken if chunk.place not in places]
        if len(gone) <= DEAD_SHARE * len(taken) or time.monotonic() < self._rests_until:
            return False
        began = time.monotonic()
        if sum(not stands(self.layout, chunk) for chunk in gone) > DEAD_SHARE * len(taken):
            return True
        ended = time.monotonic()
        self._rests_until = ended + (ended - began) * DEAD_REST
        return False

    def merge(self, merge: Merge, go_on: Callable[[], None]) -> list[Place]:
        """Carry out a merge; return the places whose index was none, and is to be made anew.

        Raises:
            IndexerError: its process failed.
            OSError: the disk refuses.
        """
        target = f"{self.layout.trash}/.run.{self.index.name}.{secrets.token_hex(8)}"
        job = MergeJob(
            parent=os.getpid(),
            root=self.layout.root,
            name=self.index.name,
            definition=self.index.definition.hex(),
            runs=merge.runs,
            places=merge.places,
            target=target,
        )
        try:
            report = run("fsdm.index.merging", job.to_json(), TIMEOUT_S, go_on)
            name = report["run"]
            if name is not None:
                self._publish(target, name)
        finally:
            if exists(target):
                with suppress(OSError):  # the next start erases it
                    self.fs.erase(target)
        for old in merge.runs:
            if old != name:
                self.fs.unlink(f"{self.directory}/{old}")
        places = {tuple(place): place for place in merge.places}
        for damaged in report["damaged"]:
            logger.warning("run %s of index %s was not whole: it is made again", damaged, self.index.name)
        untaken = [places[tuple(given)] for given in report["untaken"]]
        for place in untaken:
            self._remove_unless_sound(place)
        return untaken

    def forget(self) -> None:
        """Read all anew at the next look: a merge has ended."""
        self._mtime_ns = None
        self._since = None

    def forget_places(self, places: Iterable[Place]) -> None:
        """Open the indexes at these places anew."""
        for place in places:
            self._known.pop(place, None)

    def _publish(self, target: str, name: str) -> None:
        made = open_run(target)
        if made is None or made.header.definition != self.index.definition:
            raise IndexerError("the merge has left no whole run", hint="please report this")
        made.close()
        self.fs.mkdir(self.layout.index)
        self.fs.mkdir(self.directory)
        self.fs.fsync_path(target)
        self.fs.rename(target, f"{self.directory}/{name}")

    def _remove_unless_sound(self, place: Place) -> None:
        """Remove an index that could not be taken: it was made anew meanwhile, or is to be."""
        directory = self.layout.path(place)
        index = open_chunk_index(directory, self.index.name)
        if index is not None:
            with index:
                if index.header.definition == self.index.definition and index.is_sound():
                    return
            self.fs.unlink(index_path(directory, self.index.name))

    def _chunk(self, place: Place) -> IndexedChunk | None:
        known = self._known.get(place)
        if known is None:
            index = open_chunk_index(self.layout.path(place), self.index.name)
            if index is None:
                return None
            with index:
                known = self._known[place] = IndexedChunk(place, index.header.identity), index.header.count
        return known[0]

    def _read_runs(self, places: Collection[Place]) -> None:
        """Read which runs there are; remove those that are of another definition, not whole, or of no use any more."""
        mtime_ns = mtime_of(self.directory)
        found = {}
        for name in run_names(self.directory):
            path = f"{self.directory}/{name}"
            info = self.runs.get(name) or self._read_run(path, name)
            if info is None:
                self.fs.unlink(path)
            else:
                found[name] = info
        known = self.layout.known_marker

        def may_live(chunk: IndexedChunk) -> bool:
            return chunk.place in places or exists(known(chunk.place.chunk_id))

        for info in redundant(found.values(), may_live):
            self.fs.unlink(f"{self.directory}/{info.name}")
            del found[info.name]
        self.runs = found
        self._mtime_ns = mtime_ns if mtime_of(self.directory) == mtime_ns else None

    def _read_run(self, path: str, name: str) -> RunInfo | None:
        opened = open_run(path)
        if opened is None:
            return None
        with opened:
            if opened.header.definition != self.index.definition:
                return None
            chunks = [chunk for chunk in opened.chunks() if chunk is not None]
            return RunInfo(name, opened.header.count, frozenset(chunks), opened.header.size)
