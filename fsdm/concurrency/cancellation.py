"""Cancellation: one thread stops the transfers of others, whatever they are waiting for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fsdm.concurrency.turn import out_of_turn
from fsdm.model.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable


class Cancellation:
    """Stops the transfers of one chunk at once, even one that waits for a byte.

    Several threads may share one; each guards the connections that it uses, and releases them.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._set = False
        self._cuts: list[Callable[[], None]] = []
        self._waits: set[threading.Event] = set()

    def set(self) -> None:
        """Stop the transfers; a second time it does nothing."""
        with self._mutex:
            self._set = True
            for cut in self._cuts:
                cut()
            for event in self._waits:
                event.set()

    def is_set(self) -> bool:
        """Tell whether the transfers are to stop."""
        return self._set

    def check(self) -> None:
        """Raise StoppedError once this is set."""
        if self._set:
            raise StoppedError("the transfer was stopped")

    def wait(self, seconds: float, event: threading.Event | None = None) -> None:
        """Wait for `seconds` or for `event`; raise StoppedError as soon as this is set.

        `event` is for this wait alone: setting this sets it too.
        """
        event = event or threading.Event()
        with self._mutex:
            self._waits.add(event)
        try:
            if not self._set:  # after the add: a later set() finds the event
                with out_of_turn():
                    event.wait(seconds)
        finally:
            with self._mutex:
                self._waits.discard(event)
        self.check()

    def guard(self, cut: Callable[[], None]) -> None:
        """Call `cut` when this is set, or now where it is already; it must not raise, and not wait."""
        with self._mutex:
            self._cuts.append(cut)
            if self._set:
                cut()

    def release(self, cut: Callable[[], None]) -> None:
        """Call `cut` no more; it is not running when this returns."""
        with self._mutex:
            if cut in self._cuts:
                self._cuts.remove(cut)
