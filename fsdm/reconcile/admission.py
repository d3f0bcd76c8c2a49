"""Letting fetches in as far as there is room, and parking those that there is none for.

A fetch that does not fit is told of once (`failed/ID`, an event), and parked when it comes again. Where partials that
are not being fetched take up its room, they give way. Each refusal notifies the loop, which decides upon it anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fsdm.reconcile.plan import waiting_for_room, waits_for_room

if TYPE_CHECKING:
    from fsdm.reconcile.actions import Fetch
    from fsdm.reconcile.results import Results
    from fsdm.reconcile.space_budget import SpaceBudget
    from fsdm.reconcile.wakeup import Wakeup
    from fsdm.reconcile.work_queue import WorkQueue


@dataclass(slots=True)
class Admission:
    """The admission of one reconciler's fetches."""

    space: SpaceBudget
    work_queue: WorkQueue
    results: Results
    wakeup: Wakeup

    def open(self, slots: int) -> None:
        """Look how much room there is, where any fetch waits; unpark those that fit now."""
        waiting = self.work_queue.waiting_fetches or self.work_queue.parked_fetches
        if waiting and slots > 0 and (self.space.is_limited or self.work_queue.parked_fetches):
            self.work_queue.unpark(self.space.look(), slots)

    def admit(self, fetch: Fetch, now: float) -> bool:
        """Tell whether a fetch may begin."""
        if not self.space.is_limited or self.space.begin(fetch):
            self.results.admitted(fetch)
            return True
        if waits_for_room(self.results.memo(fetch.id), fetch):
            self.work_queue.park(fetch, self.space.need_bytes(fetch))
            self.wakeup.wake()  # so many may have been refused that others are still to be asked
        else:
            error, hint = self.space.why_not(fetch)
            needs, lacks = self.space.need_bytes(fetch), self.space.lacks_bytes(fetch)
            self.results.refused(waiting_for_room(fetch, error, hint, now, needs_bytes=needs, lacks_bytes=lacks))
            self.wakeup.notify(fetch.id)
        for chunk_id in self.space.in_the_way(fetch):  # when it is parked too: one may have come to rest meanwhile
            self.results.crowded(chunk_id)
            self.wakeup.notify(chunk_id)
        return False
