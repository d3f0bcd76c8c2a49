"""A check that hangs keeps one thread, and no caller."""

import threading

import pytest

from fsdm.concurrency.single_flight import SingleFlight
from tests.support import PATIENCE_S, eventually


def test_each_call_gets_a_new_result() -> None:
    numbers = iter(range(10))
    probe = SingleFlight(lambda: next(numbers))
    assert [probe.ask(PATIENCE_S) for _ in range(3)] == [0, 1, 2]


def test_hanging_check_runs_once_and_callers_time_out() -> None:
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


def test_check_that_raises_gives_none_and_the_next_one_runs() -> None:
    results = iter([OSError("no"), "found"])

    def look() -> str:
        result = next(results)
        if isinstance(result, OSError):
            raise result
        return result

    probe = SingleFlight(look)
    assert probe.ask(PATIENCE_S) is None
    assert probe.ask(PATIENCE_S) == "found"


def test_refused_thread_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = SingleFlight(lambda: "found")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _no_thread)
        assert probe.ask(PATIENCE_S) is None
    assert probe.ask(PATIENCE_S) == "found"


def _no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
