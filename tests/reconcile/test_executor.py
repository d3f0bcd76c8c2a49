"""What is under way: how it begins, how it is stopped, and that it always ends."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import Manifest
from fsdm.model.events import Event
from fsdm.model.state import ChunkState, Marker
from fsdm.reconcile.actions import (
    Action,
    Clear,
    ClearFailure,
    Done,
    Evict,
    Failed,
    Fetch,
    Fetched,
    Forget,
    Outcome,
    Publish,
    Retire,
    Stale,
    Stopped,
)
from fsdm.reconcile.executor import Executor
from tests.support.chunks import a_want, an_id
from tools.support.workers import InlineWorkers

ID = an_id()
WANT = Marker(1, 1, 2, 3)
ANOTHER = Marker(4, 4, 5, 6)
FETCH, CLEAR = Fetch(ID, WANT), Clear(ID, Marker(7, 7, 8, 9))
CHUNK = a_want(id=ID)
FETCHED = Done(Fetched(CHUNK, b"its want", Manifest.model_construct()))


class Later(InlineWorkers):
    """Carries out what was submitted when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.works: list[Callable[[], None]] = []

    def submit(self, work: Callable[[], None]) -> None:
        self.works.append(work)

    def work(self) -> None:
        while self.works:
            self.works.pop(0)()


class Bench:
    """Executor, whose actions are written down, and come out as `outcome` says."""

    def __init__(self, outcome: Outcome | Exception = Done(), *, brings_it: bool = False) -> None:  # noqa: B008 a value
        self.fetchers, self.workers = Later(), Later()
        self.applied: list[Action] = []
        self.events: list[Event] = []
        self.woken = 0
        self._outcome = outcome
        self.is_free, self.stops, self.is_known = True, False, False
        self.erased_after: list[int] = []  # so many had been applied
        trash = SimpleNamespace(erase_left=lambda: self.erased_after.append(len(self.applied)))
        applier = SimpleNamespace(
            trash=trash,
            apply=self._apply,
            is_fetching=lambda chunk_id, want, known: brings_it,
            is_free=lambda chunk_id: self.is_free,
            layout=SimpleNamespace(known_marker=lambda chunk_id: "/" if self.is_known else "/nowhere"),
        )
        self.it = Executor(
            cast("Any", applier), fetchers=self.fetchers, workers=self.workers, tell=self.events.append, wake=self._wake
        )

    def _apply(self, action: Action, stop: Cancellation) -> Outcome:
        self.applied.append(action)
        if stop.is_set():
            return Stopped()
        if self.stops:
            stop.set()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def _wake(self) -> None:
        self.woken += 1

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event.kind, event.text) for event in self.events]


@pytest.mark.parametrize(("action", "fetches"), [(FETCH, [FETCH]), (CLEAR, [])])
def test_an_id_is_busy_until_its_outcome_is_taken(action: Action, fetches: list[Fetch]) -> None:
    bench = Bench()
    bench.it.begin(action, clear_failure=False)
    assert (ID in bench.it, len(bench.it), bench.it.actions) == (True, 1, [action])
    assert bench.it.fetches == fetches
    assert (len(bench.fetchers.works), len(bench.workers.works)) == (len(fetches), 1 - len(fetches))
    assert list(bench.it.outcomes()) == []
    bench.fetchers.work()
    bench.workers.work()
    assert (bench.applied, bench.woken) == ([action], 1)
    assert ID in bench.it, "its outcome was not taken yet"
    for ended in bench.it.outcomes():
        assert ended == (action, Done())
        assert ID not in bench.it
    assert (len(bench.it), bench.it.fetches) == (0, [])


def test_what_is_over_is_cleared_before_its_fetch_begins() -> None:
    bench = Bench()
    bench.it.begin(FETCH, clear_failure=True)
    bench.fetchers.work()
    assert bench.applied == [ClearFailure(ID), FETCH]
    assert [action for action, _ in bench.it.outcomes()] == [FETCH]


def test_what_was_fetched_is_published_at_once() -> None:
    bench = Bench(FETCHED)
    bench.it.begin(FETCH, clear_failure=False)
    bench.fetchers.work()
    assert bench.applied == [FETCH, Publish(ID, WANT)]
    assert bench.applied[1].fetched is FETCHED.fetched  # type: ignore[attr-defined]
    assert bench.it.fetches == [], "it is a fetch no more: a delete that comes now does not stop it"
    assert bench.woken == 1
    assert list(bench.it.outcomes()) == [(FETCH, Done()), (Publish(ID, WANT), Done())]
    assert ID not in bench.it


def test_what_was_fetched_is_not_published_where_another_directory_of_it_stands() -> None:
    bench = Bench(FETCHED)
    bench.is_free = False
    bench.it.begin(FETCH, clear_failure=False)
    bench.fetchers.work()
    assert list(bench.it.outcomes()) == [(FETCH, Done())]


@pytest.mark.parametrize(("is_free", "outcome"), [(True, Done()), (False, Done()), (True, Stale())])
def test_delete_of_what_was_retired_is_forgotten_where_nothing_else_stands(is_free: bool, outcome: Outcome) -> None:
    bench, delete = Bench(outcome), Marker(7, 7, 8, 9)
    bench.is_free = is_free
    retire = Retire(ID, CHUNK.place, delete)
    bench.it.begin(retire, clear_failure=False)
    bench.workers.work()
    follows = [Forget(ID, delete)] if is_free and outcome == Done() else []
    assert bench.applied == [retire, *follows]
    assert list(bench.it.outcomes()) == [(action, outcome) for action in bench.applied]


def test_delete_of_what_is_registered_is_judged_anew() -> None:
    bench, retire = Bench(Done()), Retire(ID, CHUNK.place, Marker(7, 7, 8, 9))
    bench.is_known = True
    bench.it.begin(retire, clear_failure=False)
    bench.workers.work()
    assert bench.applied == [retire]


def test_what_was_fetched_is_not_published_after_a_stop() -> None:
    bench = Bench(FETCHED)
    bench.stops = True
    bench.it.begin(FETCH, clear_failure=False)
    bench.fetchers.work()
    assert list(bench.it.outcomes()) == [(FETCH, Done())]


@pytest.mark.parametrize("clear_failure", [True, False])
def test_a_defect_is_an_outcome_as_well(clear_failure: bool) -> None:
    bench = Bench(ZeroDivisionError("a defect"))
    bench.it.begin(FETCH, clear_failure=clear_failure)
    bench.fetchers.work()
    [(action, outcome)] = bench.it.outcomes()
    assert isinstance(outcome, Failed)
    assert (action, outcome.disk, outcome.error.cause, bench.woken) == (FETCH, True, "defect", 1)
    assert "ZeroDivisionError" in str(outcome.error)


@pytest.mark.parametrize("outcome", [Done(), ZeroDivisionError("a defect")])
def test_evictions_are_one_piece_of_work_and_all_have_outcomes(outcome: Outcome | Exception) -> None:
    bench, marker = Bench(outcome), Marker(7, 7, 8, 9)
    evictions = [Evict(one, CHUNK.place, marker) for one in (an_id(), an_id(), an_id())]
    bench.it.begin_evictions([])
    bench.it.begin_evictions(evictions)
    assert (len(bench.workers.works), len(bench.it), bench.it.fetches) == (1, 3, [])
    assert all(bench.it.looks_again(one.id) for one in evictions)
    bench.workers.work()
    assert (bench.applied, bench.erased_after, bench.woken) == (evictions, [3], 1), (
        "nothing is erased before all are out"
    )
    ended = list(bench.it.outcomes())
    assert [action for action, _ in ended] == evictions
    assert {type(one) for _, one in ended} == {Done if outcome == Done() else Failed}
    assert len(bench.it) == 0


def test_an_id_with_a_short_action_needs_no_look_before_it_has_ended_and_one_with_a_fetch_does() -> None:
    bench = Bench(FETCHED)
    bench.it.begin(FETCH, clear_failure=False)
    assert not bench.it.looks_again(ID), "it may have to be stopped"
    bench.fetchers.work()
    assert bench.it.looks_again(ID), "it is being published"
    assert [*bench.it.outcomes()] != []
    assert not bench.it.looks_again(ID)


def test_fetches_are_stopped_and_told_of_once_and_nothing_else_is() -> None:
    bench, other = Bench(), Clear(an_id(), Marker(7, 7, 8, 9))
    bench.it.begin(FETCH, clear_failure=False)
    bench.it.begin(other, clear_failure=False)
    bench.it.stop_fetches("paused")
    bench.it.stop(FETCH, "no room")
    bench.it.stop_if_unwanted(ChunkState(ID))
    bench.it.stop_if_unwanted(ChunkState(other.id))
    assert bench.told == [("stopped", "paused")]
    bench.fetchers.work()
    bench.workers.work()
    assert list(bench.it.outcomes()) == [(FETCH, Stopped()), (other, Done())]


@pytest.mark.parametrize(
    ("state", "brings_it", "told"),
    [
        (ChunkState(ID, want=WANT), False, []),
        (ChunkState(ID, want=ANOTHER), True, []),
        (ChunkState(ID, want=ANOTHER), False, [("stopped", "wanted anew")]),
        (ChunkState(ID), True, [("stopped", "no longer wanted")]),
        (ChunkState(ID, want=WANT, delete=ANOTHER), True, [("stopped", "no longer wanted")]),
        (ChunkState(ID, want=WANT, delete=Marker(4, 4, 5, 6, fault="is a directory")), True, []),
    ],
)
def test_a_fetch_that_brings_the_want_goes_on(state: ChunkState, brings_it: bool, told: list[tuple[str, str]]) -> None:
    bench = Bench(brings_it=brings_it)
    bench.it.begin(FETCH, clear_failure=False)
    bench.it.stop_if_unwanted(state)
    assert bench.told == told


def test_slots_are_taken_by_fetches_that_have_not_lent_theirs() -> None:
    bench = Bench()
    bench.it.begin(FETCH, clear_failure=False)
    scheduled = cast("Any", bench.it.applier)
    scheduled.scheduler = None
    assert bench.it.slots_taken == 1
    for lent in (False, True):
        scheduled.scheduler = SimpleNamespace(has_lent=lambda chunk_id, lent=lent: lent)
        assert bench.it.slots_taken == int(not lent)
