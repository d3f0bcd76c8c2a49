"""What an outcome leaves behind: what is remembered, told, watched and let go of."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from fsdm.model.errors import DiskError, InvalidInputError, TransferError
from fsdm.reconcile import outcome as outcomes
from fsdm.reconcile.actions import Absolve, Condemn, Fetch, Forget, Publish, Report, Retire
from fsdm.reconcile.memo import Memos
from fsdm.reconcile.plan import NO_MEMO, Memo, held_delay
from fsdm.reconcile.results import Results
from tests.support.chunks import an_id
from tests.support.states import DELETE, ID, NEW, NOW, WANT, _failure

if TYPE_CHECKING:
    from fsdm.model.events import Event
    from fsdm.model.layout import Layout

RETIRE = Retire(ID, NEW, DELETE)


class Bench:
    """An aftermath between stand-ins that note what is asked of them."""

    def __init__(self, layout: Layout, *, watched: bool = True, refuses: bool = False) -> None:
        self.events: list[Event] = []
        self.asked: list[str] = []
        self.memos = Memos(layout)

        def note(name: str, answer: object = None) -> Any:
            return lambda *_: (self.asked.append(name), answer)[1]

        stub = SimpleNamespace(
            let_go=note("let go"),
            release=note("release"),
            hold=note("hold", watched),
            guard=note("guard"),
            refused=note("refused", refuses),
            came_through=note("came through"),
        )
        rooms = cast("Any", stub)
        self.it = Results(
            rooms,
            rooms,
            memos=self.memos,
            space=rooms,
            disk=rooms,
            tell=self.events.append,
            clock=lambda: NOW,
            jitter=lambda: 1.0,
        )


def test_the_first_refusal_of_a_ref_is_told_and_tried_again_at_once_the_next_ones_later(layout: Layout) -> None:
    bench = Bench(layout)
    memo = bench.it.take_in(RETIRE, outcomes.Held(NEW), NO_MEMO)
    assert (memo.held, memo.held_until) == (1, NOW)
    assert bench.it.is_held(ID)
    bench.it._watch.hold = lambda _: False  # type: ignore[method-assign, assignment]
    memo = bench.it.take_in(RETIRE, outcomes.Held(NEW), memo)
    assert (memo.held, memo.held_until) == (2, NOW + held_delay(2))
    assert [event.kind for event in bench.events] == ["retiring"]


def test_without_a_watch_the_first_refusal_waits_as_well(layout: Layout) -> None:
    memo = Bench(layout, watched=False).it.take_in(RETIRE, outcomes.Held(NEW), NO_MEMO)
    assert memo.held_until == NOW + held_delay(1)


def test_what_rang_is_asked_again_soon_where_refs_held_it_and_only_there(layout: Layout) -> None:
    bench, other = Bench(layout), an_id("other")
    bench.memos.put(ID, bench.it.take_in(RETIRE, outcomes.Held(NEW), NO_MEMO))
    bench.memos.change(ID, held=9, held_until=NOW + 60)
    bench.it.ask_again({ID, other})
    assert (bench.memos.of(ID).held, bench.memos.of(ID).held_until) == (1, 0.0)
    assert bench.memos.of(other) == NO_MEMO


def test_what_is_gone_is_released_and_let_go_of_once(layout: Layout) -> None:
    bench = Bench(layout)
    memo = bench.it.take_in(RETIRE, outcomes.Held(NEW), NO_MEMO)
    memo = bench.it.take_in(RETIRE, outcomes.Done(), memo)
    assert (memo.held, memo.held_until) == (0, 0.0)
    bench.it.let_go(ID)
    assert bench.asked == ["hold", "release", "let go"]


def test_a_failed_download_is_told_and_remembered_with_its_next_attempt(layout: Layout) -> None:
    bench = Bench(layout)
    memo = bench.it.take_in(Fetch(ID, WANT), outcomes.Failed(TransferError("no"), disk=False), NO_MEMO)
    assert memo.failure is not None
    assert (memo.failure.kind, memo.failure.attempts, memo.reported) == ("transfer", 1, False)
    assert memo.failure.next_attempt_at is not None
    assert [(event.kind, event.text) for event in bench.events] == [("failed", "no")]
    assert bench.asked == []


@pytest.mark.parametrize(("code", "asked"), [(errno.ENOSPC, ["guard", "refused"]), (errno.EROFS, ["refused"])])
def test_where_the_disk_refuses_a_download_waits_for_it_and_not_for_a_time(
    layout: Layout, code: int, asked: list[str]
) -> None:
    bench = Bench(layout, refuses=True)
    failed = outcomes.Failed(DiskError("full", code=code), disk=True)
    memo = bench.it.take_in(Fetch(ID, WANT), failed, NO_MEMO)
    assert memo.failure is not None
    assert memo.failure.next_attempt_at is None
    assert bench.asked == asked


def test_a_delete_that_the_disk_refuses_pauses_no_download(layout: Layout) -> None:
    bench = Bench(layout, refuses=True)
    failed = outcomes.Failed(DiskError("no", code=errno.EROFS), disk=True)
    memo = bench.it.take_in(RETIRE, failed, NO_MEMO)
    assert memo.failure is not None
    assert memo.failure.next_attempt_at is not None
    assert bench.asked == []


def test_a_report_that_cannot_be_written_is_not_tried_without_end(layout: Layout) -> None:
    bench, failure = Bench(layout), _failure()
    memo = bench.it.take_in(Report(ID, failure), outcomes.Failed(DiskError("full"), disk=True), NO_MEMO)
    assert (memo.reported, memo.failure) == (True, failure)
    assert bench.events == []


@pytest.mark.parametrize(
    ("action", "kind", "left"),
    [
        (Fetch(ID, WANT), "transfer", False),
        (Fetch(ID, WANT), "want", True),
        (Publish(ID, WANT), "disk", False),
        (Publish(ID, WANT), "transfer", True),
        (Forget(ID, DELETE), "want", False),
        (Absolve(ID), "want", False),
    ],
)
def test_what_has_been_done_takes_back_the_failure_that_it_mends(
    layout: Layout, action: Fetch | Publish | Forget | Absolve, kind: Any, left: bool
) -> None:
    failure = _failure().model_copy(update={"kind": kind})
    memo = Bench(layout).it.take_in(action, outcomes.Done(), Memo(failure=failure))
    assert (memo.failure is not None) == left


def test_what_cannot_be_read_is_remembered_since_it_was_first_seen(layout: Layout) -> None:
    bench = Bench(layout)
    unread = outcomes.CannotRead(WANT, InvalidInputError("half"))
    first = bench.it.take_in(Fetch(ID, WANT), unread, NO_MEMO)
    bench.it._clock = lambda: NOW + 2
    again = bench.it.take_in(Fetch(ID, WANT), unread, first)
    assert again.unreadable is not None
    assert again.unreadable.since == NOW


def test_a_condemned_chunk_is_reported_already_and_suspected_no_more(layout: Layout) -> None:
    memo = Memo(suspect=NEW)
    done = Bench(layout).it.take_in(Condemn(ID, NEW), outcomes.Condemned(_failure()), memo)
    assert (done.reported, done.suspect) == (True, None)


def test_what_was_stopped_or_overtaken_leaves_nothing(layout: Layout) -> None:
    for outcome in (outcomes.Stopped(), outcomes.Stale()):
        assert Bench(layout).it.take_in(Fetch(ID, WANT), outcome, NO_MEMO) == NO_MEMO
