"""Reading all chunks about once in so many days, the longest unchecked first, evenly spread.

When each chunk was checked is on the disk (see `background`), so a restart forgets nothing. Invariant: chunks are read
one at a time, one in every `days` / how many there are, unless some are overdue; each at no more than twice the pace
that its turn allows (but no slower than RATE_MIN), and never faster than RATE_MAX.
"""

from __future__ import annotations

import heapq
import threading
import time
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.rate_limit import Rate
from fsdm.store.disk_usage import bytes_in
from fsdm.verify.background import RATE_MAX, checked_at, verified_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.layout import Layout, Place
    from fsdm.store.catalog import Catalog

DAY_S: Final = 86400.0
RATE_MIN: Final = 4e6  # bytes a second
SURVEY_S: Final = 3600.0  # chunks have come and gone since
LOOK_AGAIN_S: Final = 60.0
REST: Final = 4.0  # so many times as long as a look at some chunks took, it rests
AT_ONCE: Final = 64


class Scrub:
    """The scrub of one data directory, in its own thread. `check` reads one chunk, at a rate."""

    def __init__(
        self,
        layout: Layout,
        catalog: Catalog,
        *,
        days: float,
        check: Callable[[Place, Rate], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layout = layout
        self._catalog = catalog
        self._period_s = days * DAY_S
        self._check = check
        self._clock = clock
        self._turns: list[tuple[float, Place]] = []  # a heap: when each was checked
        self._turn_s = self._period_s
        self._surveyed = 0.0
        self._last = 0.0  # when one was read last
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fsdm-scrub", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float | None) -> bool:
        """End soon, after `check` was stopped; tell whether it has ended in time."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def step(self) -> float:
        """Read the chunk whose turn has come, if one's has; return the seconds until the next turn."""
        if not self._turns or not 0 <= self._clock() - self._surveyed < SURVEY_S:
            self._survey()
        if not self._turns:
            return LOOK_AGAIN_S
        now = self._clock()
        checked, place = self._turns[0]
        due = min(min(self._last, now) + self._turn_s, min(checked, now) + self._period_s)
        if now < due:
            return due - now
        heapq.heappop(self._turns)
        known = checked_at(self._layout, place)
        if known is not None and known > checked:  # it was read on request meanwhile
            heapq.heappush(self._turns, (known, place))
        elif known is not None:
            self._check(place, Rate(self._pace(place)))
            self._last = self._clock()
        return 0.0

    def _survey(self) -> None:
        places, self._turns = self._catalog.all_places(), []
        for at in range(0, len(places), AT_ONCE):
            began = time.monotonic()
            for place in places[at : at + AT_ONCE]:
                if (checked := checked_at(self._layout, place)) is not None:
                    self._turns.append((checked, place))
                    self._last = max(self._last, verified_at(self._layout, place) or 0.0)
            if self._stop.wait((time.monotonic() - began) * REST):
                self._turns.clear()
                return
        heapq.heapify(self._turns)
        self._surveyed = self._clock()
        self._turn_s = self._period_s / max(len(self._turns), 1)

    def _pace(self, place: Place) -> float:
        size_bytes = bytes_in(self._layout.path(place))[0]
        return min(max(2 * size_bytes / self._turn_s, RATE_MIN), RATE_MAX)

    def _run(self) -> None:
        while not self._stop.wait(min(self.step(), LOOK_AGAIN_S)):
            continue
