"""The indexer of Parquet's columns, in this process: rows are counted over batches, and kinds of columns told apart."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from fsdm.index import parquet as module
from fsdm.index.collecting import Collected
from fsdm.index.parquet import parquet_keys
from fsdm.index.writing import Entry
from fsdm.model.errors import IndexerError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {
        "hash": pa.array([bytes([n]) * 3 for n in range(10)], pa.binary(3)),
        "word": pa.array([b"w"] * 10, pa.binary()).dictionary_encode(),
        "text": pa.array(["t"] * 10, pa.large_string()),
        "sparse": pa.array([None, b"s"] * 5),
        "number": list(range(10)),
    }
    pq.write_table(pa.table(columns), tmp_path / "tx.parquet", row_group_size=7)
    return tmp_path


def entries(rows: Iterable[tuple[list[bytes | None], str, int, int]], max_bytes: int = 10_000) -> list[Entry]:
    collected = Collected(["tx.parquet"], max_bytes)
    for some in rows:
        collected.add_rows(*some)
    return collected.entries


@pytest.mark.parametrize("rows", [1, 3, 1 << 16])
def test_rows_are_counted_in_their_group_whatever_the_batches(
    table: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", rows)
    found = entries(parquet_keys(str(table), ["tx.parquet"], ["hash"]))
    assert found == [(bytes([n]) * 3, 0, n // 7, n % 7, 0) for n in range(10)]


@pytest.mark.parametrize(("column", "key"), [("word", b"w"), ("text", b"t"), ("sparse", b"s")])
def test_columns_of_bytes_and_text_are_keys_without_nulls(table: Path, column: str, key: bytes) -> None:
    found = entries(parquet_keys(str(table), ["tx.parquet"], [column]))
    assert {one[0] for one in found} == {key}
    assert len(found) == (5 if column == "sparse" else 10)


@pytest.mark.parametrize(("column", "says"), [("number", "is of int64"), ("no", "no column 'no'")])
def test_other_columns_are_refused(table: Path, column: str, says: str) -> None:
    with pytest.raises(IndexerError, match=says):
        list(parquet_keys(str(table), ["tx.parquet"], [column]))


@pytest.mark.parametrize(
    ("keys", "file", "says"),
    [
        ([b"a", b""], "tx.parquet", "what is no key: key: has 0 bytes"),
        ([b"a", None, bytes(65_537)], "tx.parquet", "what is no key: key: has 65537 bytes"),
        ([b"a"], "other.parquet", "file 'other.parquet', which it was not given"),
        ([b"a" * 60_000] * 2, "tx.parquet", "would have more than 100000 bytes"),
    ],
)
def test_rows_that_no_index_can_have_are_refused(keys: list[bytes | None], file: str, says: str) -> None:
    with pytest.raises(IndexerError, match=says):
        entries([(keys, file, 0, 0)], 100_000)


def test_a_mistyped_column_is_told_with_those_that_there_are(table: Path) -> None:
    with pytest.raises(IndexerError, match="no column 'hsh'") as refused:
        list(parquet_keys(str(table), ["tx.parquet"], ["hash", "hsh"]))
    assert "has 'hash', 'word', 'text', 'sparse', 'number'" in refused.value.hint


def test_without_pyarrow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(IndexerError, match="cannot be imported") as refused:
        list(parquet_keys(str(tmp_path), ["tx.parquet"], ["hash"]))
    assert "pip install pyarrow" in refused.value.hint
