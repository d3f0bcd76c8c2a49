"""What the loop has of it: one answer for each request, one chunk at a time, and an end at once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fsdm.concurrency.workers import InlineWorkers
from fsdm.model.state import Marker
from fsdm.reconcile.actions import Verify
from fsdm.store.catalog import Catalog
from fsdm.store.filesystem import FileSystem
from fsdm.verify.inspection import Inspection
from tests.support.chunks import put_chunk
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.workers import Workers
    from fsdm.model.layout import Layout

MARKER = Marker(1, 2, 3, 0)


def inspection(
    layout: Layout,
    *,
    workers: Workers | None = None,
    days: float | None = None,
    wake: Callable[[], None] = lambda: None,
) -> Inspection:
    catalog = Catalog(layout, own=True)
    catalog.refresh()
    return Inspection(layout, catalog, fs=FileSystem(), workers=workers, days=days, clock=lambda: 0.0, wake=wake)


def test_each_request_is_answered_once(layout: Layout) -> None:
    place = put_chunk(layout)
    one = inspection(layout, workers=InlineWorkers())
    for _ in range(2):
        one.ask(Verify(place.chunk_id, place, MARKER))
    assert [(answer.place, answer.verify, answer.read) for answer in one.answers()] == [(place, MARKER, True)] * 2
    assert list(one.answers()) == []
    assert one.stop(PATIENCE_S)


def test_an_answer_wakes_whoever_waits_for_it(layout: Layout) -> None:
    place, woken = put_chunk(layout), threading.Event()
    one = inspection(layout, wake=woken.set)
    one.ask(Verify(place.chunk_id, place, MARKER))
    assert woken.wait(PATIENCE_S)
    assert [answer.read for answer in one.answers()] == [True]
    assert one.stop(PATIENCE_S)


def test_what_was_never_started_can_be_stopped_and_no_thread_is_there_before_it_is_needed(layout: Layout) -> None:
    before = threading.active_count()
    one = inspection(layout, days=30.0)
    one.replenish()
    assert threading.active_count() <= before
    assert one.stop(PATIENCE_S)


def test_the_scrub_ends_with_it(layout: Layout) -> None:
    one = inspection(layout, days=30.0)
    one.start()
    assert one.scrub is not None
    assert one.stop(PATIENCE_S)
    assert not one.scrub._thread.is_alive()
