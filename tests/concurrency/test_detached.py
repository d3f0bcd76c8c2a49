"""A call that cannot be cut: its result has one owner, whoever comes first."""

import threading
from collections.abc import Callable

import pytest

from fsdm.concurrency.cancellation import Cancellation
from fsdm.concurrency.detached import call_detached
from fsdm.model.errors import StoppedError
from tests.support.servers import InThread
from tests.support.waiting import PATIENCE_S, eventually


def test_result_and_error_are_those_of_the_call() -> None:
    assert call_detached(lambda: "found", Cancellation(), PATIENCE_S, "test") == "found"
    with pytest.raises(ZeroDivisionError):
        call_detached(lambda: 1 / 0, Cancellation(), PATIENCE_S, "test")


@pytest.mark.parametrize(
    ("leave", "raised"),
    [(lambda stop: None, TimeoutError), (lambda stop: stop.set(), StoppedError)],
)
def test_late_result_is_handed_on_once(leave: Callable[[Cancellation], None], raised: type[Exception]) -> None:
    stop, begun, gate, late = Cancellation(), threading.Event(), threading.Event(), list[object]()

    def work() -> str:
        begun.set()
        gate.wait(PATIENCE_S)
        return "late"

    timeout_s = 0.01 if raised is TimeoutError else PATIENCE_S
    caller = InThread(lambda: call_detached(work, stop, timeout_s, "test", late.append))
    assert begun.wait(PATIENCE_S)
    leave(stop)
    assert isinstance(caller.join(), raised)
    assert late == []
    gate.set()
    eventually(lambda: late == ["late"])


def test_result_that_comes_with_a_stop_is_not_lost() -> None:
    class Stopping(Cancellation):
        def wait(self, seconds: float, event: threading.Event | None = None) -> None:
            super().wait(seconds, event)
            raise StoppedError("at the very moment of the result")

    late: list[object] = []
    with pytest.raises(StoppedError):
        call_detached(lambda: "found", Stopping(), PATIENCE_S, "test", late.append)
    assert late == ["found"]
