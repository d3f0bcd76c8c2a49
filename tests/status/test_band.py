"""Scaling: nothing is lost, however little room there is to draw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdm.model.layout import U64_MAX
from fsdm.status.band import cells, leading, marks
from fsdm.status.coverage import KINDS, Coverage, cover
from tests.support.maps import DATASET, _chunks, a_chunk, of_block

if TYPE_CHECKING:
    from fsdm.status.chunk_status import ChunkStatus


@given(_chunks(), st.integers(1, 90))
@settings(max_examples=300, deadline=None)
def test_a_cell_shows_what_matters_most_of_all_its_blocks(chunks: list[ChunkStatus], width: int) -> None:
    coverage = cover(DATASET, chunks)
    blocks = range(coverage.start, coverage.end)
    found = cells(coverage, width)
    assert len(found) == width
    for cell, kind in enumerate(found):
        low, high = cell * len(blocks) // width, (cell + 1) * len(blocks) // width
        in_it = [of_block(chunks, block)[0] for block in blocks[low : max(high, low + 1)]]
        assert kind == min(in_it, key=KINDS.index)
    if width >= len(blocks):
        assert {of_block(chunks, block)[0] for block in blocks} == set(found)


@given(_chunks(), st.integers(1, 90))
@settings(max_examples=300, deadline=None)
def test_marks_hold_every_segment_once_and_in_order_and_show_what_matters_most(
    chunks: list[ChunkStatus], parts: int
) -> None:
    coverage = cover(DATASET, chunks)
    found = marks(coverage, parts)
    assert [segment for mark in found for segment in mark.segments] == list(coverage.segments)
    assert len(found) <= 2 * parts + 1
    at = 0.0
    for mark in found:
        assert mark.left == pytest.approx(at)
        assert mark.kind == leading(mark.segments)
        assert len(mark.segments) == 1 or all(s.blocks * parts < _blocks(coverage) for s in mark.segments)
        at += mark.width
    assert at == pytest.approx(1)


def _blocks(coverage: Coverage) -> int:
    return coverage.end - coverage.start


def test_a_gap_of_one_block_among_all_of_u64_is_seen() -> None:
    middle = U64_MAX // 3
    coverage = cover(DATASET, [a_chunk(0, middle), a_chunk(middle + 1, U64_MAX)])
    assert cells(coverage, 10) == ["here"] * 3 + ["missing"] + ["here"] * 6
    assert [mark.kind for mark in marks(coverage, 600)] == ["here", "missing", "here"]


def test_every_gap_of_thousands_is_in_some_mark_that_shows_one() -> None:
    coverage = cover(DATASET, [a_chunk(10 * n, 10 * n + 9) for n in range(5000)])
    found = marks(coverage, 600)
    assert len(found) <= 600
    assert sum(s.kind == "missing" for mark in found if mark.kind == "missing" for s in mark.segments) == 4999


def test_what_is_drawn_as_one_knows_what_most_of_it_is() -> None:
    few_gaps, many_gaps = (cover(DATASET, [a_chunk(10 * n, 10 * n + blocks) for n in range(100)]) for blocks in (9, 1))
    assert {(mark.kind, mark.bulk) for mark in marks(few_gaps, 5)} == {("missing", "here")}
    assert {(mark.kind, mark.bulk) for mark in marks(many_gaps, 5)} == {("missing", "missing")}


def test_wide_segments_are_drawn_each_by_itself_where_they_are() -> None:
    coverage = cover(DATASET, [a_chunk(100, 125), a_chunk(125, 150, "wanted"), a_chunk(175, 200)])
    assert [(m.kind, m.left, m.width) for m in marks(coverage, 4)] == [
        ("here", 0, 0.25), ("coming", 0.25, 0.25), ("missing", 0.5, 0.25), ("here", 0.75, 0.25),
    ]  # fmt: skip


def test_a_single_block_fills_the_whole_width() -> None:
    coverage = cover(DATASET, [a_chunk(7, 8)])
    assert cells(coverage, 5) == ["here"] * 5
    assert [(m.left, m.width) for m in marks(coverage, 600)] == [(0, 1)]
