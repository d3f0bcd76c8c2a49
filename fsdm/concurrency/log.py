"""Logging that never raises: a handler belongs to the program around us, and may fail.

Invariant: telling of what has happened changes nothing of what happens next.
"""

from __future__ import annotations

import logging
import threading
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping


def is_interrupt(error: BaseException) -> bool:
    """Return whether this is a Ctrl-C, which Python raises in the main thread, wherever that is."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger whose calls never raise. The first failure of a handler is printed on stderr, the others are not."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})
        self._has_failed = False

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        try:
            super().log(level, msg, *args, **{"stacklevel": 2, **kwargs})
        except BaseException as e:
            if is_interrupt(e):
                raise
            if not self._has_failed:
                self._has_failed = True
                with suppress(Exception):  # stderr may be what has failed
                    traceback.print_exception(e)

    @contextmanager
    def told(self, what: str, about: object) -> Iterator[None]:
        """Log what a callback in the block raises, whatever it is, and go on."""
        try:
            yield
        except BaseException as e:
            if is_interrupt(e):
                raise
            self.exception("%s failed at: %s", what, about)
