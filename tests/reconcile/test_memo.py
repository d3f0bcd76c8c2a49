"""What the reconciler remembers of each id."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fsdm.model.state import ChunkState
from fsdm.reconcile.memo import Memos
from fsdm.reconcile.plan import NO_MEMO
from tests.support.states import DELETE, ID, WANT, _failure

if TYPE_CHECKING:
    from fsdm.model.layout import Layout


def test_what_was_never_seen_is_not_remembered_and_what_is_forgotten_neither(layout: Layout) -> None:
    memos = Memos(layout)
    assert memos.of(ID) == NO_MEMO
    memos.change(ID, held=3)
    assert memos.of(ID).held == 3
    memos.forget(ID)
    assert memos.of(ID) == NO_MEMO


def test_a_want_that_stood_alone_is_remembered_beside_a_later_delete(layout: Layout) -> None:
    memos = Memos(layout)
    memos.see(ChunkState(ID, WANT))
    assert memos.see(ChunkState(ID, WANT, DELETE)).want_alone == WANT


def test_a_failure_is_taken_over_from_the_disk_but_not_that_there_was_no_room(layout: Layout) -> None:
    path = Path(layout.failed_of(ID))
    for text, failure in [
        (_failure().to_json(), _failure()),
        (_failure("room", None).to_json(), None),
        (b"nonsense", None),
    ]:
        path.write_bytes(text)
        assert Memos(layout).see(ChunkState(ID, WANT, failed=True)).failure == failure
    path.unlink()
    assert Memos(layout).see(ChunkState(ID, WANT, failed=True)).failure is None
