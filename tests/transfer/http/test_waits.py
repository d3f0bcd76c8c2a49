"""The waits of a libcurl handle: what ends them, and for how long."""

import time

import pycurl

from fsdm.transfer.http.waits import Waits
from tests.support import PATIENCE_S


def test_wake_ends_one_wait_and_not_those_that_follow() -> None:
    waits = Waits()
    waits.wake()
    waits.wake()
    assert waits.wait(time.monotonic() + PATIENCE_S) == []
    assert waits._poll.poll(0) == [], "a handle that is kept after a stop would never wait again"
    waits.close()
    waits.wake()


def test_timer_that_is_over_is_told() -> None:
    waits = Waits()
    waits.set_timer(0)
    assert waits.wait(time.monotonic() + PATIENCE_S) == [(pycurl.SOCKET_TIMEOUT, 0)]
    waits.set_timer(-1)
    assert waits.wait(time.monotonic()) == []
    waits.close()
