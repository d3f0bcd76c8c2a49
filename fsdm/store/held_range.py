"""A range of blocks, held: refs to the chunks that cover it, and the gaps that none covers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from fsdm.model.errors import InvalidInputError, NotAvailableError
from fsdm.model.layout import U64_MAX, as_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fsdm.store.catalog import Catalog
    from fsdm.store.refs import ChunkRef


@dataclass(frozen=True, slots=True)
class HeldRange:
    """Refs to chunks that together cover `blocks`, but for the `gaps`; a context manager, which closes them.

    Each ref has the first block that those before it and the gaps do not have: so where chunks overlap, some blocks are
    in several. The gaps are half-open ranges, in order, none of them empty.
    """

    blocks: range
    refs: tuple[ChunkRef, ...]
    gaps: tuple[range, ...]

    @property
    def paths(self) -> list[Path]:
        """The directories with the chunks' files, in order."""
        return [ref.path for ref in self.refs]

    def close(self) -> None:
        """Release all of them."""
        for ref in self.refs:
            ref.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def hold(
    blocks: range, find: Callable[[int], ChunkRef | None], next_start: Callable[[int], int | None], *, whole: bool
) -> HeldRange:
    """Take refs from block to block. `next_start` tells where the first chunk begins that begins behind a block.

    Raises:
        NotAvailableError: there is a gap, and `whole` is asked for: then nothing is held.
    """
    refs: list[ChunkRef] = []
    gaps: list[range] = []
    try:
        at, gap = blocks.start, blocks.start  # from `gap` to `at` no chunk was found
        while at < blocks.stop:
            ref = find(at)
            if ref is None:
                following = next_start(at)
                at = blocks.stop if following is None else min(following, blocks.stop)
                continue
            refs.append(ref)
            gaps += [range(gap, at)] * (gap < at)
            at = gap = ref.block_range.stop
        gaps += [range(gap, blocks.stop)] * (gap < blocks.stop)
        if gaps and whole:
            told = ", ".join(f"[{gap.start}, {gap.stop})" for gap in gaps[:3]) + " …" * (len(gaps) > 3)
            raise NotAvailableError(f"no available chunk holds {told}", hint="`fsdm map` shows what is missing")
    except BaseException:
        for ref in refs:
            ref.close()
        raise
    return HeldRange(blocks, tuple(refs), tuple(gaps))


class Holding(ABC):
    """Holds what `find_chunk` finds: one chunk, or all of a range of blocks."""

    _catalog: Catalog

    @abstractmethod
    def find_chunk(self, dataset_id: str | bytes, block: int) -> ChunkRef | None:
        """Take a ref to the available chunk that is responsible for a block, or None."""

    def hold_chunk(self, dataset_id: str | bytes, block: int) -> ChunkRef:
        """Take a ref as `find_chunk` does.

        Raises:
            NotAvailableError: no available chunk of the dataset holds the block.
            InvalidInputError, DataDirectoryError, ClosedError: as `find_chunk`.
        """
        ref = self.find_chunk(dataset_id, block)
        if ref is None:
            what = f"no available chunk of {as_id(dataset_id, 'dataset_id')} holds block {block}"
            raise NotAvailableError(what, hint="`fsdm map` shows what is missing")
        return ref

    def hold_range(self, dataset_id: str | bytes, start: int, end: int, *, whole: bool = False) -> HeldRange:
        """Take refs to the chunks that hold the blocks `[start, end)`; what none holds is in `gaps`.

        Raises:
            NotAvailableError: there is a gap, and `whole` is asked for: then nothing is held.
            InvalidInputError: the range is empty, or not within u64.
            DataDirectoryError, ClosedError: as `find_chunk`.
        """
        dataset_id = as_id(dataset_id, "dataset_id")
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= U64_MAX):
            what = f"must be a range within 0 … 2^64-1, not [{start!r:.80}, {end!r:.80})"
            raise InvalidInputError(what, field="start")
        find, next_start = partial(self.find_chunk, dataset_id), partial(self._catalog.next_start, dataset_id)
        return hold(range(start, end), find, next_start, whole=whole)
