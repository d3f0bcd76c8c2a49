"""A look that hangs keeps one thread, and nobody who asks."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fsdm.concurrency.single_flight import SingleFlight
from tests.support.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    import pytest


def test_what_is_found_is_of_now() -> None:
    numbers = iter(range(10))
    probe = SingleFlight(lambda: next(numbers))
    assert [probe.ask(PATIENCE_S) for _ in range(3)] == [0, 1, 2]


def test_while_a_look_hangs_nobody_waits_longer_than_asked_for_and_no_second_one_begins() -> None:
    gate, looks = threading.Event(), []

    def look() -> str:
        looks.append(1)
        assert gate.wait(PATIENCE_S)
        return "found"

    probe = SingleFlight(look)
    assert [probe.ask(0.01) for _ in range(5)] == [None] * 5
    assert len(looks) == 1
    gate.set()
    eventually(lambda: probe.ask(PATIENCE_S) == "found")


def test_a_look_that_raises_has_found_nothing_and_the_next_one_is_made() -> None:
    results = iter([OSError("no"), "found"])

    def look() -> str:
        result = next(results)
        if isinstance(result, OSError):
            raise result
        return result

    probe = SingleFlight(look)
    assert probe.ask(PATIENCE_S) is None
    assert probe.ask(PATIENCE_S) == "found"


def test_without_a_thread_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = SingleFlight(lambda: "found")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _no_thread)
        assert probe.ask(PATIENCE_S) is None
    assert probe.ask(PATIENCE_S) == "found"


def _no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
