"""Segments scaled to what can be drawn: to the cells of a terminal, or to marks across a picture.

Pure. Invariant: nothing is lost in scaling. Every block stands in a cell and in a mark, and these have the kind that
matters most of those in them: so a gap of one block among millions is seen. Numbers are exact until the last division.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from fsdm.status.coverage import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fsdm.status.coverage import Coverage, Kind, Segment

_RANK: Final = {kind: rank for rank, kind in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class Mark:
    """Segments that are drawn as one, side by side, from `left` on: both are parts of the whole width, from 0 to 1."""

    kind: Kind
    left: float
    width: float
    segments: tuple[Segment, ...]

    @property
    def bulk(self) -> Kind:
        """The kind of most of its blocks: it may be another than what matters most."""
        return max(KINDS, key=lambda kind: sum(segment.blocks for segment in self.segments if segment.kind == kind))


def leading(segments: Iterable[Segment]) -> Kind:
    """The kind that matters most of these."""
    return min((segment.kind for segment in segments), key=_RANK.__getitem__)


def cells(coverage: Coverage, width: int) -> list[Kind]:
    """The kind of each of `width` cells; where there are more cells than blocks, a block has several."""
    start, blocks, segments = coverage.start, coverage.end - coverage.start, coverage.segments
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
    """What to draw, from left to right: neighbours of less than a `parts`th of the width are drawn as one."""
    start, blocks = coverage.start, coverage.end - coverage.start
    return [
        Mark(leading(drawn), (drawn[0].start - start) / blocks, (drawn[-1].end - drawn[0].start) / blocks, tuple(drawn))
        for drawn in _drawn(coverage.segments, blocks, parts)
    ]


def _drawn(segments: Iterable[Segment], blocks: int, parts: int) -> Iterator[list[Segment]]:
    for narrow, side_by_side in groupby(segments, key=lambda segment: segment.blocks * parts < blocks):
        together: list[Segment] = []
        for segment in side_by_side:
            together.append(segment)
            if not narrow or (segment.end - together[0].start) * parts >= blocks:
                yield together
                together = []
        if together:
            yield together
