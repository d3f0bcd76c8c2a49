"""Waking the loop: which ids it is to look at, or everything. Thread-safe."""

from __future__ import annotations

import threading
from typing import Final

MANY_IDS: Final = 1000  # beyond so many a scan is cheaper than looks


class Wakeup:
    """The notifications of one loop."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._mutex = threading.Lock()
        self._ids: set[str] = set()
        self._all = False

    def notify(self, chunk_id: str | None) -> None:
        """Have an id looked at again, or everything."""
        with self._mutex:
            if chunk_id is None:
                self._all = True
            else:
                self._ids.add(chunk_id)
        self._event.set()

    def wake(self) -> None:
        """Wake the loop for something else than a look."""
        self._event.set()

    def wait(self, timeout_s: float | None) -> None:
        """Wait for a notification."""
        self._event.wait(timeout_s)

    def take(self) -> tuple[set[str], bool]:
        """Return the ids to look at, and whether to look at everything."""
        self._event.clear()
        with self._mutex:
            ids, self._ids = self._ids, set()
            everything, self._all = self._all, False
        return ids, everything or len(ids) > MANY_IDS
