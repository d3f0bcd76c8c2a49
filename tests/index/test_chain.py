"""A use: the tables of a chain. A hash or an address alone is known: which chunk, which block, which row."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fsdm import Client
from fsdm.model.documents import DataChunk
from tests.support import Source, fsdm, fsdm_json
from tests.support.chunks import a_want

pa = pytest.importorskip("pyarrow", reason="pyarrow is in the extra `recipes`")

BLOCKS = 20  # of a chunk
CHUNKS = 3
ROWS = 16  # of a row group
CONFIG = """
[index.tx]
indexer = "parquet:hash"
files = "tx*.parquet"

[index.log]
indexer = "parquet:address,topic0,topic1,topic2,topic3"
files = "log*.parquet"
"""
# the columns of the chain's tables, as they are served
BYTES = {
    "tx": ["block_hash", "source", "hash", "input", "value", "r", "s"],
    "log": ["address", "block_hash", "data", "transaction_hash"],
}
NUMBERS = {
    "tx": ["block_number", "gas", "gas_price", "transaction_index", "kind", "chain_id", "v"],
    "log": ["block_number", "log_index", "transaction_index"],
}
NULLABLE = {"tx": ["dest"], "log": ["topic0", "topic1", "topic2", "topic3"]}


def digest(*what: object) -> bytes:
    return hashlib.sha256(repr(what).encode()).digest()


def rows(name: str, blocks: range) -> list[dict[str, Any]]:
    """Rows of a table: two transactions a block, with a log each; addresses and topics come again and again."""
    made = []
    for block in blocks:
        for at in range(2):
            row: dict[str, Any] = {column: digest(name, column, block, at) for column in BYTES[name]}
            row |= dict.fromkeys(NUMBERS[name], block + at) | {"block_number": block, "transaction_index": at}
            row |= {column: digest(column, block % 7) if (block + at) % 3 else None for column in NULLABLE[name]}
            if name == "tx":
                row["nonce"] = block
            else:
                row |= {"removed": False, "address": digest("address", block % 5)[:20]}
                row["transaction_hash"] = digest("tx", "hash", block, at)
            made.append(row)
    return made


def table(name: str, blocks: range) -> bytes:
    import pyarrow.parquet as pq

    fields = [pa.field(column, pa.binary(), nullable=False) for column in BYTES[name]]
    fields += [pa.field(column, pa.int64(), nullable=False) for column in NUMBERS[name]]
    fields += [pa.field(column, pa.binary()) for column in NULLABLE[name]]
    fields += [pa.field("nonce", pa.uint64()) if name == "tx" else pa.field("removed", pa.bool_())]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows(name, blocks), pa.schema(fields)), sink, row_group_size=ROWS)
    return bytes(sink.getvalue())


def a_chunk(source: Source, number: int) -> DataChunk:
    blocks = range(number * BLOCKS, (number + 1) * BLOCKS)
    files = {f"{name}.parquet": source.put(f"/{number}/{name}.parquet", table(name, blocks)) for name in ("tx", "log")}
    return a_want(block_range=(blocks.start, blocks.stop), files=files)


@pytest.fixture
def chunks(source: Source, data_dir: Path) -> list[DataChunk]:
    """Chunks that are here and indexed, in a directory that nobody reconciles any more."""
    wanted = [a_chunk(source, number) for number in range(CHUNKS)]
    data_dir.mkdir()
    (data_dir / "config.toml").write_text(CONFIG)
    assert fsdm("run", "-d", data_dir, "--once").returncode == 0
    for chunk in wanted:
        (data_dir / "want" / chunk.id).write_bytes(chunk.to_json())
    done = fsdm("run", "-d", data_dir, "--once")
    assert done.returncode == 0, done.stderr
    return wanted


READ = """
import json, sys
import pyarrow.parquet as pq
for chunk in json.load(sys.stdin)["chunks"]:
    for place in chunk["places"]:
        file = pq.ParquetFile(f"{chunk['path']}/{place['file']}")
        row, = file.read_row_group(place["row_group"]).slice(place["row"], 1).to_pylist()
        print(row["block_number"], row["transaction_index"], sep="\\t")
"""


def test_a_process_that_knows_a_hash_alone_finds_its_block_and_row(data_dir: Path, chunks: list[DataChunk]) -> None:
    block, at = 2 * BLOCKS + 13, 1
    key = digest("tx", "hash", block, at).hex()
    found = fsdm("find", "-d", data_dir, "--key", "tx", f"0x{key}", "--json")
    assert [chunk["id"] for chunk in json.loads(found.stdout)["chunks"]] == [chunks[2].id]
    read = subprocess.run([sys.executable, "-c", READ], input=found.stdout, capture_output=True, text=True, check=True)
    assert read.stdout == f"{block}\t{at}\n"


def test_all_logs_of_an_address_or_a_topic_are_found_as_a_search_of_all_rows_finds_them(
    data_dir: Path, chunks: list[DataChunk]
) -> None:
    every = rows("log", range(CHUNKS * BLOCKS))
    none = digest("no")
    for column, key in (("address", digest("address", 3)[:20]), ("topic2", digest("topic2", 4)), ("topic0", none)):
        there = sorted((row["block_number"], row["transaction_index"]) for row in every if row[column] == key)
        assert _rows(data_dir, "log", key) == there
        assert (there == []) is (key == none)
    (state,) = fsdm_json("index", "-d", data_dir, "status", "log")
    assert (state["indexed"], state["gathered"]) == (CHUNKS, CHUNKS)
    assert state["keys"] == sum(row[column] is not None for row in every for column in ("address", *NULLABLE["log"]))


def _rows(data_dir: Path, name: str, key: bytes) -> list[tuple[int, int]]:
    import pyarrow.parquet as pq

    found = []
    with Client(data_dir) as client:
        for ref in client.find_key(name, key):
            with ref, ref.index(name) or pytest.fail("it has no index") as index:
                for place in index.find(key):
                    assert place.row_group is not None
                    group = pq.ParquetFile(ref.path / place.file).read_row_group(place.row_group)
                    (row,) = group.slice(place.offset, 1).to_pylist()
                    found.append((row["block_number"], row["transaction_index"]))
    return sorted(found)
