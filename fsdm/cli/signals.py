"""The signals of commands that go on: SIGTERM and SIGINT end them, SIGHUP reloads.

`fsdm run` blocks them, also in the threads to come, and takes them by sigwait(3): a handler could run in the moment
before the thread goes to sleep, which then would sleep on. A SIGHUP because the terminal has gone ends it, unless
nohup(1) started it. A command that polls, or cleans up when it exits, needs no more than a handler.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import EXIT_HUNG_UP, EXIT_TERMINATED

if TYPE_CHECKING:
    from collections.abc import Callable

TO_END: Final = (signal.SIGTERM, signal.SIGINT)
NUMBERS: Final = (*TO_END, signal.SIGHUP)
ENDS: Final = {signal.SIGHUP: EXIT_HUNG_UP, signal.SIGTERM: EXIT_TERMINATED}


class Signals:
    """The signals of this process, from now on. Make it in the main thread, before others."""

    def __init__(self) -> None:
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._ends_with_terminal = _has_terminal() and not ignored
        signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what is ignored may never come, blocked or not: sigaction(2)

    def serve(self, reload: Callable[[], None]) -> None:
        """Call `reload` for each SIGHUP; return when the process is to end."""
        while signal.sigwait(NUMBERS) == signal.SIGHUP and not (self._ends_with_terminal and not _has_terminal()):
            reload()

    def end(self) -> None:
        """Have `serve` return. In any thread."""
        os.kill(os.getpid(), signal.SIGTERM)


def asked_to_end() -> threading.Event:
    """Return an event that is set once this process is to end. Call it in the main thread."""
    asked = threading.Event()
    for number in TO_END:
        signal.signal(number, lambda *_: asked.set())
    return asked


def exit_when_asked() -> None:
    """Have SIGTERM and SIGHUP exit as errors do: cleaning up what was begun. Call it in the main thread."""
    for number in ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) has it
            signal.signal(number, _exit)


def _exit(number: int, _: object) -> None:
    for one in ENDS:  # one more signal, which often follows, must not cut the cleaning up short
        signal.signal(one, signal.SIG_IGN)
    sys.exit(ENDS[signal.Signals(number)])


def _has_terminal() -> bool:
    """Tell whether this process has a controlling terminal (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
