"""What the loop has of the reading of bytes: who is asked to read a chunk, the scrub that asks by itself, the answers.

Chunks that somebody asked for are read one at a time, beside the scrub, in threads that begin when they are needed.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from fsdm.concurrency.workers import ThreadWorkers
from fsdm.verify.background import Answer, Inspector
from fsdm.verify.scrub import Scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsdm.concurrency.workers import Workers
    from fsdm.model.layout import Layout
    from fsdm.reconcile.actions import Verify
    from fsdm.store.catalog import Catalog
    from fsdm.store.filesystem import FileSystem


class Inspection:
    """The inspector of one reconciler. `days` None: no scrub. `wake` is called when there is an answer."""

    def __init__(
        self,
        layout: Layout,
        catalog: Catalog,
        *,
        fs: FileSystem,
        workers: Workers | None,
        days: float | None,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._workers = workers or ThreadWorkers("fsdm-verify", 1)
        self._answers: deque[Answer] = deque()
        self._wake = wake
        self._inspector = Inspector(layout, fs=fs, answer=self._answer)
        inspect = self._inspector.inspect
        self.scrub = None if days is None else Scrub(layout, catalog, days=days, inspect=inspect, clock=clock)

    def start(self) -> None:
        """Begin the scrub, if there is one."""
        if self.scrub is not None:
            self.scrub.start()

    def stop(self, timeout_s: float | None) -> bool:
        """End at once; whether all has ended in time."""
        self._inspector.stop()
        scrubbed = self.scrub is None or self.scrub.stop(timeout_s)
        return self._workers.close(timeout_s) and scrubbed

    def replenish(self) -> None:
        """See `Workers.replenish`."""
        self._workers.replenish()

    def ask(self, action: Verify) -> None:
        """Have a chunk read; there will be an answer."""
        self._workers.submit(partial(self._inspector.inspect, action.place, verify=action.verify))

    def answers(self) -> Iterator[Answer]:
        """What has been answered since this was asked last."""
        while self._answers:
            yield self._answers.popleft()

    def _answer(self, answer: Answer) -> None:
        self._answers.append(answer)
        self._wake()
