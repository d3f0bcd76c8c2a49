"""A cancellation calls its guards, ends its waits, and is heard by every thread."""

import threading
from unittest.mock import Mock

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.errors import StoppedError
from tests.support import PATIENCE_S, eventually
from tests.support.servers import InThread


class Watched(threading.Event):
    """An event that tells when a thread waits for it, and for how long at most."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = threading.Event()
        self.timeout_s: float | None = None

    def wait(self, timeout: float | None = None) -> bool:
        self.timeout_s = timeout
        self.waited.set()
        return super().wait(timeout)


def test_a_stop_is_heard_by_whoever_asks() -> None:
    stop = Cancellation()
    stop.check()
    assert not stop.is_set()
    stop.set()
    stop.set()
    assert stop.is_set()
    with pytest.raises(StoppedError):
        stop.check()


def test_stop_calls_every_cut_that_is_guarded_also_after_it() -> None:
    stop, cut = Cancellation(), list[str]()
    stop.guard(lambda: cut.append("one"))
    stop.guard(lambda: cut.append("other"))
    assert cut == []
    stop.set()
    assert cut == ["one", "other"]
    stop.guard(lambda: cut.append("late"))
    assert cut == ["one", "other", "late"], "at once"


def test_what_is_released_is_not_cut_and_the_others_are() -> None:
    stop, mine, anothers = Cancellation(), Mock(), Mock()
    stop.guard(mine)
    stop.guard(anothers)
    stop.release(mine)
    stop.release(mine)
    stop.set()
    assert (mine.call_count, anothers.call_count) == (0, 1)


def test_release_waits_for_a_cut_that_is_running() -> None:
    stop, running, over, told = Cancellation(), threading.Event(), threading.Event(), list[str]()

    def cut() -> None:
        running.set()
        assert over.wait(PATIENCE_S)
        told.append("cut")

    def release() -> None:
        stop.release(cut)
        told.append("released")

    stop.guard(cut)
    stopping = InThread(stop.set)
    assert running.wait(PATIENCE_S)
    releasing = InThread(release)
    assert told == []
    over.set()
    assert (stopping.join(), releasing.join()) == (None, None)
    assert told == ["cut", "released"]


def test_a_stop_ends_every_wait_at_once() -> None:
    stop, events = Cancellation(), [Watched(), Watched()]
    threads = [InThread(lambda event=event: stop.wait(1e6, event)) for event in events]  # type: ignore[misc]
    assert all(event.waited.wait(PATIENCE_S) for event in events)
    stop.set()
    assert all(isinstance(thread.join(), StoppedError) for thread in threads)
    assert stop._waits == set()


def test_a_wait_without_an_event_ends_with_its_time_or_with_the_stop() -> None:
    stop = Cancellation()
    stop.wait(0.001)
    thread = InThread(lambda: stop.wait(1e6))
    eventually(lambda: stop._waits)
    stop.set()
    assert isinstance(thread.join(), StoppedError)


def test_a_wait_that_comes_after_the_stop_does_not_wait() -> None:
    stop, event = Cancellation(), Watched()
    stop.set()
    with pytest.raises(StoppedError):
        stop.wait(1e6, event)
    assert not event.waited.is_set()
    assert stop._waits == set()


def test_a_wait_ends_with_its_event_or_with_its_time() -> None:
    stop, happened, never = Cancellation(), Watched(), Watched()
    happened.set()
    stop.wait(1e6, happened)
    stop.wait(0.001, never)
    assert (never.timeout_s, never.is_set(), stop._waits) == (0.001, False, set())
    stop.set()
    assert not never.is_set(), "it is nobody's any more"
