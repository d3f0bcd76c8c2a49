"""A rate limit for all connections, a speed floor for each transfer, and a byte count.

Invariant of the limit: in any span of time no more comes than it allows for that span and BURST_S more, and one block
for each connection. All blocks together are worth BLOCK_S, where none would be below LEAST_BYTES.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

BURST_S: Final = 0.1  # of unused time that may be made up for
BLOCK_S: Final = 0.05
LEAST_BYTES: Final = 4 << 10
LOOK_S: Final = 1.0  # how often a waiting connection sees a changed limit
TAKER_S: Final = 5.0  # a thread that has taken no block for so long has no share any more
FLOOR_BYTES_PER_S: Final = 1024.0
FLOOR_WINDOW_S: Final = 60.0


class Rate:
    """A limit of `bytes_per_s` over all threads that share it; None is no limit.

    It is a virtual schedule (GCRA, ITU-T I.371): a connection rests until its block is over at the limit's rate.
    """

    def __init__(self, bytes_per_s: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_per_s = _checked(bytes_per_s)
        self._clock = clock
        self._mutex = threading.Lock()
        self._paid_at = clock()  # the end of the schedule so far
        self._takers: dict[int, float] = {}  # thread → its last block, the longest ago first

    @property
    def is_capped(self) -> bool:
        return self._bytes_per_s is not None

    def change(self, bytes_per_s: float | None) -> None:
        """Set another limit; the schedule so far is dropped."""
        _checked(bytes_per_s)
        with self._mutex:
            if bytes_per_s != self._bytes_per_s:
                self._bytes_per_s = bytes_per_s
                self._paid_at = self._clock()

    def block(self, most: int) -> int:
        """Return how many bytes this thread is to take at once, up to `most`."""
        cap = self._bytes_per_s
        if cap is None:
            return most
        with self._mutex:
            # a new taker gets the least: many that begin together do not know of each other yet
            share_s = BLOCK_S / len(self._takers) if self._seen() else 0.0
        return min(max(int(cap * share_s), LEAST_BYTES), most)

    def _seen(self) -> bool:
        """Count this thread as a taker; return whether it was one already."""
        taker, now = threading.get_ident(), self._clock()
        known = self._takers.pop(taker, None) is not None
        self._takers[taker] = now
        while now - self._takers[oldest := next(iter(self._takers))] > TAKER_S:
            del self._takers[oldest]
        return known

    def took(self, count: int, wait: Callable[[float], object]) -> float:
        """Put `count` bytes on the schedule, wait for their end in it, and return the seconds taken.

        `wait(seconds)` may return early, and may raise: that ends the wait, and the bytes stay on the schedule.
        """
        cap = self._bytes_per_s
        if cap is None:
            return 0.0
        began = self._clock()
        with self._mutex:
            due = self._paid_at = max(self._paid_at, began - BURST_S) + count / cap
        while (now := self._clock()) < due and self._bytes_per_s == cap:
            wait(min(due - now, LOOK_S))
        return now - began


def _checked(bytes_per_s: float | None) -> float | None:
    if bytes_per_s is not None and not bytes_per_s > 0:
        raise InvalidInputError(f"must be more than 0, it is {bytes_per_s}", field="bytes_per_s")
    return bytes_per_s


class Meter:
    """A count of bytes over all threads. It takes no lock: each thread has a count of its own."""

    def __init__(self) -> None:
        self._counts = Counter[int]()  # by thread id; a new thread may go on with the count of an ended one

    def took(self, count: int) -> None:
        self._counts[threading.get_ident()] += count

    @property
    def bytes(self) -> int:
        return sum(list(self._counts.values()))


@dataclass(slots=True)
class Floor:
    """The floor: `bytes_per_s` over `window_s` seconds; less is noticed within two windows."""

    bytes_per_s: float = FLOOR_BYTES_PER_S
    window_s: float = FLOOR_WINDOW_S
    clock: Callable[[], float] = time.monotonic
    _since: float = field(init=False)
    _bytes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._since = self.clock()

    def took(self, count: int) -> bool:
        """Count bytes (also 0); return False where the window that ends now was too slow."""
        self._bytes += count
        now = self.clock()
        elapsed_s = now - self._since
        if elapsed_s < self.window_s:
            return True
        enough = self._bytes >= self.bytes_per_s * elapsed_s
        self._since, self._bytes = now, 0
        return enough

    def paused(self, seconds: float) -> None:
        """Leave out time in which the transfer waited for us, not for the server (see `Rate.took`)."""
        self._since += seconds
