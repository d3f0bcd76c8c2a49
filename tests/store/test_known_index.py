"""Registered chunks are found by a block, the same with `known.names` as without, whatever has changed since."""

import os
import random
from pathlib import Path
from unittest.mock import Mock

import pytest

import fsdm.store.known_index
from fsdm import DataChunk
from fsdm.model.layout import Layout, Place
from fsdm.store.block_index import BUCKET
from fsdm.store.known_index import KnownIndex
from fsdm.store.known_names import NEVER_NS, KnownNames, place_in, write_names
from fsdm.store.markers import place_known
from tests.support import eventually
from tests.support.chunks import a_want, an_id

DATASETS = ("d" * 64, "e" * 64)


def register(layout: Layout, start: int, end: int, *, dataset: str = DATASETS[0], chunk_id: str = "") -> DataChunk:
    chunk = a_want(id=chunk_id or an_id(), dataset_id=dataset, block_range=(start, end))
    place_known(layout, chunk, exclusive=False)
    return chunk


def make_names(layout: Layout) -> KnownNames:
    """Make the file at a moment at which it can tell what it is of."""
    for _ in range(1000):
        write_names(layout)
        names = KnownNames.open(layout.known_names)
        assert names is not None
        if names.mtime_ns != NEVER_NS:
            return names
    raise AssertionError("known/ is never at rest")


def found(index: KnownIndex, block: int, dataset: str = DATASETS[0]) -> set[str]:
    return {place.chunk_id for place in index.candidates(dataset, block)}


def test_all_ranges_around_a_block_are_found_with_the_file_as_without(layout: Layout) -> None:
    rng = random.Random(7)
    places = set()
    for _ in range(3 * BUCKET):
        start = rng.randrange(1000)
        width = rng.choice([1, 5, 900])
        places.add(register(layout, start, start + width, dataset=rng.choice(DATASETS)).place)
    read, named = KnownIndex(layout), KnownIndex(layout)
    for dataset in DATASETS:  # read before there is a file
        read.candidates(dataset, 0)
    make_names(layout)
    for dataset in (*DATASETS, "f" * 64):
        for block in range(0, 2000, 7):
            expected = {place for place in places if place.dataset_id == dataset and block in place.block_range}
            assert set(read.candidates(dataset, block)) == set(named.candidates(dataset, block)) == expected


def test_nothing_is_read_nor_listed_where_the_file_names_all(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = register(layout, 0, 10)
    make_names(layout)
    monkeypatch.setattr(fsdm.store.known_index, "listed", Mock(side_effect=AssertionError("it is listed")))
    monkeypatch.setattr(fsdm.store.known_index, "place_in", Mock(side_effect=AssertionError("it is read")))
    index = KnownIndex(layout)
    assert [found(index, block) for block in (0, 9, 10)] == [{chunk.id}, {chunk.id}, set()]


def test_only_what_has_come_since_is_read(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    old = register(layout, 0, 10)
    make_names(layout)
    new = register(layout, 5, 15)
    glance = Mock(side_effect=place_in)
    monkeypatch.setattr(fsdm.store.known_index, "place_in", glance)
    index = KnownIndex(layout)
    assert found(index, 7) == {old.id, new.id}
    assert [call.args[1] for call in glance.call_args_list] == [new.id]
    make_names(layout)
    later = register(layout, 20, 30)
    eventually(lambda: found(index, 25) == {later.id})
    assert found(index, 7) == {old.id, new.id}


def test_what_the_file_says_wrongly_is_corrected_also_where_it_comes_again(layout: Layout) -> None:
    moved, gone = register(layout, 0, 10), register(layout, 0, 10)
    make_names(layout)
    index = KnownIndex(layout)
    assert found(index, 5) == {moved.id, gone.id}
    register(layout, 100, 110, chunk_id=moved.id)
    os.unlink(layout.known_marker(gone.id))
    for chunk_id in (moved.id, gone.id):
        index.correct(chunk_id)
    assert found(index, 5) == set()
    assert found(index, 105) == {moved.id}
    register(layout, 0, 10, chunk_id=gone.id)
    assert found(index, 5) == {gone.id}


def test_the_file_is_made_of_the_last_one_and_of_what_changed_since(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, moved, gone = (register(layout, 0, 10) for _ in range(3))
    for chunk in (kept, moved, gone):
        os.utime(layout.known_marker(chunk.id))
    make_names(layout)
    monkeypatch.setattr("fsdm.store.known_names.SETTLED_NS", 0)
    make_names(layout)  # all of it is older by now than what was read, and what comes is to be newer
    probe, read_ns = Path(layout.root, "probe"), os.stat(layout.known_names).st_ctime_ns
    eventually(lambda: probe.touch() or probe.stat().st_ctime_ns > read_ns)
    register(layout, 100, 110, chunk_id=moved.id)
    os.unlink(layout.known_marker(gone.id))
    new = register(layout, 0, 5)
    glance = Mock(side_effect=place_in)
    monkeypatch.setattr("fsdm.store.known_names.place_in", glance)
    write_names(layout)
    assert {call.args[1] for call in glance.call_args_list} >= {moved.id, new.id}
    names = KnownNames.open(layout.known_names)
    assert names is not None
    assert set(names.each()) == {kept.place, new.place, Place.of(DATASETS[0], range(100, 110), moved.id)}


def test_a_file_that_is_not_whole_counts_as_none(layout: Layout) -> None:
    register(layout, 0, 10)
    make_names(layout)
    path = Path(layout.known_names)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert KnownNames.open(layout.known_names) is None
    for other in (whole + b"x", whole.replace(b'"known_names": 1', b'"known_names": 2'), b"[]\n", b"{}\n", b"\xff\n"):
        path.write_bytes(other)
        assert KnownNames.open(layout.known_names) is None
    path.unlink()
    os.symlink(layout.lock, path)
    assert KnownNames.open(layout.known_names) is None
    assert found(KnownIndex(layout), 5)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"dataset_id": "d", "block_range": {"start": 0, "end": 1}, "files": {"a": "http://h/a"}}'],
)
def test_a_registration_that_cannot_be_taken_is_nowhere(layout: Layout, text: str) -> None:
    chunk_id = an_id()
    Path(layout.known_marker(chunk_id)).write_text(text)
    assert place_in(layout, chunk_id) is None
    assert found(KnownIndex(layout), 0) == set()
