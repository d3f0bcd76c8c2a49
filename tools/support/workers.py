"""Workers without threads, for what has to run in one order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsdm.concurrency.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable


class InlineWorkers(Workers):
    """Workers that run everything at once in the caller's thread, where nothing may race."""

    def __init__(self) -> None:
        super().__init__("inline", 0)

    def submit(self, work: Callable[[], None]) -> None:
        work()
