"""What signals ask of `fsdm run`: to end (SIGTERM, SIGINT), or to read its configuration again (SIGHUP).

A handler only puts the number into a queue, which is safe at any instant; who serves takes it from there. A SIGHUP
because the terminal has gone away is one to end, as it is for every command; unless it was started by nohup(1).
"""

from __future__ import annotations

import os
import signal
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Signals:
    """Those of this process, from now on. To be made in its main thread."""

    def __init__(self) -> None:
        self._numbers: SimpleQueue[int] = SimpleQueue()
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._ends_with_terminal = _has_terminal() and not ignored
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._numbers.put(number))

    def serve(self, reload: Callable[[], None]) -> None:
        """Call `reload` for each SIGHUP; return when it is to end."""
        while self._numbers.get() == signal.SIGHUP and not (self._ends_with_terminal and not _has_terminal()):
            reload()


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
