"""The index of one dataset: block → the responsible chunk, by the names of directories alone.

Pure, and not thread-safe. START-END-ID has fixed widths, so names sort by start, and are compared as they are: none is
parsed. Ranges may overlap. Names stand sorted in buckets of bounded size; each knows its greatest end, and the nearest
one to its left that reaches further. So a lookup bisects, and steps only over the ranges nested around the block.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

BUCKET: Final = 256
START: Final = slice(0, 20)
END: Final = slice(21, 41)


class Bucket(Protocol):
    """Names in order, and the greatest end of them, which `measured` returns."""

    @property
    def names(self) -> list[str]: ...

    def measured(self) -> str: ...


@dataclass(slots=True)
class _Bucket:
    names: list[str]
    reach: str = ""  # the greatest end in it, or none yet

    def measured(self) -> str:
        self.reach = self.reach or max((name[END] for name in self.names), default="")
        return self.reach


@dataclass(slots=True)
class BlockIndex:
    """The chunks of one dataset, by the range in their names."""

    _buckets: list[_Bucket] = field(default_factory=list)
    _firsts: list[str] = field(default_factory=list)
    _wider: list[int] | None = None  # bucket → the nearest one before it that reaches further, or -1

    @classmethod
    def of(cls, names: Iterable[str]) -> BlockIndex:
        """Make an index of names that pass `layout.is_chunk_dir`, each once."""
        ordered = sorted(names)
        buckets = [_Bucket(ordered[at : at + BUCKET]) for at in range(0, len(ordered), BUCKET)]
        return cls(buckets, [bucket.names[0] for bucket in buckets])

    @classmethod
    def of_buckets(cls, buckets: Sequence[Bucket], firsts: list[str]) -> BlockIndex:
        """Make an index that is not to be changed, of buckets in order, and the first name of each."""
        return cls(cast("list[_Bucket]", buckets), firsts)

    def __len__(self) -> int:
        return sum(len(bucket.names) for bucket in self._buckets)

    def __iter__(self) -> Iterator[str]:
        """Iterate over all names in order: by start, then end, then id."""
        for bucket in self._buckets:
            yield from bucket.names

    def add(self, name: str) -> None:
        """Add a name; do nothing where it is there already."""
        if not self._buckets:
            self._buckets.append(_Bucket([]))
        at = max(bisect_right(self._firsts, name) - 1, 0)
        bucket = self._buckets[at]
        i = bisect_left(bucket.names, name)
        if i < len(bucket.names) and bucket.names[i] == name:
            return
        bucket.names.insert(i, name)
        if bucket.reach:
            bucket.reach = max(bucket.reach, name[END])
        if len(bucket.names) > BUCKET:
            half = BUCKET // 2
            self._buckets.insert(at + 1, _Bucket(bucket.names[half:]))
            del bucket.names[half:]
            self._firsts.insert(at + 1, self._buckets[at + 1].names[0])
            bucket.reach = ""
        self._keep_up(at)

    def discard(self, name: str) -> None:
        """Discard a name; do nothing where it is not there."""
        at = bisect_right(self._firsts, name) - 1
        if at < 0:
            return
        bucket = self._buckets[at]
        i = bisect_left(bucket.names, name)
        if i == len(bucket.names) or bucket.names[i] != name:
            return
        del bucket.names[i]
        if bucket.names:
            bucket.reach = ""
            self._keep_up(at)
        else:
            del self._buckets[at], self._firsts[at]
            self._wider = None

    def find(self, block: int) -> str | None:
        """Return the name of the chunk that is responsible for `block`."""
        limit = _above(block)
        at = bisect_left(self._firsts, limit) - 1
        if at >= 0:
            names = self._buckets[at].names
            i = bisect_left(names, limit) - 1
            name = names[i]
            is_alone = i > 0 and names[i - 1][START] != name[START]  # else one with the same start may end before it
            if is_alone and name[END] > limit[START]:
                return name
        return next(self.candidates(block), None)

    def following(self, block: int) -> str | None:
        """Return the first name in order whose range begins behind `block`."""
        limit = _above(block)
        at = max(bisect_left(self._firsts, limit) - 1, 0)
        for bucket in self._buckets[at : at + 2]:
            i = bisect_left(bucket.names, limit)
            if i < len(bucket.names):
                return bucket.names[i]
        return None

    def candidates(self, block: int) -> Iterator[str]:
        """Yield the names of all chunks whose range holds `block`, the responsible one first.

        That is the one with the greatest start, then the smallest end, then the smallest id.
        """
        same: list[str] = []  # of one start, the responsible one last
        for name in self._reaching(block):
            if same and same[0][START] != name[START]:
                yield from reversed(same)
                same = []
            same.append(name)
        yield from reversed(same)

    def _reaching(self, block: int) -> Iterator[str]:
        """Yield the names of all chunks whose range holds `block`, from the last one in order to the first."""
        limit = _above(block)
        at = bisect_left(self._firsts, limit) - 1
        if at < 0:
            return
        i: int | None = bisect_left(self._buckets[at].names, limit) - 1
        while at >= 0:
            bucket = self._buckets[at]
            if bucket.measured() <= limit[START]:
                at = self._wider_than(at)
            else:
                names = bucket.names
                for j in range(len(names) - 1 if i is None else i, -1, -1):
                    if names[j][END] > limit[START]:
                        yield names[j]
                at -= 1
            i = None

    def _keep_up(self, at: int) -> None:
        self._firsts[at : at + 1] = [self._buckets[at].names[0]]
        self._wider = None

    def _wider_than(self, at: int) -> int:
        if self._wider is None:
            self._wider = []
            for i, bucket in enumerate(self._buckets):
                left = i - 1
                while left >= 0 and self._buckets[left].measured() <= bucket.measured():
                    left = self._wider[left]
                self._wider.append(left)
        return self._wider[at]


def _above(block: int) -> str:
    """Make what sorts behind every name that begins at `block`, and before all that begin later."""
    return f"{block:020d}."
