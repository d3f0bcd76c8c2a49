"""Collecting what an indexer emits: keys and their places, checked, and within bounds.

Invariant: no entry speaks of a file that the indexer was not given, and all of them together take up no more in the
index than its settings allow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import IndexerError, InvalidInputError
from fsdm.model.index_format import ENTRY_BYTES, NO_ROW_GROUP, as_key
from fsdm.model.layout import U64_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        try:
            taken = key if type(key) is bytes and 0 < len(key) <= 1024 else as_key(key)
        except InvalidInputError as e:
            raise IndexerError(f"the indexer has emitted what is no key: {e}", hint=e.hint) from None
        number = self._numbers.get(file) if isinstance(file, str) else None
        if number is None:
            raise IndexerError(f"the indexer speaks of the file {file!r:.80}, which it was not given")
        group = NO_ROW_GROUP if row_group is None else _number(row_group, ROW_GROUP_MAX, "row group")
        self._bytes += ENTRY_BYTES + len(taken)
        if self._bytes > self.max_bytes:
            hint = "raise max-output, or have fewer keys"
            raise IndexerError(f"the index would have more than {self.max_bytes} bytes", hint=hint)
        self.entries.append(
            (taken, number, group, _number(offset, U64_MAX, "offset"), _number(length, U64_MAX, "length"))
        )


def _number(value: object, at_most: int, what: str) -> int:
    if type(value) is int and 0 <= value <= at_most:
        return value
    raise IndexerError(f"the indexer has emitted the {what} {value!r:.80}, which is no number within 0 … {at_most}")
