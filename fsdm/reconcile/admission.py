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
    from fsdm.reconcile.doorbell import Doorbell
    from fsdm.reconcile.memo import Memory
    from fsdm.reconcile.space_budget import Room
    from fsdm.reconcile.work_queue import Agenda


class Admission:
    """Lets fetches in, as long as there is room."""

    def __init__(
        self, room: Room, agenda: Agenda, memory: Memory, *, bell: Doorbell, tell: Callable[[Event], None]
    ) -> None:
        self._room = room
        self._agenda = agenda
        self._memory = memory
        self._bell = bell
        self._tell = tell

    def open(self, slots: int) -> None:
        """Look how much room there is, where anybody asks; who was waiting and fits now is to ask again."""
        asked = self._agenda.waiting_fetches or self._agenda.parked_fetches
        if asked and slots > 0 and (self._room.is_limited or self._agenda.parked_fetches):
            self._agenda.unpark(self._room.look(), slots)

    def admit(self, fetch: Fetch, now: float) -> bool:
        """Whether it may begin."""
        memo = self._memory.of(fetch.id)
        if not self._room.is_limited or self._room.begin(fetch):
            failure = None if waits_for_room(memo, fetch) else memo.failure
            self._memory.put(fetch.id, replace(memo, failure=failure, crowded=False))
            return True
        if waits_for_room(memo, fetch):
            self._agenda.park(fetch, self._room.need_bytes(fetch))
            self._bell.wake()  # so many may have been refused that others are still to be asked
            return False
        error, hint = self._room.why_not(fetch)
        needs, lacks = self._room.need_bytes(fetch), self._room.lacks_bytes(fetch)
        failure = waiting_for_room(fetch, error, hint, now, needs_bytes=needs, lacks_bytes=lacks)
        self._memory.put(fetch.id, replace(memo, failure=failure, reported=False, crowded=True))
        self._tell(Event("over", fetch.id, error, cause="room"))
        self._bell.ring(fetch.id)
        for chunk_id in self._room.in_the_way(fetch):
            self._memory.change(chunk_id, crowded=True)
            self._bell.ring(chunk_id)
        return False
