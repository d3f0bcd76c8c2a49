"""The waits of a libcurl multi handle: for its sockets, its timer, and to be woken.

It knows nothing of the handle that it serves: so that goes, with its connections, when nobody has it any more.
"""

from __future__ import annotations

import math
import os
import select
import time
from typing import Final

import pycurl

from fsdm.concurrency.turn import out_of_turn
from fsdm.store.filesystem import Descriptor

_POLLED: Final = {
    pycurl.POLL_NONE: 0,
    pycurl.POLL_IN: select.POLLIN,
    pycurl.POLL_OUT: select.POLLOUT,
    pycurl.POLL_INOUT: select.POLLIN | select.POLLOUT,
}


class Waits:
    """The sockets and the timer that libcurl has asked to be told of."""

    def __init__(self) -> None:
        self._wakeup = Descriptor()
        (self._wakeup.fd,) = map(os.eventfd, (0,), (os.EFD_NONBLOCK | os.EFD_CLOEXEC,))
        self.woken_fd: Final = self._wakeup.fd  # readable once `wake` was called
        self._poll = select.poll()
        self._poll.register(self.woken_fd, select.POLLIN)
        self._timer_at = math.inf  # monotonic

    def close(self) -> None:
        self._wakeup.close()

    def watch(self, what: int, fd: int, _: object, __: object) -> None:
        """M_SOCKETFUNCTION."""
        if what == pycurl.POLL_REMOVE:
            self._poll.unregister(fd)
        else:
            self._poll.register(fd, _POLLED[what])

    def set_timer(self, timeout_ms: int) -> None:
        """M_TIMERFUNCTION."""
        self._timer_at = math.inf if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000

    def wake(self) -> None:
        """End the wait. In any thread."""
        if self._wakeup.fd is not None:
            os.eventfd_write(self._wakeup.fd, 1)

    def wait(self, until: float) -> list[tuple[int, int]]:
        """Wait out of turn, no longer than `until` (monotonic); return what `socket_action` is to be told."""
        wait_s = max(min(self._timer_at, until) - time.monotonic(), 0.0)
        with out_of_turn():
            ready = self._poll.poll(math.ceil(wait_s * 1000))
        found = []
        for fd, events in ready:
            if fd == self.woken_fd:
                os.eventfd_read(fd)  # or it would end each wait from now on
            else:
                found.append((fd, _selected(events)))
        if time.monotonic() >= self._timer_at:
            found.append((pycurl.SOCKET_TIMEOUT, 0))
        return found


def _selected(events: int) -> int:
    """Return what poll(2) says in libcurl's bits; the end of a connection is to be read."""
    to_read = pycurl.CSELECT_IN if events & ~select.POLLOUT else 0
    return to_read | (pycurl.CSELECT_OUT if events & select.POLLOUT else 0)
