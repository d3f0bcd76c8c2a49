"""The peers of `bench index`: tables of SQLite and DuckDB with the hashes of runs, and scans of Parquet files.

Each has the records of the runs, sorted, and looks a key up by its hash, as the runs do.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np

from fsdm.model.index_format import HASH_BYTES, NUMBERED, RECORD_BYTES, hash_of
from fsdm.store.index_runs import open_run, run_names

if TYPE_CHECKING:
    from collections.abc import Iterator

TOGETHER: Final = 1 << 20  # records that are put in at once


def records_in(directory: str) -> Iterator[bytes]:
    """Yield the records of all runs, some at a time."""
    for name in run_names(directory):
        run = open_run(f"{directory}/{name}")
        assert run is not None
        with run:
            data, _ = run.records_from(0, None)
        for at in range(0, len(data), TOGETHER * RECORD_BYTES):
            yield data[at : at + TOGETHER * RECORD_BYTES]


def drop_pages(path: str) -> None:
    """Have the kernel forget the pages of a file, or of those in a directory, which nobody has mapped."""
    paths = [entry.path for entry in os.scandir(path)] if os.path.isdir(path) else [path]
    for one in paths:
        fd = os.open(one, os.O_RDONLY)
        os.fsync(fd)  # dirty pages stay
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


class Table:
    """A table of hashes and chunks."""

    name: ClassVar[str]

    def find(self, key: bytes) -> list[int]:
        """Return the numbers of the chunks that hold a key."""
        raise NotImplementedError

    def chill(self) -> None:
        """Let no page of it be in memory."""
        raise NotImplementedError

    def size_bytes(self) -> int:
        """Return the bytes that its files have."""
        raise NotImplementedError


class SqliteTable(Table):
    """A table without rowids, whose primary key is a hash and a chunk."""

    name = "SQLite"

    def __init__(self, path: str) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        self._connection = sqlite3.connect(self._path)
        self._connection.execute("PRAGMA query_only = 1")

    @classmethod
    def made(cls, path: str, directory: str) -> Self:
        connection = sqlite3.connect(path)
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -500000")
        connection.execute("CREATE TABLE keys (hash BLOB, chunk INTEGER, PRIMARY KEY (hash, chunk)) WITHOUT ROWID")
        with connection:
            for data in records_in(directory):
                connection.executemany("INSERT OR IGNORE INTO keys VALUES (?, ?)", NUMBERED.iter_unpack(data))
        connection.close()
        return cls(path)

    def find(self, key: bytes) -> list[int]:
        found = self._connection.execute("SELECT chunk FROM keys WHERE hash = ?", (hash_of(key),))
        return [chunk for (chunk,) in found]

    def chill(self) -> None:
        self._connection.close()
        drop_pages(self._path)
        self._open()

    def size_bytes(self) -> int:
        return os.path.getsize(self._path)


class DuckTable(Table):
    """A sorted table, whose row groups tell their least and greatest hash."""

    name = "DuckDB"

    def __init__(self, path: str) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        import duckdb

        self._connection = duckdb.connect(self._path, read_only=True)

    @classmethod
    def made(cls, path: str, directory: str) -> Self:
        import duckdb
        import pyarrow as pa

        connection = duckdb.connect(path)
        connection.execute("SET threads = 2; SET memory_limit = '4GB'; SET enable_progress_bar = false")
        connection.execute("CREATE TABLE given (hash BLOB, chunk UINTEGER)")
        for data in records_in(directory):
            records = np.frombuffer(data, [("hash", f"V{HASH_BYTES}"), ("chunk", "<u4")])
            given = [None, pa.py_buffer(records["hash"].tobytes())]
            hashes = pa.FixedSizeBinaryArray.from_buffers(pa.binary(HASH_BYTES), len(records), given)
            part = pa.table({"hash": hashes.cast(pa.binary()), "chunk": records["chunk"].copy()})
            connection.register("part", part)
            connection.execute("INSERT INTO given SELECT * FROM part")
            connection.unregister("part")
        connection.execute("CREATE TABLE keys AS SELECT * FROM given ORDER BY hash; DROP TABLE given; CHECKPOINT")
        connection.close()
        return cls(path)

    def find(self, key: bytes) -> list[int]:
        found: list[tuple[Any, ...]] = self._connection.execute(
            "SELECT chunk FROM keys WHERE hash = ?", [hash_of(key)]
        ).fetchall()
        return [chunk for (chunk,) in found]

    def chill(self) -> None:
        self._connection.close()
        drop_pages(self._path)
        self._open()

    def size_bytes(self) -> int:
        return os.path.getsize(self._path)


def scans(chunks: str, key: bytes) -> dict[str, float]:
    """Look for a key in all tables below a directory; return the seconds that each way took."""
    import duckdb
    import pyarrow.dataset as ds

    found = {}
    began = time.monotonic()
    files = [os.path.join(at, name) for at, _, names in os.walk(chunks) for name in names if name == "tx.parquet"]
    rows = ds.dataset(files).to_table(filter=ds.field("hash") == key, columns=["transaction_index"])
    found["a scan with pyarrow"] = time.monotonic() - began
    began = time.monotonic()
    query = (
        "SELECT filename, file_row_number FROM read_parquet(?, filename = true, file_row_number = true) WHERE hash = ?"
    )
    duckdb.execute("SET enable_progress_bar = false")
    also = duckdb.execute(query, [files, key]).fetchall()
    found["a scan with DuckDB"] = time.monotonic() - began
    if rows.num_rows != 1 or len(also) != 1:
        raise RuntimeError(f"the scans have found {rows.num_rows} and {len(also)} rows")
    return found
