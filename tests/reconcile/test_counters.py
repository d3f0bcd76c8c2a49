"""What has happened is counted: once, by closed sets, and from many threads."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import get_args

import pytest

from fsdm.model.errors import Cause
from fsdm.model.events import Event, Kind
from fsdm.reconcile.counters import LATENCIES, Counters, Histogram

ID = "a" * 64


def test_there_is_a_count_for_every_kind_and_cause_before_anything_happens() -> None:
    counts = Counters().counts()
    assert counts.events == dict.fromkeys(get_args(Kind), 0)
    assert counts.failures == dict.fromkeys(get_args(Cause), 0)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_event_counts_as_its_kind(kind: Kind) -> None:
    counters = Counters()
    counters.tell(Event(kind, ID))
    assert {kind for kind, count in counters.counts().events.items() if count} == {kind}


def test_what_comes_counts_with_its_bytes_and_with_how_long_it_took() -> None:
    counters = Counters()
    counters.tell(Event("file", ID, size_bytes=1000))  # the chunk counts, not its files
    counters.tell(Event("available", ID, size_bytes=1000, after_s=3.0, fetch_s=2.0))
    counters.tell(Event("available", ID, "the delete was withdrawn, nothing is fetched"))
    counters.tell(Event("deleted", ID, after_s=0.2))
    counts = counters.counts()
    assert counts.published_bytes == 1000
    assert (sum(counts.want_to_available.counts), counts.want_to_available.total) == (1, 3.0)
    assert (sum(counts.delete_to_gone.counts), counts.delete_to_gone.total) == (1, 0.2)
    assert (sum(counts.fetches.counts), counts.fetches.total) == (1, 2.0)


def test_a_disk_that_pauses_all_downloads_is_not_one_more_failure() -> None:
    counters = Counters()
    counters.tell(Event("failed", ID, cause="disk_full"))
    counters.tell(Event("paused", "", cause="disk_full"))
    counters.tell(Event("over", ID, cause="room"))
    assert {cause: n for cause, n in counters.counts().failures.items() if n} == {"disk_full": 1, "room": 1}


def test_a_bound_belongs_to_what_is_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.0, 1.0, 1.5, 2.0, 2.1):
        histogram.took(seconds)
    assert histogram.counts == [2, 2, 1]


def test_what_was_read_changes_no_more() -> None:
    counters = Counters()
    before = counters.counts()
    counters.tell(Event("available", ID, size_bytes=1, after_s=1.0, fetch_s=1.0))
    counters.passed(0.1)
    counters.pass_failed()
    assert before == Counters().counts() != counters.counts()


def test_nothing_is_lost_between_threads() -> None:
    counters = Counters()
    barrier = threading.Barrier(8)

    def tell() -> None:
        barrier.wait()
        for _ in range(500):
            counters.tell(Event("deleted", ID, after_s=1.0))
            counters.passed(1.0)

    with ThreadPoolExecutor(8) as pool:
        wait([pool.submit(tell) for _ in range(8)])
    counts = counters.counts()
    assert counts.events["deleted"] == sum(counts.delete_to_gone.counts) == sum(counts.loop.counts) == 4000


def test_bounds_go_up_from_what_a_user_cannot_see_to_a_day() -> None:
    """The bounds are a part of the metrics' names, which dashboards have."""
    told = "0.05 0.1 0.25 0.5 1 2.5 5 10 30 60 300 900 3600 14400 86400"
    assert [f"{bound:g}" for bound in LATENCIES] == told.split()
