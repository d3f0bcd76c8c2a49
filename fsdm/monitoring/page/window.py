"""A part of a dataset's coverage, to be drawn larger. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsdm.status.coverage import Coverage


def window(coverage: Coverage, start: int | None, end: int | None) -> Coverage:
    """Cut the segments to the blocks `[start, end)`, as far as these are known; never to less than one block.

    What is said of chunks and of amounts stays that of the whole.
    """
    first = min(max(coverage.start if start is None else start, coverage.start), coverage.end - 1)
    last = max(min(coverage.end if end is None else end, coverage.end), first + 1)
    cut = [
        replace(segment, start=max(segment.start, first), end=min(segment.end, last))
        for segment in coverage.segments
        if segment.start < last and segment.end > first
    ]
    return replace(coverage, segments=tuple(cut))
