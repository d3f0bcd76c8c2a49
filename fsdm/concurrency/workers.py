"""Who carries things out: a fixed number of threads that take what is submitted, in order.

Daemon threads, on purpose: a process that ends without closing its manager must not hang on a slow server, and the
protocol makes any instant a safe one to end at.
"""

from __future__ import annotations

import logging
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class Workers(Protocol):
    """Runs what is submitted."""

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` soon. It reports its own result."""

    def replenish(self) -> None:
        """Start the threads for what waits that the system has refused before."""

    def resize(self, size: int) -> None:
        """Run so much at once from now on; what runs is run to its end."""

    def close(self, timeout_s: float | None) -> bool:
        """Take nothing more, and wait for what runs; whether all of it ended in time. What waits is dropped."""


class ThreadWorkers:
    """Threads, started as they are needed and kept."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._mutex = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._pending = 0  # what waits and what runs
        self._short = False  # of threads: the system gives no more
        self._closed = False

    def submit(self, work: Callable[[], None]) -> None:
        """See `Crew.submit`."""
        with self._mutex:
            if self._closed:
                return
            self._pending += 1
            self._queue.put(work)
            self._start_thread()

    def replenish(self) -> None:
        """See `Workers.replenish`."""
        with self._mutex:
            self._start_thread()

    def resize(self, size: int) -> None:
        """See `Crew.resize`."""
        with self._mutex:
            self._size = size
            self._start_thread()
            for _ in range(len(self._threads) - size):
                self._queue.put(None)

    def _start_thread(self) -> None:
        while not self._closed and len(self._threads) < min(self._pending, self._size):
            thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError as e:  # can't start new thread: those there are take it, or `replenish` starts one
                if not self._short:
                    logger.warning(
                        "%s goes on with %d threads of %d: %s", self._name, len(self._threads), self._size, e
                    )
                self._short = True
                return
            self._short = False
            self._threads.append(thread)

    def close(self, timeout_s: float | None) -> bool:
        """See `Crew.close`."""
        with self._mutex:
            self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        return join_all(self._threads, timeout_s)

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                if self._is_to_end():
                    return
                continue
            if self._closed:
                continue
            try:
                work()
            except Exception:  # a defect of ours: one piece of work must not take the others' thread with it
                logger.exception("a piece of work of %s failed", self._name)
            with self._mutex:
                self._pending -= 1

    def _is_to_end(self) -> bool:
        """Whether this thread is one too many, or all are."""
        with self._mutex:
            if not self._closed and len(self._threads) > self._size:
                self._threads.remove(threading.current_thread())
                return True
            return self._closed


def join_all(threads: list[threading.Thread], timeout_s: float | None) -> bool:
    """Wait for all of them, `timeout_s` seconds together; whether all have ended."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    for thread in threads:
        thread.join(None if deadline is None else max(deadline - time.monotonic(), 0.0))
    return not any(thread.is_alive() for thread in threads)


class InlineWorkers:
    """Runs everything at once, in the caller's thread: for `--dry-run` and for tests that must not race."""

    def submit(self, work: Callable[[], None]) -> None:
        """See `Crew.submit`."""
        work()

    def replenish(self) -> None:
        """See `Workers.replenish`."""

    def resize(self, size: int) -> None:
        """See `Crew.resize`."""

    def close(self, timeout_s: float | None) -> bool:  # noqa: ARG002 the protocol's signature
        """See `Crew.close`."""
        return True
