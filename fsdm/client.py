"""A client of a data directory: it places intents, finds chunks, holds refs and waits.

It has the power of a shell script: everything is done through the files that PROTOCOL.md describes, so a client needs
no connection to a reconciler, and none to be running. Only `wait`, `wait_converged` and their asyncio twins wait for
anything; each other call is some system calls on local files, so it may be called on an event loop as well.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Self

from fsdm.concurrency.polling import in_thread, on_loop
from fsdm.model import errors
from fsdm.model.layout import READY, U64_MAX, Layout, as_id
from fsdm.status.waiting import HINT, Waiting
from fsdm.store.asker import Asker
from fsdm.store.catalog import Catalog
from fsdm.store.data_dir import check_format, unreadable
from fsdm.store.filesystem import exists
from fsdm.store.held_range import Holding
from fsdm.store.known_index import KnownIndex
from fsdm.store.refs import ChunkRef, Refs
from fsdm.store.scan import placed_ids

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterable, Iterator

    from fsdm.index.lookup import KeyLookup
    from fsdm.model.layout import Place
    from fsdm.model.state import ChunkState
    from fsdm.status.chunk_status import ChunkStatus, Status
    from fsdm.store.eviction import Collected

Asked = str | bytes | tuple[str | bytes, int]  # an id, or a dataset and a block


class Client(Asker, Holding):
    """A process's view of a data directory. Thread-safe; a fork of the process cannot use it."""

    def __init__(self, data_dir: str | os.PathLike[str]) -> None:
        """Open a data directory that exists.

        Raises:
            NoDataDirectoryError: it does not.
            UnknownFormatError: it is of a format that this version does not know.
            DataDirectoryError: this user may not look into it, or into `delete/`.
        """
        self._layout = Layout(data_dir)
        check_format(self._layout)
        if os.path.isdir(self._layout.delete) and not os.access(self._layout.delete, os.X_OK):
            raise errors.DataDirectoryError(
                f"{self._layout.delete} may not be searched by this user, so deleted chunks could not be told apart",
                hint="give the user search permission (x) on delete/",
            )
        self._catalog = Catalog(self._layout)
        self._known = KnownIndex(self._layout)
        self._refs = Refs(self._layout)
        self._pid = os.getpid()
        self._closed = threading.Event()
        self._waits = Waiting(self._layout, self._catalog, self._check)
        self._lookup: KeyLookup | None = None

    def list_chunks(self) -> list[str]:
        """List the ids of the chunks that are available now, by dataset and block."""
        return list(dict.fromkeys(place.chunk_id for place in self.available_places()))

    def available_places(self, dataset_id: str | None = None) -> list[Place]:
        """List the places of the chunks that are available now, of one dataset or of all, by dataset and block."""
        self._check()
        places = (place for place in self._catalog.listing() if dataset_id in {None, place.dataset_id})
        deleted = placed_ids(self._layout, self._layout.delete)
        path = self._layout.path
        return [place for place in places if place.chunk_id not in deleted and exists(f"{path(place)}/{READY}")]

    def find_chunk(self, dataset_id: str | bytes, block: int) -> ChunkRef | None:
        """Take a ref to the available chunk that is responsible for a block of a dataset, or None.

        Where ranges overlap, the one with the greatest start is, then the smallest end, then the smallest id.

        Raises:
            InvalidInputError: `dataset_id` is not an id, or `block` not a number in u64.
            DataDirectoryError: this process has too many open files, or may not look there.
            ClosedError: this was closed meanwhile.
        """
        self._check()
        try:
            return self._find(*self._position(dataset_id, block))
        except OSError as e:
            raise unreadable(self._layout, e) from e

    def acquire(self, what: Asked, timeout_s: float | None = None) -> ChunkRef:
        """Take a ref to a chunk, and have it fetched before where it is registered and not here.

        `what` is an id, or a dataset and a block of it: then the chunk is meant that is responsible among those that
        are available and those that are registered. However many ask for one chunk, it is fetched once; who waits no
        more, or ends, asks no more. A ref is a context manager, as those of `find_chunk` are.

        Raises:
            InvalidInputError: that is neither.
            UnknownChunkError: it is not here, and not registered.
            FetchFailedError: it could not be fetched; `failure` says why.
            WaitTimeoutError: it is not here after `timeout_s` seconds; the message says how it stands.
            DataDirectoryError: this user may not ask for it.
            ClosedError: this was closed meanwhile.
        """
        return in_thread(self._until_acquired(what, timeout_s), self._closed.wait)

    async def acquire_async(self, what: Asked, timeout_s: float | None = None) -> ChunkRef:
        """Acquire as `acquire` does, on an asyncio loop; it may be cancelled."""
        return await on_loop(self._until_acquired(what, timeout_s))

    def find_key(self, name: str, key: bytes) -> Iterator[ChunkRef]:
        """Take a ref to each available chunk that holds a key, by index `name`; in order of dataset and block.

        Each ref is taken when it is asked for, and is the caller's to close: `with ref: ref.index(name).find(key)` says
        where in it. What is known is what the reconciler has gathered: chunks whose index is new come soon.

        Raises:
            InvalidInputError: `key` is no bytes, or there is no such index (yet).
            DataDirectoryError: this process has too many open files, or may not look there.
        """
        return self._key_lookup().find(name, key)

    def acquire_key(self, name: str, key: bytes, timeout_s: float | None = None) -> Iterator[ChunkRef]:
        """Acquire each chunk that holds a key, by index `name`, also those that were evicted; in order of `find_key`.

        Each is fetched, as `acquire` does, when it is asked for, within `timeout_s` seconds. Where one comes with
        other bytes than before, its own index tells, once that is made. After an exception `next` goes on behind it.

        Raises:
            InvalidInputError, DataDirectoryError: as `find_key`.
            FetchFailedError, WaitTimeoutError: one could not be fetched, or not in time.
            IndexerError: one has come with other bytes, and its index cannot be made.
        """
        from fsdm.index.lookup import AcquiredRefs

        return AcquiredRefs(self._key_lookup().acquire(name, key, timeout_s), self._closed.wait)

    def acquire_key_async(self, name: str, key: bytes, timeout_s: float | None = None) -> AsyncIterator[ChunkRef]:
        """Acquire as `acquire_key` does, on an asyncio loop; each may be cancelled."""
        from fsdm.index.lookup import AcquiredRefsAsync

        return AcquiredRefsAsync(self._key_lookup().acquire(name, key, timeout_s))

    def gc(
        self,
        *,
        to_bytes: int = 0,
        idle_s: float = 0.0,
        timeout_s: float | None = None,
        dry_run: bool = False,
        errored: bool = False,
    ) -> list[Collected]:
        """Evict what is registered and not wanted, the least recently used first, until `to_bytes` are here.

        What was used within the last `idle_s` seconds stays, and so does what is held. `dry_run` only chooses.
        `errored`: in place of that, what has come of chunks that failed goes, and is fetched from its beginning the
        next time; that a registered one has failed is forgotten.

        Raises:
            InvalidInputError: `to_bytes` or `idle_s` is below zero.
            WaitTimeoutError: some is still to be judged after `timeout_s` seconds.
        """
        from fsdm.store import eviction

        self._check()
        places = () if errored else self.available_places()
        chosen = eviction.to_be_collected(self._layout, [*places], to_bytes, idle_s)
        failed = eviction.errored(self._layout) if errored else []
        if dry_run:
            ids = [(one.place.chunk_id, size) for one, size in chosen] + failed
            return [eviction.Collected(one, "evicted", size) for one, size in ids]
        asked = eviction.ask(self._layout, chosen, failed)
        if not in_thread(self._waits.until(asked.is_done, timeout_s), self._closed.wait):
            raise errors.WaitTimeoutError("not all has been judged: does a process reconcile?", hint=HINT)
        return asked.outcomes()

    def ref_at(self, place: Place) -> ChunkRef | None:
        """Take a ref to the chunk at this place; None where it is not available."""
        self._check()
        return self._refs.take(place)

    def status(self) -> Status:
        """Read how each chunk stands: its state, bytes and error; and what concerns all of them.

        Raises:
            DataDirectoryError: the data directory has gone, or cannot be read.
        """
        self._check()
        try:
            from fsdm.status.reading import read_status

            return read_status(self._layout)
        except OSError as e:
            raise unreadable(self._layout, e) from e

    def info(self, chunk_id: str | bytes) -> ChunkStatus:
        """Read how one chunk stands, also one that is only registered (in state *known*).

        Raises:
            InvalidInputError: `chunk_id` is not an id.
            UnknownChunkError: nothing of it is here, registered or asked for.
            DataDirectoryError: the data directory has gone, or cannot be read.
        """
        self._check()
        chunk_id = as_id(chunk_id, "chunk_id")
        try:
            from fsdm.status.chunk_status import read_info

            found = read_info(self._layout, self._look(chunk_id))
        except OSError as e:
            raise unreadable(self._layout, e) from e
        if found is None:
            hint = "register it: fsdm register FILE, or dm.register(chunk)"
            raise errors.UnknownChunkError(f"nothing is known of chunk {chunk_id}", hint=hint)
        return found

    def wait(self, chunk_id: str | bytes, timeout_s: float | None = None, *, keep_waiting: bool = False) -> bool:
        """Wait until what is asked for a chunk is done: True if it is available then, False if gone.

        `keep_waiting`: also while it fails in a way that does not pass by itself, because somebody will mend it.

        Raises:
            InvalidInputError: `chunk_id` is not an id.
            ChunkFailedError: it fails, and cannot pass by itself (its URL is wrong, say).
            WaitTimeoutError: it is not done after `timeout_s` seconds; the message says how the chunk stands.
            ClosedError: this was closed meanwhile.
        """
        looks = self._waits.until_done(as_id(chunk_id, "chunk_id"), timeout_s, keep_waiting=keep_waiting)
        return in_thread(looks, self._closed.wait)

    async def wait_async(
        self, chunk_id: str | bytes, timeout_s: float | None = None, *, keep_waiting: bool = False
    ) -> bool:
        """Wait as `wait` does, on an asyncio loop; it may be cancelled."""
        return await on_loop(self._waits.until_done(as_id(chunk_id, "chunk_id"), timeout_s, keep_waiting=keep_waiting))

    def wait_converged(
        self,
        timeout_s: float | None = None,
        *,
        chunk_ids: Iterable[str | bytes] | None = None,
        keep_waiting: bool = False,
    ) -> None:
        """Wait until no intent is pending, of these chunks or of all: the wanted are available, the deleted gone.

        `keep_waiting`: also while all that is left fails in a way that does not pass by itself.

        Raises:
            InvalidInputError: one of `chunk_ids` is not an id.
            ChunkFailedError: all that is left fails, and cannot pass by itself.
            WaitTimeoutError: some are pending after `timeout_s` seconds; the message says which.
            ClosedError: this was closed meanwhile.
        """
        in_thread(self._waits.until_converged(timeout_s, chunk_ids, keep_waiting=keep_waiting), self._closed.wait)

    async def wait_converged_async(
        self,
        timeout_s: float | None = None,
        *,
        chunk_ids: Iterable[str | bytes] | None = None,
        keep_waiting: bool = False,
    ) -> None:
        """Wait as `wait_converged` does, on an asyncio loop; it may be cancelled."""
        await on_loop(self._waits.until_converged(timeout_s, chunk_ids, keep_waiting=keep_waiting))

    def close(self) -> None:
        """Release every ref. A second time, and in a forked child, it does nothing."""
        if os.getpid() == self._pid:
            self._closed.set()
            self._refs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._layout.root}{', closed' * self._closed.is_set()}>"

    @property
    def layout(self) -> Layout:
        """The paths of the data directory."""
        return self._layout

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise errors.ForeignProcessError(
                f"this {type(self).__name__} belongs to process {self._pid}, and a fork of it cannot use it",
                hint="make a DataManager in the child",
            )
        if self._closed.is_set():
            raise errors.ClosedError(f"this {type(self).__name__} has been closed")

    def _look(self, chunk_id: str) -> ChunkState:
        return self._waits.look(chunk_id)

    def _position(self, dataset_id: str | bytes, block: int) -> tuple[str, int]:
        if not self._catalog.knows(dataset_id):
            dataset_id = as_id(dataset_id, "dataset_id")
        if not isinstance(block, int) or not 0 <= block <= U64_MAX:
            raise errors.InvalidInputError(f"must be an integer within 0 … 2^64-1, not {block!r:.80}", field="block")
        return dataset_id, block

    def _key_lookup(self) -> KeyLookup:
        self._check()
        lookup = self._lookup
        if lookup is None:
            from fsdm.index.lookup import KeyLookup

            lookup = self._lookup = KeyLookup(self._layout, self._catalog, self._refs.take, self._waits)
        return lookup

    def _find(self, dataset_id: str, block: int) -> ChunkRef | None:
        place = self._catalog.find(dataset_id, block)
        if place is None:
            return None
        ref = self._refs.take(place)
        if ref is None:  # it is on its way out: the next in line
            others = map(self._refs.take, self._catalog.candidates(dataset_id, block))
            ref = next(filter(None, others), None)
        return ref

    def _until_acquired(self, what: Asked, timeout_s: float | None) -> Generator[float, None, ChunkRef]:
        from fsdm.store.acquiring import place_asked

        self._check()
        asked = self._position(*what) if isinstance(what, tuple) and len(what) == 2 else as_id(what, "what")
        place = place_asked(self._layout, self._catalog, self._known, asked)
        return (yield from self._waits.until_acquired(place, self._refs.take, timeout_s))
