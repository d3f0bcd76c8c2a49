"""A placement: which worker is to have which chunk, from what there is. Pure, and the same for any order of its inputs.

A copy is added, confirmed by its worker, and only then another one is dropped. Invariants:

- A copy that comes back to a list is confirmed by a report of that list alone: an older one says what was there before.
- A copy is dropped only where as many others as the chunk is to have are confirmed by live workers that keep them.
- A worker that is away loses nothing; one that is gone counts for nothing, and what it has counts again when back.
- Placed twice with nothing changed, and once more with all of it confirmed, nothing moves any more.
- No worker is given more than `full` of its capacity, or more than its disk takes before others have left it.
- Where there is too little room, or a bound for one round is reached, the chunks with the fewest copies come first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from fsdm.fleet.balance import Moves, rebalance
from fsdm.fleet.filling import NOBODY, Loads, Table, fill
from fsdm.fleet.hashing import salted
from fsdm.fleet.inventory import Copies, Presence, before, is_in, totals, union
from fsdm.fleet.surplus import crowded, surplus
from fsdm.fleet.targets import copies_in_a_zone, effective_replicas, target_bytes
from fsdm.model.errors import BrakedError

if TYPE_CHECKING:
    from fsdm.fleet.inventory import Chunks, Ints, Workers

FEW_DROPS: Final = 50  # a worker's own brake lets a hundred go
FEW_COPIES: Final = 100  # less than so many copies are no burst
NO_BOUND: Final = 1 << 60
DROPS_SALT: Final = 201


class Reason(IntEnum):
    """The reason of an added copy: the chunk has too few, another copy is to leave, or the bytes are balanced.

    One is to leave where its worker drains, or has another copy too near.
    """

    MISSING = 0
    LEAVING = 1
    BALANCE = 2


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of a placement.

    `full`: the part of a capacity that is given away. `tolerance`: how far a worker may be from its target before
    copies are moved for that alone. In one round: `in_flight_bytes` a worker has still to fetch (half of them for
    moves), and `moves` for drains and balance. `drops`: the part of a worker's copies that goes at most within the time
    in which its own brake counts, which is to stay open. `brake`: the part of all copies that may be lost to workers
    that are gone, and to chunks that are no longer listed, before a placement is refused (None: any).
    """

    full: float = 0.95
    tolerance: float = 0.04
    in_flight_bytes: int = NO_BOUND
    moves: int = NO_BOUND
    drops: float = 0.2
    brake: float | None = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """The copies that are to be from now on; sets of copies as in `Copies`.

    `listed`: what the lists have. `changed`: where they differ from the last ones. `leaving`: those of `listed` that go
    once others are confirmed. `confirmed`: those of it that live workers hold. `doubted`: see `Copies`. `added` to the
    lists, for `reasons`; `dropped` from them. `replicas`: how many copies each chunk gets, where there is too little
    room; `kept`: how many of those there are in the lists. `loads`: the bytes.
    """

    listed: Ints
    changed: Ints
    leaving: Ints
    confirmed: Ints
    doubted: Ints
    added: Ints
    reasons: Ints
    dropped: Ints
    replicas: Ints
    kept: Ints
    loads: Loads

    def same_lists(self, earlier: Copies) -> bool:
        """Tell whether nothing is to be published: lists and leaving copies are as they were."""
        return np.array_equal(self.listed, earlier.planned) and np.array_equal(self.leaving, earlier.leaving)


def place(chunks: Chunks, workers: Workers, earlier: Copies, bounds: Bounds) -> Placement:
    """Place all chunks.

    Raises:
        BrakedError: more of the copies would be lost, or given up, than the brake allows.
    """
    check_brake(workers, earlier, bounds.brake)
    return _Placing(chunks, workers, earlier, bounds).run()


def check_brake(workers: Workers, earlier: Copies, brake: float | None) -> None:
    """See that not too many copies are lost at once.

    Raises:
        BrakedError: they are.
    """
    count = len(workers)
    each = np.bincount(earlier.planned % count, minlength=count) + earlier.forgotten
    gone = int(each[workers.presence == Presence.GONE].sum())
    forgotten = int(earlier.forgotten[workers.presence != Presence.GONE].sum())
    total = int(each.sum())
    for lost, what in ((gone, "are on workers that are gone"), (forgotten, "are of chunks that are no longer listed")):
        if brake is not None and lost >= FEW_COPIES and lost > brake * total:
            raise BrakedError(
                f"{lost:,} of {total:,} copies {what}: that is more than {brake:.0%}",
                hint="nothing was changed: the last lists hold. If it is meant: --yes",
            )


class _Placing:
    def __init__(self, chunks: Chunks, workers: Workers, earlier: Copies, bounds: Bounds) -> None:
        self.chunks, self.workers, self.bounds, self.count = chunks, workers, bounds, len(workers)
        here = workers.presence != Presence.GONE
        held = earlier.held[workers.presence[earlier.held % self.count] == Presence.LIVE]
        planned = earlier.planned[here[earlier.planned % self.count]]
        # a worker that had no list is new, or was gone: what it has counts at once
        adopted = held[~earlier.listed[held % self.count]]
        self.planned, self.held = union(planned, adopted), held
        self.was = planned
        self.confirmed = held[is_in(held, self.planned) & ~is_in(held, earlier.doubted)]
        self.doubted, self.had_list = earlier.doubted, earlier.listed
        self.slow = np.zeros(self.count, np.bool_) if earlier.slow is None else earlier.slow
        self.lately = earlier.forgotten + (0 if earlier.lately is None else earlier.lately)
        draining = workers.draining[self.planned % self.count]
        self.leaving = self.planned[draining | is_in(self.planned, earlier.leaving)]
        self.added: list[Ints] = []
        self.reasons: list[Ints] = []

    def run(self) -> Placement:
        staying = self._without(self.planned, self.leaving)
        kept = self._counts(staying)
        room = int((self.workers.capacity[self.workers.keeps] * self.bounds.full).sum())
        self.replicas = effective_replicas(self.chunks, kept, int(self.workers.keeps.sum()), room)
        self.in_a_zone = copies_in_a_zone(self.workers, self.chunks, self.replicas, self.bounds.full)
        self.loads = self._loads(staying)
        slack = self.bounds.tolerance / 2
        gone = surplus(
            self.chunks, self.workers, staying, self.confirmed, self.replicas, self.in_a_zone, self.loads, slack
        )
        staying = self._without(staying, gone)
        near = crowded(self.chunks, self.workers, staying, self.confirmed, self.in_a_zone, self.loads)
        staying = self._without(staying, near)
        self.leaving = union(self.leaving, union(gone, near))
        self.table = self._table(staying)
        staying = union(staying, self._taken_back())
        staying = union(staying, self._filled())
        moves = self._balanced(staying)
        staying = union(self._without(staying, moves.chunks * self.count + moves.old), self._added_by(moves))
        return self._finished(np.sort(staying))

    @staticmethod
    def _without(some: Ints, those: Ints) -> Ints:
        return some[~is_in(some, those)]

    def _counts(self, copies: Ints) -> Ints:
        return np.bincount(copies // self.count, minlength=len(self.chunks)).astype(np.int64)

    def _bytes(self, copies: Ints) -> Ints:
        chunk, worker = np.divmod(copies, self.count)
        return totals(worker, self.chunks.size[chunk], self.count)

    def _loads(self, staying: Ints) -> Loads:
        on_disk = union(self.planned, self.held)  # what was dropped is there until it is no longer held
        return Loads(
            target=target_bytes(self.workers, self.chunks, self.replicas, self.in_a_zone, self.bounds.full),
            limit=np.floor(self.workers.capacity * self.bounds.full).astype(np.int64),
            capacity=self.workers.capacity,
            takes=self.workers.takes & (self.workers.weighted > 0),
            kept=self._bytes(staying),
            disk=self._bytes(on_disk),
            flight=self._bytes(self._without(self.planned, self.held)),
            slow=self.slow,
        )

    def _table(self, staying: Ints) -> Table:
        chunk, worker = np.divmod(staying, self.count)
        width = int(max(self.replicas.max(initial=1), np.bincount(chunk, minlength=1).max()))
        rows = np.full((len(self.chunks), width), NOBODY, np.int64)
        rows[chunk, before(chunk, np.ones_like(chunk))] = worker
        return Table(rows, self._counts(staying), self.in_a_zone, self.workers.zone)

    def _taken_back(self) -> Ints:
        """Keep copies that were to leave, or were dropped but are still there, where their chunks lack some."""
        found = [np.empty(0, np.int64)]
        may = union(self.held, self.leaving)
        may = may[self.loads.takes[may % self.count]] if may.size else may
        while may.size:
            chunk, worker = np.divmod(may, self.count)
            lacks = self.table.count[chunk] < self.replicas[chunk]
            lacks &= self.table.admits(chunk, worker) if chunk.size else lacks
            may, chunk, worker = may[lacks], chunk[lacks], worker[lacks]
            _, first = np.unique(chunk, return_index=True)  # one of a chunk at a time
            order = np.argsort(worker[first], kind="stable")
            one = first[order]
            size = self.chunks.size[chunk[one]]
            room = self.loads.limit[worker[one]] - self.loads.kept[worker[one]]
            taken = one[before(worker[one], size) + size <= room]
            self.table.put(chunk[taken], worker[taken])
            self.loads.kept += totals(worker[taken], self.chunks.size[chunk[taken]], self.count)
            found.append(may[taken])
            may = np.delete(may, taken if taken.size else first)
        back = np.sort(np.concatenate(found))
        self.leaving = self._without(self.leaving, back)
        return back

    def _filled(self) -> Ints:
        """Add what is missing, the chunks with the fewest copies first; then what is to leave where it is."""
        found = [np.empty(0, np.int64)]
        elsewhere = self._counts(self.leaving)
        there = self.table.count + elsewhere
        for copies in range(int(self.replicas.max(initial=0))):
            asking = np.flatnonzero((there == copies) & (there < self.replicas))
            new = self._fill(asking, copies, self.bounds.in_flight_bytes, Reason.MISSING)
            there[new // self.count] += 1
            found.append(new)
        for number in range(int(elsewhere.max(initial=0))):
            asking = np.flatnonzero((self.table.count < self.replicas) & (elsewhere > number))
            asking = asking[np.argsort(self.chunks.hash[asking], kind="stable")][: self._moves_left()]
            new = self._fill(np.sort(asking), 64 + number, self._for_moves(), Reason.LEAVING)
            found.append(new)
        return np.sort(np.concatenate(found))

    def _fill(self, asking: Ints, salt: int, flight_limit: int, reason: Reason) -> Ints:
        # what moves goes where something has to move to in any case; what is missing is spread, and sooner there
        needy_below = 0.0 if reason == Reason.MISSING else 1 - self.bounds.tolerance
        given = fill(self.chunks, asking, self.table, self.loads, salt, flight_limit, needy_below)
        new: Ints = (asking * self.count + given)[given != NOBODY]
        self._note(new, reason)
        return new

    def _note(self, new: Ints, reason: Reason) -> None:
        self.added.append(new)
        self.reasons.append(np.full(new.size, reason, np.int64))

    def _moves_left(self) -> int:
        return self.bounds.moves - sum(int((some != Reason.MISSING).sum()) for some in self.reasons)

    def _for_moves(self) -> int:
        return self.bounds.in_flight_bytes // 2  # the other half is for what is missing

    def _balanced(self, staying: Ints) -> Moves:
        # one that is not confirmed is on its way, and of a chunk one copy leaves at a time
        settled = staying[is_in(staying, self.held) & (self._counts(self.leaving)[staying // self.count] == 0)]
        left = self._moves_left()
        return rebalance(self.chunks, settled, self.table, self.loads, self.bounds.tolerance, left, self._for_moves())

    def _added_by(self, moves: Moves) -> Ints:
        self.leaving = union(self.leaving, moves.chunks * self.count + moves.old)
        new = moves.chunks * self.count + moves.new
        self._note(new, Reason.BALANCE)
        return new

    def _finished(self, staying: Ints) -> Placement:
        leaving = self._without(self.leaving, staying)
        dropped = self._drops(staying, leaving)
        leaving = self._without(leaving, dropped)
        listed = union(staying, leaving)
        added, reasons = np.concatenate(self.added), np.concatenate(self.reasons)
        order = np.argsort(added, kind="stable")
        return Placement(
            listed=listed,
            changed=np.setxor1d(listed, self.was, assume_unique=True),
            leaving=leaving,
            confirmed=self.confirmed[is_in(self.confirmed, listed)],
            doubted=self._doubted(listed),
            added=added[order],
            reasons=reasons[order],
            dropped=union(self._without(self.was, listed), dropped),
            replicas=self.replicas,
            kept=self._counts(staying),
            loads=self.loads,
        )

    def _doubted(self, listed: Ints) -> Ints:
        """Return what comes back to a list while it is still reported, and what did so before and is not sure yet."""
        back = self._without(listed, self.planned)
        back = back[is_in(back, self.held) & self.had_list[back % self.count]]
        return union(back, self.doubted[is_in(self.doubted, listed)])

    def _drops(self, staying: Ints, leaving: Ints) -> Ints:
        """Choose what goes now: of what is to leave, what is confirmed elsewhere; of each worker only a part."""
        sure = self._counts(staying[is_in(staying, self.confirmed)])
        chunk = leaving // self.count
        may = leaving[sure[chunk] >= self.replicas[chunk]]
        chunk, worker = np.divmod(may, self.count)
        order = np.lexsort((salted(self.chunks.hash[chunk], DROPS_SALT), worker))
        has = np.bincount(self.planned % self.count, minlength=self.count)
        most = np.maximum(FEW_DROPS, ((has + self.lately) * self.bounds.drops).astype(np.int64)) - self.lately
        ahead = before(worker[order], np.ones_like(order))
        return np.sort(may[order[ahead < most[worker[order]]]])
