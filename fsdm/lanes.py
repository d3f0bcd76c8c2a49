"""The connections' threads: a bounded number, shared fairly between chunks, some of them kept for what is small.

Small work is taken first, and a few threads take nothing else: so a small file never waits for a large one to end. Of
what waits, the chunk with the fewest running comes first, and none has more than half of the threads: so a chunk whose
server has gone silent leaves room for the others. What has been submitted is always run, also at the end: it looks for
itself whether it has been stopped.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], None]


class Lanes:
    """`size` daemon threads (see `crew` for why), `reserved` of them for small work; started as they are needed."""

    def __init__(self, name: str, size: int, reserved: int) -> None:
        self._name = name
        self._size = size
        self._reserved = min(reserved, size - 1)
        self._share = max(1, size // 2)  # of large work, for one chunk
        self._small: dict[str, deque[Work]] = {}  # by chunk
        self._large: dict[str, deque[Work]] = {}
        self._running: Counter[str] = Counter()
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, chunk_id: str, work: Work, *, small: bool) -> None:
        """Run `work`, which raises nothing, as soon as a thread is free for it."""
        with self._wake:
            closed = self._closed
            if not closed:
                (self._small if small else self._large).setdefault(chunk_id, deque()).append(work)
                self._hire()
                self._wake.notify_all()
        if closed:  # no thread may be left that would
            work()

    def _hire(self) -> None:
        if len(self._threads) < self._size:
            # the reserved ones come last: until there is much to do, every thread takes everything
            reserved = len(self._threads) >= self._size - self._reserved
            name = f"{self._name}-{len(self._threads)}"
            thread = threading.Thread(target=self._run, args=(reserved,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self, timeout_s: float | None) -> bool:
        """Run what is left and end; whether all of it ended in time."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if deadline is None else max(deadline - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, reserved: bool) -> None:
        while (taken := self._next(reserved)) is not None:
            chunk_id, work = taken
            work()
            with self._wake:
                self._running[chunk_id] -= 1
                if not self._running[chunk_id]:
                    del self._running[chunk_id]
                self._wake.notify_all()

    def _next(self, reserved: bool) -> tuple[str, Work] | None:
        with self._wake:
            while True:
                taken = self._take(self._small, self._size)
                if taken is None and not reserved:
                    taken = self._take(self._large, self._share)
                if taken is not None:
                    return taken
                if self._closed and (reserved or not self._large):
                    return None
                self._wake.wait()

    def _take(self, waiting: dict[str, deque[Work]], share: int) -> tuple[str, Work] | None:
        """The next piece of work of the chunk with the fewest running, if that is fewer than its share."""
        chunk_id = min(waiting, key=lambda chunk_id: self._running[chunk_id], default=None)
        if chunk_id is None or self._running[chunk_id] >= share:
            return None
        queue = waiting[chunk_id]
        work = queue.popleft()
        if not queue:
            del waiting[chunk_id]
        self._running[chunk_id] += 1
        return chunk_id, work
