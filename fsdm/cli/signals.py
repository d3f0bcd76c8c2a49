"""What signals ask of a command that runs on: to end (SIGTERM, SIGINT), or to read its configuration again (SIGHUP).

For `fsdm run` they are blocked, in this thread and in those that it begins, and taken by sigwait(3): a handler could
run in the moment before the thread goes to sleep, which then would sleep on. A SIGHUP because the terminal has gone
away is one to end, as it is for every command; unless it was started by nohup(1). What looks again and again needs no
more than a handler.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable


TO_END: Final = (signal.SIGTERM, signal.SIGINT)
NUMBERS: Final = (*TO_END, signal.SIGHUP)


class Signals:
    """Those of this process, from now on. To be made in its main thread, before it begins others."""

    def __init__(self) -> None:
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._ends_with_terminal = _has_terminal() and not ignored
        signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what is ignored may never come, blocked or not: sigaction(2)

    def serve(self, reload: Callable[[], None]) -> None:
        """Call `reload` for each SIGHUP; return when it is to end."""
        while signal.sigwait(NUMBERS) == signal.SIGHUP and not (self._ends_with_terminal and not _has_terminal()):
            reload()


def asked_to_end() -> threading.Event:
    """Set once this process is asked to end: for what looks again and again. To be called in its main thread."""
    asked = threading.Event()
    for number in TO_END:
        signal.signal(number, lambda *_: asked.set())
    return asked


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
