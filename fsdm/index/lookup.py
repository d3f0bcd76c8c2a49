"""Finding the chunks that hold a key: by the runs of an index, then by each chunk itself.

Invariant: a chunk is found only while a ref is held on it, and where its own index has the key, or is missing while the
chunk is the one that was merged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsdm.model.errors import InvalidInputError
from fsdm.store.data_dir import unreadable
from fsdm.store.filesystem import is_directory
from fsdm.store.index_file import identity_of
from fsdm.store.index_runs import IndexRuns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsdm.model.layout import Layout, Place
    from fsdm.store.refs import ChunkRef


class KeyLookup:
    """The look-ups of keys of one client. Thread-safe."""

    def __init__(self, layout: Layout, take: Callable[[Place], ChunkRef | None]) -> None:
        self._layout = layout
        self._take = take
        self._runs = IndexRuns(layout)

    def find(self, name: str, key: bytes) -> Iterator[ChunkRef]:
        """Yield a ref to each available chunk that holds a key, by dataset and block; the caller closes them.

        Raises:
            InvalidInputError: the key is none, or there is no such index.
            DataDirectoryError: this process has too many open files, or may not look there; also while it yields.
        """
        try:
            found = self._runs.find(name, key)
        except OSError as e:
            raise unreadable(self._layout, e) from e
        if not found and not is_directory(self._layout.runs_of(name)):
            hint = "see `fsdm docs indexes`; one that is new appears with its first chunk"
            raise InvalidInputError(f"there is no index {name!r:.80} over all chunks", field="name", hint=hint)
        return self._held(name, key, [(chunk.place, chunk.identity) for chunk in found])

    def _held(self, name: str, key: bytes, found: list[tuple[Place, bytes]]) -> Iterator[ChunkRef]:
        for place, identity in found:
            try:
                ref = self._take_holding(place, name, key, identity)
            except OSError as e:
                raise unreadable(self._layout, e) from e
            if ref is not None:
                yield ref

    def _take_holding(self, place: Place, name: str, key: bytes, identity: bytes) -> ChunkRef | None:
        """Take a ref to a chunk; None where it is not available, or does not hold the key."""
        ref = self._take(place)
        if ref is None:
            return None
        try:
            holds = self._holds(ref, place, name, key, identity)
        except BaseException:
            ref.close()
            raise
        if holds:
            return ref
        ref.close()
        return None

    def _holds(self, ref: ChunkRef, place: Place, name: str, key: bytes, identity: bytes) -> bool:
        index = ref.index(name)
        if index is None:
            return identity_of(self._layout.path(place)) == identity
        with index:
            return key in index
