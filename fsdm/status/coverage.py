"""Coverage of datasets: which blocks are here, coming, retiring, missing, doubly covered.

A block is *doubled* where several available chunks cover it, *here* where one does; else what is to be expected of it:
*coming*, then *failing*, then *retiring*, then *known* (registered); or *missing*, between the first and the last block
that any chunk covers.

Invariants: segments are half-open, in order, not empty, and leave no block out; the same kind by the same chunks is one
segment: fewer than two a chunk, in O(n log n). Numbers are exact over all of u64, where `len` of a range is none. Every
block is in a cell and in a mark of the kind that matters most of those in them: a gap among millions is seen.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from fsdm.model.errors import NotAvailableError
from fsdm.model.layout import U64_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fsdm.model.state import Standing
    from fsdm.status.chunk_status import ChunkStatus

Kind = Literal["missing", "doubled", "failing", "coming", "retiring", "known", "here"]

# the kind that matters most comes first
KINDS: Final[tuple[Kind, ...]] = ("missing", "doubled", "failing", "coming", "retiring", "known", "here")

KIND_OF: Final[Mapping[Standing, Kind]] = {
    "available": "here",
    "wanted": "coming",
    "downloading": "coming",
    "waiting": "coming",
    "failed": "failing",
    "retiring": "retiring",
    "deleting": "retiring",
    "unready": "retiring",  # out of service, and not wanted
    "known": "known",
}

NAMED: Final = 8  # a segment names so many of its chunks: what all name together must not grow with the square
_PRECEDENCE: Final[tuple[Kind, ...]] = ("here", "coming", "failing", "retiring", "known")


@dataclass(frozen=True, slots=True)
class Segment:
    """The blocks `[start, end)`, how many chunks make them of their kind, and the first ids."""

    kind: Kind
    start: int
    end: int
    depth: int
    chunk_ids: tuple[str, ...]

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Amount:
    """The amount of one kind. Chunks and bytes go by state: none is missing or doubled."""

    segments: int = 0
    blocks: int = 0
    chunks: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """One dataset: its segments in order, its chunks by start, the amount of each kind."""

    dataset_id: str
    segments: tuple[Segment, ...]
    chunks: Mapping[str, ChunkStatus]
    amounts: Mapping[Kind, Amount]
    name: str | None = None

    @property
    def title(self) -> str:
        """Its name, where it has one, and its id."""
        return self.dataset_id if self.name is None else f"{self.name} ({self.dataset_id})"

    @property
    def start(self) -> int:
        """The first block known."""
        return self.segments[0].start

    @property
    def end(self) -> int:
        """The block after the last one known."""
        return self.segments[-1].end

    @property
    def blocks(self) -> int:
        """The number of blocks from the first to the last one known."""
        return self.end - self.start

    @property
    def size_bytes(self) -> int:
        """The bytes on disk of all its chunks."""
        return sum(amount.size_bytes for amount in self.amounts.values())

    def of_kind(self, kind: Kind) -> list[Segment]:
        """List the segments of one kind, in order."""
        return [segment for segment in self.segments if segment.kind == kind]


@dataclass(frozen=True, slots=True)
class CoverageMap:
    """The coverage of all datasets, by id, and the chunks whose blocks are not known."""

    coverages: tuple[Coverage, ...]
    unplaced: tuple[ChunkStatus, ...]

    @classmethod
    def of(cls, chunks: Iterable[ChunkStatus], names: Mapping[str, str] = MappingProxyType({})) -> CoverageMap:
        """Cover all datasets; `names` are those of datasets by id."""
        datasets: dict[str, list[ChunkStatus]] = {}
        unplaced = []
        for chunk in chunks:
            if chunk.dataset_id is not None and is_placed(chunk):
                datasets.setdefault(chunk.dataset_id, []).append(chunk)
            else:
                unplaced.append(chunk)
        covered = (replace(cover(one, found), name=names.get(one)) for one, found in sorted(datasets.items()))
        return cls(tuple(covered), tuple(unplaced))

    def only(self, dataset_id: str) -> CoverageMap:
        """Return the map of one dataset alone.

        Raises:
            NotAvailableError: nothing is known of it.
        """
        found = tuple(coverage for coverage in self.coverages if coverage.dataset_id == dataset_id)
        if not found:
            hint = "fsdm map, without it, shows all"
            raise NotAvailableError(f"nothing is known of a dataset {dataset_id}", hint=hint)
        return CoverageMap(found, ())


def is_placed(chunk: ChunkStatus) -> bool:
    """Return whether the chunk's blocks are known and can be: a want may say anything."""
    blocks = chunk.block_range
    return chunk.dataset_id is not None and blocks is not None and 0 <= blocks.start < blocks.stop <= U64_MAX


def cover(dataset_id: str, chunks: Iterable[ChunkStatus]) -> Coverage:
    """Cover one dataset by at least one chunk, each with a non-empty range within u64."""
    ordered = sorted(chunks, key=lambda chunk: (*_ends(chunk), chunk.id))
    by_id = {chunk.id: chunk for chunk in ordered}
    segments = tuple(_segments(ordered))
    spans, sizes = Counter[Kind](), Counter[Kind]()
    for segment in segments:
        spans[segment.kind] += segment.blocks
    for chunk in by_id.values():
        sizes[KIND_OF[chunk.state]] += chunk.size_bytes
    pieces, chunks_of = Counter(s.kind for s in segments), Counter(KIND_OF[c.state] for c in by_id.values())
    amounts = {kind: Amount(pieces[kind], spans[kind], chunks_of[kind], sizes[kind]) for kind in KINDS}
    return Coverage(dataset_id, segments, by_id, amounts)


def _segments(chunks: Sequence[ChunkStatus]) -> Iterator[Segment]:
    """Divide chunks, by start, into those that overlap; where one stands alone there is nothing to sweep."""
    at, reached = 0, None
    while at < len(chunks):
        chunk = chunks[at]
        start, end = _ends(chunk)
        if reached is not None and reached < start:
            yield Segment("missing", reached, start, 0, ())
        to = at + 1
        while to < len(chunks) and (following := _ends(chunks[to]))[0] < end:
            end = max(end, following[1])
            to += 1
        if to == at + 1:
            yield Segment(KIND_OF[chunk.state], start, end, 1, (chunk.id,))
        else:
            yield from _sweep(chunks[at:to])
        at, reached = to, end


def _ends(chunk: ChunkStatus) -> tuple[int, int]:
    blocks = chunk.block_range or range(0)
    return blocks.start, blocks.stop


def _sweep(chunks: Sequence[ChunkStatus]) -> list[Segment]:
    """Go to each block where a chunk begins or ends; between two of them nothing changes."""
    # ordered by links: the first ones of a dict that has lost many at its front are far away
    over: dict[Kind, OrderedDict[str, None]] = {kind: OrderedDict() for kind in KINDS}
    changes: dict[Kind, int] = dict.fromkeys(KINDS, 0)
    segments: list[Segment] = []
    seen, since = None, 0
    ends = [(number, *_ends(chunk)) for number, chunk in enumerate(chunks)]
    sides = [(start, True, number) for number, start, _ in ends] + [(end, False, number) for number, _, end in ends]
    for block, edges in groupby(sorted(sides), key=itemgetter(0)):
        by: Kind = next((kind for kind in _PRECEDENCE if over[kind]), "missing")
        if seen == (by, changes[by]):
            segments[-1] = replace(segments[-1], end=block)  # the same kind by the same chunks
        elif seen is not None:
            kind: Kind = "doubled" if by == "here" and len(over[by]) > 1 else by
            segments.append(Segment(kind, since, block, len(over[by]), tuple(islice(over[by], NAMED))))
        seen, since = (by, changes[by]), block
        for _, begins, number in edges:
            chunk = chunks[number]
            of = KIND_OF[chunk.state]
            changes[of] += 1
            if begins:
                over[of][chunk.id] = None
            else:
                del over[of][chunk.id]
    return segments


@dataclass(frozen=True, slots=True)
class Mark:
    """Segments that are drawn as one; `left` and `width` are parts of the whole, from 0 to 1."""

    left: float
    width: float
    segments: tuple[Segment, ...]

    @property
    def kind(self) -> Kind:
        """The kind that matters most of them."""
        return leading(self.segments)

    @property
    def bulk(self) -> Kind:
        """The kind of most of its blocks: it may be another than what matters most."""
        return max(KINDS, key=lambda kind: sum(segment.blocks for segment in self.segments if segment.kind == kind))


def leading(segments: Iterable[Segment]) -> Kind:
    """Tell the kind that matters most of these."""
    return min((segment.kind for segment in segments), key=KINDS.index)


def cells(coverage: Coverage, width: int) -> list[Kind]:
    """Tell the kind of each of `width` cells; a block may have several."""
    start, blocks, segments = coverage.start, coverage.blocks, coverage.segments
    found, at = [], 0
    for cell in range(width):
        while segments[at].end <= start + cell * blocks // width:
            at += 1
        to = at
        while segments[to].end < start + (cell + 1) * blocks // width:
            to += 1
        found.append(leading(segments[at : to + 1]))
        at = to
    return found


def marks(coverage: Coverage, parts: int) -> list[Mark]:
    """List what to draw; neighbours narrower than a `parts`th of the width are drawn as one."""
    start, blocks = coverage.start, coverage.blocks
    drawn: list[list[Segment]] = []
    for narrow, side_by_side in groupby(coverage.segments, key=lambda segment: segment.blocks * parts < blocks):
        together: list[Segment] = []
        for segment in side_by_side:
            if not together:
                drawn.append(together)
            together.append(segment)
            if not narrow or (segment.end - together[0].start) * parts >= blocks:
                together = []
    return [
        Mark((segments[0].start - start) / blocks, (segments[-1].end - segments[0].start) / blocks, tuple(segments))
        for segments in drawn
    ]
