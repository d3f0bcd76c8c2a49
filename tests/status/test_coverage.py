"""Coverage against a model that looks at every block by itself, and at the ends of u64."""

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdm.model.layout import U64_MAX
from fsdm.model.state import Standing
from fsdm.status import coverage as module
from fsdm.status.chunk_status import ChunkStatus
from fsdm.status.coverage import KINDS, NAMED, Amount, Coverage, CoverageMap, Kind, cells, cover, marks
from tests.support.chunks import an_id
from tests.support.maps import DATASET, a_chunk, of_block, some_chunks


def spans(coverage: Coverage) -> list[tuple[Kind, int, int]]:
    return [(segment.kind, segment.start, segment.end) for segment in coverage.segments]


@given(some_chunks(), st.integers(1, 3))
@settings(max_examples=400, deadline=None)
def test_every_block_is_of_the_kind_that_a_look_at_it_alone_says(chunks: list[ChunkStatus], named: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NAMED", named)
        coverage = cover(DATASET, chunks)
    blocks = [chunk.block_range for chunk in chunks if chunk.block_range is not None]
    assert (coverage.start, coverage.end) == (min(b.start for b in blocks), max(b.stop for b in blocks))
    at = coverage.start
    for segment in coverage.segments:
        assert segment.start == at < segment.end
        at = segment.end
        for block in range(segment.start, segment.end):
            kind, ids = of_block(chunks, block)
            assert (segment.kind, segment.depth) == (kind, len(ids))
            assert set(segment.chunk_ids) <= set(ids)
            assert len(segment.chunk_ids) == min(named, len(ids))
    assert at == coverage.end


@given(some_chunks())
@settings(max_examples=400, deadline=None)
def test_a_segment_ends_only_where_its_kind_or_its_chunks_do(chunks: list[ChunkStatus]) -> None:
    coverage = cover(DATASET, chunks)
    assert len(coverage.segments) < 2 * len(chunks)
    for segment in coverage.segments[:-1]:
        kind, ids = of_block(chunks, segment.end - 1)
        next_kind, next_ids = of_block(chunks, segment.end)
        assert (kind, set(ids)) != (next_kind, set(next_ids))


@given(some_chunks())
@settings(max_examples=200, deadline=None)
def test_amounts_add_up_to_what_is_there(chunks: list[ChunkStatus]) -> None:
    coverage = cover(DATASET, chunks)
    amounts = coverage.amounts
    assert list(amounts) == list(KINDS)
    assert sum(amount.segments for amount in amounts.values()) == len(coverage.segments)
    assert sum(amount.blocks for amount in amounts.values()) == coverage.end - coverage.start
    assert sum(amount.chunks for amount in amounts.values()) == len(chunks)
    assert coverage.size_bytes == sum(chunk.size_bytes for chunk in chunks)
    for kind in KINDS:
        found = coverage.of_kind(kind)
        assert (amounts[kind].segments, amounts[kind].blocks) == (len(found), sum(s.blocks for s in found))


@given(some_chunks(), st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_order_in_which_chunks_are_told_makes_no_difference(chunks: list[ChunkStatus], random: object) -> None:
    shuffled = list(chunks)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert cover(DATASET, shuffled) == cover(DATASET, chunks)


def test_every_state_has_a_kind() -> None:
    assert set(module.KIND_OF) == set(get_args(Standing))
    assert set(KINDS) == set(get_args(Kind))


def test_chunks_that_touch_are_two_segments_without_a_gap() -> None:
    first, second = a_chunk(0, 10), a_chunk(10, 20)
    segments = [module.Segment("here", *ends, 1, (one.id,)) for one, ends in ((first, (0, 10)), (second, (10, 20)))]
    assert list(cover(DATASET, [second, first]).segments) == segments


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([(0, 10), (11, 20)], [("here", 0, 10), ("missing", 10, 11), ("here", 11, 20)]),
        ([(0, 30), (10, 20, "downloading")], [("here", 0, 30)]),
        ([(0, 30), (0, 30, "downloading")], [("here", 0, 30)]),
        ([(0, 30), (0, 30)], [("doubled", 0, 30)]),
        ([(0, 30, "retiring"), (0, 30)], [("here", 0, 30)]),
        ([(0, 30, "retiring"), (0, 30, "downloading")], [("coming", 0, 30)]),
        ([(0, 30, "retiring"), (0, 30, "failed")], [("failing", 0, 30)]),
        ([(0, 30, "unready"), (0, 30, "retiring")], [("retiring", 0, 30)]),
    ],
    ids=[
        "a gap of one block", "coming over here", "replaced: coming", "replaced: both here", "replaced: old retiring",
        "retiring and coming", "retiring and failing", "unready and retiring",
    ],
)  # fmt: skip
def test_a_block_is_of_the_kind_that_counts_most(chunks: list[Any], expected: list[tuple[Kind, int, int]]) -> None:
    assert spans(cover(DATASET, [a_chunk(*chunk) for chunk in chunks])) == expected


def test_ranges_up_to_the_end_of_u64_are_exact() -> None:
    last = U64_MAX - 1
    coverage = cover(DATASET, [a_chunk(0, 1, size=7), a_chunk(last, U64_MAX, "wanted")])
    assert spans(coverage) == [("here", 0, 1), ("missing", 1, last), ("coming", last, U64_MAX)]
    assert coverage.amounts["missing"] == Amount(segments=1, blocks=last - 1)
    assert coverage.amounts["here"] == Amount(segments=1, blocks=1, chunks=1, size_bytes=7)


def test_datasets_are_covered_each_by_itself_in_the_order_of_their_ids() -> None:
    found = CoverageMap.of([a_chunk(*ends, dataset_id=c * 64) for c, *ends in (("b", 5, 9), ("a", 0, 2), ("b", 0, 1))])
    assert [(c.dataset_id, c.start, c.end) for c in found.coverages] == [("a" * 64, 0, 2), ("b" * 64, 0, 9)]
    assert found.unplaced == ()


@pytest.mark.parametrize("blocks", [None, range(5, 5), range(9, 5), range(-1, 5), range(U64_MAX, U64_MAX + 1)])
def test_a_chunk_without_a_range_that_can_be_is_left_aside_and_told(blocks: range | None) -> None:
    chunk = ChunkStatus(an_id(), "failed", DATASET, blocks)
    here = a_chunk(0, 5)
    found = CoverageMap.of([chunk, here])
    assert found.unplaced == (chunk,)
    assert list(found.coverages[0].chunks) == [here.id]


def test_a_chunk_of_no_known_dataset_is_left_aside_and_told() -> None:
    chunk = ChunkStatus(an_id(), "deleting")
    assert CoverageMap.of([chunk]) == CoverageMap((), (chunk,))


def test_thousands_of_chunks_over_each_other_are_named_by_a_few() -> None:
    count = 5000
    nested = [a_chunk(n, 2 * count - n) for n in range(count)]
    coverage = cover(DATASET, nested)
    assert len(coverage.segments) == 2 * count - 1
    assert max(segment.depth for segment in coverage.segments) == count
    assert sum(len(segment.chunk_ids) for segment in coverage.segments) <= NAMED * len(coverage.segments)


def test_the_chunks_named_are_those_that_begin_first() -> None:
    chunks = [a_chunk(n, 100 - n) for n in range(NAMED + 5)]
    middle = next(s for s in cover(DATASET, chunks).segments if s.depth == NAMED + 5)
    assert middle.chunk_ids == tuple(chunk.id for chunk in chunks[:NAMED])


@given(some_chunks(), st.integers(1, 90))
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


@given(some_chunks(), st.integers(1, 90))
@settings(max_examples=300, deadline=None)
def test_marks_hold_each_segment_once_and_show_what_matters(chunks: list[ChunkStatus], parts: int) -> None:
    coverage = cover(DATASET, chunks)
    found = marks(coverage, parts)
    assert [segment for mark in found for segment in mark.segments] == list(coverage.segments)
    assert len(found) <= 2 * parts + 1
    at = 0.0
    for mark in found:
        assert mark.left == pytest.approx(at)
        assert mark.kind == module.leading(mark.segments)
        assert len(mark.segments) == 1 or all(s.blocks * parts < coverage.blocks for s in mark.segments)
        at += mark.width
    assert at == pytest.approx(1)


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
