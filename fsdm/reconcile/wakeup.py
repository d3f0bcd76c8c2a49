"""What rang since somebody last answered: ids to look at, or everything. Pure but for the waiting; thread-safe."""

from __future__ import annotations

import threading
from typing import Final

MANY_RINGS: Final = 1000  # beyond so many ids a scan is cheaper than looks


class Wakeup:
    """What rang since the last answer: ids to look at, or everything."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._mutex = threading.Lock()
        self._ids: set[str] = set()
        self._all = False

    def notify(self, chunk_id: str | None) -> None:
        """Look at this id again, or at everything."""
        with self._mutex:
            if chunk_id is None:
                self._all = True
            else:
                self._ids.add(chunk_id)
        self._event.set()

    def wake(self) -> None:
        """There is something else to do."""
        self._event.set()

    def answer(self, timeout_s: float | None) -> tuple[set[str], bool]:
        """Wait until it rings, or for `timeout_s`; then what rang."""
        self._event.wait(timeout_s)
        self._event.clear()
        with self._mutex:
            ids, self._ids = self._ids, set()
            everything, self._all = self._all, False
        return ids, everything or len(ids) > MANY_RINGS
