"""Finding a worker for each copy that is missing: deferred acceptance, many copies at once. Pure.

In each round every chunk that still has none asks one worker, which its hash chooses by what the workers lack of their
targets; a worker takes what fits, in the order of the hashes, and the others ask again. The last ones ask all workers.
Invariants: no worker gets a chunk that it has, or one whose zone has as many copies as it may; none is taken above what
it may hold, nor above its bytes in flight, but for one chunk where it has none in flight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fsdm.fleet.hashing import salted, unit
from fsdm.fleet.inventory import before, totals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fsdm.fleet.inventory import Chunks, Flags, Ints

ROUNDS: Final = 24
NOBODY: Final = -1


@dataclass(slots=True, eq=False)
class Loads:
    """The bytes of each worker, as they are while a placement is made.

    `kept`: of the copies that count. `disk`: of all that is, or will be, on its disk until what leaves has left.
    `flight`: of those that it has still to fetch. It may have `limit` bytes kept, and its capacity on its disk. One
    that is `slow` is not waited for.
    """

    target: NDArray[np.float64]
    limit: Ints
    capacity: Ints
    takes: Flags
    kept: Ints
    disk: Ints
    flight: Ints
    slow: Flags

    def room(self) -> Ints:
        """Return how large a chunk each worker may be given, but for what is in flight; negative for none."""
        room = np.minimum(self.limit - self.kept, self.capacity - self.disk)
        return np.where(self.takes, room, -1)

    def open(self, room: Ints, flight_limit: int) -> Ints:
        """Return how many bytes of it each worker may be given now."""
        return np.minimum(room, flight_limit - self.flight)

    def lack(self) -> NDArray[np.float64]:
        """Return how far each worker is below its target."""
        return np.maximum(self.target - self.kept, 0.0) * self.takes

    def needy(self, below: float, largest: int) -> Flags:
        """Tell which workers are below this part of their targets, can take a chunk so large, and are waited for."""
        found: Flags = ~self.slow & (self.room() >= largest) & (self.kept < below * self.target)
        return found

    def add(self, workers: Ints, sizes: Ints) -> None:
        """Count new copies."""
        added = totals(workers, sizes, self.kept.size)
        self.kept += added
        self.disk += added
        self.flight += added


@dataclass(slots=True, eq=False)
class Table:
    """The workers of each chunk's copies that count: a row a chunk, filled from the left, then NOBODY."""

    rows: Ints
    count: Ints
    in_a_zone: Ints
    zone: Ints

    def admits(self, chunks: Ints, workers: Ints, instead_of: Ints | None = None) -> Flags:
        """Tell whether each worker may have the chunk beside its other copies, or `instead_of` that worker's."""
        rows = self.rows[chunks]
        there = rows != NOBODY
        if instead_of is not None:
            there &= rows != instead_of[:, None]
        near = there & (self.zone[rows] == self.zone[workers][:, None])
        same = there & (rows == workers[:, None])
        return ~same.any(axis=1) & (near.sum(axis=1) < self.in_a_zone[chunks])  # type: ignore[no-any-return]

    def put(self, chunks: Ints, workers: Ints) -> None:
        """Add one copy to each of these chunks."""
        self.rows[chunks, self.count[chunks]] = workers
        self.count[chunks] += 1

    def replace(self, chunks: Ints, old: Ints, new: Ints) -> None:
        """Put one worker in the place of another."""
        column = (self.rows[chunks] == old[:, None]).argmax(axis=1)
        self.rows[chunks, column] = new


def fill(
    chunks: Chunks, asking: Ints, table: Table, loads: Loads, salt: int, flight_limit: int, needy_below: float
) -> Ints:
    """Find a worker for one more copy of each chunk that asks; return their numbers, NOBODY for none.

    The chunks that ask are different ones. Workers that are below this part of their targets (0: none) come before all
    others: while one of those has bytes in flight, what they cannot be given yet waits for them. `table` and `loads`
    are brought up to date.
    """
    largest = int(chunks.size[asking].max(initial=0))
    found = np.full(asking.size, NOBODY, np.int64)
    waiting = np.arange(asking.size)
    for number in range(ROUNDS):
        room = loads.room()
        open_ = loads.open(room, flight_limit)
        lack = np.where(np.where(loads.flight > 0, open_, room) > 0, loads.lack(), 0.0)
        if not waiting.size or not lack.any():
            break
        needy = loads.needy(needy_below, largest)
        if (needy & (lack > 0)).any():
            lack = np.where(needy, lack, 0.0)
        elif (needy & (loads.flight > 0)).any():
            break
        numbers = asking[waiting]
        wanted = by_weight(unit(salted(chunks.hash[numbers], salt, number)), lack)
        admitted = table.admits(numbers, wanted)
        order = np.lexsort((salted(chunks.hash[numbers], salt, number, 1), wanted))
        order = order[admitted[order]]
        to, size = wanted[order], chunks.size[numbers[order]]
        ahead = before(to, size)
        fits = (ahead + size <= open_[to]) | ((ahead == 0) & (loads.flight[to] == 0) & (size <= room[to]))
        taken = order[fits & (ahead < lack[to])]
        _give(numbers[taken], wanted[taken], chunks, table, loads)
        found[waiting[taken]] = wanted[taken]
        waiting = waiting[found[waiting] == NOBODY]
    if not (loads.needy(needy_below, largest) & (loads.flight > 0)).any():
        _ask_all(chunks, asking, waiting, found, table, loads, flight_limit)
    return found


def by_weight(units: NDArray[np.float64], weights: NDArray[np.float64]) -> Ints:
    """Choose for each number from 0 to 1 an index, in proportion to the weights."""
    sums = np.cumsum(weights)
    last = int(np.flatnonzero(weights)[-1])  # rounding may lead beyond it
    found: Ints = np.minimum(np.searchsorted(sums, units * sums[-1], side="right"), last).astype(np.int64)
    return found


def _give(numbers: Ints, workers: Ints, chunks: Chunks, table: Table, loads: Loads) -> None:
    table.put(numbers, workers)
    loads.add(workers, chunks.size[numbers])


def _ask_all(
    chunks: Chunks, asking: Ints, waiting: Ints, found: Ints, table: Table, loads: Loads, flight_limit: int
) -> None:
    """Give each chunk that waits, the largest first, to the worker that is then the least full for its target."""
    order = waiting[np.lexsort((chunks.hash[asking[waiting]], -chunks.size[asking[waiting]]))]
    falling = -chunks.size[asking[order]]
    at, may = 0, _able(loads, flight_limit)
    while at < order.size:
        largest = int(may.max(initial=-1))
        at = max(at, int(np.searchsorted(falling, -largest)))  # those before it fit nowhere
        if at == order.size or largest < 0:
            break
        number = asking[order[at]]
        some = np.flatnonzero(may >= chunks.size[number])
        some = some[table.admits(np.full(some.size, number), some)]
        if not (loads.kept[some] < loads.target[some]).any() and _is_held_up(loads, may, int(chunks.size[number])):
            some = some[:0]
        if some.size:
            fullness = (loads.kept[some] + chunks.size[number]) / np.maximum(loads.target[some], 1.0)
            found[order[at]] = best = some[np.lexsort((some, fullness))[0]]
            _give(np.array([number]), np.array([best]), chunks, table, loads)
            may = _able(loads, flight_limit)
        at += 1


def _able(loads: Loads, flight_limit: int) -> Ints:
    """Return how large a chunk each worker may be given now."""
    room = loads.room()
    return np.where(loads.flight > 0, loads.open(room, flight_limit), room)


def _is_held_up(loads: Loads, may: Ints, size: int) -> bool:
    """Tell whether a worker below its target could be given a chunk of this size but for what is in flight."""
    return bool((loads.needy(1.0, size) & (may < size)).any())
