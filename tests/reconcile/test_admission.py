"""Admission: what is remembered, told and parked of the fetches that there is no room for."""

from typing import Any, cast

from fsdm.model.events import Event
from fsdm.model.layout import Layout
from fsdm.model.limits import Limits
from fsdm.reconcile.admission import Admission
from fsdm.reconcile.results import Results
from fsdm.reconcile.space_budget import SpaceBudget
from fsdm.reconcile.wakeup import Wakeup
from fsdm.reconcile.work_queue import WorkQueue
from fsdm.store.catalog import Catalog
from tests.support.loop import a_fetch, comes
from tests.support.states import NOW, _failure


class Bench:
    """An admission and all that it works with."""

    def __init__(self, layout: Layout, max_bytes: int | None) -> None:
        self.space = SpaceBudget(layout, Catalog(layout, own=True), Limits(max_bytes=max_bytes))
        self.space.open()
        self.work_queue, self.wakeup = WorkQueue(), Wakeup()
        self.events: list[Event] = []
        none = cast("Any", None)
        self.results = Results(
            layout, none, none, space=none, disk=none, tell=self.events.append, clock=none, jitter=none
        )
        self.it = Admission(self.space, self.work_queue, self.results, self.wakeup)

    def woken(self) -> set[str]:
        return self.wakeup.take()[0]


def test_without_a_limit_all_are_admitted_and_nothing_is_read(layout: Layout) -> None:
    bench = Bench(layout, None)
    fetch = a_fetch(layout, 1 << 60)
    bench.it.open(1)
    assert bench.it.admit(fetch, NOW)
    assert bench.space._needs == {}


def test_a_fetch_that_does_not_fit_is_told_first_and_parked_then(layout: Layout) -> None:
    bench, fetch = Bench(layout, 100), a_fetch(layout, 200)
    bench.work_queue.put(fetch.id, fetch)
    bench.it.open(1)
    assert not bench.it.admit(fetch, NOW)
    memo = bench.results.memo(fetch.id)
    assert memo.failure is not None
    assert (memo.failure.kind, memo.reported, memo.crowded) == ("room", False, True)
    assert bench.woken() == {fetch.id}
    assert bench.work_queue.parked_fetches == 0
    assert not bench.it.admit(fetch, NOW + 1)
    assert bench.work_queue.parked_fetches == 1
    assert bench.wakeup._event.is_set()  # others may still have to be asked
    assert bench.results.memo(fetch.id).failure == memo.failure
    assert [event.kind for event in bench.events] == ["over"]


def test_an_admitted_fetch_waits_no_more_and_keeps_another_failure(layout: Layout) -> None:
    bench, waited, failed = Bench(layout, 100), a_fetch(layout, 60), a_fetch(layout, 40)
    bench.results._change(failed.id, failure=_failure())
    bench.work_queue.put(failed.id, failed)
    assert not bench.it.admit(waited, NOW)  # it was not looked how much room there is
    bench.it.open(1)
    assert bench.it.admit(waited, NOW)
    assert bench.results.memo(waited.id).failure is None
    assert not bench.results.memo(waited.id).crowded
    assert bench.it.admit(failed, NOW)
    assert bench.results.memo(failed.id).failure == _failure()


def test_partials_in_the_way_are_to_give_way(layout: Layout) -> None:
    idle, fetch = a_fetch(layout, 90), a_fetch(layout, 60)
    comes(layout, idle, 50)
    bench = Bench(layout, 100)
    bench.work_queue.put(fetch.id, fetch)
    bench.it.open(1)
    assert not bench.it.admit(fetch, NOW)
    assert bench.results.memo(idle.id).crowded
    assert bench.woken() == {fetch.id, idle.id}


def test_partial_that_came_to_rest_after_the_refusal_gives_way_too(layout: Layout) -> None:
    running, fetch = a_fetch(layout, 90), a_fetch(layout, 60)
    bench = Bench(layout, 100)
    bench.work_queue.put(fetch.id, fetch)
    bench.it.open(1)
    assert bench.it.admit(running, NOW)
    assert not bench.it.admit(fetch, NOW)
    assert bench.woken() == {fetch.id}
    comes(layout, running, 50)
    bench.space.end(running.id)
    assert not bench.it.admit(fetch, NOW)
    assert bench.work_queue.parked_fetches == 1
    assert bench.results.memo(running.id).crowded
    assert bench.woken() == {running.id}
