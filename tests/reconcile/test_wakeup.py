"""The doorbell: nothing that rings is lost, nothing is told twice, and many rings become one look at everything."""

from __future__ import annotations

import threading

import pytest

from fsdm.reconcile.wakeup import MANY_RINGS, Wakeup
from tests.support.waiting import PATIENCE_S


def test_rings_are_collected_until_they_are_answered_and_told_once() -> None:
    wakeup = Wakeup()
    for chunk_id in ("a", "b", "a"):
        wakeup.notify(chunk_id)
    assert wakeup.answer(0) == ({"a", "b"}, False)
    assert wakeup.answer(0) == (set(), False)


def test_a_ring_without_an_id_asks_for_everything_once_and_keeps_the_ids() -> None:
    wakeup = Wakeup()
    wakeup.notify("a")
    wakeup.notify(None)
    wakeup.notify("b")
    assert wakeup.answer(None) == ({"a", "b"}, True)
    assert wakeup.answer(0) == (set(), False)


def test_a_wake_answers_without_anything_to_look_at() -> None:
    wakeup = Wakeup()
    wakeup.wake()
    assert wakeup.answer(None) == (set(), False)  # would wait for ever had it not been woken


def test_so_many_rings_that_a_scan_is_cheaper_ask_for_everything() -> None:
    wakeup = Wakeup()
    for number in range(MANY_RINGS):
        wakeup.notify(str(number))
    assert wakeup.answer(0)[1] is False
    for number in range(MANY_RINGS + 1):
        wakeup.notify(str(number))
    ids, everything = wakeup.answer(0)
    assert (len(ids), everything) == (MANY_RINGS + 1, True)


def test_a_ring_from_another_thread_ends_the_waiting() -> None:
    for how in (lambda wakeup: wakeup.notify("a"), lambda wakeup: wakeup.notify(None), lambda wakeup: wakeup.wake()):
        wakeup, answers = Wakeup(), []
        thread = threading.Thread(target=lambda b=wakeup, to=answers: to.append(b.answer(PATIENCE_S)), daemon=True)
        thread.start()
        how(wakeup)
        thread.join(PATIENCE_S / 2)
        assert len(answers) == 1, "the waiting outlasted the ring"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_ring_just_before_or_after_the_clearing_is_not_lost(when: str) -> None:
    wakeup = Wakeup()
    clear = wakeup._event.clear

    def clear_and_ring() -> None:
        wakeup._event.clear = clear  # type: ignore[method-assign]
        if when == "before":
            wakeup.notify("late")
        clear()
        if when == "after":
            wakeup.notify("late")

    wakeup.notify("early")
    wakeup._event.clear = clear_and_ring  # type: ignore[method-assign]
    ids, _ = wakeup.answer(None)
    if "late" not in ids:
        assert wakeup._event.is_set(), "nobody would come to answer it"
        ids |= wakeup.answer(None)[0]
    assert ids == {"early", "late"}


def test_nothing_is_lost_among_threads_that_ring_at_once() -> None:
    wakeup, barrier, heard = Wakeup(), threading.Barrier(4), set[str]()

    def notify(name: str) -> None:
        barrier.wait()
        for number in range(300):
            wakeup.notify(f"{name}{number}")

    threads = [threading.Thread(target=notify, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    barrier.wait()
    while len(heard) < 900:
        all_rang = not any(thread.is_alive() for thread in threads)
        ids, _ = wakeup.answer(PATIENCE_S)
        assert ids or not all_rang, "a ring was lost"
        assert not heard & ids, "told twice"
        heard |= ids
    for thread in threads:
        thread.join()
