"""Reading all chunks about once in so many days, the longest unchecked first, evenly spread.

Invariant: one chunk is read in every `days` / how many there are, unless some are overdue; each at no more than twice
the pace that its turn allows, within RATE_MIN and RATE_MAX.
"""

from __future__ import annotations

import heapq
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.rate_limit import Rate
from fsdm.store.disk_usage import bytes_in
from fsdm.store.verdict import checked_at, verified_at
from fsdm.verify.background import RATE_MAX

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


@dataclass(slots=True)
class Scrub:
    """The scrub of one data directory, in its own thread. `check` reads one chunk, at a rate."""

    layout: Layout
    catalog: Catalog
    days: float
    check: Callable[[Place, Rate], None]
    clock: Callable[[], float] = time.time
    _turns: list[tuple[float, Place]] = field(default_factory=list)  # a heap: when each was checked
    _turn_s: float = 0.0
    _surveyed: float = 0.0
    _last: float = 0.0  # when one was read last
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
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
        if not self._turns or not 0 <= self.clock() - self._surveyed < SURVEY_S:
            self._survey()
        if not self._turns:
            return LOOK_AGAIN_S
        now = self.clock()
        checked, place = self._turns[0]
        due = min(min(self._last, now) + self._turn_s, min(checked, now) + self.days * DAY_S)
        if now < due:
            return due - now
        heapq.heappop(self._turns)
        known = checked_at(self.layout, place)
        if known is not None and known > checked:  # it was read on request meanwhile
            heapq.heappush(self._turns, (known, place))
        elif known is not None:
            pace = 2 * bytes_in(self.layout.path(place))[0] / self._turn_s
            self.check(place, Rate(min(max(pace, RATE_MIN), RATE_MAX)))
            self._last = self.clock()
        return 0.0

    def _survey(self) -> None:
        places, self._turns = self.catalog.all_places(), []
        for at in range(0, len(places), AT_ONCE):
            began = time.monotonic()
            for place in places[at : at + AT_ONCE]:
                if (checked := checked_at(self.layout, place)) is not None:
                    self._turns.append((checked, place))
                    self._last = max(self._last, verified_at(self.layout, place) or 0.0)
            if self._stop.wait((time.monotonic() - began) * REST):
                self._turns.clear()
                return
        heapq.heapify(self._turns)
        self._surveyed = self.clock()
        self._turn_s = self.days * DAY_S / max(len(self._turns), 1)

    def _run(self) -> None:
        while not self._stop.wait(min(self.step(), LOOK_AGAIN_S)):
            continue
