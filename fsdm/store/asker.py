"""The requests that any process may make: each call places a file, and returns at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from fsdm.model.layout import Layout, as_id
from fsdm.store.data_dir import unreadable
from fsdm.store.markers import (
    as_chunk,
    place_delete,
    place_known,
    place_verify,
    place_want,
    release_deletes,
    retry,
)
from fsdm.store.pause import place_pause, remove_pause

if TYPE_CHECKING:
    from fsdm.model.documents import DataChunk
    from fsdm.model.state import ChunkState


class Asker(ABC):
    """The calls that ask for something; a subclass tells of which data directory."""

    _layout: Layout

    @abstractmethod
    def _check(self) -> None:
        """Raise where this may not be used any more, or not in this process."""

    @abstractmethod
    def _look(self, chunk_id: str) -> ChunkState:
        """Look at the state of one chunk, as it is now."""

    def download_chunk(self, chunk: DataChunk) -> None:
        """Ask for a chunk to be here; returns at once. A pending delete of the same id is withdrawn.

        Raises:
            InvalidInputError: it is no DataChunk, or one that cannot be taken (a `model_copy` is checked here).
            DataDirectoryError: the marker cannot be placed.
        """
        self._check()
        place_want(self._layout, as_chunk(chunk))

    def register(self, chunk: DataChunk, *, exclusive: bool = False) -> None:
        """Let a chunk be known: nothing is fetched before somebody asks for it; returns at once.

        A want and a delete of the same id are withdrawn. What is here stays, and may be evicted from then on.

        Raises:
            InvalidInputError: it is no DataChunk, or one that cannot be taken (a `model_copy` is checked here).
            AlreadyKnownError: it is registered already, and `exclusive`; then nothing is changed.
            DataDirectoryError: the registration cannot be placed.
        """
        self._check()
        place_known(self._layout, as_chunk(chunk), exclusive=exclusive)

    def delete_chunk(self, chunk_id: str | bytes, *, unless_held: bool = False) -> None:
        """Ask for a chunk to be gone, and no longer known; returns at once.

        It is not available from then on, and goes when no process holds it. `unless_held`: only where none does now:
        then no ref is held while the delete comes to stand, and none is given from then on. (One that is published at
        this very moment may get its first reader before that; then it goes when that reader is done.)

        Raises:
            InvalidInputError: `chunk_id` is not an id.
            ChunkInUseError: some process holds it, and `unless_held`; then nothing is changed.
            DataDirectoryError: the marker cannot be placed.
        """
        self._check()
        chunk_id = as_id(chunk_id, "chunk_id")
        if not unless_held:
            place_delete(self._layout, chunk_id)
            return
        from fsdm.store.unheld import unheld

        try:
            state = self._look(chunk_id)
            with unheld(self._layout, chunk_id, state.ready + state.unready):
                place_delete(self._layout, chunk_id)
        except OSError as e:
            raise unreadable(self._layout, e) from e

    def verify_chunk(self, chunk_id: str | bytes) -> None:
        """Ask for a chunk's bytes to be compared with READY; returns at once.

        A chunk that is damaged is fetched again.

        Raises:
            InvalidInputError: `chunk_id` is not an id.
            DataDirectoryError: the marker cannot be placed.
        """
        self._check()
        place_verify(self._layout, as_id(chunk_id, "chunk_id"))

    def release_deletes(self) -> None:
        """Confirm all pending deletes, however many they are: the reconciler's brake releases them.

        Raises:
            DataDirectoryError: the release cannot be placed.
        """
        self._check()
        release_deletes(self._layout)

    def recover(self, chunk_id: str | bytes) -> bool:
        """Have what is asked for a chunk tried again now, also where it was given up; return whether anything is.

        A registered chunk that has failed is asked for. Nothing is tried before the time that a server has asked for.

        Raises:
            InvalidInputError: `chunk_id` is not an id.
            DataDirectoryError: its marker is no file, or may not be touched.
        """
        self._check()
        return retry(self._layout, as_id(chunk_id, "chunk_id"))

    def pause(self, reason: str = "") -> None:
        """Pause downloads until `resume`; what has come of running ones stays.

        Raises:
            DataDirectoryError: this user may not write in the data directory itself.
        """
        self._check()
        place_pause(self._layout, reason)

    def resume(self) -> bool:
        """Let downloads go on; return whether they were paused.

        Raises:
            DataDirectoryError: this user may not write in the data directory itself.
        """
        self._check()
        return remove_pause(self._layout)
