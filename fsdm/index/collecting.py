"""Collecting what an indexer emits: keys and their places, checked, and within bounds.

Invariant: no entry speaks of a file that the indexer was not given, and all of them together take up no more in the
index than its settings allow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import IndexerError, InvalidInputError
from fsdm.model.index_format import ENTRY_BYTES, KEY_MAX_BYTES, NO_ROW_GROUP, as_key
from fsdm.model.layout import U64_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsdm.index.writing import Entry

ROW_GROUP_MAX: Final = NO_ROW_GROUP - 1


@dataclass(slots=True)
class Collected:
    """The entries of one chunk's index, which may stand in the files of these names."""

    names: Sequence[str]
    max_bytes: int
    entries: list[Entry] = field(default_factory=list)
    _numbers: dict[str, int] = field(init=False)
    _bytes: int = 0

    def __post_init__(self) -> None:
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def add(self, key: object, file: object, offset: object, length: object = 0, row_group: object = None) -> None:
        """Take one key and its place.

        Raises:
            IndexerError: it is none, or there is no more room for it.
        """
        taken = key if type(key) is bytes and 0 < len(key) <= 1024 else _key(key)
        number = self._number_of(file)
        group = NO_ROW_GROUP if row_group is None else _number(row_group, ROW_GROUP_MAX, "row group")
        self._count(ENTRY_BYTES + len(taken))
        self.entries.append(
            (taken, number, group, _number(offset, U64_MAX, "offset"), _number(length, U64_MAX, "length"))
        )

    def add_rows(self, keys: Iterable[bytes | None], file: str, first: int, row_group: int) -> None:
        """Take the keys of rows that follow each other, from `first` on; a row with None has none.

        Raises:
            IndexerError: as `add`.
        """
        number = self._number_of(file)
        rows = [(key, number, row_group, row, 0) for row, key in enumerate(keys, first) if key is not None]
        sizes = [len(row[0]) for row in rows]
        if not all(sizes) or max(sizes, default=0) > KEY_MAX_BYTES:
            for row in rows:
                _key(row[0])
        self._count(ENTRY_BYTES * len(rows) + sum(sizes))
        self.entries += rows

    def _number_of(self, file: object) -> int:
        number = self._numbers.get(file) if isinstance(file, str) else None
        if number is None:
            raise IndexerError(f"the indexer speaks of the file {file!r:.80}, which it was not given")
        return number

    def _count(self, more_bytes: int) -> None:
        self._bytes += more_bytes
        if self._bytes > self.max_bytes:
            hint = "raise max-output, or have fewer keys"
            raise IndexerError(f"the index would have more than {self.max_bytes} bytes", hint=hint)


def _key(value: object) -> bytes:
    try:
        return as_key(value)
    except InvalidInputError as e:
        raise IndexerError(f"the indexer has emitted what is no key: {e}", hint=e.hint) from None


def _number(value: object, at_most: int, what: str) -> int:
    if type(value) is int and 0 <= value <= at_most:
        return value
    raise IndexerError(f"the indexer has emitted the {what} {value!r:.80}, which is no number within 0 … {at_most}")
