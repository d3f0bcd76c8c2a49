"""One check at a time, for many callers, of what may hang (a disk): it costs one thread."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

from fsdm.concurrency.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable

logger = Log("fsdm")

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Calls `check` in a thread, one call at a time."""

    def __init__(self, check: Callable[[], T]) -> None:
        self._check = check
        self._mutex = threading.Lock()
        self._flight: Future[T | None] | None = None

    def ask(self, timeout_s: float) -> T | None:
        """Return the result of a running or new call; None where it takes longer, or raises."""
        with self._mutex:
            flight = self._flight
            if flight is None or flight.done():
                flight = Future()
                try:
                    threading.Thread(target=self._run, args=(flight,), name="fsdm-probe", daemon=True).start()
                except RuntimeError:  # can't start new thread
                    return None
                self._flight = flight
        try:
            return flight.result(timeout_s)
        except TimeoutError:
            return None

    def _run(self, flight: Future[T | None]) -> None:
        result = None
        try:
            result = self._check()
        except Exception:  # a defect of ours: the callers get None
            logger.exception("a check failed")
        finally:
            flight.set_result(result)
