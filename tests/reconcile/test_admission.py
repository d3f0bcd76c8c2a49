"""Which fetches are let in: what is remembered, told and parked of those that there is no room for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsdm.reconcile.admission import Admission
from fsdm.reconcile.memo import Memos
from fsdm.reconcile.space_budget import SpaceBudget
from fsdm.reconcile.wakeup import Wakeup
from fsdm.reconcile.work_queue import WorkQueue
from fsdm.store.catalog import Catalog
from tests.support.loop import a_fetch, comes
from tests.support.states import NOW, _failure

if TYPE_CHECKING:
    from fsdm.model.events import Event
    from fsdm.model.layout import Layout


class Bench:
    """An admission and all that it works with."""

    def __init__(self, layout: Layout, max_bytes: int | None) -> None:
        self.space = SpaceBudget(layout, Catalog(layout, own=True), max_bytes=max_bytes, keep_free_bytes=None)
        self.space.open()
        self.work_queue, self.memos, self.wakeup = WorkQueue(), Memos(layout), Wakeup()
        self.events: list[Event] = []
        self.it = Admission(self.space, self.work_queue, self.memos, wakeup=self.wakeup, tell=self.events.append)

    def woken(self) -> set[str]:
        return self.wakeup.answer(0.0)[0]


def test_without_a_limit_everybody_is_let_in_and_nothing_is_read(layout: Layout) -> None:
    bench = Bench(layout, None)
    fetch = a_fetch(layout, 1 << 60)
    bench.it.open(1)
    assert bench.it.admit(fetch, NOW)
    assert bench.space._needs == {}


def test_one_that_does_not_fit_is_told_of_first_and_parked_then(layout: Layout) -> None:
    bench, fetch = Bench(layout, 100), a_fetch(layout, 200)
    bench.work_queue.put(fetch.id, fetch)
    bench.it.open(1)
    assert not bench.it.admit(fetch, NOW)
    memo = bench.memos.of(fetch.id)
    assert memo.failure is not None
    assert (memo.failure.kind, memo.reported, memo.crowded) == ("room", False, True)
    assert bench.woken() == {fetch.id}
    assert bench.work_queue.parked_fetches == 0
    assert not bench.it.admit(fetch, NOW + 1)
    assert bench.work_queue.parked_fetches == 1
    assert bench.wakeup._event.is_set()  # others may still have to be asked
    assert bench.memos.of(fetch.id).failure == memo.failure
    assert [event.kind for event in bench.events] == ["over"]


def test_one_that_is_let_in_after_all_waits_no_more_and_keeps_another_failure_in_mind(layout: Layout) -> None:
    bench, waited, failed = Bench(layout, 100), a_fetch(layout, 60), a_fetch(layout, 40)
    bench.memos.change(failed.id, failure=_failure())
    bench.work_queue.put(failed.id, failed)
    assert not bench.it.admit(waited, NOW)  # nobody has looked how much room there is
    bench.it.open(1)
    assert bench.it.admit(waited, NOW)
    assert bench.memos.of(waited.id).failure is None
    assert not bench.memos.of(waited.id).crowded
    assert bench.it.admit(failed, NOW)
    assert bench.memos.of(failed.id).failure == _failure()


def test_partials_in_the_way_are_to_give_way(layout: Layout) -> None:
    idle, fetch = a_fetch(layout, 90), a_fetch(layout, 60)
    comes(layout, idle, 50)
    bench = Bench(layout, 100)
    bench.work_queue.put(fetch.id, fetch)
    bench.it.open(1)
    assert not bench.it.admit(fetch, NOW)
    assert bench.memos.of(idle.id).crowded
    assert bench.woken() == {fetch.id, idle.id}
