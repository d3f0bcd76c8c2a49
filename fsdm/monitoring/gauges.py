"""How a reconciler stands at one moment, in numbers: what is here by state, what runs, what waits, since when.

Read from what the loop has in memory, in any other thread: nothing is locked, so the loop is not held up, and a number
may be one pass old. The cost grows with what is pending, not with what is here. Nothing here looks at the disk.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from fsdm.model.state import State, name_of
from fsdm.reconcile.actions import Fetch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsdm.model.state import ChunkState, Marker
    from fsdm.reconcile.loop import Passes
    from fsdm.reconcile.memo import Memory
    from fsdm.store.catalog import Catalog


@dataclass(frozen=True, slots=True)
class Gauges:
    """How a reconciler stands. `oldest_…_at` are seconds since the epoch, None where there is no such intent."""

    chunks: dict[State, int]
    fetching: tuple[str, ...]  # their ids
    queued_fetches: int
    parked_fetches: int  # there is no room for them
    running_actions: int  # that are no fetches
    waits: int  # for a time: attempts that back off, directories that refs keep
    held_chunks: int
    oldest_want_at: float | None
    oldest_delete_at: float | None
    paused_by_disk: bool  # it refuses what downloads write
    paused_by_hand: bool
    held_back_deletes: int  # by the brake, until somebody says that they are meant
    max_bytes: int | None
    keep_free_bytes: int | None
    budgeted_bytes: int


def read_gauges(passes: Passes) -> Gauges:
    """The numbers, from copies of what the loop is changing."""
    states, running = list(passes.states.values()), list(passes.errands.actions)
    fetching = tuple(action.id for action in running if isinstance(action, Fetch))
    max_bytes, keep_free_bytes = passes.room.limits
    return Gauges(
        chunks=_by_state(states, passes.catalog, passes.memory),
        fetching=fetching,
        queued_fetches=passes.agenda.waiting_fetches,
        parked_fetches=passes.agenda.parked_fetches,
        running_actions=len(running) - len(fetching),
        waits=passes.agenda.waits,
        held_chunks=passes.aftermath.held_chunks,
        oldest_want_at=_oldest(state.want for state in states),
        oldest_delete_at=_oldest(state.delete for state in states),
        paused_by_disk=bool(passes.disk.refusal),
        paused_by_hand=bool(passes.paused.why),
        held_back_deletes=passes.deletes.held_back,
        max_bytes=max_bytes,
        keep_free_bytes=keep_free_bytes,
        budgeted_bytes=passes.room.budgeted_bytes,
    )


def _by_state(states: list[ChunkState], catalog: Catalog, memory: Memory) -> dict[State, int]:
    found: Counter[State] = Counter(dict.fromkeys(get_args(State), 0))
    pending = 0
    for state in states:
        failure = memory.of(state.id).failure
        name = name_of(state, None if failure is None else failure.kind)
        if name is not None:
            found[name] += 1
        pending += bool(state.ready or state.unready)
    found["available"] += max(len(catalog) - pending, 0)  # nothing is asked of these
    return dict(found)


def _oldest(markers: Iterable[Marker | None]) -> float | None:
    ages = (marker.ctime_ns for marker in markers if marker is not None and marker.fault is None)
    oldest_ns = min(ages, default=None)
    return None if oldest_ns is None else oldest_ns / 1e9
