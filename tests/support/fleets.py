"""A fleet in memory: disks, lists and reports, and the rounds in which they are placed, applied and confirmed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fsdm.fleet.inventory import Chunks, Copies, Presence, Worker, Workers, hex_id
from fsdm.fleet.placing import Bounds, Placement, place

if TYPE_CHECKING:
    from fsdm.fleet.inventory import Ints

GB = 10**9


def chunk_id(number: int) -> bytes:
    """The id of the chunk with this number."""
    return hashlib.sha256(b"chunk %d" % number).digest()


def chunks_of(sizes: dict[int, int], replicas: int | dict[int, int] = 3) -> Chunks:
    """Chunks by number, with their sizes in bytes."""
    copies = [replicas if isinstance(replicas, int) else replicas[number] for number in sizes]
    return Chunks.of([chunk_id(number) for number in sizes], list(sizes.values()), copies)


def some_workers(count: int, capacity: int = 100 * GB, zones: int = 0) -> list[Worker]:
    """Workers of equal capacity, dealt to so many zones in turn (0: each is one)."""
    return [Worker(f"w{n:03}", capacity, f"z{n % zones}" if zones else "") for n in range(count)]


def pairs(copies: Ints, chunks: Chunks, workers: Workers) -> set[tuple[str, str]]:
    """Copies as chunks and workers by name."""
    number, worker = np.divmod(copies, len(workers))
    return {(hex_id(chunks.ids[c]), workers.all[w].name) for c, w in zip(number, worker, strict=True)}


def copies_in(some: Iterable[tuple[str, str]], chunks: Chunks, workers: Workers) -> Ints:
    """The copies of chunks and workers that there are, as numbers."""
    found, names = list(some), workers.names
    numbers = chunks.numbers([bytes.fromhex(chunk) for chunk, _ in found])
    there = [(c, names[w]) for c, (_, w) in zip(numbers.tolist(), found, strict=True) if c >= 0 and w in names]
    return np.array(sorted(c * len(workers) + w for c, w in there), np.int64)


@dataclass
class Fleet:
    """Workers with disks. A round: reports are read, all is placed, and lists are published; `apply` makes them so."""

    workers: dict[str, Worker]
    sizes: dict[int, int]
    bounds: Bounds = field(default_factory=Bounds)
    replicas: int = 3
    lists: dict[str, set[str]] = field(default_factory=dict)
    leaving: set[tuple[str, str]] = field(default_factory=set)
    disks: dict[str, set[str]] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    moved_bytes: int = 0
    made: int = 100_000
    _bytes: dict[str, int] = field(default_factory=dict)
    _known: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, workers: Iterable[Worker], sizes: dict[int, int], **more: object) -> Fleet:
        return cls({worker.name: worker for worker in workers}, sizes, **more)  # type: ignore[arg-type]

    def copy(self) -> Fleet:
        """One like it, that lives on its own."""
        more = {name: dict(value) for name, value in vars(self).items() if name in {"workers", "sizes", "_bytes"}}
        for name in ("lists", "disks"):
            more[name] = {worker: set(some) for worker, some in getattr(self, name).items()}
        return replace(self, leaving=set(self.leaving), _known=set(self._known), **more)

    def chunks(self) -> Chunks:
        return chunks_of(self.sizes, self.replicas)

    def grow(self, sizes: Iterable[int]) -> None:
        """Add chunks of these sizes, whose numbers no other ones have had."""
        for size in sizes:
            self.sizes[self.made] = size
            self.made += 1

    def bytes_of(self, ids: Iterable[str]) -> int:
        """The bytes of some chunks together."""
        for number in self.sizes.keys() - self._known:  # what is no longer listed has its size as well
            self._bytes[chunk_id(number).hex()] = self.sizes[number]
        self._known |= self.sizes.keys()
        return sum(map(self._bytes.__getitem__, ids))

    def fullness(self) -> np.ndarray:
        """The bytes of each list by its worker's capacity, against the mean of these."""
        shares = [self.bytes_of(some) / self.workers[name].capacity_bytes for name, some in self.lists.items()]
        return np.array(shares) / np.mean(shares)

    def change(self, name: str, **how: object) -> None:
        """Change a worker."""
        self.workers[name] = replace(self.workers[name], **how)  # type: ignore[arg-type]

    def before(self, chunks: Chunks, workers: Workers) -> Copies:
        known = {hex_id(raw) for raw in chunks.ids}
        listed = {(chunk, name) for name, some in self.lists.items() for chunk in some}
        held = {(chunk, worker.name) for worker in workers.all for chunk in self.disks.get(worker.name, ())}
        forgotten = [len(self.lists.get(worker.name, set()) - known) for worker in workers.all]
        return Copies(
            copies_in(listed, chunks, workers),
            copies_in(self.leaving, chunks, workers),
            copies_in(held, chunks, workers),
            np.array([worker.name in self.lists for worker in workers.all]),
            np.array(forgotten, np.int64),
            slow=np.array([worker.name in self.slow for worker in workers.all]),
        )

    def place(self) -> tuple[Chunks, Workers, Copies, Placement]:
        chunks, workers = self.chunks(), Workers.of(self.workers.values())
        before = self.before(chunks, workers)
        return chunks, workers, before, place(chunks, workers, before, self.bounds)

    def round(self) -> Placement:
        """Place and publish."""
        chunks, workers, _, found = self.place()
        listed = pairs(found.listed, chunks, workers)
        self.leaving = pairs(found.leaving, chunks, workers)
        self.lists = {worker.name: set() for worker in workers.all if worker.presence != Presence.GONE}
        for chunk, name in listed:
            self.lists[name].add(chunk)
        self.moved_bytes += int(chunks.size[found.added // len(workers)].sum())
        return found

    def apply(self, names: Iterable[str] | None = None) -> None:
        """Let workers make their disks what their lists say: all, or these; one that is not live does nothing."""
        for name in self.workers if names is None else names:
            if self.workers[name].presence == Presence.LIVE and name in self.lists:
                self.disks[name] = set(self.lists[name])

    def settle(self, rounds: int = 50) -> int:
        """Go on until a placement changes nothing; return how many rounds it took."""
        for number in range(rounds):
            _, _, before, found = self.place()
            if found.same_lists(before) and all(self.disks.get(n, set()) == some for n, some in self.lists.items()):
                return number
            self.round()
            self.apply()
        raise AssertionError(f"it does not come to rest within {rounds} rounds")

    def holders(self, chunk: str) -> set[str]:
        """The workers that have a chunk on their disks, seen or not."""
        return {name for name, disk in self.disks.items() if chunk in disk}
