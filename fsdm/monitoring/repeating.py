"""Work that is done again and again beside a reconciler, and refusals that are told once."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fsdm.concurrency.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = Log("fsdm")


@contextmanager
def repeating(work: Callable[[], None], each_s: float, *, name: str, patience_s: float) -> Iterator[None]:
    """Do it each so many seconds, in a thread, until the end of the block.

    There, wait up to `patience_s` for work that runs.
    """
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(each_s):
            work()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(patience_s)


class Refusals:
    """Warns of the first of several refusals in a row."""

    def __init__(self) -> None:
        self._refused = False

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Take an OSError for a refusal of what is tried in the block."""
        try:
            yield
        except OSError as e:
            if not self._refused:
                logger.warning("%s: %s", what, e)
            self._refused = True
        else:
            self._refused = False
