"""One look at something that may hang (a disk that does), for many who ask: nobody waits longer than they want to.

A look runs in a thread of its own. Whoever asks while one runs waits for that one, so a look that hangs costs one
thread, and no more until it ends.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("fsdm")

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Has `look` called, one at a time."""

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._mutex = threading.Lock()
        self._flight: _Flight[T] | None = None

    def ask(self, timeout_s: float) -> T | None:
        """What `look` finds, begun no earlier than the last that ended; None where it takes longer, or raises."""
        with self._mutex:
            if self._flight is None or self._flight.landed.is_set():
                self._flight = _Flight()
                thread = threading.Thread(target=self._fly, args=(self._flight,), name="fsdm-probe", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # can't start new thread
                    self._flight = None
                    return None
            flight = self._flight
        flight.landed.wait(timeout_s)
        return flight.found

    def _fly(self, flight: _Flight[T]) -> None:
        try:
            flight.found = self._look()
        except Exception:  # a defect of ours: who asks sees that nothing was found
            logger.exception("a look failed")
        finally:
            flight.landed.set()


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.landed = threading.Event()
        self.found: T | None = None
