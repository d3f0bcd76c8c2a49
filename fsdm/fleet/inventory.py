"""The things that a placement is about: chunks, workers, and the copies that there are. Pure.

Invariant: chunks stand in the order of their ids and workers in that of their names, each once, so that no result
depends on the order in which they were read. A copy is one number, `chunk × workers + worker`: a sorted array of these
is a set of copies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from fsdm.fleet.hashing import of_rows
from fsdm.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

ID_BYTES: Final = 32
REPLICAS_MAX: Final = 64
CAPACITY_MAX: Final = 1 << 60  # the sums of bytes are int64


class Presence(IntEnum):
    """The presence of a worker: *live* reports, *away* has been silent for less than the grace, *gone* for longer."""

    LIVE = 0
    AWAY = 1
    GONE = 2


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker: its capacity in bytes, and the zone that it fails with ("" is one of its own).

    `weight` is how much of its capacity it is to be given, against the others; 0 gives it nothing. One that is
    `draining` is to lose its copies to others. `url` is where its chunks are served to its peers, or "".
    """

    name: str
    capacity_bytes: int
    zone: str = ""
    weight: float = 1.0
    draining: bool = False
    presence: Presence = Presence.LIVE
    url: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Workers:
    """All workers, in the order of their names, as arrays."""

    all: tuple[Worker, ...]
    capacity: Ints
    weighted: NDArray[np.float64]  # the capacity times the weight
    zone: Ints
    presence: Ints
    draining: Flags

    @classmethod
    def of(cls, workers: Iterable[Worker]) -> Self:
        """Order the workers.

        Raises:
            InvalidInputError: there are none, two have one name, or a capacity is too large.
        """
        ordered = tuple(sorted(workers, key=lambda worker: worker.name))
        if not ordered:
            raise InvalidInputError("there are no workers", hint="list each with its name and capacity_bytes")
        for one, other in pairwise(ordered):
            if one.name == other.name:
                raise InvalidInputError(f"there are two workers called {one.name}", field="name", hint="name each once")
        if sum(worker.capacity_bytes for worker in ordered) > CAPACITY_MAX:
            raise InvalidInputError(f"all together have more than {CAPACITY_MAX} bytes", field="capacity_bytes")
        # a zone of its own has a name that no zone can have: a tuple
        zones = [worker.zone or (worker.name,) for worker in ordered]
        numbers = {zone: number for number, zone in enumerate(dict.fromkeys(zones))}
        capacity = np.array([worker.capacity_bytes for worker in ordered], np.int64)
        return cls(
            ordered,
            capacity,
            np.array([worker.capacity_bytes * worker.weight for worker in ordered], np.float64),
            np.array([numbers[zone] for zone in zones], np.int64),
            np.array([worker.presence for worker in ordered], np.int64),
            np.array([worker.draining for worker in ordered], np.bool_),
        )

    def __len__(self) -> int:
        return len(self.all)

    @property
    def keeps(self) -> Flags:
        """The workers whose copies count: neither gone nor draining."""
        found: Flags = (self.presence != Presence.GONE) & ~self.draining
        return found

    @property
    def takes(self) -> Flags:
        """The workers that may be given copies: live, and not draining."""
        found: Flags = (self.presence == Presence.LIVE) & ~self.draining
        return found

    @property
    def names(self) -> dict[str, int]:
        """The number of each worker, by name."""
        return {worker.name: number for number, worker in enumerate(self.all)}


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """All chunks, in the order of their ids, as arrays: ids of 32 bytes, bytes, and how many copies each is to have."""

    ids: NDArray[np.bytes_]
    size: Ints
    replicas: Ints
    hash: NDArray[np.uint64] = field(repr=False)

    @classmethod
    def of(cls, ids: Sequence[bytes], size_bytes: Sequence[int] | Ints, replicas: int | Sequence[int] | Ints) -> Self:
        """Order the chunks.

        Raises:
            InvalidInputError: an id is there twice, or a number of copies is out of range.
        """
        raw = np.frombuffer(b"".join(ids), f"S{ID_BYTES}")
        order = np.argsort(raw, kind="stable")
        raw = raw[order]
        if (twice := np.flatnonzero(raw[1:] == raw[:-1])).size:
            raise InvalidInputError(f"{hex_id(raw[twice[0]])} is there twice", field="id", hint="list each chunk once")
        copies = np.broadcast_to(np.asarray(replicas, np.int64), len(raw))[order]
        if copies.size and not (copies.min() >= 1 and copies.max() <= REPLICAS_MAX):
            raise InvalidInputError(f"must be from 1 to {REPLICAS_MAX}", field="replicas")
        words = raw.view(">u8").reshape(len(raw), ID_BYTES // 8).astype(np.uint64)
        return cls(raw, np.asarray(size_bytes, np.int64)[order], copies, of_rows(words))

    def __len__(self) -> int:
        return len(self.ids)

    def numbers(self, ids: Sequence[bytes]) -> Ints:
        """Return the number of each id, and -1 for one that is not there."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int64)
        asked = np.frombuffer(b"".join(ids), f"S{ID_BYTES}")
        found = np.minimum(np.searchsorted(self.ids, asked), len(self.ids) - 1)
        return np.where(self.ids[found] == asked, found, -1).astype(np.int64)


def hex_id(raw: np.bytes_ | bytes) -> str:
    """Return an id of an array as 64 hex digits; numpy cuts zero bytes at its end off."""
    return bytes(raw).ljust(ID_BYTES, b"\0").hex()


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """The copies that were placed before, and those that are there.

    `planned`: those in the lists that were published last. `leaving`: those of them that are to go once others are
    confirmed. `held`: those that live workers report. `listed`: the workers that had a list. `forgotten`: for each
    worker, how many copies of its list are of chunks that are no longer to be anywhere. `doubted`: copies of lists that
    were dropped from them before, and may have been removed since they were reported. `lately`: how many copies each
    worker's list has lost within the time in which its own brake counts them. `slow`: the workers whose lists have not
    changed for long.
    """

    planned: Ints
    leaving: Ints
    held: Ints
    listed: Flags
    forgotten: Ints
    doubted: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    lately: Ints | None = None
    slow: Flags | None = None

    @classmethod
    def none(cls, workers: int) -> Self:
        """Return the copies of a fleet that has nothing."""
        empty = np.empty(0, np.int64)
        return cls(empty, empty, empty, np.zeros(workers, np.bool_), np.zeros(workers, np.int64))


def is_in(some: Ints, those: Ints) -> Flags:
    """Tell for each copy whether it is in a sorted set."""
    if not those.size:
        return np.zeros(some.shape, np.bool_)
    at = np.minimum(np.searchsorted(those, some), those.size - 1)
    return those[at] == some  # type: ignore[no-any-return]


def union(*sets: Ints) -> Ints:
    """Join sorted sets: numpy sorts runs that are in order in linear time."""
    found = np.sort(np.concatenate(sets), kind="stable")
    return found[np.concatenate(([True], found[1:] != found[:-1]))] if found.size else found


def totals(groups: Ints, amounts: Ints, count: int) -> Ints:
    """Sum the amounts of each group, exactly."""
    found = np.zeros(count, np.int64)
    np.add.at(found, groups, amounts)
    return found


def before(groups: Ints, amounts: Ints) -> Ints:
    """Return for each amount the sum of those of its group that stand before it; groups stand together."""
    if not groups.size:
        return amounts
    running = np.cumsum(amounts) - amounts
    first = np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1])))
    return running - np.repeat(running[first], np.diff(np.append(first, groups.size)))
