"""The order of what was decided: what can be started now, and when to look again.

Pure. It holds at most one decision for an id, the last one. Deletes go before downloads, new wants before failing ones,
older before younger. Its heaps hold no more than twice what is live.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fsdm.plan import Action, Clear, Discard, Fetch, Forget, Overrule, Retire, Wait

if TYPE_CHECKING:
    from collections.abc import Iterator

_Turn = tuple[int, int, str]  # failed attempts, the want's ctime, the id: the least comes first


@dataclass(slots=True)
class Agenda:
    """The decisions that wait to be carried out: deletes before downloads, new wants before failing ones, by age."""

    _soon: dict[str, Action] = field(default_factory=dict)
    _fetches: dict[str, tuple[_Turn, Fetch]] = field(default_factory=dict)
    _queue: list[_Turn] = field(default_factory=list)  # a heap; entries that are in no _fetches are stale
    _waits: dict[str, float] = field(default_factory=dict)
    _clock: list[tuple[float, str]] = field(default_factory=list)  # a heap; entries may be stale

    def put(self, chunk_id: str, decision: Action | Wait | None, attempts: int = 0) -> None:
        """Replace what was decided for one id; `attempts` is how often its fetch has failed."""
        self._soon.pop(chunk_id, None)
        waited = self._waits.pop(chunk_id, None)
        queued = self._fetches.pop(chunk_id, None)
        if isinstance(decision, Fetch):
            turn = (attempts, decision.want.ctime_ns, chunk_id)
            self._fetches[chunk_id] = (turn, decision)
            if queued is None or queued[0] != turn:  # else its entry is in the queue
                self._enqueue(turn)
        elif isinstance(decision, Wait):
            self._waits[chunk_id] = decision.until
            if waited != decision.until:
                self._set_clock(decision.until, chunk_id)
        elif decision is not None:
            self._soon[chunk_id] = decision

    def take(self, slots: int) -> Iterator[Action]:
        """What can be started now: everything but fetches, and at most `slots` of those."""
        soon, self._soon = self._soon, {}
        yield from sorted(soon.values(), key=_urgency)
        while slots > 0 and self._fetches:
            turn = heapq.heappop(self._queue)
            if self._fetches.get(turn[2], (None,))[0] == turn:
                slots -= 1
                yield self._fetches.pop(turn[2])[1]

    def _enqueue(self, turn: _Turn) -> None:
        heapq.heappush(self._queue, turn)
        if len(self._queue) > 2 * len(self._fetches) + 64:  # mostly stale
            self._queue = [turn for turn, _ in self._fetches.values()]
            heapq.heapify(self._queue)

    def _set_clock(self, until: float, chunk_id: str) -> None:
        heapq.heappush(self._clock, (until, chunk_id))
        if len(self._clock) > 2 * len(self._waits) + 64:
            self._clock = [(until, chunk_id) for chunk_id, until in self._waits.items()]
            heapq.heapify(self._clock)

    def due(self, now: float) -> list[str]:
        """The ids whose wait is over."""
        ids = []
        while self._clock and self._clock[0][0] <= now:
            until, chunk_id = heapq.heappop(self._clock)
            if self._waits.get(chunk_id) == until:
                del self._waits[chunk_id]
                ids.append(chunk_id)
        return ids

    @property
    def next_at(self) -> float | None:
        """When the next wait is over."""
        while self._clock and self._waits.get(self._clock[0][1]) != self._clock[0][0]:
            heapq.heappop(self._clock)
        return self._clock[0][0] if self._clock else None

    @property
    def waiting_fetches(self) -> int:
        return len(self._fetches)


def _urgency(action: Action) -> int:
    return 0 if isinstance(action, Overrule | Retire | Clear | Discard | Forget) else 1
