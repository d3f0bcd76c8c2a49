"""Ordering what was decided: what can be started now, and when to look again. Pure.

Deletes go before downloads, new wants before failing ones, older before younger. A fetch that there is no room for is
parked: it holds up no other, and comes back, the oldest first, when what it needs fits.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from fsdm.reconcile.actions import (
    Action,
    Clear,
    Discard,
    Evict,
    Fetch,
    Forget,
    Overrule,
    Register,
    Retire,
    Unregister,
    Wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

URGENT: Final = (Overrule, Register, Unregister, Retire, Clear, Discard, Forget, Evict)
MANY_REFUSALS: Final = 250  # in one go: each costs a look at a want, and deletes are not to wait for thousands of them

_Turn = tuple[int, int, str]  # failed attempts, since when it is asked for, the id: the least comes first


def _by_turn(parked: tuple[int, Fetch]) -> tuple[int, str]:
    return parked[1].since_ns, parked[1].id


@dataclass(slots=True)
class WorkQueue:
    """The decisions that wait to be carried out: the last one for each id."""

    _soon: dict[str, Action] = field(default_factory=dict)
    _fetches: dict[str, tuple[_Turn, Fetch]] = field(default_factory=dict)
    _queue: list[_Turn] = field(default_factory=list)  # a heap, at most twice what is live; the others are stale
    _waits: dict[str, float] = field(default_factory=dict)
    _clock: list[tuple[float, str]] = field(default_factory=list)  # a heap; entries may be stale
    _parked: dict[str, tuple[int, Fetch]] = field(default_factory=dict)  # with the bytes that each needs
    _least_need: int = 0  # no parked one needs less

    def put(self, chunk_id: str, decision: Action | Wait | None, attempts: int = 0) -> None:
        """Replace what was decided for one id; `attempts` is how often its fetch has failed."""
        self._soon.pop(chunk_id, None)
        waited = self._waits.pop(chunk_id, None)
        queued = self._fetches.pop(chunk_id, None)
        parked = self._parked.pop(chunk_id, None)
        before = (parked or queued or (None, None))[1]
        if isinstance(decision, Fetch) and before is not None and before.known and decision.known:
            decision = replace(decision, asked_ns=before.asked_ns)  # others that ask too do not put it off
        if isinstance(decision, Fetch) and parked is not None and parked[1].want.same_as(decision.want):
            self._parked[chunk_id] = parked[0], decision
        elif isinstance(decision, Fetch):
            turn = (attempts, decision.since_ns, chunk_id)
            self._fetches[chunk_id] = (turn, decision)
            if queued is None or queued[0] != turn:  # else its entry is in the queue
                self._enqueue(turn)
        elif isinstance(decision, Wait):
            self._waits[chunk_id] = decision.until
            if waited != decision.until:
                self._set_clock(decision.until, chunk_id)
        elif decision is not None:
            self._soon[chunk_id] = decision

    def take(self, slots: int, admit: Callable[[Fetch], bool] = lambda _: True) -> Iterator[Action]:
        """Yield what can be started now, and at most `slots` fetches that `admit` lets in.

        A fetch that it does not let in is no longer here, unless `admit` has put or parked it.
        """
        soon, self._soon = self._soon, {}
        yield from sorted(soon.values(), key=lambda action: not isinstance(action, URGENT))
        refusals = 0
        while slots > 0 and refusals < MANY_REFUSALS and self._fetches:
            turn = heapq.heappop(self._queue)
            if self._fetches.get(turn[2], (None,))[0] == turn:
                fetch = self._fetches.pop(turn[2])[1]
                if admit(fetch):
                    slots -= 1
                    yield fetch
                else:
                    refusals += 1

    def park(self, fetch: Fetch, need_bytes: int) -> None:
        """Keep a fetch that there is no room for until as much is free."""
        self._least_need = min(self._least_need, need_bytes) if self._parked else need_bytes
        self._parked[fetch.id] = need_bytes, fetch

    def unpark(self, room_bytes: int, slots: int) -> None:
        """Put back what fits into so much room together: at most `slots`, the oldest first."""
        if not self._parked or room_bytes < self._least_need or slots < 1:
            return
        fitting = [entry for entry in self._parked.values() if entry[0] <= room_bytes]
        self._least_need = min(need for need, _ in self._parked.values())
        for need_bytes, fetch in sorted(fitting, key=_by_turn):
            if slots < 1:
                break
            if need_bytes <= room_bytes:
                room_bytes -= need_bytes
                slots -= 1
                del self._parked[fetch.id]
                self.put(fetch.id, fetch)

    def parked_needs(self, count: int) -> list[int]:
        """List the bytes that the oldest parked fetches need, of at most so many."""
        oldest = heapq.nsmallest(count, self._parked.values(), key=_by_turn)
        return [need_bytes for need_bytes, _ in oldest]

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
        """Take the ids whose wait is over."""
        ids = []
        while self._clock and self._clock[0][0] <= now:
            until, chunk_id = heapq.heappop(self._clock)
            if self._waits.get(chunk_id) == until:
                del self._waits[chunk_id]
                ids.append(chunk_id)
        return ids

    @property
    def next_at(self) -> float | None:
        """Return when the next wait is over."""
        while self._clock and self._waits.get(self._clock[0][1]) != self._clock[0][0]:
            heapq.heappop(self._clock)
        return self._clock[0][0] if self._clock else None

    @property
    def waiting_fetches(self) -> int:
        """Return how many could start, if there were slots."""
        return len(self._fetches)

    @property
    def waits(self) -> int:
        return len(self._waits)

    @property
    def parked_fetches(self) -> int:
        return len(self._parked)
