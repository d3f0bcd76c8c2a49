"""The blocks of a chunk by their CIDs: each with the hash that it says, or refused; the chunk is kept meanwhile."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from fsdm.index.writing import write_chunk_index
from fsdm.model.errors import DamagedError, InvalidInputError
from fsdm.model.index_format import NO_ROW_GROUP
from fsdm.model.layout import Layout, Place
from fsdm.store.blockstore import Blockstore
from fsdm.store.index_file import identity_of, index_path
from fsdm.store.refs import ChunkRef, Refs
from tests.support.chunks import flip, put_chunk
from tests.support.locks import can_lock

DATA = b"the bytes of a block"
EMPTY = b"\x01\x55\x00\x00"
CIDS = {
    "sha2-256": b"\x01\x55\x12\x20" + hashlib.sha256(DATA).digest(),
    "version 0": b"\x12\x20" + hashlib.sha256(DATA).digest(),
    "sha2-512": b"\x01\x55\x13\x40" + hashlib.sha512(DATA).digest(),
    "sha3-256": b"\x01\x55\x16\x20" + hashlib.sha3_256(DATA).digest(),
    "blake3": b"\x01\x55\x1e\x20" + blake3(DATA).digest(),
    "blake2b-256": b"\x01\x55\xa0\xe4\x02\x20" + hashlib.blake2b(DATA, digest_size=32).digest(),
    "identity": b"\x01\x55\x00" + bytes([len(DATA)]) + DATA,
    "cut": b"\x01\x55\x12\x08" + hashlib.sha256(DATA).digest()[:8],
}
UNKNOWN = b"\x01\x55\x11\x14" + hashlib.sha1(DATA, usedforsecurity=False).digest()
OTHERS = {"unknown": UNKNOWN, "no digest": b"\x01\x55\x12\x00", "more": CIDS["sha2-256"] + b"\0", "none": b"\x07no"}


@pytest.fixture
def place(layout: Layout) -> Place:
    place = put_chunk(layout, files={"a.car": b"before" + DATA + b"after"})
    path = index_path(layout.path(place), "cid")
    os.mkdir(os.path.dirname(path))
    entries = [(cid, 0, NO_ROW_GROUP, 6, len(DATA)) for cid in (*CIDS.values(), *OTHERS.values())]
    identity = identity_of(layout.path(place))
    assert identity is not None
    with open(path, "wb") as file:
        write_chunk_index(file, entries, ["a.car"], identity=identity, definition=bytes(32))
    return place


@pytest.fixture
def ref(layout: Layout, place: Place, no_lock_is_left: None) -> Iterator[ChunkRef]:
    with closing(Refs(layout)) as refs:
        ref = refs.take(place)
        assert ref is not None
        yield ref


@pytest.fixture
def blocks(ref: ChunkRef) -> Iterator[Blockstore]:
    with ref.blockstore("cid") or pytest.fail("there is none") as blocks:
        yield blocks


@pytest.mark.parametrize("kind", CIDS)
def test_a_block_has_the_hash_of_its_cid_or_is_refused(
    layout: Layout, place: Place, blocks: Blockstore, kind: str
) -> None:
    cid = CIDS[kind]
    assert (blocks.has(cid), blocks.size(cid), blocks.get(cid)) == (True, len(DATA), DATA)
    flip(f"{layout.path(place)}/data/a.car", 6)
    with pytest.raises(DamagedError, match=r"a\.car does not have the block") as refused:
        blocks.get(cid)
    assert place.chunk_id in refused.value.hint
    assert blocks.get(cid, check=False) == Path(layout.path(place), "data", "a.car").read_bytes()[6:26]


def test_what_is_not_there_is_none(ref: ChunkRef, blocks: Blockstore) -> None:
    assert (blocks.has(EMPTY), blocks.size(EMPTY), blocks.get(EMPTY)) == (False, None, None)
    assert list(blocks.keys()) == sorted([*CIDS.values(), *OTHERS.values()])
    assert len(blocks) == len(CIDS) + len(OTHERS)
    assert ref.blockstore("none") is None


@pytest.mark.parametrize(
    ("cid", "error", "says"),
    [
        (UNKNOWN, InvalidInputError, "has the hash 0x11, which is not known here"),
        (OTHERS["no digest"], DamagedError, "does not have the block"),
        (OTHERS["more"], InvalidInputError, "is no CID: 1 bytes follow it"),
        (OTHERS["none"], InvalidInputError, "is no CID: it has a CID of version 7"),
    ],
)
def test_a_cid_that_cannot_be_checked_is_refused(
    blocks: Blockstore, cid: bytes, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        blocks.get(cid)
    assert blocks.get(cid, check=False) == DATA


def test_it_keeps_the_chunk_until_it_is_closed(layout: Layout, place: Place, ref: ChunkRef) -> None:
    blocks = ref.blockstore("cid")
    assert blocks is not None
    ref.close()
    assert blocks.get(CIDS["sha2-256"]) == DATA
    assert not can_lock(layout.path(place))
    blocks.close()
    blocks.close()
    assert can_lock(layout.path(place))
