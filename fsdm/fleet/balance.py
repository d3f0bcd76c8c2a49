"""Moves of copies from workers that have too much to those that have too little. Pure.

Nothing is moved while each worker is within the tolerance of its target. Then copies go to those below it (or, where
there are none, from those above it), up to a level between: no worker that gives ends below that level, and none that
is given ends above it. So every move brings the bytes closer to the targets, and with nothing changed there is a last
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fsdm.fleet.filling import by_weight
from fsdm.fleet.hashing import salted, unit
from fsdm.fleet.inventory import before, totals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fsdm.fleet.filling import Loads, Table
    from fsdm.fleet.inventory import Chunks, Ints

ROUNDS: Final = 24
OVERSAMPLED: Final = 8  # so many times the bytes that a worker is to give are looked at, for not all may go
SALT: Final = 101


@dataclass(frozen=True, slots=True, eq=False)
class Moves:
    """Copies that go from one worker to another, in the order of their chunks, each once."""

    chunks: Ints
    old: Ints
    new: Ints


def levels(loads: Loads, tolerance: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bytes that each worker is to give, and those that each is to be given; zeros for no need."""
    under = loads.takes & (loads.kept < (1 - tolerance) * loads.target)
    over = loads.kept > (1 + tolerance) * loads.target
    if under.any():
        level = (1 - tolerance / 4) * loads.target
        return np.maximum(loads.kept - level, 0.0), np.where(under, level - loads.kept, 0.0)
    level = (1 + tolerance / 4) * loads.target
    gives = np.where(over, loads.kept - level, 0.0)
    return gives, np.maximum(level - loads.kept, 0.0) * loads.takes


def rebalance(
    chunks: Chunks, copies: Ints, table: Table, loads: Loads, tolerance: float, most: int, flight_limit: int
) -> Moves:
    """Find the moves, `most` of them, of the copies that count. `table` and `loads` are brought up to date."""
    gives, gets = levels(loads, tolerance)
    moved: list[tuple[Ints, Ints, Ints]] = []
    if gives.any() and gets.any() and most > 0:
        chunk, old = _pool(chunks, copies, loads, gives)
        for number in range(ROUNDS):
            open_ = np.where(gets > 0, loads.open(loads.room(), flight_limit), 0)
            weight = np.where(open_ > 0, np.minimum(gets, open_), 0.0)
            if not chunk.size or not weight.any() or most <= 0:
                break
            new = by_weight(unit(salted(chunks.hash[chunk], SALT, number)), weight)
            taken = np.flatnonzero(table.admits(chunk, new, instead_of=old))
            taken = _within(taken, old, chunks.size[chunk], gives)
            taken = _within(taken, new, chunks.size[chunk], weight)[:most]
            size = chunks.size[chunk[taken]]
            table.replace(chunk[taken], old[taken], new[taken])
            loads.add(new[taken], size)
            lost = totals(old[taken], size, len(loads.kept))
            loads.kept -= lost
            gives, gets = gives - lost, gets - totals(new[taken], size, len(loads.kept))
            moved.append((chunk[taken], old[taken], new[taken]))
            most -= taken.size
            rest = np.ones(chunk.size, np.bool_)
            rest[taken] = False
            chunk, old = chunk[rest], old[rest]
    if not moved:
        return Moves(*[np.empty(0, np.int64)] * 3)
    all_, old, new = (np.concatenate(part) for part in zip(*moved, strict=True))
    order = np.argsort(all_)
    return Moves(all_[order], old[order], new[order])


def _pool(chunks: Chunks, copies: Ints, loads: Loads, gives: NDArray[np.float64]) -> tuple[Ints, Ints]:
    """Choose copies that may be moved by their hashes, one a chunk: the chunk and the worker of each."""
    chunk, old = np.divmod(copies, len(loads.kept))
    share = OVERSAMPLED * np.maximum(gives, np.where(gives > 0, chunks.size.max(initial=0), 0))
    share /= np.maximum(loads.kept, 1)
    drawn = unit(salted(chunks.hash[chunk] + old.astype(np.uint64), SALT))
    some = np.flatnonzero(drawn < share[old])
    some = some[np.argsort(drawn[some], kind="stable")]
    _, first = np.unique(chunk[some], return_index=True)
    some = some[np.sort(first)]
    return chunk[some], old[some]


def _within(taken: Ints, groups: Ints, sizes: Ints, limit: NDArray[np.float64]) -> Ints:
    """Take of each group, in its order, as long as they are within its limit; keep the order."""
    order = taken[np.argsort(groups[taken], kind="stable")]
    fits = before(groups[order], sizes[order]) + sizes[order] <= limit[groups[order]]
    return np.sort(order[fits])
