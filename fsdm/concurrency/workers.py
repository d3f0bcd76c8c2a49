"""Workers: a bounded number of threads that run submitted work in order.

They are daemon threads: a process that ends must not hang on a slow server, and any instant is a safe one to end at.
Invariant: while work waits, one thread is about to take it, or all of them are at work.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING

from fsdm.concurrency.log import Log
from fsdm.concurrency.turn import in_turn, rest

if TYPE_CHECKING:
    from collections.abc import Callable

logger = Log(__name__)


class Workers:
    """Up to `size` threads, each started when it is needed, and kept."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._works: deque[Callable[[], None]] = deque()
        self._calls: SimpleQueue[None] = SimpleQueue()  # one for each idle thread that is to look
        self._mutex = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = 0  # threads
        self._taking = 0  # threads that are about to look what waits
        self._short = False  # the system has refused a thread
        self._closed = False

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` soon. It reports its own result; once closed, it is dropped."""
        with self._mutex:
            if not self._closed:
                self._works.append(work)
                self._call()

    def offer(self, work: Callable[[], None]) -> bool:
        """Run `work` soon; False, and nothing is done, where there is no thread for it, and none can be had."""
        with self._mutex:
            self._works.append(work)
            self._call()
            if not self._threads:
                self._works.pop()
            return bool(self._threads)

    def replenish(self) -> None:
        """Start the threads that the system has refused before."""
        with self._mutex:
            self._call()

    def resize(self, size: int) -> None:
        """Run `size` pieces of work at once from now on; running work is not cut."""
        with self._mutex:
            self._size = size
            self._call()
            self._wake(min(self._idle, len(self._threads) - size))

    def close(self, timeout_s: float | None) -> bool:
        """Drop the waiting work, and wait for the running; return whether all of it ended in time."""
        with self._mutex:
            self._closed = True
            self._works.clear()
            self._wake(self._idle)
        return join_all(self._threads, timeout_s)

    def _call(self) -> None:
        """See that a thread is about to take what waits; a further one is called by the one that has taken it."""
        if not self._works or self._taking:
            return
        if self._idle:
            self._wake(1)
        elif len(self._threads) < self._size:
            self._start_thread()

    def _wake(self, count: int) -> None:
        for _ in range(count):
            self._idle -= 1
            self._taking += 1
            self._calls.put(None)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError as e:  # can't start new thread: the others take the work, or `replenish` starts one
            if not self._short:
                logger.warning("%s goes on with %d threads: %s", self._name, len(self._threads), e)
            self._short = True
            return
        self._short = False
        self._taking += 1
        self._threads.append(thread)

    def _run(self) -> None:
        while True:
            with in_turn():
                while (work := self._next()) is not None:
                    try:
                        work()
                    except Exception:  # a defect of ours: the thread goes on with the other work
                        logger.exception("a piece of work of %s failed", self._name)
                    with self._mutex:
                        self._taking += 1
                    rest()
            if self._closed or threading.current_thread() not in self._threads:
                return
            self._calls.get()

    def _next(self) -> Callable[[], None] | None:
        """Take what has waited the longest; None where this thread is to end, or to wait for a call."""
        with self._mutex:
            self._taking -= 1
            if not self._closed and len(self._threads) > self._size:
                self._threads.remove(threading.current_thread())
            elif not self._works:
                self._idle += 1
            else:
                work = self._works.popleft()
                self._call()
                return work
            self._call()
            return None


def join_all(threads: list[threading.Thread], timeout_s: float | None) -> bool:
    """Wait for all threads, `timeout_s` seconds in all; return whether they have ended."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    for thread in threads:
        thread.join(None if deadline is None else max(deadline - time.monotonic(), 0.0))
    return not any(thread.is_alive() for thread in threads)
