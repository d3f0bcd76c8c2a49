"""The indexer of CAR files, beside libipld: every CID at its block, and nothing of what is no CAR."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdm.index import car as module
from fsdm.index.building import Building
from fsdm.index.car import car_keys
from fsdm.model.errors import IndexerError
from fsdm.model.indexes import Index
from fsdm.model.layout import Layout
from fsdm.store.filesystem import FileSystem
from tests.support.chunks import put_chunk
from tests.support.indexes import opened_index

libipld = pytest.importorskip("libipld", reason="libipld is in the extra `recipes`")

DAG_CBOR, RAW = b"\x71", b"\x55"
ROOT = b"\x01\x71\x12\x20" + bytes(32)


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def cid(data: bytes, *, codec: bytes = DAG_CBOR) -> bytes:
    return b"\x01" + codec + b"\x12\x20" + hashlib.sha256(data).digest()


def identity(data: bytes) -> bytes:
    return b"\x01" + RAW + b"\x00" + varint(len(data)) + data


def section(key: bytes, data: bytes) -> bytes:
    return varint(len(key) + len(data)) + key + data


def header(**says: Any) -> bytes:
    encoded = libipld.encode_dag_cbor({"roots": [ROOT], "version": 1, **says})
    return varint(len(encoded)) + encoded


def car(*blocks: tuple[bytes, bytes], head: bytes | None = None) -> bytes:
    return (head or header()) + b"".join(section(*block) for block in blocks)


def version_2(inner: bytes, *, padding: bytes = b"", index: bytes = b"") -> bytes:
    begin = 11 + 40 + len(padding)
    numbers = (begin, len(inner), begin + len(inner) if index else 0)
    fixed = bytes(16) + b"".join(number.to_bytes(8, "little") for number in numbers)
    return module.PRAGMA + fixed + padding + inner + index


def keys(tmp_path: Path, data: bytes) -> list[tuple[bytes, bytes]]:
    """Index a file, and read each block where it is said to be."""
    (tmp_path / "a.car").write_bytes(data)
    found = list(car_keys(str(tmp_path), ["a.car"]))
    assert {name for _, name, _, _ in found} <= {"a.car"}
    return [(key, data[at : at + length]) for key, _, at, length in found]


VALUES = st.recursive(
    st.none() | st.integers(-(2**31), 2**31) | st.text(max_size=8) | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, max_size=8, unique_by=libipld.encode_dag_cbor))
def test_what_is_found_is_what_libipld_reads(tmp_path_factory: pytest.TempPathFactory, values: list[Any]) -> None:
    encoded = [libipld.encode_dag_cbor(value) for value in values]
    data = car(*((cid(one), one) for one in encoded))
    _, blocks = libipld.decode_car(data)
    tmp_path = tmp_path_factory.mktemp("car")
    for text in (data, version_2(data), version_2(data, padding=b"\0" * 7, index=b"an index")):
        found = keys(tmp_path, text)
        assert {key: libipld.decode_dag_cbor(block) for key, block in found} == blocks
        assert found == [(cid(one), one) for one in encoded]


def test_each_kind_of_cid_is_a_key(tmp_path: Path) -> None:
    raw, old = b"raw", b"of version 0"
    blocks = [
        (cid(raw, codec=RAW), raw),
        (b"\x12\x20" + hashlib.sha256(old).digest(), old),
        (identity(b"itself"), b"itself"),
        (identity(b""), b""),
        (b"\x01" + RAW + b"\xb2\x20" + b"\x20" + bytes(32), b"of another hash"),
        (cid(bytes(70_000), codec=RAW), bytes(70_000)),
    ]
    assert keys(tmp_path, car(*blocks)) == blocks
    assert keys(tmp_path, car()) == []


def test_zeros_at_the_end_are_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 16)
    block = (cid(b"x", codec=RAW), b"x")
    assert keys(tmp_path, car(block) + bytes(100)) == [block]
    with pytest.raises(IndexerError, match="is empty, and more than zeros follow it"):
        keys(tmp_path, car(block) + bytes(50) + b"\1" + bytes(50))


BLOCK = (cid(b"x", codec=RAW), b"x")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "its header has None bytes"),
        (b"PAR1 and no CAR", "its header"),
        (b"\0", "its header has 0 bytes"),
        (b"\xff" * 20, "its header has None bytes"),
        (b"\x80\x00" + bytes(20), "its header has None bytes"),
        (varint(40 << 20) + bytes(100), "its header has 41943040 bytes"),
        (b"\x05hello", ""),
        (car(head=header(version=3)), "its header is"),
        (car(head=header(roots=7)), "its header is"),
        (car(head=header(roots=["no CID"])), "its header is"),
        (car(BLOCK)[:-1], "does not end within it"),
        (car(BLOCK) + b"\x80", "does not end within it"),
        (car((b"\x02" + BLOCK[0][1:], b"x")), "has a CID of version 2"),
        (car((b"\x01\x55\x12\x40" + bytes(8), b"")), "has a CID of 68 bytes"),
        (car((b"\x01", b"")), "a number does not end"),
        (car((b"\x01\x80\x00\x12\x20" + bytes(32), b"")), "longer than it need be"),
        (version_2(car(BLOCK))[:30], "is not within its 30 bytes"),
        (version_2(car(BLOCK))[:-1], "is not within"),
        (module.PRAGMA + bytes(60), "its data of 0 bytes at 0"),
        (version_2(version_2(car(BLOCK))), "its header is"),
    ],
)
def test_what_is_no_car_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(IndexerError, match=f"a.car is no CAR: .*{says}"):
        keys(tmp_path, data)


def test_without_libipld_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "libipld", None)
    with pytest.raises(IndexerError, match="libipld cannot be imported"):
        keys(tmp_path, car())


@pytest.mark.parametrize("form", [car, lambda *blocks: version_2(car(*blocks))])
def test_a_chunk_of_cars_has_an_index_of_cids(layout: Layout, form: Callable[..., bytes]) -> None:
    blocks = [(cid(bytes([n]), codec=RAW), bytes([n])) for n in range(9)]
    place = put_chunk(layout, files={"a.car": form(*blocks[:5]), "b.car": form(*blocks[5:])})
    failure = Building(layout, FileSystem(durable=False), lambda: 0.0).build(
        place, Index(name="cid", indexer="car"), lambda: None
    )
    assert failure is None
    with opened_index(layout, place, "cid") as index:
        assert list(index) == sorted(key for key, _ in blocks)
        for key, data in blocks:
            [found] = index.find(key)
            path = Path(layout.path(place), "data", found.file)
            assert path.read_bytes()[found.offset : found.offset + found.length] == data
