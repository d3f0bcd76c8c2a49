"""The indexer `parquet:COLUMN,…`: the values of columns, by row group and row. pyarrow is imported where it is used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import IndexerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyarrow import RecordBatch

ROWS: Final = 1 << 16  # of a column, in memory at once


def parquet_keys(
    directory: str, names: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[list[bytes | None], str, int, int]]:
    """Yield the values of a column in rows that follow each other, None for a null; file, first row and row group.

    Raises:
        IndexerError: pyarrow is not there; a file is no Parquet, or has no such column of bytes or text.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as e:
        raise IndexerError(f"pyarrow cannot be imported: {e}", hint="pip install pyarrow") from e
    pa.set_cpu_count(1)
    for name in names:
        try:
            with pq.ParquetFile(os.path.join(directory, name)) as file:
                _check(name, columns, file.schema_arrow.names)
                for group in range(file.num_row_groups):
                    row = 0
                    for batch in file.iter_batches(ROWS, row_groups=[group], columns=list(columns), use_threads=False):
                        for column in columns:
                            yield _values(batch, name, column), name, row, group
                        row += batch.num_rows
        except (pa.ArrowException, OSError) as e:
            raise IndexerError(f"{name} cannot be read as Parquet: {e}") from e


def _check(name: str, columns: Sequence[str], known: Sequence[str]) -> None:
    for column in columns:
        if column not in known:
            hint = f"check the indexer's columns, and its files; this one has {', '.join(map(repr, known)):.400}"
            raise IndexerError(f"{name} has no column {column!r:.80}", hint=hint)


def _values(batch: RecordBatch, name: str, column: str) -> list[bytes | None]:
    import pyarrow as pa

    values = batch.column(column)
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)):
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            hint = "keys are columns of bytes or of text"
            raise IndexerError(f"the column {column} of {name} is of {kind}", hint=hint)
        values = values.cast(pa.large_binary())
    return values.to_pylist()  # type: ignore[no-any-return]
