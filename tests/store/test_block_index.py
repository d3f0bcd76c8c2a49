"""The index against a brute-force model: for any ranges, any order of changes, any block."""

import hashlib
from collections.abc import Iterable
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fsdm.model.layout import U64_MAX, Place
from fsdm.store import block_index as module
from fsdm.store.block_index import BUCKET, BlockIndex

DATASET = "d" * 64
IDS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(3)]


def _place(start: int, end: int, chunk_id: str = IDS[0]) -> str:
    return Place.of(DATASET, range(start, end), chunk_id).name


def _blocks(name: str) -> range:
    return Place(DATASET, name).block_range


def _in_order(names: Iterable[str]) -> list[str]:
    """Return names with the responsible one first."""
    return sorted(names, key=lambda name: (-_blocks(name).start, _blocks(name).stop, name[42:]))


def _agrees(index: BlockIndex, places: set[str], blocks: Iterable[int]) -> None:
    assert len(index) == len(places)
    assert list(index) == sorted(places)
    for block in blocks:
        expected = _in_order(name for name in places if block in _blocks(name))
        assert list(index.candidates(block)) == expected
        assert index.find(block) == (expected[0] if expected else None)
        assert index.following(block) == min((name for name in places if _blocks(name).start > block), default=None)


@st.composite
def _places(draw: st.DrawFn) -> str:
    """Draw places over few blocks, so that ranges overlap, nest and tie."""
    start = draw(st.integers(0, 30))
    return _place(start, start + draw(st.integers(1, 4) | st.integers(1, 40)), draw(st.sampled_from(IDS)))


@given(st.sets(_places(), max_size=60), st.integers(2, 5))
@settings(max_examples=250, deadline=None)
def test_an_index_answers_as_a_walk_over_all_ranges_does(places: set[str], bucket: int) -> None:
    with patch.object(module, "BUCKET", bucket):  # so small that there are many
        _agrees(BlockIndex.of(places), places, range(-1, 72))


class Changes(RuleBasedStateMachine):
    """Adds and discards in any order, with buckets so small that they split, empty and vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.index = BlockIndex()
        self.patch = patch.object(module, "BUCKET", 3)
        self.patch.start()

    def teardown(self) -> None:
        self.patch.stop()

    @rule(places=st.lists(_places(), min_size=1, max_size=8))
    def add(self, places: list[str]) -> None:
        for place in places:
            self.index.add(place)
            self.places.add(place)

    @rule(place=_places())
    def discard_any(self, place: str) -> None:
        self.index.discard(place)
        self.places.discard(place)

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def discard_some(self, data: st.DataObject) -> None:
        for place in data.draw(st.lists(st.sampled_from(sorted(self.places)), min_size=1, max_size=8)):
            self.index.discard(place)
            self.places.discard(place)

    @rule()
    def begin_again(self) -> None:
        self.index = BlockIndex.of(self.places)

    @invariant()
    def it_answers_as_the_model(self) -> None:
        _agrees(self.index, self.places, range(0, 72, 3))
        assert all(0 < len(bucket.names) <= 3 for bucket in self.index._buckets)


test_an_index_that_changes_answers_as_one_made_afresh = Changes.TestCase
test_an_index_that_changes_answers_as_one_made_afresh.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None
)


def test_the_borders_of_u64_are_blocks_like_others() -> None:
    first, last = _place(0, 1), _place(U64_MAX - 1, U64_MAX)
    index = BlockIndex.of([first, last])
    assert [index.find(block) for block in (0, 1, U64_MAX - 2, U64_MAX - 1, U64_MAX)] == [first, None, None, last, None]


def test_what_reaches_over_many_buckets_of_the_real_size_is_found() -> None:
    narrow = [_place(2 * n, 2 * n + 1) for n in range(3 * BUCKET)]
    wide, wider = _place(1, 4 * BUCKET), _place(0, 6 * BUCKET, IDS[1])
    index = BlockIndex.of(narrow)
    assert len(index._buckets) == 3
    assert index.find(2 * BUCKET + 1) is None
    for place in (wide, wider):
        index.add(place)
    blocks = [0, 1, 2, 3, BUCKET, BUCKET + 1, 4 * BUCKET - 1, 4 * BUCKET, 4 * BUCKET + 1, 6 * BUCKET - 1, 6 * BUCKET]
    _agrees(index, {*narrow, wide, wider}, blocks)
    index.discard(wider)
    _agrees(index, {*narrow, wide}, blocks)


@pytest.mark.parametrize("end", [None, 30 * BUCKET])
def test_a_lookup_steps_over_buckets_that_end_before_the_block(end: int | None) -> None:
    places = [_place(0, 10**6), *(_place(n, end or n + 1) for n in range(1, 20 * BUCKET))]
    index = BlockIndex.of(places)
    seen: list[int] = []

    class Seen(list):  # type: ignore[type-arg]
        def __getitem__(self, at):  # type: ignore[no-untyped-def]
            seen.append(at)
            return super().__getitem__(at)

    assert index.find(10**5) == places[0]  # what is nested is measured once
    index._buckets = Seen(index._buckets)
    assert index.find(10**5) == places[0]
    assert len(seen) <= 5, "it walked through the buckets"
