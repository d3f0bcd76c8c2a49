"""Erasing what has been renamed into `trash/`.

Invariant: nothing is erased before its rename is durable: else a power failure may bring it back without its files.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from fsdm.concurrency.log import Log
from fsdm.concurrency.turn import rest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
    _left: deque[tuple[str, str]] = field(default_factory=deque)  # entries, and where they were: not durable yet

    def empty(self, parents: Iterable[str]) -> None:
        """Have all erased that is there; a process that was killed may have renamed it out of one of `parents`."""
        names = os.listdir(self.path)
        if names:
            self._settle(parents)
        for name in names:
            self.erase(f"{self.path}/{name}")

    def erase(self, path: str, parent: str | None = None) -> None:
        """Have one entry erased, soon; `parent`: not durably out of that; `erase_left` is to follow."""
        self.space.trashed(path)
        if parent is None:
            self.workers.submit(partial(self._erase, path))
        else:
            self._left.append((path, parent))

    def erase_left(self) -> None:
        """Have all erased, soon, that waits to become durable, which takes an fsync of each directory for all of it."""
        if self._left:
            self.workers.submit(self._erase_left)

    def _erase_left(self) -> None:
        left = [self._left.popleft() for _ in range(len(self._left))]
        try:
            if left:
                self._settle(parent for _, parent in left)
        except OSError as e:  # nothing is known of them then
            logger.warning("what was evicted cannot be erased yet: %s", e)
            for path, _ in left:
                self.space.trashed(path, stays=True)
            self.freed()
            return
        for path, _ in left:
            self._erase(path)
            rest()

    def _settle(self, parents: Iterable[str]) -> None:
        """Make the renames into the trash durable."""
        for parent in dict.fromkeys(parents):
            try:
                self.fs.fsync_dir(parent)
            except FileNotFoundError:  # it was empty, and is gone itself: with it goes what was in it
                self.fs.fsync_dir(os.path.dirname(parent))
        self.fs.fsync_dir(self.path)

    def _erase(self, path: str) -> None:
        try:
            self.fs.erase(path)
        except OSError as e:  # it stays in trash/, out of sight; the next start tries again
            logger.warning("cannot erase %s: %s", path, e)
            self.space.trashed(path, stays=True)
        else:
            self.space.erased(path)
        self.freed()
