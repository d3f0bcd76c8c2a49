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
    from fsdm.reconcile.loop import Loop
    from fsdm.reconcile.memo import Memos
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


def read_gauges(loop: Loop) -> Gauges:
    """The numbers, from copies of what the loop is changing."""
    states, running = list(loop.states.values()), list(loop.executor.actions)
    fetching = tuple(action.id for action in running if isinstance(action, Fetch))
    max_bytes, keep_free_bytes = loop.space.limits
    return Gauges(
        chunks=_by_state(states, loop.catalog, loop.memos),
        fetching=fetching,
        queued_fetches=loop.work_queue.waiting_fetches,
        parked_fetches=loop.work_queue.parked_fetches,
        running_actions=len(running) - len(fetching),
        waits=loop.work_queue.waits,
        held_chunks=loop.results.held_chunks,
        oldest_want_at=_oldest(state.want for state in states),
        oldest_delete_at=_oldest(state.delete for state in states),
        paused_by_disk=bool(loop.disk.refusal),
        paused_by_hand=bool(loop.paused.why),
        held_back_deletes=loop.delete_brake.held_back,
        max_bytes=max_bytes,
        keep_free_bytes=keep_free_bytes,
        budgeted_bytes=loop.space.budgeted_bytes,
    )


def _by_state(states: list[ChunkState], catalog: Catalog, memos: Memos) -> dict[State, int]:
    found: Counter[State] = Counter(dict.fromkeys(get_args(State), 0))
    pending = 0
    for state in states:
        failure = memos.of(state.id).failure
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
