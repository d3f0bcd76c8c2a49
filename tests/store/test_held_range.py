"""Ranges of blocks: what is held covers just what is here, and the rest is told as gaps."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdm import Client
from fsdm.model.errors import ClosedError, InvalidInputError, NotAvailableError
from fsdm.model.layout import U64_MAX, Layout
from fsdm.store.held_range import HeldRange, hold
from tests.support import can_lock
from tests.support.chunks import put_chunk, touch_delete

DATASET = "d" * 64


class FakeRef:
    def __init__(self, blocks: range) -> None:
        self.block_range, self.closed = blocks, False

    def close(self) -> None:
        self.closed = True


def held_of(chunks: Iterable[range], blocks: range, *, whole: bool = False) -> HeldRange:
    """Hold blocks of chunks that are nowhere but in this list."""
    here = list(chunks)

    def find(block: int) -> Any:
        over = [chunk for chunk in here if block in chunk]
        return FakeRef(max(over, key=lambda chunk: (chunk.start, -chunk.stop))) if over else None

    def next_start(block: int) -> int | None:
        return min((chunk.start for chunk in here if chunk.start > block), default=None)

    return hold(blocks, find, next_start, whole=whole)


a_range = st.builds(lambda start, length: range(start, start + length), st.integers(0, 40), st.integers(1, 15))


@given(st.lists(a_range, max_size=12), a_range)
def test_refs_cover_all_that_is_here_and_gaps_just_the_rest(chunks: list[range], blocks: range) -> None:
    held = held_of(chunks, blocks)
    covered = {block for ref in held.refs for block in ref.block_range} & set(blocks)
    missing = [block for gap in held.gaps for block in gap]
    assert covered == {block for block in blocks if any(block in chunk for chunk in chunks)}
    assert missing == [block for block in blocks if block not in covered]
    assert all(gap.start < gap.stop for gap in held.gaps)
    assert all(one.stop < other.start for one, other in zip(held.gaps, held.gaps[1:], strict=False))
    stops = [ref.block_range.stop for ref in held.refs]
    assert stops == sorted(set(stops)), "each brings blocks that those before it do not have"


@pytest.fixture
def client(layout: Layout) -> Client:
    return Client(layout.root)


def test_a_range_is_held_until_its_end(client: Client, layout: Layout) -> None:
    places = [put_chunk(layout, start=start, end=start + 10) for start in (0, 10, 30)]
    with client.hold_range(DATASET, 5, 50) as held:
        assert [ref.id for ref in held.refs] == [place.chunk_id for place in places]
        assert held.paths == [Path(layout.path(place), "data") for place in places]
        assert held.gaps == (range(20, 30), range(40, 50))
        assert not any(can_lock(layout.path(place)) for place in places)
    assert all(can_lock(layout.path(place)) for place in places)
    with pytest.raises(ClosedError):
        _ = held.refs[0].path


def test_all_of_it_or_nothing(client: Client, layout: Layout) -> None:
    places = [put_chunk(layout, start=start, end=start + 10) for start in (0, 10, 30)]
    with pytest.raises(NotAvailableError, match=r"holds \[20, 30\), \[40, 41\)$") as caught:
        client.hold_range(DATASET, 0, 41, whole=True)
    assert all(can_lock(layout.path(place)) for place in places), "also while the error keeps its frames"
    assert caught.value.hint
    with client.hold_range(DATASET, 0, 20, whole=True) as held:
        assert (len(held.refs), held.gaps) == (2, ())


def test_what_is_deleted_is_a_gap_and_an_error_on_the_way_holds_nothing(
    client: Client, layout: Layout, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (put_chunk(layout, start=start, end=start + 10) for start in (0, 10))
    touch_delete(data_dir, other.chunk_id)
    with client.hold_range(DATASET, 0, 20) as held:
        assert held.gaps == (range(10, 20),)
    find = client.find_chunk

    def fails_at_ten(dataset_id: str | bytes, block: int) -> Any:
        if block == 10:
            raise KeyboardInterrupt
        return find(dataset_id, block)

    monkeypatch.setattr(client, "find_chunk", fails_at_ten)
    with pytest.raises(KeyboardInterrupt):
        client.hold_range(DATASET, 0, 20)
    assert can_lock(layout.path(one))


@pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5), (-1, 5), (0, U64_MAX + 1), ("0", 5), (0, None)])
def test_what_is_no_range_is_refused(client: Client, start: Any, end: Any) -> None:
    with pytest.raises(InvalidInputError, match="must be a range within"):
        client.hold_range(DATASET, start, end)


def test_a_chunk_is_held_or_it_is_an_error(client: Client, layout: Layout) -> None:
    place = put_chunk(layout)
    with client.hold_chunk(cast("str", bytes.fromhex(DATASET)), 3) as ref:
        assert ref.id == place.chunk_id
    with pytest.raises(NotAvailableError, match=f"^no available chunk of {DATASET} holds block 10$"):
        client.hold_chunk(DATASET, 10)
