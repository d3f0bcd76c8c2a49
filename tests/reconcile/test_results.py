"""Results: what an outcome leaves to be remembered, told, watched and released."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fsdm.model.errors import DiskError, InvalidInputError, TransferError
from fsdm.model.events import Event
from fsdm.model.layout import Layout
from fsdm.reconcile import actions
from fsdm.reconcile.actions import Action, CannotRead, Done, Failed, Held, Outcome, Quarantined, Stale, Stopped
from fsdm.reconcile.memo import NO_MEMO, Memo
from fsdm.reconcile.plan import held_delay
from fsdm.reconcile.results import Results
from tests.support.chunks import an_id
from tests.support.states import DELETE, ID, NEW, NOW, WANT, _failure

RETIRE = actions.Retire(ID, NEW, DELETE)


class Bench:
    """Results between stand-ins that note what is asked of them."""

    def __init__(self, layout: Layout, *, watched: bool = True, refuses: bool = False, fits: bool = True) -> None:
        self.events: list[Event] = []
        self.asked: list[str] = []

        def note(name: str, answer: object = None) -> Any:
            return lambda *_: (self.asked.append(name), answer)[1]

        self.applier = SimpleNamespace(release=note("drop claim"))
        self.watcher = SimpleNamespace(hold=note("watch", watched), release=note("unwatch"))
        self.space = SimpleNamespace(guard=note("guard"), end=lambda _: fits, count=lambda _: None)
        self.disk = SimpleNamespace(
            refused=note("refused", refuses), outage=SimpleNamespace(came_through=note("came through"))
        )
        self.it = Results(
            layout,
            cast("Any", self.applier),
            cast("Any", self.watcher),
            space=cast("Any", self.space),
            disk=cast("Any", self.disk),
            tell=self.events.append,
            clock=lambda: NOW,
            jitter=lambda: 1.0,
        )

    def after(self, action: Action, outcome: Outcome, *, others_wait: bool = False, **known: Any) -> Memo:
        """What is remembered after an outcome, and was `known` before."""
        self.it._change(ID, **known)
        self.it.take_in(action, outcome, others_wait=others_wait)
        return self.it.memo(ID)


def test_failure_of_an_acquire_is_timed_after_the_look_at_its_marker(layout: Layout) -> None:
    """A waiter takes the time, then touches: so it sees each failure that speaks of its touch."""
    bench, marker = Bench(layout), Path(layout.acquire_marker(ID))
    marker.touch()

    def clock() -> float:
        times.append(NOW + len(times))
        os.utime(marker, ns=(0, 10**9 * len(times)))
        return times[-1]

    times: list[float] = []
    bench.it.clock = clock
    memo = bench.after(actions.Fetch(ID, WANT, True), Failed(TransferError("no way"), disk=False))
    assert memo.failure is not None
    assert memo.failure.marker is not None
    assert memo.failure.last_at >= NOW + memo.failure.marker.mtime_ns / 1e9


def test_the_first_refused_claim_is_told_and_tried_at_once_later_ones_wait(layout: Layout) -> None:
    bench = Bench(layout)
    memo = bench.after(RETIRE, Held(NEW))
    assert (memo.held, memo.held_until) == (1, NOW)
    assert bench.it.is_held(ID)
    bench.watcher.hold = lambda _: False
    memo = bench.after(RETIRE, Held(NEW))
    assert (memo.held, memo.held_until) == (2, NOW + held_delay(2))
    assert [event.kind for event in bench.events] == ["retiring"]


def test_without_a_watch_the_first_refusal_waits_as_well(layout: Layout) -> None:
    assert Bench(layout, watched=False).after(RETIRE, Held(NEW)).held_until == NOW + held_delay(1)


def test_a_notified_id_is_tried_again_soon_only_where_refs_hold_it(layout: Layout) -> None:
    bench, other = Bench(layout), an_id("other")
    bench.after(RETIRE, Held(NEW))
    bench.it._change(ID, held=9, held_until=NOW + 60)
    bench.it.retry_held({ID, other})
    assert (bench.it.memo(ID).held, bench.it.memo(ID).held_until) == (1, 0.0)
    assert bench.it.memo(other) == NO_MEMO


def test_a_retired_chunk_is_released_once(layout: Layout) -> None:
    bench = Bench(layout)
    bench.after(RETIRE, Held(NEW))
    memo = bench.after(RETIRE, Done())
    assert (memo.held, memo.held_until) == (0, 0.0)
    bench.it.release(ID)
    assert bench.asked == ["watch", "unwatch", "drop claim"]


def test_a_failed_download_is_told_and_remembered_with_its_next_attempt(layout: Layout) -> None:
    bench = Bench(layout)
    memo = bench.after(actions.Fetch(ID, WANT), Failed(TransferError("no"), disk=False))
    assert memo.failure is not None
    assert (memo.failure.kind, memo.failure.attempts, memo.reported) == ("transfer", 1, False)
    assert memo.failure.next_attempt_at is not None
    assert [(event.kind, event.text) for event in bench.events] == [("failed", "no")]
    assert bench.asked == []


@pytest.mark.parametrize("outcome", [Done(), Stopped()])
@pytest.mark.parametrize(("fits", "others_wait"), [(True, False), (True, True), (False, False)])
def test_a_partial_gives_way_to_other_fetches(layout: Layout, outcome: Outcome, fits: bool, others_wait: bool) -> None:
    memo = Bench(layout, fits=fits).after(actions.Fetch(ID, WANT), outcome, others_wait=others_wait, crowded=True)
    assert memo.crowded == (not fits or (others_wait and outcome != Done()))


@pytest.mark.parametrize(("code", "asked"), [(errno.ENOSPC, ["guard", "refused"]), (errno.EROFS, ["refused"])])
def test_a_download_that_the_disk_refuses_waits_for_its_end(layout: Layout, code: int, asked: list[str]) -> None:
    bench = Bench(layout, refuses=True)
    memo = bench.after(actions.Fetch(ID, WANT), Failed(DiskError("full", code=code), disk=True))
    assert memo.failure is not None
    assert memo.failure.next_attempt_at is None
    assert bench.asked == asked


def test_a_delete_that_the_disk_refuses_pauses_no_download(layout: Layout) -> None:
    bench = Bench(layout, refuses=True)
    memo = bench.after(RETIRE, Failed(DiskError("no", code=errno.EROFS), disk=True))
    assert memo.failure is not None
    assert memo.failure.next_attempt_at is not None
    assert bench.asked == []


def test_a_report_that_cannot_be_written_is_logged_and_not_tried_without_end(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    bench, failure = Bench(layout), _failure()
    memo = bench.after(actions.Report(ID, failure), Failed(DiskError("full"), disk=True))
    assert (memo.reported, memo.failure) == (True, failure)
    assert bench.events == []
    assert [record.getMessage() for record in caplog.records] == [f"{ID}: e; and full"]


@pytest.mark.parametrize(
    ("action", "kind", "left"),
    [
        (actions.Fetch(ID, WANT), "transfer", False),
        (actions.Fetch(ID, WANT), "want", True),
        (actions.Publish(ID, WANT), "disk", False),
        (actions.Publish(ID, WANT), "transfer", True),
        (actions.Forget(ID, DELETE), "want", False),
        (actions.ClearFailure(ID), "want", False),
    ],
)
def test_a_done_action_takes_back_the_failure_that_it_mends(
    layout: Layout,
    action: actions.Fetch | actions.Publish | actions.Forget | actions.ClearFailure,
    kind: Any,
    left: bool,
) -> None:
    failure = _failure().model_copy(update={"kind": kind})
    assert (Bench(layout).after(action, Done(), failure=failure).failure is not None) == left


def test_an_unreadable_want_is_remembered_since_it_was_first_seen(layout: Layout) -> None:
    bench = Bench(layout)
    unread = CannotRead(WANT, InvalidInputError("half"))
    bench.after(actions.Fetch(ID, WANT), unread)
    bench.it.clock = lambda: NOW + 2
    again = bench.after(actions.Fetch(ID, WANT), unread)
    assert again.unreadable is not None
    assert again.unreadable.since == NOW


def test_a_quarantined_chunk_is_reported_and_suspected_no_more(layout: Layout) -> None:
    done = Bench(layout).after(actions.Quarantine(ID, NEW), Quarantined(_failure()), suspect=NEW)
    assert (done.reported, done.suspect) == (True, None)


def test_a_stopped_or_stale_action_leaves_nothing(layout: Layout) -> None:
    for outcome in (Stopped(), Stale()):
        assert Bench(layout).after(actions.Fetch(ID, WANT), outcome) == NO_MEMO


def test_a_memo_that_was_never_made_or_was_forgotten_is_empty(layout: Layout) -> None:
    results = Bench(layout).it
    assert results.memo(ID) == NO_MEMO
    results.suspected(NEW)
    assert results.memo(NEW.chunk_id).suspect == NEW
    results.forget(ID)
    assert results.memo(ID) == NO_MEMO
