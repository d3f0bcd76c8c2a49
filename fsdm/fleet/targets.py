"""Targets: copies of each chunk, and bytes of each worker, where there may be too little room. Pure.

Invariants: the numbers of copies differ by as little as there is room for: no chunk has an n-th copy while another one
that asks for n - 1 has fewer than that. No target is above what a worker may take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fsdm.fleet.inventory import totals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fsdm.fleet.inventory import Chunks, Flags, Ints, Workers


def effective_replicas(chunks: Chunks, kept: Ints, workers: int, room_bytes: int) -> Ints:
    """Return how many copies each chunk is to have, where so many workers have so much room together.

    First each has one, then a second one, and so on. Where a round does not fit as a whole, chunks that are `kept` so
    often already come first, then the hash decides. The room of one chunk a worker is for first copies alone: no worker
    can be filled to its last byte.
    """
    asked = np.minimum(chunks.replicas, workers)
    spare = workers * int(chunks.size.max(initial=0))
    if int((asked * chunks.size).sum()) <= room_bytes - spare:
        return asked
    found = np.zeros(len(chunks), np.int64)
    left = room_bytes
    for copies in range(1, int(asked.max(initial=0)) + 1):
        asking = np.flatnonzero(asked >= copies)
        size = chunks.size[asking]
        if int(size.sum()) > left - spare * (copies > 1):
            order = np.lexsort((chunks.hash[asking], kept[asking] < copies))
            fitting = np.cumsum(size[order]) <= left - spare * (copies > 1)
            found[asking[order[fitting]]] = copies
            break
        found[asking] = copies
        left -= int(size.sum())
    return found


def copies_in_a_zone(workers: Workers, chunks: Chunks, replicas: Ints, full: float) -> Ints:
    """Return how many copies of each chunk may be in one zone: as few as the zones, and the room in them, allow."""
    room = totals(workers.zone, (full * workers.capacity * workers.keeps).astype(np.int64), workers.zone.max() + 1)
    found = -(-replicas // max(int((room > 0).sum()), 1))
    needed = int((chunks.size * replicas).sum())
    while (found < replicas).any() and int(np.minimum(room, int((chunks.size * found).sum())).sum()) < needed:
        found = np.minimum(found + 1, replicas)
    return found


def target_bytes(workers: Workers, chunks: Chunks, replicas: Ints, in_a_zone: Ints, full: float) -> NDArray[np.float64]:
    """Return the bytes that each worker is to hold: its share by weight, of what it and its zone may take.

    `full` is the part of a capacity that may be taken. No worker holds a chunk twice, and no zone has more copies of
    one than `in_a_zone`.
    """
    keeps = workers.keeps
    limit = np.minimum(full * workers.capacity, float(chunks.size[replicas > 0].sum())) * keeps
    weight = workers.weighted * keeps
    zones = int(workers.zone.max(initial=-1)) + 1
    zone_weight, zone_limit = np.zeros(zones), np.zeros(zones)
    np.add.at(zone_weight, workers.zone, weight)
    np.add.at(zone_limit, workers.zone, limit * (weight > 0))
    zone_limit = np.minimum(zone_limit, float((chunks.size * in_a_zone).sum()))
    of_zone = _shared(float((chunks.size * replicas).sum()), zone_weight, zone_limit)
    found = np.zeros(len(workers), np.float64)
    for zone in np.flatnonzero(of_zone > 0):
        mine = np.flatnonzero(workers.zone == zone)
        found[mine] = _shared(float(of_zone[zone]), weight[mine], limit[mine])
    return found


def _shared(amount: float, weight: NDArray[np.float64], limit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share an amount by weight, none above its limit: what one cannot take goes to the others."""
    found = np.zeros(weight.size, np.float64)
    open_: Flags = weight > 0
    while open_.any() and amount > 0:
        level = amount / weight[open_].sum()
        over = open_ & (level * weight >= limit)
        if not over.any():
            found[open_] = level * weight[open_]
            break
        found[over] = limit[over]
        amount -= float(limit[over].sum())
        open_ &= ~over
    return found
