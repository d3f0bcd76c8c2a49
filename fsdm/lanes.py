"""The connections' threads: a bounded number, some of them kept for what is small.

Small work is taken first, and a few threads take nothing else: so a small file never waits for a large one to end. What
has been submitted is always run, also at the end: it looks for itself whether it has been stopped.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Lanes:
    """`size` daemon threads (see `crew` for why), `reserved` of them for small work; started as they are needed."""

    def __init__(self, name: str, size: int, reserved: int) -> None:
        self._name = name
        self._size = size
        self._reserved = min(reserved, size - 1)
        self._small: deque[Callable[[], None]] = deque()
        self._large: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, work: Callable[[], None], *, small: bool) -> None:
        """Run `work`, which raises nothing, as soon as a thread is free for it."""
        with self._wake:
            (self._small if small else self._large).append(work)
            if len(self._threads) < self._size:
                # the reserved ones come last: until there is much to do, every thread takes everything
                reserved = len(self._threads) >= self._size - self._reserved
                name = f"{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=self._run, args=(reserved,), name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
            self._wake.notify_all()

    def close(self, timeout_s: float | None) -> bool:
        """Run what is left and end; whether all of it ended in time."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, reserved: bool) -> None:
        while (work := self._next(reserved)) is not None:
            work()

    def _next(self, reserved: bool) -> Callable[[], None] | None:
        with self._wake:
            while True:
                if self._small:
                    return self._small.popleft()
                if self._large and not reserved:
                    return self._large.popleft()
                if self._closed:
                    return None
                self._wake.wait()
