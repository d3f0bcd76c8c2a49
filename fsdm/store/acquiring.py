"""Asking for a registered chunk by `acquire/ID`, and waiting for it (PROTOCOL.md, "Acquiring").

All that wait for an id hold shared flocks on one marker, so there is one fetch a machine. Invariants: who waits has the
marker that stands at the path, or joins the next one; what a waiter is told of came of an attempt that had not failed
before it asked; and a marker without a flock on it, that says that it is held, asks for nothing.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

from fsdm.model.errors import FetchFailedError, InvalidInputError, StaleMarkerError, UnknownChunkError
from fsdm.model.layout import CACHED, READY, WANT, WANT_MAX_BYTES, Layout, Place
from fsdm.model.state import granule_ns
from fsdm.store.block_index import BlockIndex
from fsdm.store.filesystem import CREATE, SAFE, exists, read_regular
from fsdm.store.flock import EXCLUSIVE, SHARED, LockDescriptor, open_fd, same_file, try_flock
from fsdm.store.markers import known_chunk, look_at, place_acquire, placing, read_chunk, registered_since, touch

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.documents import Failure
    from fsdm.model.state import Marker
    from fsdm.store.catalog import Catalog
    from fsdm.store.known_index import KnownIndex
    from fsdm.store.refs import ChunkRef

Asked = Literal["", "touched", "held"]

HELD: Final = b"held\n"  # what a marker says that somebody waits at: without a flock on it, nobody does any more
USE_S: Final = 60.0  # a use is noted once in so long; so long a marker stands that was only touched


def asked_by(path: str) -> Asked:
    """Tell who asks by the marker at `path`: a process that waits, one that has touched it, or nobody any more."""
    if not exists(path):
        return ""
    lock = LockDescriptor()
    try:
        lock.fd = fd = open_fd(path, os.O_RDONLY | SAFE)
        if not try_flock(fd, EXCLUSIVE):
            return "held"
        return "" if os.fstat(fd).st_size else "touched"
    except FileNotFoundError:
        return ""
    except OSError:  # it may not be opened: then it counts as it stands
        return "touched"
    finally:
        lock.close()


class Asking:
    """One waiter's share in `acquire/ID`; closing it is to stop waiting, and so is the end of the process."""

    def __init__(self, layout: Layout, chunk_id: str) -> None:
        self._path = layout.acquire_marker(chunk_id)
        self._lock = LockDescriptor()
        self.since = 0.0

    def join(self) -> bool:
        """Have a share in the marker that stands there now; tell whether that was possible. It never waits.

        Raises:
            DataDirectoryError: the marker cannot be placed.
        """
        if self._lock.fd is None or not same_file(self._lock.fd, self._path):
            self.since = 0.0
            self._lock.close()
            with placing(self._path):
                self._open()
            fd = self._lock.fd
            if fd is None or not try_flock(fd, SHARED) or not same_file(fd, self._path):
                self._lock.close()  # it is on its way out, or is just being looked at
                return False
        if not self.since and self._lock.fd is not None:
            now = time.time()  # before the touch: a failure in between is seen, and not waited out
            self.since = now if touch(self._lock.fd) else 0.0
        return self.since > 0

    def _open(self) -> None:
        """Open the marker, or put one there that is locked already; none is open where another process was faster."""
        for flags in (os.O_RDWR, os.O_RDONLY):
            with suppress(PermissionError, FileNotFoundError):
                self._lock.fd = open_fd(self._path, flags | SAFE)
                return
        directory, name = os.path.split(self._path)
        temporary = f"{directory}/.{name}.{secrets.token_hex(4)}"
        try:
            self._lock.fd = fd = open_fd(temporary, CREATE)
            try_flock(fd, SHARED)
            os.write(fd, HELD)
            os.link(temporary, self._path)
        except FileExistsError:
            self._lock.close()
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)

    def close(self) -> None:
        self._lock.close()


class Acquirer:
    """The acquisition of one chunk: `look` until it returns a ref."""

    def __init__(self, layout: Layout, place: Place, take: Callable[[Place], ChunkRef | None]) -> None:
        self._layout = layout
        self.place = place
        self._take = take
        self._asking = Asking(layout, place.chunk_id)
        self._known: Marker | None = None  # the registration that was read, once no newer one can look like it
        self._known_place: Place | None = None  # as it says
        self.ref: ChunkRef | None = None

    def look(self) -> bool:
        """Take a ref, or ask for the chunk; tell whether there is a ref.

        Raises:
            UnknownChunkError: it is neither registered nor wanted.
            FetchFailedError: it could not be fetched since this began to ask.
            DataDirectoryError: the marker cannot be placed.
        """
        self.ref = self._take(self.place)
        if self.ref is not None:
            return True
        chunk_id = self.place.chunk_id
        if not exists(self._layout.want_marker(chunk_id)):
            self._look_at_registration(chunk_id)
        if self._asking.join() and (failure := self._failure()) is not None:
            raise FetchFailedError(f"chunk {chunk_id}: {failure.error}", hint=failure.hint, failures=[failure])
        return False

    def _look_at_registration(self, chunk_id: str) -> None:
        """Look where the chunk is to be; the registration is read once, and again where it has changed."""
        known = look_at(self._layout.known_marker(chunk_id))
        if known is None:
            raise unknown(chunk_id)
        if known != self._known:
            chunk = known_chunk(self._layout, chunk_id)
            self._known_place = None if chunk is None else chunk.place
            is_old = 0 <= known.ctime_ns <= time.time_ns() - granule_ns(known.ctime_ns)
            self._known = known if is_old else None
        if self._known_place is not None and not exists(f"{self._layout.path(self.place)}/{READY}"):
            self.place = self._known_place

    def _failure(self) -> Failure | None:
        """Return the failure of this attempt: one that waits for room is none."""
        from fsdm.model.documents import Failure

        with suppress(OSError, InvalidInputError):
            read = read_regular(self._layout.failed_of(self.place.chunk_id), WANT_MAX_BYTES)
            failure = None if read is None else Failure.parse(read[1])
            if failure is not None and failure.kind != "room" and failure.last_at >= self._asking.since:
                return failure
        return None

    def close(self) -> None:
        """Stop to wait. A ref that was taken stays."""
        self._asking.close()


def place_asked(layout: Layout, catalog: Catalog, known: KnownIndex, what: str | tuple[str, int]) -> Place:
    """Return where a chunk is or is to be: that of an id, or the one responsible for a block of a dataset.

    Raises:
        UnknownChunkError: there is none.
    """
    return place_of(layout, catalog, what) if isinstance(what, str) else responsible(layout, catalog, known, *what)


def place_of(layout: Layout, catalog: Catalog, chunk_id: str) -> Place:
    """Return where a chunk is, or is to be by its want or its registration.

    Raises:
        UnknownChunkError: it is not here, and neither stands.
    """
    if not catalog.places(chunk_id):
        catalog.refresh()
    ready = [place for place in catalog.places(chunk_id) if exists(f"{layout.path(place)}/{READY}")]
    if ready:
        return ready[0]
    for known, path in ((False, layout.want_marker(chunk_id)), (True, layout.known_marker(chunk_id))):
        with suppress(InvalidInputError, StaleMarkerError):
            marker = look_at(path, limit=WANT_MAX_BYTES)
            if marker is not None and marker.fault is None:
                return read_chunk(layout, chunk_id, marker, known=known)[0].place
    raise unknown(chunk_id)


def responsible(layout: Layout, catalog: Catalog, known: KnownIndex, dataset_id: str, block: int) -> Place:
    """Return the place of the chunk that is responsible for a block, among those available and those registered.

    Raises:
        UnknownChunkError: there is none.
    """
    here = [place for place in catalog.candidates(dataset_id, block) if _is_available(layout, place)]
    names = {place.name for place in (*here, *known.candidates(dataset_id, block))}
    for place in (Place(dataset_id, name) for name in BlockIndex.of(names).candidates(block)):
        if place in here:
            return place
        chunk = known_chunk(layout, place.chunk_id)
        if chunk is None or chunk.place != place:
            known.correct(place.chunk_id)
            return responsible(layout, catalog, known, dataset_id, block)
        if not any(_is_available(layout, there) for there in catalog.places(place.chunk_id)):
            return place
    hint = "register one: fsdm register FILE, or dm.register(chunk)"
    raise UnknownChunkError(f"no chunk of {dataset_id} with block {block} is here, or registered", hint=hint)


def _is_available(layout: Layout, place: Place) -> bool:
    return exists(f"{layout.path(place)}/{READY}") and not exists(layout.delete_marker(place.chunk_id))


def unknown(chunk_id: str) -> UnknownChunkError:
    hint = "register it: fsdm register FILE, or dm.register(chunk)"
    return UnknownChunkError(f"chunk {chunk_id} is not here, and not registered", hint=hint)


def note_use(layout: Layout, place: Place) -> None:
    """Note that a chunk is used, where it may be evicted, and that was not noted within the last minute.

    So a use of a chunk that is in use all the time writes nothing. Who may not ask may not note either.
    """
    path = layout.path(place)
    try:
        noted = os.lstat(f"{path}/{CACHED}").st_mtime
    except OSError:
        noted = 0.0
        if is_pinned(layout, place):
            return
    if not 0 <= time.time() - noted < USE_S:
        with suppress(OSError):
            place_acquire(layout, place.chunk_id)


def is_pinned(layout: Layout, place: Place) -> bool:
    """Tell whether a chunk that is here was wanted and not registered since: then it stays."""
    try:
        wanted_ns = os.lstat(f"{layout.path(place)}/{WANT}").st_mtime_ns
    except OSError:  # of before WANT was kept
        return True
    return registered_since(layout, place.chunk_id, wanted_ns) is None
