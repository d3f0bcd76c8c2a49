"""What the reconciler remembers of each id between two looks, and what it takes over from `failed/ID`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fsdm.reconcile.plan import NO_MEMO, Memo
from fsdm.store.json_files import read_failure

if TYPE_CHECKING:
    from fsdm.model.documents import Failure
    from fsdm.model.layout import Layout
    from fsdm.model.state import ChunkState


class Memos:
    """A memo for each id that is pending."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._memos: dict[str, Memo] = {}

    def of(self, chunk_id: str) -> Memo:
        """What is remembered of an id."""
        return self._memos.get(chunk_id, NO_MEMO)

    def put(self, chunk_id: str, memo: Memo) -> None:
        """Remember this."""
        self._memos[chunk_id] = memo

    def change(self, chunk_id: str, **changes: Any) -> None:
        """Remember some of it anew."""
        self._memos[chunk_id] = replace(self.of(chunk_id), **changes)

    def forget(self, chunk_id: str) -> None:
        """There is nothing about this id any more."""
        self._memos.pop(chunk_id, None)

    def see(self, state: ChunkState) -> Memo:
        """What is to be remembered once this has been seen."""
        memo = self._memos.get(state.id)
        if memo is None:
            memo = Memo(failure=self._last_failure(state))
        if state.want is not None and state.delete is None and not state.want.same_as(memo.want_alone):
            memo = replace(memo, want_alone=state.want)
        self._memos[state.id] = memo
        return memo

    def _last_failure(self, state: ChunkState) -> Failure | None:
        failure = read_failure(self._layout, state)
        # that there was no room was said by another, of other limits and another disk
        return failure if failure is None or failure.kind != "room" else None
