"""Values handed to a reader in a thread of its own, however slow that is.

Invariants: `put` waits for no reader. Values have numbers, each one more than that before it; each is read, in this
order, or is in the gap that is read in its place. So what waits is bounded, and nothing is lost untold.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

BOUND: Final = 10_000  # values that wait
PATIENCE_S: Final = 2.0  # at the end, for a reader that takes nothing
END_S: Final = 10.0  # at the end, for all that waits


@dataclass(frozen=True, slots=True)
class Gap:
    """The numbers of the values that were dropped, from `first` to `last`."""

    first: int
    last: int

    @property
    def count(self) -> int:
        """The number of these values."""
        return self.last - self.first + 1


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Have the threads that are started in the block take no signals: these are for the main thread."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class Channel(Generic[T]):
    """A bounded queue with a thread that calls `read(number, value)`, which must not raise.

    Numbers begin with 1; that of a gap is its last one. Once it is full, it takes nothing until half of it was read.
    """

    def __init__(self, read: Callable[[int, T | Gap], None], *, name: str) -> None:
        self._read = read
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, T | Gap]] = deque()
        self._number = self._done = 0
        self._is_full = self._is_ending = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, value: T) -> None:
        """Hand over a value; after `close` it is dropped."""
        with self._changed:
            if self._is_ending:
                return
            self._number += 1
            self._is_full = len(self._waiting) > (BOUND / 2 if self._is_full else BOUND - 1)
            if not self._is_full:
                self._waiting.append((self._number, value))
                self._changed.notify_all()
                return
            last = self._waiting[-1][1]
            first = last.first if isinstance(last, Gap) else self._number
            if isinstance(last, Gap):
                self._waiting.pop()
            self._waiting.append((self._number, Gap(first, self._number)))

    def close(self) -> bool:
        """Take no more, wait until what was taken is read, and tell whether it was: a reader may take nothing."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
        if threading.current_thread() is self._thread:  # its reader closes it
            return False
        deadline, before = time.monotonic() + END_S, -1
        while self._done != before and time.monotonic() < deadline:
            before = self._done
            self._thread.join(PATIENCE_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_ending)
                if not self._waiting:
                    return
                number, value = self._waiting.popleft()
            self._read(number, value)
            self._done += 1
