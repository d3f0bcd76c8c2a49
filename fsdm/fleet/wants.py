"""The chunks that a fleet is to hold, as wants: what is kept of each, in the order of their ids."""

from __future__ import annotations

from array import array
from operator import mul
from typing import TYPE_CHECKING

import numpy as np

from fsdm.fleet.inventory import CAPACITY_MAX, Chunks
from fsdm.model.errors import InvalidInputError
from fsdm.model.plain_wants import PlainWant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsdm.fleet.inventory import Ints
    from fsdm.model.documents import DataChunk


class Wants:
    """Wants as they are added; `chunks()` orders them, and then the others tell of each by its number.

    `replicas`: how many copies a chunk is to have, by dataset; `otherwise` for those of all others. `assumed_bytes`:
    the size of a file that declares none; None: that is an error.
    """

    def __init__(self, replicas: Mapping[str, int], otherwise: int, assumed_bytes: int | None) -> None:
        self._replicas, self._otherwise, self._assumed = replicas, otherwise, assumed_bytes
        self._ids: list[bytes] = []
        self._size, self._copies, self._dataset = array("q"), array("q"), array("q")
        self._start, self._end = array("Q"), array("Q")
        self._datasets: dict[str, int] = {}
        self._names: list[str] = []
        self._order: Ints = np.empty(0, np.int64)
        self.sizes: Ints = np.empty(0, np.int64)  # in bytes, by number, as all below

    def add(self, want: DataChunk | PlainWant) -> None:
        """Add a want.

        Raises:
            InvalidInputError: a file of it declares no size, and none is assumed.
        """
        if isinstance(want, PlainWant):
            start, end, size_bytes = want.start, want.end, want.size_bytes
        else:
            start, end, size_bytes = want.block_range.start, want.block_range.stop, self._size_of(want)
        self._ids.append(bytes.fromhex(want.id))
        self._size.append(size_bytes)
        self._copies.append(self._replicas.get(want.dataset_id, self._otherwise))
        self._dataset.append(self._datasets.setdefault(want.dataset_id, len(self._datasets)))
        self._start.append(start)
        self._end.append(end)

    def _size_of(self, chunk: DataChunk) -> int:
        sizes = [self._assumed if file.size is None else file.size for file in chunk.files.values()]
        if None in sizes:
            name = next(name for name, file in chunk.files.items() if file.size is None)
            hint = "have the list declare sizes, or say what to take for one: --assume-bytes 200M"
            raise InvalidInputError(f"{chunk.id}: {name!r:.80} declares no size", field="files", hint=hint)
        if (total := sum(filter(None, sizes))) > CAPACITY_MAX:
            raise InvalidInputError(f"{chunk.id}: its files have more than {CAPACITY_MAX} bytes", field="files")
        return total

    def chunks(self) -> Chunks:
        """Return them as what is to be placed.

        Raises:
            InvalidInputError: they have more bytes than can be counted.
        """
        if sum(map(mul, self._size, self._copies)) > CAPACITY_MAX:
            raise InvalidInputError(f"all copies together have more than {CAPACITY_MAX} bytes", field="size")
        found = Chunks.of(self._ids, np.array(self._size, np.int64), np.array(self._copies, np.int64))
        self._order = np.argsort(np.array(self._ids, found.ids.dtype), kind="stable")
        self._names = list(self._datasets)
        self.sizes = found.size
        return found

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, number: int) -> str:
        """Return the id of a chunk."""
        return self._ids[int(self._order[number])].hex()

    def dataset(self, number: int) -> str:
        """Return the dataset of a chunk."""
        return self._names[self._dataset[int(self._order[number])]]

    def blocks(self, number: int) -> tuple[int, int]:
        """Return the first block of a chunk, and the first that is not in it."""
        at = int(self._order[number])
        return self._start[at], self._end[at]

    def by_blocks(self) -> Ints:
        """Return the numbers of all chunks, by dataset, blocks and id."""
        names = np.argsort(np.argsort(np.array(self._names)))
        dataset = names[np.array(self._dataset, np.int64)][self._order]
        start, end = (np.array(one, np.uint64)[self._order] for one in (self._start, self._end))
        return np.lexsort((np.arange(len(self._ids)), end, start, dataset))
