"""Choosing which copies leave where a chunk has more than it is to have, or two where only one may be. Pure.

Invariants: as many copies of a chunk are chosen as are too many, and no more. Of equals those leave that lie on the
fullest workers, and as long as these are above their targets; so a worker that comes back keeps what it has, and what
was made in its stead goes from where there is too much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fsdm.fleet.hashing import salted
from fsdm.fleet.inventory import before, is_in, totals

if TYPE_CHECKING:
    from fsdm.fleet.filling import Loads
    from fsdm.fleet.inventory import Chunks, Flags, Ints, Workers

ROUNDS: Final = 12
SALT: Final = 301


def surplus(
    chunks: Chunks,
    workers: Workers,
    copies: Ints,
    confirmed: Ints,
    replicas: Ints,
    in_a_zone: Ints,
    loads: Loads,
    slack: float,
) -> Ints:
    """Choose the copies that are to leave, as a sorted set; `loads` is brought up to date.

    Where the fullest are at their targets, workers may come below theirs by this part.
    """
    count = len(workers)
    chosen = np.zeros(copies.size, np.bool_)
    chunk, worker = np.divmod(copies, count)
    sure = is_in(copies, confirmed)
    tie = salted(chunks.hash[chunk] + worker.astype(np.uint64), SALT)
    for number in range(2 * ROUNDS + int(np.bincount(chunk, minlength=1).max())):
        left = np.flatnonzero(~chosen)
        too_many = np.bincount(chunk[left], minlength=len(chunks)) > replicas
        some = left[too_many[chunk[left]]]
        if not some.size:
            break
        # of each chunk one a round: first one that has not come yet, then one too near another, then of the fullest
        near = _is_near(chunk[some], workers.zone[worker[some]], in_a_zone)
        full = loads.kept / np.maximum(loads.target, 1.0)
        order = some[np.lexsort((tie[some], -full[worker[some]], ~near, sure[some], chunk[some]))]
        _, first = np.unique(chunk[order], return_index=True)
        order = order[first]
        order = order[np.lexsort((tie[order], worker[order]))]
        size = chunks.size[chunk[order]]
        if number < 2 * ROUNDS:  # later, what is too many goes from wherever it is
            level = loads.target if number < ROUNDS else (1 - slack) * loads.target
            above = np.maximum(loads.kept - level, 0.0)
            may = before(worker[order], size) < above[worker[order]]
            order, size = order[may], size[may]
        chosen[order] = True
        loads.kept -= totals(worker[order], size, count)
    return copies[chosen]


def crowded(chunks: Chunks, workers: Workers, copies: Ints, confirmed: Ints, in_a_zone: Ints, loads: Loads) -> Ints:
    """Choose the copies that are to leave a zone with more of their chunk than it may have, as a sorted set."""
    chunk, worker = np.divmod(copies, len(workers))
    some = np.flatnonzero(_is_near(chunk, workers.zone[worker], in_a_zone))
    chunk, worker = chunk[some], worker[some]
    group = chunk * len(workers) + workers.zone[worker]
    full = loads.kept / np.maximum(loads.target, 1.0)
    tie = salted(chunks.hash[chunk] + worker.astype(np.uint64), SALT, 1)
    order = np.lexsort((tie, full[worker], ~is_in(copies[some], confirmed), group))  # the first ones stay
    ahead = before(group[order], np.ones_like(order))
    chosen = order[ahead >= in_a_zone[chunk[order]]]
    loads.kept -= totals(worker[chosen], chunks.size[chunk[chosen]], len(workers))
    return np.sort(copies[some[chosen]])


def _is_near(chunk: Ints, zone: Ints, in_a_zone: Ints) -> Flags:
    """Tell which copies lie in a zone that has more of its chunk than it may."""
    group = chunk * (int(zone.max(initial=0)) + 1) + zone
    order = np.argsort(group, kind="stable")
    is_first = np.concatenate(([True], group[order][1:] != group[order][:-1])) if order.size else order.astype(bool)
    number = np.cumsum(is_first) - 1
    members = np.bincount(number, minlength=1)[number]
    found = np.zeros(chunk.size, np.bool_)
    found[order] = members > in_a_zone[chunk[order]]
    return found
