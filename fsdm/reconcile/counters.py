"""Counting events by kind, failures by cause, bytes, and how long things took. Thread-safe.

Kinds and causes are closed sets, so the number of counts is fixed however many chunks there are.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, get_args

from fsdm.model.errors import Cause
from fsdm.model.events import Kind

if TYPE_CHECKING:
    from fsdm.model.events import Event

# upper bounds in seconds: of what a user waits for, of a pass of the loop
LATENCIES: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
FAILURES: Final = frozenset({"failed", "over", "damaged"})  # of one chunk; the others are about all
PASSES: Final = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0)


@dataclass(slots=True)
class Histogram:
    """Durations by length: `counts[i]` were at most `bounds[i]`, and above the bound before it."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)  # the last one is of what is beyond all bounds

    def took(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Counts:
    """All that is counted."""

    events: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(get_args(Kind), 0))
    failures: dict[Cause, int] = field(default_factory=lambda: dict.fromkeys(get_args(Cause), 0))
    published_bytes: int = 0
    evicted_bytes: int = 0
    last_victim_idle_s: float | None = None
    missed: int = 0
    failed_passes: int = 0
    want_to_available: Histogram = field(default_factory=lambda: Histogram(LATENCIES))
    delete_to_gone: Histogram = field(default_factory=lambda: Histogram(LATENCIES))
    fetches: Histogram = field(default_factory=lambda: Histogram(LATENCIES))
    loop: Histogram = field(default_factory=lambda: Histogram(PASSES))


class Counters:
    """The counts of one process."""

    def __init__(self) -> None:
        self._counts = Counts()
        self._mutex = threading.Lock()

    def tell(self, event: Event) -> None:
        counts = self._counts
        with self._mutex:
            counts.events[event.kind] += 1
            if event.cause is not None and event.kind in FAILURES:
                counts.failures[event.cause] += 1
            if event.kind == "available" and event.size_bytes is not None:
                counts.published_bytes += event.size_bytes
            if event.kind == "evicted":
                counts.evicted_bytes += event.size_bytes or 0
                counts.last_victim_idle_s = event.after_s
            if event.kind == "available" and event.after_s is not None:
                counts.want_to_available.took(event.after_s)
            if event.kind == "deleted" and event.after_s is not None:
                counts.delete_to_gone.took(event.after_s)
            if event.fetch_s is not None:
                counts.fetches.took(event.fetch_s)

    def passed(self, seconds: float) -> None:
        """Count a pass of the loop, which took so long without its wait."""
        with self._mutex:
            self._counts.loop.took(seconds)

    def missed(self) -> None:
        """Count a chunk that somebody asked for, and that was not here."""
        with self._mutex:
            self._counts.missed += 1

    def pass_failed(self) -> None:
        """Count a pass of the loop that failed."""
        with self._mutex:
            self._counts.failed_passes += 1

    def counts(self) -> Counts:
        """Copy all counts, as they are at one moment."""
        with self._mutex:
            return deepcopy(self._counts)
