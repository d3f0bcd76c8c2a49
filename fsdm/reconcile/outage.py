"""Whether the disk refuses what downloads write, and when it is asked again. Pure: `now` is an argument.

A refusal that concerns the disk as a whole pauses all downloads, so that thousands of them do not try it in turn. From
then on somebody probes the disk, ever less often. Once a probe has come through, fetches begin again, one at a time
until the first of them is done: for a probe of a few bytes does not show that there is room for a chunk. What ran when
it began goes on, and may finish with the room that the refused one has given back.

Invariant: while it lasts, `next_probe_at` is no earlier than the last probe; so nobody asks without a pause.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
REFUSALS: Final = FULL | {errno.EROFS, errno.EIO}  # of the disk; any other is about one path, and holds up nobody else
PROBE_FIRST_S: Final = 1.0
PROBE_LAST_S: Final = 30.0


@dataclass(slots=True)
class Outage:
    """`why` is what the disk said, empty while it takes what is written; `tries` counts refusals since it last did."""

    why: str = ""
    tries: int = 0
    next_probe_at: float = 0.0

    def refused(self, why: str, now: float) -> bool:
        """The disk has refused a download; whether that begins an outage."""
        begins = not self.why
        self.why = why
        if begins:
            self._again_at(now)
        return begins

    def probe_is_due(self, now: float) -> bool:
        """Whether to probe now; if so, the next is due later. A clock that was set back makes it due as well."""
        if not self.why or now < self.next_probe_at <= now + PROBE_LAST_S:
            return False
        self._again_at(now)
        return True

    def freed(self, now: float) -> None:
        """There is more room than before: probe at once."""
        self.next_probe_at = min(self.next_probe_at, now)

    def is_over(self) -> None:
        """A probe has come through: one fetch may try."""
        self.why = ""

    def came_through(self) -> None:
        """A fetch is done. While the outage lasts that says little: it may have had its room before."""
        if not self.why:
            self.tries = 0

    def slots(self, jobs: int) -> int:
        """How many fetches may run, of `jobs`."""
        return 0 if self.why else 1 if self.tries else jobs

    def _again_at(self, now: float) -> None:
        self.next_probe_at = now + min(PROBE_FIRST_S * 2.0 ** min(self.tries, 30), PROBE_LAST_S)
        self.tries += 1
