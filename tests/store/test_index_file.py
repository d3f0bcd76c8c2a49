"""Index files of chunks: found as by brute force, in order, and absent unless whole and of this READY."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdm.index import writing
from fsdm.index.writing import Entry, write_chunk_index
from fsdm.model.errors import ClosedError, InvalidInputError
from fsdm.model.index_format import (
    CHUNK_MAGIC,
    HEADER_BYTES,
    KEY_MAX_BYTES,
    NO_ROW_GROUP,
    RECORD,
    RECORD_BYTES,
    Location,
    hash_of,
)
from fsdm.model.layout import READY, Layout, Place
from fsdm.store import index_file
from fsdm.store.index_file import ChunkIndex, open_chunk_index
from fsdm.store.refs import Refs
from tests.support.chunks import flip, put_chunk
from tests.support.indexes import DEFINITION, NAMES, opened_index, put_index

KEYS = st.binary(min_size=1, max_size=3) | st.binary(min_size=32, max_size=32)
PLACES = st.tuples(st.integers(0, 1), st.integers(0, 3) | st.just(NO_ROW_GROUP), st.integers(0, 2**64 - 1), st.just(9))


@pytest.fixture
def place(layout: Layout) -> Place:
    return put_chunk(layout)


def written(path: Path, entries: list[Entry]) -> ChunkIndex:
    with path.open("wb") as file:
        write_chunk_index(file, entries, NAMES, identity=bytes(32), definition=DEFINITION)
    index = ChunkIndex.open(str(path), CHUNK_MAGIC)
    assert index is not None
    return index


@given(st.lists(st.tuples(KEYS, PLACES), max_size=300), st.lists(KEYS, max_size=5), KEYS, KEYS)
def test_what_is_found_is_what_a_search_of_all_finds(
    tmp_path_factory: pytest.TempPathFactory,
    keyed: list[tuple[bytes, tuple[int, int, int, int]]],
    others: list[bytes],
    start: bytes,
    stop: bytes,
) -> None:
    entries = [(key, *place) for key, place in keyed]

    def location(entry: Entry) -> Location:
        _, file, group, offset, length = entry
        return Location(NAMES[file], offset, length, None if group == NO_ROW_GROUP else group)

    with written(tmp_path_factory.mktemp("index") / "it", list(entries)) as index:
        entries.sort()
        assert len(index) == len(entries)
        assert list(index) == sorted({entry[0] for entry in entries})
        assert list(index.items()) == [(entry[0], location(entry)) for entry in entries]
        within = [(entry[0], location(entry)) for entry in entries if start <= entry[0] < stop]
        assert list(index.items(start, stop)) == within
        for key in [*others, *(entry[0] for entry in entries)]:
            assert index.find(key) == [location(entry) for entry in entries if entry[0] == key]
            assert (key in index) == any(entry[0] == key for entry in entries)


def test_many_keys_stand_in_buckets(tmp_path: Path) -> None:
    keys = [number.to_bytes(4) for number in range(20_000)]
    entries = [(key, 0, NO_ROW_GROUP, number, 0) for number, key in enumerate(keys)]
    with written(tmp_path / "it", entries) as index:
        assert index.header.bits == 10
        assert [index.find(key)[0].offset for key in keys] == list(range(20_000))
        assert index.find(b"\xff\xff\xff\xff") == []
        assert index.is_whole()


def test_a_hash_that_begins_within_another_record_is_not_taken(tmp_path: Path) -> None:
    with written(tmp_path / "it", [(bytes([number]), 0, 0, 0, 0) for number in range(90)]) as index:
        both, _ = index.records_from(0, None)
        records = [record for (record,) in RECORD.iter_unpack(both)]
        astride = both[8 : 8 + 16]
        assert list(index.numbers(astride)) == []
        assert [list(index.numbers(record[:16])) for record in records] == [[record[16]] for record in records]


def test_keys_of_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (writing, index_file):
        monkeypatch.setattr(module, "hash_of", lambda key: bytes(16))
    with written(tmp_path / "it", [(key, 0, 0, ord(key), 0) for key in (b"b", b"a")]) as index:
        assert [place.offset for key in (b"a", b"b", b"c") for place in index.find(key)] == [ord("a"), ord("b")]


def test_an_index_cut_at_any_byte_counts_as_absent(layout: Layout, place: Place) -> None:
    path = put_index(layout, place, [b"a", b"bb", b"ccc"])
    with open(path, "rb") as file:
        whole = file.read()
    for size in range(len(whole)):
        with open(path, "wb") as file:
            file.write(whole[:size])
        assert open_chunk_index(layout.path(place), "tx") is None, size
    with open(path, "wb") as file:
        file.write(whole + b"\0")
    assert open_chunk_index(layout.path(place), "tx") is None
    with open(path, "wb") as file:
        file.write(whole)
    with opened_index(layout, place) as index:
        assert list(index) == [b"a", b"bb", b"ccc"]


def test_a_changed_bit_is_seen_in_the_header_at_once_and_elsewhere_by_reading_all(layout: Layout, place: Place) -> None:
    path = put_index(layout, place, [b"a", b"bb"])
    for at in range(os.path.getsize(path)):
        flip(path, at)
        index = open_chunk_index(layout.path(place), "tx")
        assert (index is None) == (at < HEADER_BYTES), at
        if index is not None:
            assert not index.is_whole(), at
            index.close()
        flip(path, at)
    with opened_index(layout, place) as index:
        assert index.is_whole()


def test_an_index_of_another_ready_counts_as_absent(layout: Layout, place: Place) -> None:
    put_index(layout, place, [b"a"], identity=bytes(32))
    assert open_chunk_index(layout.path(place), "tx") is None
    put_index(layout, place, [b"a"])
    opened_index(layout, place).close()
    with open(f"{layout.path(place)}/{READY}", "ab") as ready:
        ready.write(b" ")
    assert open_chunk_index(layout.path(place), "tx") is None
    os.unlink(f"{layout.path(place)}/{READY}")
    assert open_chunk_index(layout.path(place), "tx") is None


def test_a_ref_opens_an_index_that_outlives_it(layout: Layout, place: Place) -> None:
    refs = Refs(layout)
    ref = refs.take(place)
    assert ref is not None
    assert ref.index("tx") is None
    path = put_index(layout, place, [b"key"])
    index = ref.index("tx")
    assert index is not None
    os.unlink(path)
    ref.close()
    assert index.find(b"key") == [Location("a.bin", 0, 7)]
    with pytest.raises(ClosedError):
        ref.index("tx")


def test_index_that_was_closed_finds_nothing_any_more(layout: Layout, place: Place) -> None:
    put_index(layout, place, [b"key"])
    with opened_index(layout, place) as index:
        assert index.find(b"key")
    for _ in range(2):
        index.close()
        with pytest.raises(ValueError, match="closed"):
            index.find(b"key")


def test_entries_in_the_place_of_an_index_are_none(layout: Layout, place: Place) -> None:
    path = put_index(layout, place, [b"key"])
    os.rename(path, f"{path}.elsewhere")
    for make in (os.mkdir, os.mkfifo, lambda name: os.symlink(f"{path}.elsewhere", name)):
        make(path)
        assert open_chunk_index(layout.path(place), "tx") is None
        os.rmdir(path) if os.path.isdir(path) else os.unlink(path)


@pytest.mark.parametrize("name", ["", "../x", ".x", "a/b", "A", "x" * 65, None, "é"])
def test_a_name_that_is_none_is_refused(layout: Layout, place: Place, name: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be the name of an index"):
        open_chunk_index(layout.path(place), name)


@pytest.mark.parametrize(
    ("key", "says"),
    [("text", "must be bytes, not str"), (b"", "has 0 bytes"), (bytes(KEY_MAX_BYTES + 1), "1 to 65536"), (7, "int")],
)
def test_a_key_that_is_none_is_refused(layout: Layout, place: Place, key: object, says: str) -> None:
    put_index(layout, place, [bytes(KEY_MAX_BYTES)])
    with opened_index(layout, place) as index:
        for call in (index.find, index.__contains__, index.items):
            with pytest.raises(InvalidInputError, match=says):
                call(key)  # type: ignore[operator]
        assert bytes(KEY_MAX_BYTES) in index


def test_bounds_that_are_none_find_nothing(layout: Layout, place: Place) -> None:
    path = put_index(layout, place, [b"key"])
    with opened_index(layout, place) as index:
        at = index.header.buckets_at
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 8)
    with opened_index(layout, place) as index:
        assert list(index.numbers(hash_of(b"key"))) == []
        assert at == HEADER_BYTES + RECORD_BYTES
