"""A check that hangs keeps one thread, and no caller."""

import threading
from unittest.mock import Mock

import pytest

from fsdm.concurrency.single_flight import SingleFlight
from tests.support.waiting import PATIENCE_S, eventually


def test_each_call_gets_a_new_result() -> None:
    probe = SingleFlight(Mock(side_effect=range(10)))
    assert [probe.ask(PATIENCE_S) for _ in range(3)] == [0, 1, 2]


def test_hanging_check_runs_once_and_callers_time_out() -> None:
    gate = threading.Event()
    look = Mock(side_effect=lambda: gate.wait(PATIENCE_S) and "found")
    probe = SingleFlight(look)
    assert [probe.ask(0.01) for _ in range(5)] == [None] * 5
    look.assert_called_once()
    gate.set()
    eventually(lambda: probe.ask(PATIENCE_S) == "found")


def test_check_that_raises_gives_none_and_the_next_one_runs() -> None:
    probe = SingleFlight(Mock(side_effect=[OSError("no"), "found"]))
    assert probe.ask(PATIENCE_S) is None
    assert probe.ask(PATIENCE_S) == "found"


def test_refused_thread_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = SingleFlight(lambda: "found")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        assert probe.ask(PATIENCE_S) is None
    assert probe.ask(PATIENCE_S) == "found"
