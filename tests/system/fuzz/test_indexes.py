"""Index files with anything in them: no crash, no key that is not there, an end that comes, no other chunk harmed."""

import io
import json
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import example, given
from hypothesis import strategies as st

from fsdm import Client
from fsdm.index.gathering import Gathering
from fsdm.index.merging import MergeJob, merge
from fsdm.index.state import read_index_states
from fsdm.index.writing import finish_run, new_run, write_chunk_index
from fsdm.model.errors import DamagedError
from fsdm.model.index_format import (
    CHUNK_MAGIC,
    HEADER_BYTES,
    NO_ROW_GROUP,
    RUN_MAGIC,
    Header,
    IndexedChunk,
    Location,
    hash_of,
)
from fsdm.model.indexes import Index
from fsdm.model.layout import Layout, Place, index_path
from fsdm.store.filesystem import FileSystem
from fsdm.store.index_file import identity_of, open_chunk_index
from fsdm.store.index_runs import IndexRuns
from tests.support.chunks import put_chunk
from tests.support.fuzzing import DATASET, data_directory, fuzz, mangled, shown, words
from tests.support.indexes import put_index

INDEX = Index(name="tx", indexer="parquet:hash")
KEYS = [b"a", b"bb", b"key", b"k" * 300]
NAMES = ("a.bin", "b.bin")
SIZE_MAX = 1 << 20
NUMBERS = [struct.pack("<Q", number) for number in (0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)]
TOKENS = [*NUMBERS, *words('["../x"] null [1] { ["a.bin"]'), b"\xff" * 20, bytes(40)]


def an_index(identity: bytes = bytes(32)) -> bytes:
    entries = [(key, number % 2, (NO_ROW_GROUP, 3)[number % 2], number, 7) for number, key in enumerate(KEYS)]
    file = io.BytesIO()
    write_chunk_index(file, entries, NAMES, identity=identity, definition=INDEX.definition)
    return file.getvalue()


def a_run(chunks: list[IndexedChunk]) -> bytes:
    file = io.BytesIO()
    table = new_run(file, 100)
    table.add(sorted(hash_of(key) + struct.pack("<I", number) for key in KEYS for number in range(len(chunks))))
    finish_run(table, chunks, INDEX.definition)
    return file.getvalue()


def resealed(whole: bytes, magic: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The file with another body, of which its header tells the digest."""
    header, body = Header.unpack(whole[:HEADER_BYTES], magic, len(whole)), change(whole[HEADER_BYTES:])
    assert header is not None
    return replace(header, body=blake3(body).digest()).pack() + body


CHUNKS = [IndexedChunk(Place.of(DATASET, range(n, n + 1), f"{n:064x}"), bytes(32)) for n in range(2)]
COUNTS = st.integers(0, 40) | st.sampled_from([2**32 - 1, 2**31, 2**40])


@st.composite
def hostile(draw: st.DrawFn, magic: bytes) -> bytes:
    """A file whose header agrees with its size and itself, but for nothing else; or any mangled one."""
    seed = an_index() if magic == CHUNK_MAGIC else a_run(CHUNKS)
    data = draw(mangled([seed], TOKENS))
    if draw(st.booleans()):
        return data
    header = Header.unpack(seed[:HEADER_BYTES], magic, len(seed))
    assert header is not None
    if draw(st.booleans()):
        extra = (draw(COUNTS), draw(COUNTS) if magic == CHUNK_MAGIC else 0)
        header = replace(header, count=draw(COUNTS), bits=draw(st.integers(0, 6)), extra=extra)
    body = data[HEADER_BYTES:] if draw(st.booleans()) else draw(st.binary(max_size=4000))
    if header.size > SIZE_MAX:  # then the file is not as long as it says
        return header.pack() + body
    size = header.size - HEADER_BYTES
    body = body.ljust(size, draw(st.sampled_from([b"\0", b"\xff", b"\1"])))[:size]
    if draw(st.booleans()):
        header = replace(header, body=blake3(body).digest())
    return header.pack() + body


def of_this_chunk(data: bytes, layout: Layout, place: Place) -> bytes:
    """The file with the identity of a chunk in its header, where it has one."""
    header = Header.unpack(data[:HEADER_BYTES], CHUNK_MAGIC, len(data))
    identity = identity_of(layout.path(place))
    assert identity is not None
    return data if header is None else replace(header, identity=identity).pack() + data[HEADER_BYTES:]


@given(hostile(CHUNK_MAGIC))
@example(an_index())
@example(an_index().replace(b'["a.bin", "b.bin"]', b'["a.bin", ' + b"[" * 8))
@fuzz
def test_chunk_index_with_anything_in_it_has_no_key_that_is_not_in_it(data: bytes) -> None:
    with data_directory() as layout:
        place = put_chunk(layout, dataset=DATASET)
        path = index_path(layout.path(place), "tx")
        os.mkdir(os.path.dirname(path))
        Path(path).write_bytes(of_this_chunk(data, layout, place))
        index = open_chunk_index(layout.path(place), "tx")
        if index is None:
            return
        with index:
            for key in [*KEYS, b"none", b"\0"]:
                with suppress(DamagedError):
                    found = index.find(key)
                    assert all(isinstance(one, Location) and one.file in index.files for one in found)
                    assert (not found) or key in data
            for read in (lambda: list(index), lambda: list(index.items()), lambda: list(index.items(b"b", b"c"))):
                with suppress(DamagedError):
                    assert len(read()) <= len(index)
            assert index.is_sound() in {True, False}


@given(hostile(CHUNK_MAGIC))
@example(an_index())
@example(resealed(an_index(), CHUNK_MAGIC, lambda body: b"\xff" * 20 + body[20:]))
@example(resealed(an_index(), CHUNK_MAGIC, lambda body: body[:60] + bytes(20) + body[80:]))
@fuzz
def test_chunk_index_with_anything_in_it_keeps_no_other_chunk_from_being_found(data: bytes) -> None:
    with data_directory() as layout:
        bad, good = put_chunk(layout, dataset=DATASET), put_chunk(layout, start=10, end=20, dataset=DATASET)
        put_index(layout, good, [*KEYS, b"of the good one"], definition=INDEX.definition)
        put_index(layout, bad, [], definition=INDEX.definition)
        Path(index_path(layout.path(bad), "tx")).write_bytes(of_this_chunk(data, layout, bad))
        gathering = Gathering(layout, FileSystem(durable=False), INDEX)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("fsdm.index.gathering.run", inline)
            patched.setattr("fsdm.index.merging.TOGETHER", 2)  # many parts, and many buckets
            patched.setattr("fsdm.model.index_format.PER_BUCKET", 1)
            for _ in range(3):
                due = gathering.look([bad, good], [bad, good], is_calm=True)
                if due is None:
                    break
                gathering.forget_places(gathering.merge(due, lambda: None))
                gathering.forget()
            else:
                pytest.fail("it is merged again and again")
        with Client(layout.root) as client:
            for key in [*KEYS, b"of the good one"]:
                seen = []
                for ref in client.find_key("tx", key):
                    with ref:
                        seen.append(ref.id)
                assert good.chunk_id in seen
        for words_ in (
            ("find", "-d", layout.root, "--key", "tx", "key", "--json"),
            ("index", "-d", layout.root, "status"),
        ):
            assert shown(*words_) == 0


def inline(_module: str, job: bytes, _timeout_s: float, _go_on: object) -> dict[str, object]:
    given_ = json.loads(job)
    return merge(MergeJob(**{**given_, "places": [tuple(place) for place in given_["places"]]}))


@given(hostile(RUN_MAGIC))
@example(a_run(CHUNKS))
@fuzz
def test_run_with_anything_in_it_finds_no_chunk_without_the_key(data: bytes) -> None:
    with data_directory() as layout:
        place = put_chunk(layout, dataset=DATASET)
        put_index(layout, place, [b"key"], definition=INDEX.definition)
        identity = identity_of(layout.path(place))
        assert identity is not None
        os.makedirs(layout.runs_of("tx"))
        row = IndexedChunk(place, identity).pack()
        for number, text in enumerate((data, data.replace(CHUNKS[0].pack(), row))):
            Path(layout.runs_of("tx"), f"run-{number:016x}").write_bytes(text)
        runs = IndexRuns(layout)
        with Client(layout.root) as client:
            for key in [*KEYS, b"none", b"\0"]:
                assert all(isinstance(chunk, IndexedChunk) for chunk in runs.find("tx", key))
                seen = []
                for ref in client.find_key("tx", key):
                    with ref:
                        seen.append(ref.id)
                assert seen in ([], [place.chunk_id] if key == b"key" else [])
        assert [state.name for state in read_index_states(layout, [place])] == ["tx"]
        assert shown("index", "-d", layout.root, "status") == 0


def test_run_cut_at_any_byte_is_none() -> None:
    whole = a_run(CHUNKS)
    with data_directory() as layout:
        os.makedirs(layout.runs_of("tx"))
        path = Path(layout.runs_of("tx"), f"run-{0:016x}")
        for size in range(len(whole)):
            path.write_bytes(whole[:size])
            assert IndexRuns(layout).find("tx", KEYS[0]) == [], size
        path.write_bytes(whole)
        assert IndexRuns(layout).find("tx", KEYS[0]) == CHUNKS


def test_damage_is_told_with_the_way_out_of_it() -> None:
    with data_directory() as layout:
        place = put_chunk(layout, dataset=DATASET)
        path = Path(put_index(layout, place, [b"key"], definition=INDEX.definition, names=["a.bin"]))
        path.write_bytes(path.read_bytes().replace(b'["a.bin"]', b'["a.bin" '))
        index = open_chunk_index(layout.path(place), "tx")
        assert index is not None
        with index, pytest.raises(DamagedError, match="names of its files cannot be read") as told:
            index.find(b"key")
        assert told.value.hint == "have it made again: fsdm index rebuild tx --chunks"


def test_records_out_of_order_are_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsdm.store.index_file.IN_ORDER_TOGETHER", 2)
    with data_directory() as layout:
        place = put_chunk(layout, dataset=DATASET)
        path = Path(put_index(layout, place, KEYS, definition=INDEX.definition))
        whole = path.read_bytes()
        index = open_chunk_index(layout.path(place), "tx")
        assert index is not None
        with index:
            assert index.is_sound()
            header = index.header
        records = [whole[at : at + 20] for at in range(HEADER_BYTES, header.buckets_at, 20)]
        for first, second in ((0, 1), (1, 2), (2, 3)):
            swapped = list(records)
            swapped[first], swapped[second] = records[second], records[first]
            body = b"".join(swapped) + whole[header.buckets_at :]
            path.write_bytes(replace(header, body=blake3(body).digest()).pack() + body)
            index = open_chunk_index(layout.path(place), "tx")
            assert index is not None
            with index:
                assert index.is_whole()
                assert not index.is_sound(), first
