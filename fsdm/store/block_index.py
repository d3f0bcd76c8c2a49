"""The index of one dataset: block → the responsible chunk.

Pure, and not thread-safe. Ranges may overlap. They stand sorted in buckets of bounded size; each knows its greatest
end, and the nearest one to its left that reaches further. So a lookup bisects (lists of plain keys, which takes half as
long as with a key function), and steps only over the ranges nested around the block.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fsdm.model.layout import Place

BUCKET = 256

# (start, -end, -id): ascending order puts the responsible one last
Key = tuple[int, int, int]


def _key(place: Place) -> Key:
    name = place.name
    return int(name[:20]), -int(name[21:41]), -int(name[42:], 16)


@dataclass(slots=True)
class _Bucket:
    keys: list[Key]
    places: list[Place]
    reach: int = 0  # the greatest end in it

    def __post_init__(self) -> None:
        self.measure()

    def measure(self) -> None:
        self.reach = max((-key[1] for key in self.keys), default=0)


@dataclass(slots=True)
class BlockIndex:
    """The chunks of one dataset, by the range in their places' names."""

    _buckets: list[_Bucket] = field(default_factory=list)
    _firsts: list[Key] = field(default_factory=list)
    _wider: list[int] | None = None  # bucket → the nearest one before it that reaches further, or -1

    @classmethod
    def of(cls, places: Iterable[Place]) -> BlockIndex:
        """Make an index of places, each with a name that passes `layout.is_chunk_dir`."""
        pairs = sorted((_key(place), place) for place in places)
        index = cls()
        for at in range(0, len(pairs), BUCKET):
            keys, part = zip(*pairs[at : at + BUCKET], strict=True)
            index._buckets.append(_Bucket(list(keys), list(part)))
        index._firsts = [bucket.keys[0] for bucket in index._buckets]
        return index

    def __len__(self) -> int:
        return sum(len(bucket.keys) for bucket in self._buckets)

    def __iter__(self) -> Iterator[Place]:
        """Iterate over all places by start; among equal starts the responsible one is last."""
        for bucket in self._buckets:
            yield from bucket.places

    def add(self, place: Place) -> None:
        """Add a place; do nothing where it is there already."""
        key = _key(place)
        if not self._buckets:
            self._buckets.append(_Bucket([], []))
        at = max(bisect_right(self._firsts, key) - 1, 0)
        bucket = self._buckets[at]
        i = bisect_left(bucket.keys, key)
        if i < len(bucket.keys) and bucket.keys[i] == key:
            return
        bucket.keys.insert(i, key)
        bucket.places.insert(i, place)
        if len(bucket.keys) > BUCKET:
            half = BUCKET // 2
            self._buckets.insert(at + 1, _Bucket(bucket.keys[half:], bucket.places[half:]))
            del bucket.keys[half:], bucket.places[half:]
            self._firsts.insert(at + 1, self._buckets[at + 1].keys[0])
            bucket.measure()
        bucket.reach = max(bucket.reach, -key[1])
        self._keep_up(at)

    def discard(self, place: Place) -> None:
        """Discard a place; do nothing where it is not there."""
        key = _key(place)
        at = bisect_right(self._firsts, key) - 1
        if at < 0:
            return
        bucket = self._buckets[at]
        i = bisect_left(bucket.keys, key)
        if i == len(bucket.keys) or bucket.keys[i] != key:
            return
        del bucket.keys[i], bucket.places[i]
        if bucket.keys:
            bucket.measure()
            self._keep_up(at)
        else:
            del self._buckets[at], self._firsts[at]
            self._wider = None

    def find(self, block: int) -> Place | None:
        """Return the place of the chunk that is responsible for `block`."""
        limit = (block, 1, 0)  # above every key with this start, below every key with a greater one
        at = bisect_left(self._firsts, limit) - 1
        if at >= 0:
            bucket = self._buckets[at]
            i = bisect_left(bucket.keys, limit) - 1
            if -bucket.keys[i][1] > block:
                return bucket.places[i]
        return next(self.candidates(block), None)

    def candidates(self, block: int) -> Iterator[Place]:
        """Yield the places of all chunks whose range holds `block`, the responsible one first.

        That is the one with the greatest start, then the smallest end, then the smallest id.
        """
        limit = (block, 1, 0)
        at = bisect_left(self._firsts, limit) - 1
        if at < 0:
            return
        i: int | None = bisect_left(self._buckets[at].keys, limit) - 1
        while at >= 0:
            bucket = self._buckets[at]
            if bucket.reach <= block:
                at = self._wider_than(at)
            else:
                for j in range(len(bucket.keys) - 1 if i is None else i, -1, -1):
                    if -bucket.keys[j][1] > block:
                        yield bucket.places[j]
                at -= 1
            i = None

    def _keep_up(self, at: int) -> None:
        self._firsts[at : at + 1] = [self._buckets[at].keys[0]]
        self._wider = None

    def _wider_than(self, at: int) -> int:
        if self._wider is None:
            self._wider = []
            for i, bucket in enumerate(self._buckets):
                left = i - 1
                while left >= 0 and self._buckets[left].reach <= bucket.reach:
                    left = self._wider[left]
                self._wider.append(left)
        return self._wider[at]
