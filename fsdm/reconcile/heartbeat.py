"""Telling a loop that waits from one that is stuck. Pure; thread-safe by single stores.

A loop that is kept by a disk that hangs, by a lock, or by a defect is late with its next beat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

GRACE_S: Final = 30.0  # a single look at a busy disk may take seconds; nothing that is well takes this


class Heartbeat:
    """The heartbeat of one loop, and since when its passes fail."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due = clock()
        self._failing_since: float | None = None

    def beat(self, next_in_s: float = 0.0) -> None:
        """Note that the loop goes on; the next beat comes within `next_in_s` seconds."""
        self._due = self._clock() + next_in_s

    def passed(self) -> None:
        """Note that a pass came to its end."""
        self._failing_since = None

    def failed(self) -> None:
        """Note that a pass failed."""
        if self._failing_since is None:
            self._failing_since = self._clock()

    @property
    def late_s(self) -> float:
        """By how much the next beat is overdue."""
        return max(self._clock() - self._due, 0.0)

    @property
    def failing_s(self) -> float:
        """For how long each pass has failed; 0 where the last one did not."""
        since = self._failing_since
        return 0.0 if since is None else max(self._clock() - since, 0.0)

    def trouble(self, grace_s: float = GRACE_S) -> str:
        """Say what is wrong with the loop; empty where it is well."""
        if (late_s := self.late_s) > grace_s:
            return f"the reconciler is stuck: it should have gone on {late_s:.0f} s ago"
        if (failing_s := self.failing_s) > grace_s:
            return f"every pass of the reconciler has failed for {failing_s:.0f} s: see its log"
        return ""
