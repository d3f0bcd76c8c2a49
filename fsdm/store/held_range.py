"""A range of blocks, held: refs to the chunks that cover it, and the gaps that none covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from fsdm.model.errors import NotAvailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
