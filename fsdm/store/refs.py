"""Refs: each keeps a chunk's directory where it is, by one descriptor a chunk.

Invariant (PROTOCOL.md, "Reading"): READY is seen *through the locked descriptor*, and a directory leaves only under an
exclusive lock.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fsdm.model.errors import ClosedError, ForeignProcessError
from fsdm.model.layout import DATA, READY, Layout, Place
from fsdm.store.filesystem import exists
from fsdm.store.flock import SHARED, close_fd, open_fd, try_flock


@dataclass(slots=True, eq=False)
class _Held:
    """A directory that this process holds by one descriptor, for `count` refs."""

    fd: int
    place: Place
    path: str
    count: int = 0
    closed: bool = False


class ChunkRef:
    """A ref to an available chunk: while it is open, the chunk's files stay untouched.

    It may be used from any thread, and as a context manager. When the last ref to a chunk is closed, a waiting delete
    goes through. A ref belongs to the process that took it: in a forked child it can be neither used nor harmed.
    """

    __slots__ = ("__weakref__", "_held", "_refs")

    def __init__(self, refs: Refs, held: _Held) -> None:
        self._refs = refs
        self._held: _Held | None = held

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
        os.set_inheritable(self._open().fd, True)

    def close(self) -> None:
        """Release the chunk; do nothing a second time, or in a forked child."""
        held, self._held = self._held, None
        if held is not None:
            self._refs.release(held)

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
        self._dropped: deque[_Held] = deque()  # a finalizer may release a ref between any two lines here

    def take(self, place: Place) -> ChunkRef | None:
        """Return a ref to the chunk at `place`, or None where it is not available. Never waits."""
        marker = self._layout.delete_marker(place.chunk_id)
        # Before the lock as well: readers that keep asking must not keep a delete from its claim.
        if exists(marker):
            return None
        with self._mutex:
            held = self._held.get(place)
            if held is not None:
                another = None
                if exists(READY, held.fd):
                    held.count += 1
                    another = ChunkRef(self, held)
        self._drain()
        if held is not None:
            return another
        fd = _open_ready(self._layout.path(place), marker)
        return None if fd is None else self._adopt(fd, place)

    def again(self, held: _Held) -> ChunkRef:
        """Return another ref to a directory that is held already."""
        with self._mutex:
            if held.closed:
                raise _closed()
            held.count += 1
        self._drain()
        return ChunkRef(self, held)

    def release(self, held: _Held) -> None:
        """Drop one ref; the last one closes the descriptor. Never waits: a finalizer calls it too."""
        if os.getpid() == self._pid:
            self._dropped.append(held)
            self._drain()

    def close(self) -> None:
        """Close every descriptor, and so every open ref; do nothing in a forked child."""
        if os.getpid() != self._pid:
            return
        with self._mutex:
            self._is_closed = True
            for held in self._held.values():
                held.closed = True
                close_fd(held.fd)
            self._held.clear()

    def check_process(self) -> None:
        """Raise ForeignProcessError in a forked child."""
        if os.getpid() != self._pid:
            raise ForeignProcessError(
                f"this belongs to process {self._pid}, and a fork of it cannot use it",
                hint="make a DataManager in the child, and find the chunk there",
            )

    def _adopt(self, fd: int, place: Place) -> ChunkRef:
        with self._mutex:
            if self._is_closed:  # since this take began: nothing would close the descriptor
                close_fd(fd)
                raise ClosedError("this was closed while a chunk was found", hint="find it before the close")
            held = self._held.get(place)
            if held is None:
                held = self._held[place] = _Held(fd, place, self._layout.path(place))
                fd = -1
            held.count += 1
        self._drain()
        if fd >= 0:  # another thread was faster
            close_fd(fd)
        return ChunkRef(self, held)

    def _drain(self) -> None:
        # A ref may be released while the mutex is held, even by this very thread. So this does not wait for the mutex,
        # and each method that has held it drains afterwards.
        while self._dropped and self._mutex.acquire(blocking=False):
            try:
                while self._dropped:
                    held = self._dropped.popleft()
                    held.count -= 1
                    if held.count == 0 and not held.closed:
                        held.closed = True
                        del self._held[held.place]
                        close_fd(held.fd)
            finally:
                self._mutex.release()


def _closed() -> ClosedError:
    return ClosedError("this ref has been closed", hint="clone() it before it is closed, or find the chunk again")


def _open_ready(path: str, marker: str) -> int | None:
    # Before the lock as well: readers that keep asking must not keep a directory without READY from its claim.
    if not exists(f"{path}/{READY}"):
        return None
    try:
        fd = open_fd(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        # The order is the whole safety argument: lock, then READY through the descriptor, then the marker.
        if try_flock(fd, SHARED) and exists(READY, fd) and not exists(marker):
            return fd
    except BaseException:
        close_fd(fd)
        raise
    close_fd(fd)
    return None
