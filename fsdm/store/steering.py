"""What steers a reconciler beside wants and deletes: requests that are a file each, placed by any process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from fsdm.model.layout import as_id
from fsdm.store.markers import place_verify, release_deletes, retry
from fsdm.store.pause import place_pause, remove_pause

if TYPE_CHECKING:
    from fsdm.model.layout import Layout


class Steering(ABC):
    """Places such requests in a data directory."""

    _layout: Layout

    @abstractmethod
    def _check(self) -> None:
        """Raise where this cannot be used, because it is closed, or of another process."""

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

    def retry_chunk(self, chunk_id: str | bytes) -> bool:
        """Have what is asked for a chunk tried again now; return whether anything is.

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
