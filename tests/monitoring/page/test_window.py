"""A part of a coverage: the same blocks, of the same kinds, in order."""

from hypothesis import given
from hypothesis import strategies as st

from fsdm.model.layout import U64_MAX
from fsdm.monitoring.page.window import window
from fsdm.status.chunk_status import ChunkStatus
from fsdm.status.coverage import cover
from tests.support.maps import DATASET, a_chunk, of_block, some_chunks


@given(some_chunks(), st.integers(-5, 60), st.integers(-5, 60))
def test_window_has_just_its_blocks_each_of_its_kind(chunks: list[ChunkStatus], start: int, end: int) -> None:
    whole = cover(DATASET, chunks)
    shown = window(whole, start, end)
    assert whole.start <= shown.start < shown.end <= whole.end
    assert shown.end - shown.start >= 1
    if whole.start <= start < end <= whole.end:
        assert (shown.start, shown.end) == (start, end)
    at = shown.start
    for segment in shown.segments:
        assert segment.start == at < segment.end
        assert {of_block(chunks, block)[0] for block in range(segment.start, segment.end)} == {segment.kind}
        at = segment.end
    assert at == shown.end
    assert (shown.amounts, shown.chunks) == (whole.amounts, whole.chunks)


def test_without_bounds_it_is_the_whole_also_at_the_end_of_u64() -> None:
    whole = cover(DATASET, [a_chunk(U64_MAX - 3, U64_MAX), a_chunk(0, 1)])
    assert window(whole, None, None) == whole
    assert window(whole, U64_MAX - 1, None).blocks == 1
