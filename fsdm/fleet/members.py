"""The workers of a Dask scheduler that are nodes of the fleet: which answer, and which have fallen silent. Pure.

A worker beats while its process runs: the scheduler says when it has last done so, by its own clock; here only that
this changes is looked at, by ours. So no clocks are compared. A node is known by the id that its plugin reports.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

METRIC: Final = "fsdm"  # where a worker's metrics have what its node reports
RUNNING: Final = "running"
BEATS: Final = 3.0  # so many intervals without a beat are silence


def beat_interval_s(workers: int) -> float:
    """Return how often each of so many workers beats, in seconds: as Dask's scheduler has it."""
    for most, seconds in ((10, 0.5), (49, 1.0), (199, 2.0)):
        if workers <= most:
            return seconds
    return workers / 200 + 1


@dataclass(slots=True)
class _Beat:
    node: str
    status: str  # as Dask has it: running, paused, closing_gracefully, …
    last_seen: float  # by the scheduler's clock
    changed_at: float  # by ours


@dataclass(slots=True)
class Members:
    """The workers, as they were seen when they were last asked for; all times are seconds of one monotonic clock.

    A worker is silent after `silent_s` without a beat, and no sooner than after three intervals of Dask's.
    """

    silent_s: float
    cool_down_s: float
    _beats: dict[str, _Beat] = field(default_factory=dict)
    _lost_at: dict[str, float] = field(default_factory=dict)

    def see(self, workers: Mapping[str, Mapping[str, Any]], now: float, took_s: float = 0.0) -> None:
        """Take what the scheduler says of its workers, by address; for `took_s` it was too busy to hear of any."""
        seen: dict[str, _Beat] = {}
        for address, worker in workers.items():
            node = (worker.get("metrics") or {}).get(METRIC, {}).get("node")
            if node is None:  # no node of the fleet, or it has not come that far
                continue
            before, last_seen = self._beats.get(address), float(worker["last_seen"])
            is_same = before is not None and before.last_seen == last_seen
            changed_at = before.changed_at + took_s if is_same and before is not None else now
            seen[address] = _Beat(node, worker.get("status", RUNNING), last_seen, changed_at)
        self._beats = seen

    def trouble(self, address: str, now: float) -> str | None:
        """Say why a worker cannot be expected to answer; None where it can."""
        beat = self._beats.get(address)
        if beat is None:
            return "its worker has ended"
        silence = now - beat.changed_at
        limit = max(self.silent_s, BEATS * beat_interval_s(len(self._beats)))
        return f"its worker has been silent for {silence:.1f} s" if silence > limit else None

    def lost(self, node: str, now: float) -> None:
        """Note that a node was lost in the middle of a task: others are asked before it for a while."""
        self._lost_at[node] = now

    def is_cooling(self, node: str, now: float) -> bool:
        """Tell whether a node was lost a short while ago."""
        return now - self._lost_at.get(node, -self.cool_down_s) < self.cool_down_s

    def live(self, now: float) -> dict[str, list[str]]:
        """Return the addresses of the workers that take tasks, by node."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for address, beat in self._beats.items():
            if beat.status == RUNNING and self.trouble(address, now) is None:
                found[beat.node].append(address)
        return found

    def absence(self, node: str, now: float) -> str:
        """Say why no worker of a node can be asked."""
        for address, beat in self._beats.items():
            if beat.node == node:
                return self.trouble(address, now) or f"its worker is {beat.status}"
        return "the scheduler has no worker of it"
