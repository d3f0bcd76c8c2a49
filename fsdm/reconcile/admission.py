"""Which fetches are let in, and what becomes of those that there is no room for.

One that does not fit is told of once (`failed/ID`, an event); then it is parked in the agenda, until as much is free
as it needs. Where partials that nobody fetches take up its room, they give way. Whoever is refused rings, so that what
is remembered of it now is decided upon.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fsdm.model.events import Event
from fsdm.reconcile.plan import waiting_for_room, waits_for_room

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.reconcile.actions import Fetch
    from fsdm.reconcile.memo import Memos
    from fsdm.reconcile.space_budget import SpaceBudget
    from fsdm.reconcile.wakeup import Wakeup
    from fsdm.reconcile.work_queue import WorkQueue


class Admission:
    """Lets fetches in, as long as there is room."""

    def __init__(
        self, space: SpaceBudget, work_queue: WorkQueue, memos: Memos, *, wakeup: Wakeup, tell: Callable[[Event], None]
    ) -> None:
        self._space = space
        self._work_queue = work_queue
        self._memos = memos
        self._wakeup = wakeup
        self._tell = tell

    def open(self, slots: int) -> None:
        """Look how much room there is, where anybody asks; who was waiting and fits now is to ask again."""
        asked = self._work_queue.waiting_fetches or self._work_queue.parked_fetches
        if asked and slots > 0 and (self._space.is_limited or self._work_queue.parked_fetches):
            self._work_queue.unpark(self._space.look(), slots)

    def admit(self, fetch: Fetch, now: float) -> bool:
        """Whether it may begin."""
        memo = self._memos.of(fetch.id)
        if not self._space.is_limited or self._space.begin(fetch):
            failure = None if waits_for_room(memo, fetch) else memo.failure
            self._memos.put(fetch.id, replace(memo, failure=failure, crowded=False))
            return True
        if waits_for_room(memo, fetch):
            self._work_queue.park(fetch, self._space.need_bytes(fetch))
            self._wakeup.wake()  # so many may have been refused that others are still to be asked
            return False
        error, hint = self._space.why_not(fetch)
        needs, lacks = self._space.need_bytes(fetch), self._space.lacks_bytes(fetch)
        failure = waiting_for_room(fetch, error, hint, now, needs_bytes=needs, lacks_bytes=lacks)
        self._memos.put(fetch.id, replace(memo, failure=failure, reported=False, crowded=True))
        self._tell(Event("over", fetch.id, error, cause="room"))
        self._wakeup.notify(fetch.id)
        for chunk_id in self._space.in_the_way(fetch):
            self._memos.change(chunk_id, crowded=True)
            self._wakeup.notify(chunk_id)
        return False
