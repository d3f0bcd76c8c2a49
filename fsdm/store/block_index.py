"""The index of one dataset: block → the responsible chunk. Pure, and not thread-safe.

Ranges may overlap. They stand sorted in buckets of bounded size; each knows its greatest end, and the nearest one to
its left that reaches further. So a lookup bisects, and steps only over the ranges nested around the block.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fsdm.model.layout import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BUCKET = 256

# (start, -end, -id, place): ascending order puts the responsible one last
Entry = tuple[int, int, int, Place]


def _entry(place: Place) -> Entry:
    start, end, chunk_id = place.name.split("-")
    return int(start), -int(end), -int(chunk_id, 16), place


@dataclass(slots=True)
class _Bucket:
    entries: list[Entry]
    reach: int = 0  # the greatest end in it

    def __post_init__(self) -> None:
        self.measure()

    def measure(self) -> None:
        self.reach = max(-entry[1] for entry in self.entries)


@dataclass(slots=True)
class BlockIndex:
    """The chunks of one dataset, by the range in their places' names."""

    _buckets: list[_Bucket] = field(default_factory=list)
    _wider: list[int] | None = None  # bucket → the nearest one before it that reaches further, or -1

    @classmethod
    def of(cls, places: Iterable[Place]) -> BlockIndex:
        """Make an index of places, each with a name that passes `layout.is_chunk_dir`."""
        entries = sorted(map(_entry, places))
        return cls([_Bucket(entries[at : at + BUCKET]) for at in range(0, len(entries), BUCKET)])

    def __len__(self) -> int:
        return sum(len(bucket.entries) for bucket in self._buckets)

    def __iter__(self) -> Iterator[Place]:
        """Iterate over all places by start; among equal starts the responsible one is last."""
        return (entry[3] for bucket in self._buckets for entry in bucket.entries)

    def _bucket_at(self, key: tuple[object, ...]) -> int:
        """Return the last bucket that does not begin behind `key`, or -1."""
        return bisect_right(self._buckets, key, key=lambda bucket: bucket.entries[0]) - 1

    def add(self, place: Place) -> None:
        """Add a place; do nothing where it is there already."""
        entry = _entry(place)
        if not self._buckets:
            self._buckets.append(_Bucket([entry]))
        at = max(self._bucket_at(entry), 0)
        bucket = self._buckets[at]
        i = bisect_left(bucket.entries, entry)
        if bucket.entries[i : i + 1] == [entry]:
            return
        bucket.entries.insert(i, entry)
        bucket.reach = max(bucket.reach, -entry[1])
        if len(bucket.entries) > BUCKET:
            half = BUCKET // 2
            self._buckets.insert(at + 1, _Bucket(bucket.entries[half:]))
            del bucket.entries[half:]
            bucket.measure()
        self._wider = None

    def discard(self, place: Place) -> None:
        """Discard a place; do nothing where it is not there."""
        entry = _entry(place)
        at = self._bucket_at(entry)
        if at < 0 or entry not in self._buckets[at].entries:
            return
        bucket = self._buckets[at]
        bucket.entries.remove(entry)
        if bucket.entries:
            bucket.measure()
        else:
            del self._buckets[at]
        self._wider = None

    def find(self, block: int) -> Place | None:
        """Return the place of the chunk that is responsible for `block`."""
        return next(self.candidates(block), None)

    def candidates(self, block: int) -> Iterator[Place]:
        """Yield the places of all chunks whose range holds `block`, the responsible one first.

        That is the one with the greatest start, then the smallest end, then the smallest id.
        """
        limit = (block, 1)  # above every entry with this start, below every one with a greater one
        at = self._bucket_at(limit)
        i = bisect_left(self._buckets[at].entries, limit) if at >= 0 else 0
        while at >= 0:
            bucket = self._buckets[at]
            if bucket.reach <= block:
                at = self._wider_than(at)
            else:
                for j in range(i - 1, -1, -1):
                    if -bucket.entries[j][1] > block:
                        yield bucket.entries[j][3]
                at -= 1
            i = len(self._buckets[at].entries)

    def _wider_than(self, at: int) -> int:
        if self._wider is None:
            self._wider = []
            for i, bucket in enumerate(self._buckets):
                left = i - 1
                while left >= 0 and self._buckets[left].reach <= bucket.reach:
                    left = self._wider[left]
                self._wider.append(left)
        return self._wider[at]
