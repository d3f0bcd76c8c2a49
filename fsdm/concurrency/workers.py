"""Workers: a bounded number of threads that run submitted work in order.

They are daemon threads: a process that ends must not hang on a slow server, and any instant is a safe one to end at.
"""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

from fsdm.concurrency.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable

logger = Log(__name__)


class Workers:
    """Up to `size` threads, each started when it is needed, and kept."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # None wakes a thread that is to end
        self._mutex = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._pending = 0  # waiting and running work
        self._short = False  # the system has refused a thread
        self._closed = False

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` soon. It reports its own result; once closed, it is dropped."""
        with self._mutex:
            if self._closed:
                return
            self._pending += 1
            self._queue.put(work)
            self._start_thread()

    def replenish(self) -> None:
        """Start the threads that the system has refused before."""
        with self._mutex:
            self._start_thread()

    def resize(self, size: int) -> None:
        """Run `size` pieces of work at once from now on; running work is not cut."""
        with self._mutex:
            self._size = size
            self._start_thread()
            for _ in range(len(self._threads) - size):
                self._queue.put(None)

    def close(self, timeout_s: float | None) -> bool:
        """Drop the waiting work, and wait for the running; return whether all of it ended in time."""
        with self._mutex:
            self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        return join_all(self._threads, timeout_s)

    def _start_thread(self) -> None:
        while not self._closed and len(self._threads) < min(self._pending, self._size):
            thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError as e:  # can't start new thread: the others take the work, or `replenish` starts one
                if not self._short:
                    logger.warning(
                        "%s goes on with %d threads of %d: %s", self._name, len(self._threads), self._size, e
                    )
                self._short = True
                return
            self._short = False
            self._threads.append(thread)

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                if self._ends():
                    return
                continue
            if self._closed:
                continue
            try:
                work()
            except Exception:  # a defect of ours: the thread goes on with the other work
                logger.exception("a piece of work of %s failed", self._name)
            with self._mutex:
                self._pending -= 1

    def _ends(self) -> bool:
        """Return whether this thread is to end: it is one too many, or all are."""
        with self._mutex:
            if not self._closed and len(self._threads) > self._size:
                self._threads.remove(threading.current_thread())
                return True
            return self._closed


def join_all(threads: list[threading.Thread], timeout_s: float | None) -> bool:
    """Wait for all threads, `timeout_s` seconds in all; return whether they have ended."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    for thread in threads:
        thread.join(None if deadline is None else max(deadline - time.monotonic(), 0.0))
    return not any(thread.is_alive() for thread in threads)
