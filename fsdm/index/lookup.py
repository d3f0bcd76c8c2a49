"""Finding the chunks that hold a key, and acquiring them: by the runs of an index, then by each chunk itself.

Invariant: a chunk is found only while a ref is held on it, and where its own index has the key, or is missing while the
chunk is the one that was merged.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Self

from fsdm.concurrency.polling import in_thread, on_loop
from fsdm.model.errors import DamagedError, IndexerError, InvalidInputError, UnknownChunkError, WaitTimeoutError
from fsdm.store.acquiring import note_use, place_of
from fsdm.store.data_dir import unreadable
from fsdm.store.filesystem import is_directory
from fsdm.store.index_failures import read_index_failure
from fsdm.store.index_file import identity_of
from fsdm.store.index_runs import IndexRuns

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from fsdm.model.index_format import IndexedChunk
    from fsdm.model.layout import Layout, Place
    from fsdm.status.waiting import Waiting
    from fsdm.store.catalog import Catalog
    from fsdm.store.refs import ChunkRef

    Looks = Generator[float, None, ChunkRef | None]


class AcquiredRefs:
    """The chunks of a key, each acquired when it is asked for; behind one that raises comes the next."""

    def __init__(self, looks: Iterator[Looks], rest: Callable[[float], object]) -> None:
        self._looks = looks
        self._rest = rest

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ChunkRef:
        for looks in self._looks:
            ref = in_thread(looks, self._rest)
            if ref is not None:
                return ref
        raise StopIteration


class AcquiredRefsAsync:
    """The same on an asyncio loop."""

    def __init__(self, looks: Iterator[Looks]) -> None:
        self._looks = looks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChunkRef:
        for looks in self._looks:
            ref = await on_loop(looks)
            if ref is not None:
                return ref
        raise StopAsyncIteration


@contextmanager
def _closed_unless_kept(ref: ChunkRef) -> Iterator[Callable[[], ChunkRef]]:
    """Close a ref in the end, but where the function was called that this gives: it returns the ref."""
    with ExitStack() as closing:
        closing.enter_context(ref)

        def keep() -> ChunkRef:
            closing.pop_all()
            return ref

        yield keep


class KeyLookup:
    """The look-ups of keys of one client. Thread-safe."""

    def __init__(
        self, layout: Layout, catalog: Catalog, take: Callable[[Place], ChunkRef | None], waits: Waiting
    ) -> None:
        self._layout = layout
        self._catalog = catalog
        self._take = take
        self._waits = waits
        self._runs = IndexRuns(layout)

    def find(self, name: str, key: bytes) -> Iterator[ChunkRef]:
        """Yield a ref to each available chunk that holds a key, by dataset and block; the caller closes them.

        Raises:
            InvalidInputError: the key is none, or there is no such index.
            DataDirectoryError: this process has too many open files, or may not look there; also while it yields.
        """
        return self._found(self._hits(name, key), name, key)

    def acquire(self, name: str, key: bytes, timeout_s: float | None) -> Iterator[Looks]:
        """Yield the polls that acquire each chunk that holds a key; one without a ref is of a chunk that does not.

        Raises:
            InvalidInputError, DataDirectoryError: as `find`.
        """
        return (self._acquired(chunk, name, key, timeout_s) for chunk in self._hits(name, key))

    def _hits(self, name: str, key: bytes) -> list[IndexedChunk]:
        with self._readable():
            found = self._runs.find(name, key)
        if not found and not is_directory(self._layout.runs_of(name)):
            hint = "`fsdm index status` shows which there are; one that is new appears with the first chunk that has it"
            raise InvalidInputError(f"there is no index {name!r:.80} over all chunks", field="name", hint=hint)
        return found

    def _found(self, hits: list[IndexedChunk], name: str, key: bytes) -> Iterator[ChunkRef]:
        for chunk in hits:
            with self._readable():
                ref = self._take_holding(chunk, name, key)
            if ref is not None:
                yield ref

    def _take_holding(self, chunk: IndexedChunk, name: str, key: bytes) -> ChunkRef | None:
        """Take a ref to a chunk; None where it is not available, or is not known to hold the key."""
        ref = self._take(chunk.place)
        if ref is None:
            return None
        with _closed_unless_kept(ref) as keep:
            return keep() if self._holds(ref, chunk, name, key) else None

    def _holds(self, ref: ChunkRef, chunk: IndexedChunk, name: str, key: bytes) -> bool | None:
        """Tell whether a chunk holds a key; None where it is another than was merged, and has no index (yet)."""
        index = ref.index(name)
        if index is not None:
            with index, suppress(DamagedError):  # then it counts as absent
                return key in index
        return True if identity_of(self._layout.path(chunk.place)) == chunk.identity else None

    def _acquired(self, chunk: IndexedChunk, name: str, key: bytes, timeout_s: float | None) -> Looks:
        """Acquire a chunk, and see that it holds the key; where it came with another READY, once its index is made."""
        began = time.monotonic()
        ref = yield from self._come(chunk.place, timeout_s)
        if ref is None:
            return None
        with _closed_unless_kept(ref) as keep:
            left_s = None if timeout_s is None else timeout_s - (time.monotonic() - began)
            holds = yield from self._told(ref, chunk, name, key, left_s)
            return keep() if holds else None

    def _come(self, place: Place, timeout_s: float | None) -> Looks:
        """Take a ref, or have the chunk fetched; None where its registration does not stand, or names another place."""
        with self._readable():
            ref = self._take(place)
        if ref is not None:
            note_use(self._layout, place)
            return ref
        try:
            if place_of(self._layout, self._catalog, place.chunk_id) != place:
                return None
            ref = yield from self._waits.until_acquired(place, self._take, timeout_s)
        except UnknownChunkError:  # at once, or while it was waited for
            return None
        with _closed_unless_kept(ref) as keep:  # it may have been registered elsewhere meanwhile
            return keep() if str(ref.path.parent) == self._layout.path(place) else None

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise unreadable(self._layout, e) from e

    def _told(
        self, ref: ChunkRef, chunk: IndexedChunk, name: str, key: bytes, left_s: float | None
    ) -> Generator[float, None, bool]:
        """Tell whether a chunk holds a key; where only its own index can, wait until it is made.

        Raises:
            IndexerError: that cannot be made.
            WaitTimeoutError: it is not made in time.
        """
        told: list[bool] = []
        failed = f"index {name} of chunk {chunk.place.chunk_id}"

        def is_told() -> bool:
            self._waits.check()
            with self._readable():
                holds = self._holds(ref, chunk, name, key)
            if holds is not None:
                told.append(holds)
                return True
            failure = read_index_failure(self._layout.path(chunk.place), name)
            if failure is not None:
                raise IndexerError(f"{failed} cannot be made: {failure.error}", hint=failure.hint)
            return False

        if not (yield from self._waits.until(is_told, left_s)):
            hint = "does a process make this index? `fsdm index status` shows how it stands"
            raise WaitTimeoutError(f"{failed}, which came with other bytes than before, is not made yet", hint=hint)
        return told[0]
