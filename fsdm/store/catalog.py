"""The catalog: a listing of the chunk directories, by dataset and block, and by id.

Thread-safe. A listing is kept until its directory's mtime changes (PROTOCOL.md, "To find a chunk"); the next one is
compared with it, and only what came or went is looked at. Invariant: where there is a `_by_id`, a name is in its
dataset's index if and only if its place is in it.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeGuard

from fsdm.concurrency.log import Log
from fsdm.model.layout import Layout, Place, chunk_dirs, is_chunk_dir, is_id
from fsdm.model.state import granule_ns
from fsdm.store.block_index import BlockIndex
from fsdm.store.data_dir import unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = Log(__name__)

NO_MTIME: Final = -1
SEARCHES: Final = 8  # for ids through all names; who asks for more gets a table of all ids


@dataclass(slots=True)
class _Dataset:
    index: BlockIndex = field(default_factory=BlockIndex)
    names: set[str] = field(default_factory=set)  # all that were listed
    strange: set[str] = field(default_factory=set)  # of these, the names that are no chunk's
    stray: set[str] = field(default_factory=set)  # of these, what is no directory: never available
    told: set[str] = field(default_factory=set)  # added or discarded while a listing was being taken
    mtime_ns: int = NO_MTIME  # of a listing that may be trusted


class Catalog:
    """The chunk directories of one data directory: names, not states. No symlink is followed.

    The reconciler's (`own=True`) is told of each change, and lists the disk only in `refresh`.
    """

    def __init__(self, layout: Layout, *, own: bool = False) -> None:
        self._layout = layout
        self._own = own
        self._listing = threading.Lock()  # one listing at a time; taken before _mutex
        self._mutex = threading.Lock()  # the structures below; never held over a system call
        self._datasets: dict[str, _Dataset] = {}
        self._by_id: dict[str, tuple[Place, ...]] | None = {} if own else None
        self._searches = 0
        self._strange: list[str] = []
        self._refused: dict[str, OSError] = {}  # datasets that could never be listed

    def knows(self, value: object) -> TypeGuard[str]:
        """Return whether `value` is the id of a listed dataset, in its one written form."""
        return isinstance(value, str) and value in self._datasets

    def find(self, dataset_id: str, block: int) -> Place | None:
        """Return the place of the chunk that is responsible for `block`, available or not."""
        dataset = self._current(dataset_id)
        with self._mutex:
            name = None if dataset is None else dataset.index.find(block)
        return None if name is None else Place(dataset_id, name)

    def next_start(self, dataset_id: str, block: int) -> int | None:
        """Return where the first chunk begins that begins behind `block`, available or not; None where none does."""
        dataset = self._current(dataset_id)
        with self._mutex:
            name = None if dataset is None else dataset.index.following(block)
        return None if name is None else Place(dataset_id, name).block_range.start

    def candidates(self, dataset_id: str, block: int) -> list[Place]:
        """Return the places of all chunks whose range holds `block`, the responsible one first."""
        dataset = self._current(dataset_id)
        with self._mutex:
            names = () if dataset is None else tuple(dataset.index.candidates(block))
        return [Place(dataset_id, name) for name in names]

    def _current(self, dataset_id: str) -> _Dataset | None:
        return self._datasets.get(dataset_id) if self._own else self._refresh_dataset(dataset_id, None)

    def places(self, chunk_id: str) -> tuple[Place, ...]:
        """Return the places of a chunk as of the last refresh: several while it is replaced."""
        by_id = self._by_id
        if by_id is None:
            with self._mutex:
                by_id = self._search(chunk_id) if self._searches < SEARCHES else self._ids()
                self._searches += 1
        return by_id.get(chunk_id, ())

    def _search(self, chunk_id: str) -> dict[str, tuple[Place, ...]]:
        places = (
            Place(dataset_id, name)
            for dataset_id, dataset in self._datasets.items()
            for name in dataset.index
            if name.endswith(chunk_id)
        )
        return {chunk_id: tuple(sorted(places))}

    def _ids(self) -> dict[str, tuple[Place, ...]]:
        if self._by_id is None:
            self._by_id = {}
            for dataset_id, dataset in self._datasets.items():
                for name in dataset.index:
                    self._remember(self._by_id, Place(dataset_id, name))
        return self._by_id

    def __len__(self) -> int:
        """Return how many chunks have a directory, as of the last refresh."""
        with self._mutex:
            return len(self._ids())

    def is_stray(self, place: Place) -> bool:
        """Return whether something else than a directory stands there, as of the last refresh."""
        dataset = self._datasets.get(place.dataset_id)
        return dataset is not None and place.name in dataset.stray

    def all_places(self) -> list[Place]:
        """Return all chunk directories and stray entries, in order, as of the last refresh."""
        with self._mutex:
            return [*self.each_place()]

    def each_place(self) -> Iterator[Place]:
        """Yield the same one by one, where no other thread uses this catalog."""
        for dataset_id, dataset in sorted(self._datasets.items()):
            for name in dataset.index:
                yield Place(dataset_id, name)

    def repeated_ids(self) -> set[str]:
        """Return the ids of the chunks that have several directories, where no other thread uses this catalog."""
        many = sum(len(dataset.index) for dataset in self._datasets.values())
        if len({place.name[42:58] for place in self.each_place()}) == many:  # sixteen digits: it takes half the room
            return set()
        return {one for one, times in Counter(place.chunk_id for place in self.each_place()).items() if times > 1}

    def listing(self) -> list[Place]:
        """Return every chunk directory as of now, by dataset and block."""
        if not self._own:
            self.update()
        with self._mutex:
            has_stray = any(dataset.stray for dataset in self._datasets.values())
        places = self.all_places()
        return [place for place in places if not self.is_stray(place)] if has_stray else places

    def empty_datasets(self) -> list[str]:
        """Return the datasets in whose directory nothing stands, as of the last refresh."""
        with self._mutex:
            return [dataset_id for dataset_id, dataset in self._datasets.items() if not dataset.names]

    def strange(self) -> list[str]:
        """Return the paths whose name or kind is not fsdm's, as of the last refresh."""
        with self._mutex:
            inner = [self._layout.path(Place(key, name)) for key, one in self._datasets.items() for name in one.strange]
            return sorted(self._strange + inner)

    def refused(self) -> OSError | None:
        """Return why some dataset could never be listed; None where all were."""
        with self._mutex:
            return next(iter(self._refused.values()), None)

    def refresh(self) -> set[str]:
        """List the changed directories again; return the ids of the chunks that came or went."""
        changed: set[str] = set()
        self._refresh(changed)
        return changed

    def update(self) -> None:
        """List the changed directories again."""
        self._refresh(None)

    def _refresh(self, changed: set[str] | None) -> None:
        try:
            listed = _entries(self._layout.chunks)
        except FileNotFoundError:
            listed = {}
        except OSError as e:
            if self._own:
                raise
            raise unreadable(self._layout, e) from e
        ours = {name for name, directory in listed.items() if directory and is_id(name)}
        with self._mutex:
            known = list(self._datasets)
            self._strange = [self._layout.dataset(name) for name in listed if name not in ours]
        for dataset_id in {*known, *ours}:
            self._refresh_dataset(dataset_id, changed)

    def add(self, place: Place) -> None:
        """Add a chunk that the reconciler has put there."""
        with self._mutex:
            dataset = self._datasets.setdefault(place.dataset_id, _Dataset())
            dataset.told.add(place.name)
            dataset.names.add(place.name)
            dataset.stray.discard(place.name)
            dataset.index.add(place.name)
            if self._by_id is not None:
                self._remember(self._by_id, place)

    def discard(self, place: Place) -> None:
        """Discard a chunk that the reconciler has taken away."""
        with self._mutex:
            dataset = self._datasets.setdefault(place.dataset_id, _Dataset())
            dataset.told.add(place.name)
            self._drop(place.dataset_id, dataset, place.name)

    def _refresh_dataset(self, dataset_id: str, changed: set[str] | None) -> _Dataset | None:
        dataset, path = self._datasets.get(dataset_id), self._layout.dataset(dataset_id)
        try:
            if dataset is not None and _mtime_ns(path) == dataset.mtime_ns:
                return dataset
            with self._listing:
                dataset = self._list(dataset_id, path, changed)
        except (FileNotFoundError, NotADirectoryError):
            dataset = None
            with self._mutex:
                gone = self._datasets.pop(dataset_id, None)
                if gone is not None:
                    gone.told.clear()
                    self._sync(dataset_id, gone, {}, changed)
        except OSError as e:  # the others are listed all the same; the last listing of this one stays
            if not self._own and e.errno in {errno.EMFILE, errno.ENFILE}:  # that is about us, and not about the dataset
                raise unreadable(self._layout, e) from e
            logger.warning("cannot list %s: %s", path, e)
            if dataset is None:
                with self._mutex:
                    self._refused[dataset_id] = e
            return dataset
        with self._mutex:
            self._refused.pop(dataset_id, None)
        return dataset

    def _list(self, dataset_id: str, path: str, changed: set[str] | None) -> _Dataset:
        with self._mutex:
            dataset = self._datasets.get(dataset_id)
            if dataset is not None:
                dataset.told.clear()
        before_ns = time.time_ns()
        mtime_ns = _mtime_ns(path)
        if dataset is not None and mtime_ns == dataset.mtime_ns:
            return dataset  # another thread has just listed it
        entries = _entries(path)
        with self._mutex:
            dataset = self._datasets.setdefault(dataset_id, _Dataset())
            self._sync(dataset_id, dataset, entries, changed)
            # a change after this listing may still get the same mtime
            dataset.mtime_ns = mtime_ns if before_ns - mtime_ns > granule_ns(mtime_ns) else NO_MTIME
            return dataset

    def _sync(self, dataset_id: str, dataset: _Dataset, entries: dict[str, bool], changed: set[str] | None) -> None:
        try:
            self._take_in(dataset_id, dataset, entries, changed)
        except BaseException:  # a signal's, mostly: what may be half done is listed anew
            self._datasets.clear()
            self._by_id = {} if self._own else None
            raise

    def _take_in(self, dataset_id: str, dataset: _Dataset, entries: dict[str, bool], changed: set[str] | None) -> None:
        came, gone = entries.keys() - dataset.names - dataset.told, dataset.names - entries.keys() - dataset.told
        dataset.stray = {name for name, directory in entries.items() if not directory} - dataset.told
        for name in gone:
            self._drop(dataset_id, dataset, name)
        names = chunk_dirs(came)
        if len(names) > len(dataset.index):  # the first listing, mostly
            dataset.index = BlockIndex.of([*dataset.index, *names])
        else:
            for name in names:
                dataset.index.add(name)
        dataset.names |= came
        if len(names) < len(came):
            dataset.strange |= came.difference(names)
        if self._by_id is not None:
            for name in names:
                self._remember(self._by_id, Place(dataset_id, name))
        if changed is not None:
            changed.update(name[42:] for name in (*names, *chunk_dirs(gone)))

    @staticmethod
    def _remember(by_id: dict[str, tuple[Place, ...]], place: Place) -> None:
        others = by_id.get(place.chunk_id)
        by_id[place.chunk_id] = (place,) if others is None else tuple(sorted({*others, place}))

    def _drop(self, dataset_id: str, dataset: _Dataset, name: str) -> None:
        dataset.names.discard(name)
        dataset.strange.discard(name)
        if not is_chunk_dir(name):
            return
        dataset.index.discard(name)
        place, by_id = Place(dataset_id, name), self._by_id
        if by_id is not None:
            by_id[place.chunk_id] = tuple(other for other in by_id.get(place.chunk_id, ()) if other != place)
            if not by_id[place.chunk_id]:
                del by_id[place.chunk_id]


def _entries(path: str) -> dict[str, bool]:
    """List a directory: name → whether it is a directory."""
    with os.scandir(path) as entries:
        return {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}


def _mtime_ns(path: str) -> int:
    """Return a directory's mtime; raises NotADirectoryError also for a symlink to one."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(path)
    return found.st_mtime_ns
