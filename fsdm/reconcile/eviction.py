"""Making room for what does not fit, out of what may be evicted.

Victims are chosen by a worker, and asked for by `evict/ID`, as anybody may: so a crash loses nothing, and each is
judged again under its claim. Invariants: nothing is chosen for what could not fit into the whole budget, nor more than
the need and the low-water mark ask for; while what was chosen is being judged or erased nothing more is; and where
nothing could be chosen, the next try waits, longer each time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.log import Log
from fsdm.store.eviction import ask, choose
from fsdm.store.filesystem import exists

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.workers import Workers
    from fsdm.model.layout import Layout
    from fsdm.reconcile.space_budget import SpaceBudget
    from fsdm.reconcile.work_queue import WorkQueue
    from fsdm.store.catalog import Catalog

logger = Log("fsdm")

RETRY_FIRST_S: Final = 1.0
RETRY_LAST_S: Final = 30.0


@dataclass(slots=True)
class Eviction:
    """The automatic eviction of one reconciler. The loop's alone, but for `_evict`."""

    layout: Layout
    catalog: Catalog
    space: SpaceBudget
    work_queue: WorkQueue
    workers: Workers
    wake: Callable[[], None]
    clock: Callable[[], float] = time.monotonic
    _is_choosing: bool = False
    _asked: list[str] = field(default_factory=list)  # the markers of those chosen last
    _next_at: float = 0.0
    _pause_s: float = RETRY_FIRST_S

    def begin(self, jobs: int) -> None:
        """Have room made for the oldest of what waits for it, off the loop, where that makes sense."""
        needs = sum(filter(self.space.can_ever_fit, self.work_queue.parked_needs(jobs)))
        if not needs or self._is_choosing or self.clock() < self._next_at or self.space.is_emptying:
            return
        self._asked = [path for path in self._asked if exists(path)]
        free_bytes = self.space.excess_bytes(needs)
        if not self._asked and free_bytes > 0:  # else there is room by now, and a slot is what it waits for
            self._is_choosing = True
            self.workers.submit(partial(self._evict, free_bytes))

    def _evict(self, free_bytes: int) -> None:
        chosen = []
        try:
            chosen = choose(self.layout, self.catalog.all_places(), free_bytes, time.time())
            ask(self.layout, chosen)
        except Exception:  # it is tried again: what does not fit waits, and says so
            logger.exception("no room can be made by eviction")
        self._asked = [self.layout.evict_marker(victim.place.chunk_id) for victim, _ in chosen]
        self._pause_s = RETRY_FIRST_S if chosen else min(self._pause_s * 2, RETRY_LAST_S)
        self._next_at = self.clock() + (0.0 if chosen else self._pause_s)
        self._is_choosing = False
        self.wake()
