"""Erasing what has been renamed into `trash/`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fsdm.concurrency.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.workers import Workers
    from fsdm.reconcile.space_budget import SpaceBudget
    from fsdm.store.filesystem import FileSystem

logger = Log("fsdm")


@dataclass(slots=True)
class Trash:
    """The trash of one data directory. It takes up room until it is erased. Thread-safe.

    `freed` is called after each entry.
    """

    path: str
    fs: FileSystem
    workers: Workers
    space: SpaceBudget
    freed: Callable[[], None]

    def empty(self) -> None:
        for name in os.listdir(self.path):
            self.erase(f"{self.path}/{name}")

    def erase(self, path: str) -> None:
        """Have one entry erased, soon."""
        self.space.trashed(path)
        self.workers.submit(partial(self._erase, path))

    def _erase(self, path: str) -> None:
        try:
            self.fs.erase(path)
        except OSError as e:  # it stays in trash/, out of sight; the next start tries again
            logger.warning("cannot erase %s: %s", path, e)
            self.space.trashed(path, stays=True)
        else:
            self.space.erased(path)
        self.freed()
