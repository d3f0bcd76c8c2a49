"""A fleet in memory: nodes with disks that fetch, delete and report, and the real `place` between them.

A copy is one number here as well, `chunk × workers + worker`, over all chunks and workers that there will ever be. What
a node does is what its disk has: what its list says and its disk lacks it fetches, at its speed; what its disk has
besides it deletes, unless its own brake holds that back. Time passes in steps: lists are published, nodes apply them
for as long as the step takes, and report.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fsdm.fleet.documents import presence_of
from fsdm.fleet.hashing import of_rows, salted
from fsdm.fleet.inventory import ID_BYTES, Chunks, Copies, Presence, Worker, Workers, is_in, totals, union
from fsdm.fleet.inventory import before as ahead_of
from fsdm.fleet.placing import Bounds, Placement, Reason, place
from fsdm.fleet.publishing import COUNTED_S, SLOW_S
from fsdm.model.errors import BrakedError
from fsdm.reconcile.delete_brake import MANY_CHUNKS, SHARE, WINDOW_S
from tools.fleet_sim.nodes import NEVER, Nodes, Seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fsdm.fleet.inventory import Flags, Ints

SIZES_MB: Final = (356, 391, 269, 219, 109, 44, 17, 4)  # of real chunks
SILENT_S: Final = 120.0
GRACE_S: Final = 600.0
STEP_S: Final = 60.0
ROUNDS: Final = 100  # within which it is to come to rest


@dataclass(eq=False)
class Fleet:
    """So many chunks and nodes, with the placer's bounds; `speed` is what a node fetches, in bytes a second."""

    size: Ints
    nodes: Nodes
    bounds: Bounds = field(default_factory=lambda: Bounds(in_flight_bytes=100 * 10**9, moves=10_000))
    replicas: int = 3
    speed: float = 1.25e9
    now: float = 0.0
    seen: Seen = field(default_factory=Seen)

    def __post_init__(self) -> None:
        count = len(self.size)
        ids = np.random.default_rng(7).integers(0, 1 << 63, (count, ID_BYTES // 8), np.uint64)
        self.ids = np.sort(ids.astype(">u8").view(f"S{ID_BYTES}").ravel())
        self.hash = of_rows(ids)
        self.listed = np.zeros(count, np.bool_)  # chunks, as the two below
        self.has_been = np.zeros(count, np.bool_)  # on a disk
        self.below_since = np.full(count, np.inf)
        self.count = len(self.nodes.names)
        none = np.empty(0, np.int64)
        self.planned, self.leaving, self.doubted, self.disk, self.wanted = none, none, none, none, none
        self.has_list = np.zeros(self.count, np.bool_)
        self.changed = np.full(self.count, NEVER)  # when the list of each was
        self.credit = np.zeros(self.count)
        self.dropped: list[tuple[float, Ints]] = []  # from lists, by worker
        self.deleted: list[tuple[float, Ints]] = []  # from disks
        self.last: Placement | None = None
        self.target = np.zeros(self.count)
        self.is_braked = False
        self.joined = np.zeros(self.count, np.bool_)  # since it last was at rest
        self.owed_bytes = self.leaving_bytes = self.given_bytes = 0

    # ----------------------------------------------------------------------------------------------------- the placer

    def presence(self) -> list[Presence]:
        """Return how the placer takes each worker."""
        found = []
        for listed, at in zip(self.nodes.listed.tolist(), self.nodes.reported.tolist(), strict=True):
            found.append(presence_of(self.now, at, SILENT_S, GRACE_S) if listed else Presence.GONE)
        return found

    def _workers(self) -> tuple[Workers, Flags]:
        """Return those that the placer knows: the listed ones, and those that still have a list."""
        nodes, known = self.nodes, self.nodes.listed | self.has_list
        how = zip(nodes.names, nodes.capacity.tolist(), nodes.zone, nodes.drains.tolist(), self.presence(), strict=True)
        some = [
            Worker(name, capacity, zone, 1.0, drains, presence)
            for (name, capacity, zone, drains, presence), is_known in zip(how, known.tolist(), strict=True)
            if is_known
        ]
        return Workers.of(some), known

    def round(self) -> Placement | None:
        """Place and publish; None where the placer's brake refuses."""
        workers, known = self._workers()
        chunk_number, worker_number = np.cumsum(self.listed) - 1, np.cumsum(known) - 1
        chunk_at, worker_at = np.flatnonzero(self.listed), np.flatnonzero(known)

        def ours(copies: Ints) -> Ints:
            chunk, worker = np.divmod(copies, self.count)
            there = self.listed[chunk] & known[worker]
            return chunk_number[chunk[there]] * len(workers) + worker_number[worker[there]]

        def all_of(copies: Ints) -> Ints:
            chunk, worker = np.divmod(copies, len(workers))
            return chunk_at[chunk] * self.count + worker_at[worker]

        replicas = np.full(chunk_at.size, self.replicas)
        chunks = Chunks(self.ids[chunk_at], self.size[chunk_at], replicas, self.hash[chunk_at])
        lost = self._per_worker(self.planned[~self.listed[self.planned // self.count]])
        lately = sum((copies for at, copies in self.dropped if at > self.now - COUNTED_S), np.zeros_like(lost))
        gone = (workers.presence == Presence.GONE) & self.has_list[worker_at]
        counts = self.planned[~is_in(self.planned, self.leaving) & self.listed[self.planned // self.count]]
        self._owe(int(self._bytes(counts)[worker_at[gone]].sum()))
        has = self.has_list[worker_at]
        how = (ours(self.planned), ours(self.leaving), ours(self.disk), has, lost[worker_at], ours(self.doubted))
        slow = (self.has_list & (self.changed < self.now - SLOW_S))[worker_at]
        try:
            found = place(chunks, workers, Copies(*how, lately[worker_at], slow), self.bounds)
        except BrakedError:
            self.is_braked = True
            self.seen.placer_brakes += 1
            return None
        self.is_braked, self.last = False, found
        fewer = self._per_worker(all_of(found.dropped)) + lost
        if fewer.any():
            self.dropped = [(at, some) for at, some in self.dropped if at > self.now - COUNTED_S]
            self.dropped.append((self.now, fewer))
        self.changed[self._per_worker(all_of(found.changed)) > 0] = self.now
        self.planned, self.leaving, self.doubted = (all_of(one) for one in (found.listed, found.leaving, found.doubted))
        self.has_list[:] = False
        self.has_list[worker_at] = workers.presence != Presence.GONE
        self.target[:] = 0
        self.target[worker_at] = found.loads.target
        self.seen.rounds += 1
        missing = all_of(found.added[found.reasons == Reason.MISSING])
        self.given_bytes += int(self._bytes(missing)[self.joined].sum())
        self._see_flight(all_of(found.added))
        return found

    def _see_flight(self, added: Ints) -> None:
        flight = self.planned[~is_in(self.planned, self.disk)]
        given = np.bincount(flight % self.count, minlength=self.count) > 1
        given &= self._per_worker(added) > 0
        self.seen.flight_bytes = max(self.seen.flight_bytes, int(self._bytes(flight)[given].max(initial=0)))

    # ------------------------------------------------------------------------------------------------------ the nodes

    def pass_time(self, seconds: float) -> None:
        """Let the nodes apply their lists for so long, and report."""
        up = self.nodes.up
        applies = up & self.has_list
        old = self.wanted[~applies[self.wanted % self.count]]
        self.wanted = union(self.planned[applies[self.planned % self.count]], old)
        self.now += seconds
        self._fetch(seconds)
        self._delete()
        self.nodes.reported[up] = self.now
        self.doubted = self.doubted[~applies[self.doubted % self.count]]
        self._look()

    def _fetch(self, seconds: float) -> None:
        up = self.nodes.up
        missing = self.wanted[~is_in(self.wanted, self.disk)]
        missing = missing[up[missing % self.count]]
        chunk, worker = np.divmod(missing, self.count)
        self.credit += self.speed * seconds
        room = self.nodes.capacity - self._bytes(self.disk)
        order = np.lexsort((salted(self.hash[chunk], 9), worker))
        size, worker = self.size[chunk[order]], worker[order]
        until = ahead_of(worker, size) + size
        come = (until <= self.credit[worker]) & (until <= room[worker])
        got = totals(worker[come], size[come], self.count)
        waits = np.bincount(worker[~come], minlength=self.count) > 0
        self.credit = np.where(waits, np.maximum(self.credit - got, 0.0), 0.0)  # what is idle is not saved up
        self.disk = union(self.disk, np.sort(missing[order[come]]))
        self.seen.fetched_bytes += int(got.sum())

    def _delete(self) -> None:
        extra = self.disk[~is_in(self.disk, self.wanted)]
        extra = extra[self.nodes.up[extra % self.count]]
        self.deleted = [(at, some) for at, some in self.deleted if at > self.now - WINDOW_S]
        here, going = self._per_worker(self.disk), self._per_worker(extra)
        passed = sum((some for _, some in self.deleted), np.zeros_like(going))
        held = (going > 0) & (going + passed >= MANY_CHUNKS) & (going + passed > SHARE * (here + passed))
        self.seen.node_brakes += int(held.sum())
        gone = extra[~held[extra % self.count]]
        if gone.size:
            self.deleted.append((self.now, self._per_worker(gone)))
            self.disk = self.disk[~is_in(self.disk, gone)]

    def _look(self) -> None:
        """See what is lost, what is below its target, and what is over its capacity."""
        chunk, worker = np.divmod(self.disk, self.count)
        there = np.bincount(chunk, minlength=len(self.size))
        read = np.bincount(chunk[self.nodes.up[worker]], minlength=len(self.size))
        self.seen.lost += int((self.has_been & self.listed & (there == 0)).sum())
        self.has_been = there > 0
        below = self.listed & (read < self.replicas)
        ends = ~below & np.isfinite(self.below_since)
        if ends.any():
            self.seen.below_s = max(self.seen.below_s, float(self.now - self.below_since[ends].min()))
        self.below_since[~below] = np.inf
        self.below_since[below & ~np.isfinite(self.below_since)] = self.now
        over = self._bytes(self.disk) - self.nodes.capacity
        self.seen.over_bytes = max(self.seen.over_bytes, int(over.max(initial=0)))

    def _per_worker(self, copies: Ints) -> Ints:
        return np.bincount(copies % self.count, minlength=self.count).astype(np.int64)

    def _bytes(self, copies: Ints) -> Ints:
        chunk, worker = np.divmod(copies, self.count)
        return totals(worker, self.size[chunk], self.count)

    # ----------------------------------------------------------------------------------------------------------- time

    def live(self, until: float) -> None:
        """Let rounds follow one another until a time (s); those in which nothing can happen are passed over."""
        while self.now < until:
            rests = self.step(min(STEP_S, until - self.now))
            if rests and self.now < until:
                self._pass_over(until)

    def settle(self) -> None:
        """Let rounds follow one another until nothing changes any more; note where it does not come to rest."""
        for _ in range(ROUNDS):
            if self.step(STEP_S):
                if not self.leaving.size:
                    return
                self._pass_over(self.now + COUNTED_S)
        self.seen.restless += 1

    def step(self, seconds: float) -> bool:
        """Place, and let time pass; tell whether nothing has changed, nor will before somebody does something."""
        planned, leaving = self.planned, self.leaving
        found = self.round()
        self.pass_time(seconds)
        applies = self.nodes.up & self.has_list
        mine = self.planned[applies[self.planned % self.count]]
        theirs = self.disk[applies[self.disk % self.count]]
        rests = (
            found is None or (np.array_equal(planned, self.planned) and np.array_equal(leaving, self.leaving))
        ) and (np.array_equal(mine, theirs) and not self.doubted.size)
        if rests:
            self._settle_account()
        return rests

    def _pass_over(self, until: float) -> None:
        """Go on to when the presence of a worker changes, or when more may be dropped."""
        silent = self.nodes.reported[self.nodes.listed & ~self.nodes.up]
        turns = [float(at) for limit in (SILENT_S, GRACE_S) for at in (silent + limit + 1.0).tolist() if at > self.now]
        if self.leaving.size:
            turns += [at + COUNTED_S for at, _ in self.dropped if at + COUNTED_S > self.now]
        self.now = min([until, *turns])
        self.nodes.reported[self.nodes.up] = self.now

    # -------------------------------------------------------------------------------------------------- what happens

    def grow(self, chunks: Ints) -> None:
        """List these chunks, which were not before."""
        self.listed[chunks] = True
        self._owe(int(self.size[chunks].sum()) * self.replicas)
        self._look()

    def join(self, workers: Ints) -> None:
        """Let these workers join, with empty disks."""
        self.nodes.listed[workers] = self.nodes.up[workers] = True
        self.nodes.reported[workers] = self.now
        self.joined[workers] = True

    def drain(self, workers: Ints) -> None:
        """Let these workers drain."""
        self.nodes.drains[workers] = True
        self.leaving_bytes += int(self._bytes(self.planned)[workers].sum())

    def remove(self, workers: Ints) -> None:
        """Take these workers out of the list, and away."""
        self.nodes.listed[workers] = self.nodes.up[workers] = False
        self.destroy(workers)

    def stop(self, workers: Ints) -> None:
        """Let these workers be reached no longer."""
        self.nodes.up[workers] = False
        self._look()

    def start(self, workers: Ints) -> None:
        """Let these workers be reached again."""
        self.nodes.up[workers] = True
        self.nodes.reported[workers] = self.now
        bare = workers[~self.has_list[workers] & (self._per_worker(self.disk)[workers] == 0)]
        self.joined[bare] = True  # it comes as a new one
        self._look()

    def destroy(self, workers: Ints) -> None:
        """Let the disks of these workers be empty."""
        is_hit = np.zeros(self.count, np.bool_)
        is_hit[workers] = True
        back = is_hit & self.nodes.up & self.has_list  # one that is gone is owed for that
        self._owe(int(self._bytes(self.disk)[back].sum()))
        self.disk = self.disk[~is_hit[self.disk % self.count]]
        self._look()

    def _owe(self, size_bytes: int) -> None:
        self.owed_bytes += size_bytes

    def _settle_account(self) -> None:
        """Count the least that the fleet had to fetch since it last was at rest.

        That is what was missing; and of what had to leave, and of the shares of those that have joined, as far as
        nothing that was missing has gone there, the larger, for the one may go to the other.
        """
        shares = int(self.target[self.joined].sum()) - self.given_bytes
        self.seen.least_bytes += self.owed_bytes + max(self.leaving_bytes, shares)
        self.owed_bytes = self.leaving_bytes = self.given_bytes = 0
        self.joined[:] = False

    def fullness(self) -> NDArray[np.float64]:
        """Return how full each worker that keeps its copies is by its list, against the mean of these."""
        keeps = self.has_list & self.nodes.listed & ~self.nodes.drains
        full = self._bytes(self.planned)[keeps] / self.nodes.capacity[keeps]
        return full / full.mean()  # type: ignore[no-any-return]

    def copies(self) -> Ints:
        """Return how many copies of each listed chunk are on the disks of nodes that run."""
        chunk, worker = np.divmod(self.disk, self.count)
        return np.bincount(chunk[self.nodes.up[worker]], minlength=len(self.size))[self.listed].astype(np.int64)

    @property
    def some_up(self) -> Ints:
        """The workers that are listed, run and do not drain."""
        return np.flatnonzero(self.nodes.listed & self.nodes.up & ~self.nodes.drains)


def a_fleet(
    chunks: int,
    workers: int,
    *,
    full: float = 0.85,
    spare_chunks: int = 0,
    spare_workers: int = 0,
    zones: int = 0,
    skew: Sequence[int] = (1, 2),
    **more: Any,
) -> Fleet:
    """Make a fleet of so many chunks and workers that are so full, which has placed nothing yet; and spare ones.

    The capacities of workers are as `skew` in turn.
    """
    random = np.random.default_rng(1)
    size = random.choice(np.array(SIZES_MB), chunks + spare_chunks).astype(np.int64) * 1_000_000
    count = workers + spare_workers
    parts = np.array([skew[number % len(skew)] for number in range(count)], np.float64)
    unit = float(size[:chunks].sum()) * more.get("replicas", 3) / full / parts[:workers].sum()
    nodes = Nodes(
        names=[f"w{number:05}" for number in range(count)],
        capacity=(unit * parts).astype(np.int64),
        zone=[f"z{number // len(skew) % zones}" if zones else "" for number in range(count)],
        listed=np.zeros(count, np.bool_),
        up=np.zeros(count, np.bool_),
        drains=np.zeros(count, np.bool_),
        reported=np.full(count, NEVER),
    )
    fleet = Fleet(size, nodes, **more)
    fleet.join(np.arange(workers))
    fleet.grow(np.arange(chunks))
    return fleet
