"""The wakeup: no notification is lost or told twice, and many of them become one look at everything."""

import threading

import pytest

from fsdm.reconcile.wakeup import MANY_IDS, Wakeup
from tests.support import PATIENCE_S


def told(wakeup: Wakeup, timeout_s: float | None) -> tuple[set[str], bool]:
    wakeup.wait(timeout_s)
    return wakeup.take()


def test_notifications_are_collected_and_told_once() -> None:
    wakeup = Wakeup()
    for chunk_id in ("a", "b", "a"):
        wakeup.notify(chunk_id)
    assert told(wakeup, 0) == ({"a", "b"}, False)
    assert told(wakeup, 0) == (set(), False)


def test_a_notification_without_id_asks_for_everything_once_and_keeps_ids() -> None:
    wakeup = Wakeup()
    wakeup.notify("a")
    wakeup.notify(None)
    wakeup.notify("b")
    assert told(wakeup, None) == ({"a", "b"}, True)
    assert told(wakeup, 0) == (set(), False)


def test_a_wake_ends_the_wait_with_nothing_to_look_at() -> None:
    wakeup = Wakeup()
    wakeup.wake()
    assert told(wakeup, None) == (set(), False)  # would wait for ever had it not been woken


def test_so_many_ids_that_a_scan_is_cheaper_ask_for_everything() -> None:
    wakeup = Wakeup()
    for number in range(MANY_IDS):
        wakeup.notify(str(number))
    assert told(wakeup, 0)[1] is False
    for number in range(MANY_IDS + 1):
        wakeup.notify(str(number))
    ids, everything = told(wakeup, 0)
    assert (len(ids), everything) == (MANY_IDS + 1, True)


def test_a_notification_from_another_thread_ends_the_wait() -> None:
    for how in (lambda wakeup: wakeup.notify("a"), lambda wakeup: wakeup.notify(None), lambda wakeup: wakeup.wake()):
        wakeup, answers = Wakeup(), []
        thread = threading.Thread(target=lambda b=wakeup, to=answers: to.append(told(b, PATIENCE_S)), daemon=True)
        thread.start()
        how(wakeup)
        thread.join(PATIENCE_S / 2)
        assert len(answers) == 1, "the wait outlasted the notification"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_notification_just_before_or_after_the_clearing_is_not_lost(when: str) -> None:
    wakeup = Wakeup()
    clear = wakeup._event.clear

    def clear_and_notify() -> None:
        wakeup._event.clear = clear  # type: ignore[method-assign]
        if when == "before":
            wakeup.notify("late")
        clear()
        if when == "after":
            wakeup.notify("late")

    wakeup.notify("early")
    wakeup._event.clear = clear_and_notify  # type: ignore[method-assign]
    ids, _ = told(wakeup, None)
    if "late" not in ids:
        assert wakeup._event.is_set(), "nothing would wake the loop for it"
        ids |= told(wakeup, None)[0]
    assert ids == {"early", "late"}


def test_nothing_is_lost_among_threads_that_notify_at_once() -> None:
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
        all_told = not any(thread.is_alive() for thread in threads)
        ids, _ = told(wakeup, PATIENCE_S)
        assert ids or not all_told, "a notification was lost"
        assert not heard & ids, "told twice"
        heard |= ids
    for thread in threads:
        thread.join()
