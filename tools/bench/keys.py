"""The keys of `bench index`: chunks with a table of hashes, and runs over thousands of chunks, written directly.

A key is 32 random bytes, as a transaction's hash. Of the records of large runs only some are of keys that are looked
up; the hashes of the others are as random as theirs.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from fsdm.index.writing import finish_run, new_run, write_chunk_index
from fsdm.model.documents import FileEntry, Manifest
from fsdm.model.index_format import NO_ROW_GROUP, RECORD, IndexedChunk, hash_of
from fsdm.model.indexes import Index
from fsdm.model.layout import DATA, INDEX, READY, Layout, index_path
from fsdm.store.index_file import identity_of
from tools.bench.processes import CONTEXT
from tools.bench.site import DATASET, place_of, write

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fsdm.model.layout import Place

INDEX_TX: Final = Index(name="tx", indexer="parquet:hash", files="tx*.parquet")
CONFIG: Final = f'[index.{INDEX_TX.name}]\nindexer = "{INDEX_TX.indexer}"\nfiles = "{INDEX_TX.files}"\n'
KEY_BYTES: Final = 32
ROWS: Final = 20_000  # of a row group
PARTS_BITS: Final = 8  # a run is written in so many parts, of hashes that begin alike
RECORD_DTYPE: Final = np.dtype([("first", ">u8"), ("second", "V8"), ("chunk", "<u4")])


def key_of(chunk: int, row: int) -> bytes:
    """Return the key in a row of the table of a chunk."""
    at = row * KEY_BYTES
    return keys_of(chunk, row + 1)[at : at + KEY_BYTES]


def keys_of(chunk: int, count: int) -> bytes:
    """Return the keys of a chunk's table, one behind the other: the first ones are the same for any count."""
    return hashlib.shake_128(b"%d" % chunk).digest(count * KEY_BYTES)


def put_table(path: str, chunk: int, count: int) -> None:
    """Write a table with a column of hashes, in row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = pa.py_buffer(keys_of(chunk, count))
    hashes = pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), count, [None, data]).cast(pa.binary())
    table = pa.table({"hash": hashes, "transaction_index": np.arange(count)})
    pq.write_table(table, path, row_group_size=ROWS, compression="none", use_dictionary=False)


def put_tables(layout: Layout, chunks: int, rows: int) -> list[Place]:
    """Put chunks of one table each into a data directory that no process reconciles."""
    with ProcessPoolExecutor(2, CONTEXT) as pool:
        return list(pool.map(partial(_put_chunk, layout.root, rows), range(chunks)))


def _put_chunk(root: str, rows: int, number: int) -> Place:
    layout, place = Layout(root), place_of(number)
    directory = layout.path(place)
    os.makedirs(f"{directory}/{DATA}")
    path = f"{directory}/{DATA}/tx.parquet"
    put_table(path, number, rows)
    files = {"tx.parquet": FileEntry(size=os.path.getsize(path), blake3="0" * 64)}  # nobody compares it
    manifest = Manifest(id=place.chunk_id, dataset_id=DATASET, block_range=place.block_range, files=files)
    write(f"{directory}/{READY}", manifest.to_json())
    return place


def put_small_indexes(layout: Layout, chunks: int) -> None:
    """Put an index with one key into each of so many chunks."""
    for place in map(place_of, range(chunks)):
        directory = layout.path(place)
        identity = identity_of(directory)
        assert identity is not None
        os.makedirs(f"{directory}/{INDEX}")
        entries = [(bytes.fromhex(place.chunk_id), 0, NO_ROW_GROUP, 0, 0)]
        with open(index_path(directory, INDEX_TX.name), "xb") as file:
            write_chunk_index(file, entries, ["tx.parquet"], identity=identity, definition=INDEX_TX.definition)


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs in a directory: of which keys some are real, and the number of their chunk."""

    directory: str
    keys: list[bytes]
    chunks: list[int]
    count: int
    size_bytes: int


def put_runs(layout: Layout, count: int, chunks: int, runs: int, samples: int) -> Runs:
    """Put runs over so many chunks, with so many records in all, which are random but for the samples."""
    directory = layout.runs_of(INDEX_TX.name)
    os.makedirs(directory)
    keys = [os.urandom(KEY_BYTES) for _ in range(samples)]
    owners = [number % chunks for number in range(len(keys))]
    with ProcessPoolExecutor(2, CONTEXT) as pool:
        jobs = [
            (directory, number, count // runs, chunks, keys[number::runs], owners[number::runs])
            for number in range(runs)
        ]
        sizes = list(pool.map(_put_run, *zip(*jobs, strict=True)))
    return Runs(directory, keys, owners, sum(one[0] for one in sizes), sum(one[1] for one in sizes))


def records_of(run: int, count: int, chunks: int, keys: list[bytes], owners: list[int]) -> NDArray[np.void]:
    """Return the records of a run, sorted."""
    random = np.random.default_rng(run)
    records = np.empty(count, RECORD_DTYPE)
    records["first"] = random.integers(0, 1 << 64, count, np.uint64)
    records["second"] = np.frombuffer(random.bytes(8 * count), "V8")
    records["chunk"] = random.integers(0, chunks, count, np.uint32)
    for at, (key, owner) in enumerate(zip(keys, owners, strict=True)):
        hashed = hash_of(key)
        records[at] = (int.from_bytes(hashed[:8]), hashed[8:], owner)
    return records[np.argsort(records["first"], kind="stable")]


def _put_run(
    directory: str, run: int, count: int, chunks: int, keys: list[bytes], owners: list[int]
) -> tuple[int, int]:
    records = records_of(run, count, chunks, keys, owners)
    path = f"{directory}/run-{run:016x}"
    with open(path, "xb") as file:
        table = new_run(file, count)
        for part in np.array_split(records, 1 << PARTS_BITS):
            table.add([record for (record,) in RECORD.iter_unpack(part.tobytes())])
        finish_run(table, [IndexedChunk(place_of(number), bytes(32)) for number in range(chunks)], INDEX_TX.definition)
    return count, os.path.getsize(path)
