"""Letting fetches in as far as there is room, and parking those that there is none for.

A fetch that does not fit is told of once (`failed/ID`, an event); then it is parked in the work queue, until as much is
free as it needs. Where partials that are not being fetched take up its room, they give way. Each refusal notifies the
loop, so that what is remembered of it now is decided upon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsdm.reconcile.plan import waiting_for_room, waits_for_room

if TYPE_CHECKING:
    from fsdm.reconcile.actions import Fetch
    from fsdm.reconcile.results import Results
    from fsdm.reconcile.space_budget import SpaceBudget
    from fsdm.reconcile.wakeup import Wakeup
    from fsdm.reconcile.work_queue import WorkQueue


class Admission:
    """The admission of one reconciler's fetches."""

    def __init__(self, space: SpaceBudget, work_queue: WorkQueue, results: Results, wakeup: Wakeup) -> None:
        self._space = space
        self._work_queue = work_queue
        self._results = results
        self._wakeup = wakeup

    def open(self, slots: int) -> None:
        """Look how much room there is, where any fetch waits; unpark those that fit now."""
        waiting = self._work_queue.waiting_fetches or self._work_queue.parked_fetches
        if waiting and slots > 0 and (self._space.is_limited or self._work_queue.parked_fetches):
            self._work_queue.unpark(self._space.look(), slots)

    def admit(self, fetch: Fetch, now: float) -> bool:
        """Tell whether a fetch may begin."""
        if not self._space.is_limited or self._space.begin(fetch):
            self._results.admitted(fetch)
            return True
        if waits_for_room(self._results.memo(fetch.id), fetch):
            self._work_queue.park(fetch, self._space.need_bytes(fetch))
            self._wakeup.wake()  # so many may have been refused that others are still to be asked
            return False
        error, hint = self._space.why_not(fetch)
        needs, lacks = self._space.need_bytes(fetch), self._space.lacks_bytes(fetch)
        self._results.refused(waiting_for_room(fetch, error, hint, now, needs_bytes=needs, lacks_bytes=lacks))
        self._wakeup.notify(fetch.id)
        for chunk_id in self._space.in_the_way(fetch):
            self._results.crowded(chunk_id)
            self._wakeup.notify(chunk_id)
        return False
