"""Refs: each keeps a chunk's directory where it is, by one descriptor a chunk.

Invariant (PROTOCOL.md, "Reading"): READY is seen *through the locked descriptor*, and a directory leaves only under an
exclusive lock.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fsdm.model.errors import ClosedError, ForeignProcessError
from fsdm.model.layout import DATA, READY, Layout, Place
from fsdm.store.chunk_file import map_file, open_file
from fsdm.store.filesystem import exists
from fsdm.store.flock import SHARED, LockDescriptor, close_fd, open_fd, try_flock

if TYPE_CHECKING:
    from fsdm.store.blockstore import Blockstore
    from fsdm.store.chunk_file import ChunkFile, ChunkMap
    from fsdm.store.index_file import ChunkIndex


class _Held(LockDescriptor):
    """A directory that this process holds by one descriptor, for `count` refs."""

    __slots__ = ("closed", "count", "path", "place")

    def __init__(self, place: Place, path: str) -> None:
        self.fd = None
        self.place = place
        self.path = path
        self.count = 0
        self.closed = False


class ChunkRef:
    """A ref to an available chunk: while it is open, the chunk's files stay untouched.

    It may be used from any thread, and as a context manager. When the last ref to a chunk is closed, a waiting delete
    goes through. A ref belongs to the process that took it: in a forked child it can be neither used nor harmed.
    """

    __slots__ = ("__weakref__", "_held", "_refs")

    def __init__(self, refs: Refs) -> None:
        self._refs = refs
        self._held: _Held | None = None

    @property
    def id(self) -> str:
        """The chunk's id."""
        return self._open().place.chunk_id

    @property
    def dataset_id(self) -> str:
        """The id of the chunk's dataset."""
        return self._open().place.dataset_id

    @property
    def block_range(self) -> range:
        """The half-open range of blocks that the chunk covers."""
        return self._open().place.block_range

    @property
    def path(self) -> Path:
        """The directory with the chunk's files, and nothing else in it."""
        return Path(self._open().path, DATA)

    def open(self, file: str) -> ChunkFile:
        """Open a file of the chunk to read its bytes; it keeps a ref of its own until it is closed.

        Raises:
            InvalidInputError: the chunk has no such file.
        """
        return open_file(self, file)

    def mmap(self, file: str) -> ChunkMap:
        """Map a file of the chunk; the mapping keeps a ref of its own until it is closed, or of no use any more.

        Raises:
            InvalidInputError: the chunk has no such file, or it is empty.
        """
        return map_file(self, file)

    def index(self, name: str) -> ChunkIndex | None:
        """Map an index of the chunk; None where it has none (yet), or not of what is here.

        Raises:
            InvalidInputError: an index cannot have this name.
        """
        from fsdm.store.index_file import open_chunk_index

        return open_chunk_index(self._open().path, name)

    def blockstore(self, name: str) -> Blockstore | None:
        """Open the blocks of the chunk's CAR files by an index of their CIDs; None where there is none of that name.

        Raises:
            InvalidInputError: an index cannot have this name.
        """
        from fsdm.store.blockstore import Blockstore

        index = self.index(name)
        if index is None:
            return None
        try:
            return Blockstore(self.clone(), index)
        except BaseException:
            index.close()
            raise

    @property
    def closed(self) -> bool:
        """Tell whether this ref was closed, by its own `close()` or its manager's."""
        held = self._held
        return held is None or held.closed

    def clone(self) -> ChunkRef:
        """Return another ref to the same chunk, also while a delete waits for this one."""
        return self._refs.again(self._open())

    def keep_over_exec(self) -> None:
        """Pass the lock on to the program that this process becomes by exec, until that ends."""
        held = self._open()
        if held.fd is not None:
            os.set_inheritable(held.fd, True)

    def close(self) -> None:
        """Release the chunk; do nothing a second time, or in a forked child."""
        refs, ours = self._refs, self._refs.is_ours()
        held, self._held = self._held, None
        if held is not None and ours:
            refs.dropped.append(held)  # no call, and so no exception of a signal, since it was taken from here
            refs.drain()

    def _open(self) -> _Held:
        held = self._held
        self._refs.check_process()
        if held is None or held.closed:
            raise _closed()
        return held

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_held"):
            self.close()

    def __repr__(self) -> str:
        held = self._held
        return f"<ChunkRef {'closed' if held is None else held.path}>"


class Refs:
    """The refs that one client of one process has handed out."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._held: dict[Place, _Held] = {}
        self._is_closed = False
        self.dropped: deque[_Held] = deque()  # a finalizer may drop a ref between any two lines here

    def take(self, place: Place) -> ChunkRef | None:
        """Return a ref to the chunk at `place`, or None where it is not available. Never waits."""
        marker = self._layout.delete_marker(place.chunk_id)
        # Before the lock as well: readers that keep asking must not keep a delete from its claim.
        if exists(marker):
            return None
        ref = ChunkRef(self)
        with self._mutex:
            first = self._held.get(place)
            if first is not None and first.fd is None:  # an exception of a signal came just after its close
                del self._held[place]
                first = None
            elif first is not None and exists(READY, first.fd):
                ref._held, first.count = first, first.count + 1  # noqa: SLF001 no call in between: both, or neither
        if self.dropped:
            self.drain()
        if first is not None:
            return None if ref._held is None else ref  # noqa: SLF001
        held = _Held(place, self._layout.path(place))
        try:
            held.fd = _open_ready(held.path, marker)
            if held.fd is None:
                return None
            with self._mutex:
                if self._is_closed:  # since this take began: nothing would close the descriptor
                    raise ClosedError("this was closed while a chunk was found", hint="find it before the close")
                first = self._held.setdefault(place, held)
                ref._held, first.count = first, first.count + 1  # noqa: SLF001
        finally:
            if held.count == 0:  # not available, or another thread was faster
                self._abandon(held)
        if self.dropped:
            self.drain()
        return ref

    def again(self, held: _Held) -> ChunkRef:
        """Return another ref to a directory that is held already."""
        ref = ChunkRef(self)
        with self._mutex:
            if held.closed:
                raise _closed()
            ref._held, held.count = held, held.count + 1  # noqa: SLF001
        self.drain()
        return ref

    def close(self) -> None:
        """Close every descriptor, and so every open ref; do nothing in a forked child."""
        if not self.is_ours():
            return
        with self._mutex:
            self._is_closed = True
            for held in self._held.values():
                held.closed = True
                held.close()
            self._held.clear()

    def is_ours(self) -> bool:
        """Return whether this is the process that made it, and no fork."""
        return os.getpid() == self._pid

    def check_process(self) -> None:
        """Raise ForeignProcessError in a forked child."""
        if not self.is_ours():
            raise ForeignProcessError(
                f"this belongs to process {self._pid}, and a fork of it cannot use it",
                hint="make a DataManager in the child, and find the chunk there",
            )

    def _abandon(self, held: _Held) -> None:
        with self._mutex:
            if held.count == 0 and self._held.get(held.place) is held:
                del self._held[held.place]
        if held.count == 0:
            held.close()

    def drain(self) -> None:
        """Let go of what was dropped, unless the mutex is held: by another thread, or even by this very one.

        So a finalizer never waits for itself, and each method that has held the mutex drains afterwards.
        """
        while self.dropped and not self._mutex.locked():
            with self._mutex:
                while self.dropped:
                    (held,) = map(deque.popleft, (self.dropped,))  # see `Descriptor`
                    held.count -= 1
                    if held.count == 0 and held.fd is not None and not held.closed:
                        close_fd(held.fd, held)
                        held.closed = True
                        del self._held[held.place]


def _closed() -> ClosedError:
    return ClosedError("this ref has been closed", hint="clone() it before it is closed, or find the chunk again")


def _open_ready(path: str, marker: str) -> int | None:
    # Before the lock as well: readers that keep asking must not keep a directory without READY from its claim.
    if not exists(f"{path}/{READY}"):
        return None
    fd = None
    try:
        fd = open_fd(path)
        # The order is the whole safety argument: lock, then READY through the descriptor, then the marker.
        if try_flock(fd, SHARED) and exists(READY, fd) and not exists(marker):
            return fd
    except BaseException as e:
        if fd is not None:
            close_fd(fd)
        elif isinstance(e, FileNotFoundError | NotADirectoryError):
            return None
        raise
    close_fd(fd)
    return None
