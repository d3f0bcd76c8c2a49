"""What the reconciler remembers of each id."""

from pathlib import Path

from fsdm.model.layout import Layout
from fsdm.model.state import ChunkState
from fsdm.reconcile.memo import observe
from tests.support.states import DELETE, ID, WANT, _failure


def test_a_want_that_stood_alone_is_remembered_beside_a_later_delete(layout: Layout) -> None:
    memo = observe(layout, ChunkState(ID, WANT))
    assert observe(layout, ChunkState(ID, WANT, DELETE), memo).want_alone == WANT


def test_a_failure_is_taken_over_from_the_disk_but_not_that_there_was_no_room(layout: Layout) -> None:
    path = Path(layout.failed_of(ID))
    for text, failure in [
        (_failure().to_json(), _failure()),
        (_failure("room", None).to_json(), None),
        (b"nonsense", None),
    ]:
        path.write_bytes(text)
        assert observe(layout, ChunkState(ID, WANT, failed=True)).failure == failure
    path.unlink()
    assert observe(layout, ChunkState(ID, WANT, failed=True)).failure is None
