"""Which blocks of a dataset are here, coming, retiring, missing or doubly covered.

Pure. A block is of exactly one kind: *doubled* where more than one available chunk covers it, *here* where one does;
else what is to be expected of it: *coming*, then *failing*, then *retiring*. It is *missing* where no chunk covers it,
between the first and the last block that any chunk of the dataset covers.

Invariants: segments are half-open, in order, not empty, and leave no block out; the same kind by the same chunks is one
segment. There are fewer than two segments a chunk, and finding them costs O(n log n). Numbers are exact over all of u64
(`len` of such a range is none: `stop - start` is).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal

from fsdm.model.layout import U64_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fsdm.model.state import State
    from fsdm.status.chunk_status import ChunkStatus

Kind = Literal["missing", "doubled", "failing", "coming", "retiring", "here"]

KINDS: Final[tuple[Kind, ...]] = (
    "missing",
    "doubled",
    "failing",
    "coming",
    "retiring",
    "here",
)  # what matters most first

KIND_OF: Final[Mapping[State, Kind]] = {
    "available": "here",
    "wanted": "coming",
    "downloading": "coming",
    "waiting": "coming",
    "failed": "failing",
    "retiring": "retiring",
    "deleting": "retiring",
    "unready": "retiring",  # out of service, and wanted by nobody
}

# what decided, and how often that has changed: equal sights mean the same kind by the same chunks
_Sight = tuple[Kind, int]

NAMED: Final = 8  # a segment names so many of its chunks: what all name together must not grow with the square


@dataclass(frozen=True, slots=True)
class Segment:
    """The blocks `[start, end)`: their kind, how many chunks make them so, and the first ids of these."""

    kind: Kind
    start: int
    end: int
    depth: int
    chunk_ids: tuple[str, ...]

    @property
    def blocks(self) -> int:
        """How many there are: not `len`, which ends at 2^63."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Counters:
    """How much is of one kind. Chunks, and their bytes on disk, go by their own state: none is missing or doubled."""

    segments: int = 0
    blocks: int = 0
    chunks: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """One dataset: its segments in order, at least one; its chunks by id, by start; and the tally of each kind."""

    dataset_id: str
    segments: tuple[Segment, ...]
    chunks: Mapping[str, ChunkStatus]
    tallies: Mapping[Kind, Counters]

    @property
    def start(self) -> int:
        """The first block known."""
        return self.segments[0].start

    @property
    def end(self) -> int:
        """The block after the last one known."""
        return self.segments[-1].end

    @property
    def size_bytes(self) -> int:
        """What is on disk of all its chunks."""
        return sum(tally.size_bytes for tally in self.tallies.values())

    def of_kind(self, kind: Kind) -> list[Segment]:
        """The segments of one kind, in order."""
        return [segment for segment in self.segments if segment.kind == kind]


@dataclass(frozen=True, slots=True)
class Atlas:
    """All datasets, by id, and the chunks that stand in none: of which it is not known what blocks they cover."""

    coverages: tuple[Coverage, ...]
    unplaced: tuple[ChunkStatus, ...]

    @classmethod
    def of(cls, chunks: Iterable[ChunkStatus]) -> Atlas:
        """Every dataset's coverage by these chunks."""
        datasets: dict[str, list[ChunkStatus]] = {}
        unplaced = []
        for chunk in chunks:
            if chunk.dataset_id is None or not _is_placed(chunk.block_range):
                unplaced.append(chunk)
            else:
                datasets.setdefault(chunk.dataset_id, []).append(chunk)
        return cls(tuple(cover(name, found) for name, found in sorted(datasets.items())), tuple(unplaced))


def cover(dataset_id: str, chunks: Iterable[ChunkStatus]) -> Coverage:
    """The coverage of one dataset by at least one chunk, each with a range that is not empty and within u64."""
    by_id = {chunk.id: chunk for chunk in sorted(chunks, key=_by_block)}
    segments = tuple(_sweep(list(by_id.values())))
    tallies = {}
    for kind in KINDS:
        spans = [segment.blocks for segment in segments if segment.kind == kind]
        sizes = [chunk.size_bytes for chunk in by_id.values() if KIND_OF[chunk.state] == kind]
        tallies[kind] = Counters(len(spans), sum(spans), len(sizes), sum(sizes))
    return Coverage(dataset_id, segments, by_id, tallies)


def _is_placed(blocks: range | None) -> bool:
    """Whether that is a range that a chunk may have: a want that nobody has taken yet may say anything."""
    return blocks is not None and 0 <= blocks.start < blocks.stop <= U64_MAX


def _by_block(chunk: ChunkStatus) -> tuple[int, int, str]:
    blocks = chunk.block_range or range(0)
    return blocks.start, blocks.stop, chunk.id


def _sweep(chunks: Sequence[ChunkStatus]) -> Iterator[Segment]:
    """The segments: what looks the same from one look to the next is one."""
    for _, looks in groupby(_looks(chunks), key=itemgetter(0)):
        same = [segment for _, segment in looks]
        yield same[0] if len(same) == 1 else replace(same[0], end=same[-1].end)


def _looks(chunks: Sequence[ChunkStatus]) -> Iterator[tuple[_Sight, Segment]]:
    """What is seen between any two blocks where a chunk begins or ends: nothing changes in between."""
    line, since = _Line(), None
    for block, edges in groupby(sorted(_edges(chunks)), key=itemgetter(0)):
        if since is not None:
            yield line.look(since, block)
        for _, begins, number in edges:
            line.change(chunks[number], begins=begins)
        since = block


def _edges(chunks: Sequence[ChunkStatus]) -> Iterator[tuple[int, bool, int]]:
    for number, chunk in enumerate(chunks):
        blocks = chunk.block_range or range(0)
        yield blocks.start, True, number
        yield blocks.stop, False, number


class _Line:
    """The chunks over one block, by the kind that each would make it, in the order in which they began."""

    def __init__(self) -> None:
        # ordered by links: the first ones of a dict that has lost many at its front are far away
        self._over: dict[Kind, OrderedDict[str, None]] = {kind: OrderedDict() for kind in KINDS}
        self._changes: dict[Kind, int] = dict.fromkeys(KINDS, 0)

    def change(self, chunk: ChunkStatus, *, begins: bool) -> None:
        kind = KIND_OF[chunk.state]
        self._changes[kind] += 1
        if begins:
            self._over[kind][chunk.id] = None
        else:
            del self._over[kind][chunk.id]

    def look(self, start: int, end: int) -> tuple[_Sight, Segment]:
        """What is seen, and the segment as far as it is known: while the same is seen, it goes on."""
        by: Kind = next((kind for kind in ("here", "coming", "failing", "retiring") if self._over[kind]), "missing")
        over = self._over[by]
        kind: Kind = "doubled" if by == "here" and len(over) > 1 else by
        return (by, self._changes[by]), Segment(kind, start, end, len(over), tuple(islice(over, NAMED)))
