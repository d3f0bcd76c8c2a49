"""How fast bytes may come, and how slow: a cap for all connections together, a floor for each transfer; and a count.

The cap is a schedule (a virtual one, as in GCRA, ITU-T I.371): each block that has come is paid for at the cap's rate,
after all that came before it, and its connection takes nothing until then. So connections take turns. Invariant: in any
span no more comes than the cap allows for the span and BURST_S more, and one block for each connection; all the blocks
together are worth BLOCK_S, unless the cap is so low or the connections so many that none could be LEAST_BYTES.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

BURST_S: Final = 0.1  # what is saved up while nothing comes
BLOCK_S: Final = 0.05
LEAST_BYTES: Final = 4 << 10
LOOK_S: Final = 1.0  # so often, who waits looks whether the cap has been changed
TAKER_S: Final = 5.0  # a thread that has asked for no block for so long takes no part any more
FLOOR_BYTES_PER_S: Final = 1024.0
FLOOR_WINDOW_S: Final = 60.0


class Rate:
    """At most `bytes_per_s` over all threads that share it; None is no cap, and costs nothing."""

    def __init__(self, bytes_per_s: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_per_s = _checked(bytes_per_s)
        self._clock = clock
        self._mutex = threading.Lock()
        self._paid_at = clock()  # when all that has come will have been paid for
        self._takers: dict[int, float] = {}  # thread → when it asked last, the longest ago first

    @property
    def is_capped(self) -> bool:
        """Whether there is a cap."""
        return self._bytes_per_s is not None

    def change(self, bytes_per_s: float | None) -> None:
        """From now on this is the cap; what is still to be paid for at another one is let go."""
        _checked(bytes_per_s)
        with self._mutex:
            if bytes_per_s != self._bytes_per_s:
                self._bytes_per_s = bytes_per_s
                self._paid_at = self._clock()

    def block(self, most: int) -> int:
        """How many bytes this thread is to take at once, up to `most`."""
        cap = self._bytes_per_s
        if cap is None:
            return most
        with self._mutex:
            share_s = BLOCK_S / len(self._takers) if self._seen() else 0.0
        return min(max(int(cap * share_s), LEAST_BYTES), most)

    def _seen(self) -> bool:
        """Whether this thread takes part already; from now on it does.

        One that is new gets the least: many that begin together do not know of each other yet.
        """
        taker, now = threading.get_ident(), self._clock()
        known = self._takers.pop(taker, None) is not None
        self._takers[taker] = now
        while now - self._takers[oldest := next(iter(self._takers))] > TAKER_S:
            del self._takers[oldest]
        return known

    def took(self, count: int, wait: Callable[[float], object]) -> float:
        """Account for `count` bytes that came, and wait until they are paid for; the seconds that this took.

        `wait(seconds)` may return early, and may raise: that ends it, and what came stays accounted for.
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
    """How many bytes came, over all threads. It takes no lock: each thread adds to a count of its own."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}  # by thread; one that begins when another has ended may go on with its count

    def took(self, count: int) -> None:
        """So many more, in this thread."""
        thread = threading.get_ident()
        self._counts[thread] = self._counts.get(thread, 0) + count

    @property
    def bytes(self) -> int:
        """How many it were."""
        return sum(list(self._counts.values()))


class Floor:
    """Tells that one transfer is too slow: that it brought less than `bytes_per_s` in some `window_s` seconds.

    Windows follow each other, so a transfer that has become too slow is found within two of them.
    """

    def __init__(
        self,
        bytes_per_s: float = FLOOR_BYTES_PER_S,
        window_s: float = FLOOR_WINDOW_S,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._window_s = window_s
        self._clock = clock
        self._since = clock()
        self._bytes = 0

    def took(self, count: int) -> bool:
        """Account for `count` bytes that came (0 is well); False where the window that ends here was too slow."""
        self._bytes += count
        now = self._clock()
        elapsed_s = now - self._since
        if elapsed_s < self._window_s:
            return True
        enough = self._bytes >= self._bytes_per_s * elapsed_s
        self._since, self._bytes = now, 0
        return enough

    def paused(self, seconds: float) -> None:
        """So long the transfer waited for us, not for the server (see `Rate.took`): it does not count."""
        self._since += seconds
