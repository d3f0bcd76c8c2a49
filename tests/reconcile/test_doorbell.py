"""The doorbell: nothing that rings is lost, nothing is told twice, and many rings become one look at everything."""

from __future__ import annotations

import threading

import pytest

from fsdm.reconcile.doorbell import MANY_RINGS, Doorbell
from tests.support.waiting import PATIENCE_S


def test_rings_are_collected_until_they_are_answered_and_told_once() -> None:
    bell = Doorbell()
    for chunk_id in ("a", "b", "a"):
        bell.ring(chunk_id)
    assert bell.answer(0) == ({"a", "b"}, False)
    assert bell.answer(0) == (set(), False)


def test_a_ring_without_an_id_asks_for_everything_once_and_keeps_the_ids() -> None:
    bell = Doorbell()
    bell.ring("a")
    bell.ring(None)
    bell.ring("b")
    assert bell.answer(None) == ({"a", "b"}, True)
    assert bell.answer(0) == (set(), False)


def test_a_wake_answers_without_anything_to_look_at() -> None:
    bell = Doorbell()
    bell.wake()
    assert bell.answer(None) == (set(), False)  # would wait for ever had it not been woken


def test_so_many_rings_that_a_scan_is_cheaper_ask_for_everything() -> None:
    bell = Doorbell()
    for number in range(MANY_RINGS):
        bell.ring(str(number))
    assert bell.answer(0)[1] is False
    for number in range(MANY_RINGS + 1):
        bell.ring(str(number))
    ids, everything = bell.answer(0)
    assert (len(ids), everything) == (MANY_RINGS + 1, True)


def test_a_ring_from_another_thread_ends_the_waiting() -> None:
    for how in (lambda bell: bell.ring("a"), lambda bell: bell.ring(None), lambda bell: bell.wake()):
        bell, answers = Doorbell(), []
        thread = threading.Thread(target=lambda b=bell, to=answers: to.append(b.answer(PATIENCE_S)), daemon=True)
        thread.start()
        how(bell)
        thread.join(PATIENCE_S / 2)
        assert len(answers) == 1, "the waiting outlasted the ring"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_ring_just_before_or_after_the_clearing_is_not_lost(when: str) -> None:
    bell = Doorbell()
    clear = bell._event.clear

    def clear_and_ring() -> None:
        bell._event.clear = clear  # type: ignore[method-assign]
        if when == "before":
            bell.ring("late")
        clear()
        if when == "after":
            bell.ring("late")

    bell.ring("early")
    bell._event.clear = clear_and_ring  # type: ignore[method-assign]
    ids, _ = bell.answer(None)
    if "late" not in ids:
        assert bell._event.is_set(), "nobody would come to answer it"
        ids |= bell.answer(None)[0]
    assert ids == {"early", "late"}


def test_nothing_is_lost_among_threads_that_ring_at_once() -> None:
    bell, barrier, heard = Doorbell(), threading.Barrier(4), set[str]()

    def ring(name: str) -> None:
        barrier.wait()
        for number in range(300):
            bell.ring(f"{name}{number}")

    threads = [threading.Thread(target=ring, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    barrier.wait()
    while len(heard) < 900:
        all_rang = not any(thread.is_alive() for thread in threads)
        ids, _ = bell.answer(PATIENCE_S)
        assert ids or not all_rang, "a ring was lost"
        assert not heard & ids, "told twice"
        heard |= ids
    for thread in threads:
        thread.join()
