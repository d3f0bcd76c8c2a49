"""Pausing downloads while the disk refuses what they write (PROTOCOL.md, "Room").

After a refusal that concerns the disk as a whole a small write probes it, ever less often. Once one has come through,
one fetch tries, and the others once it is done: a few bytes do not show that there is room for a chunk.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fsdm.model.events import Event
from fsdm.reconcile.recovery import TRIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.workers import Workers
    from fsdm.model.errors import DiskError
    from fsdm.store.filesystem import FileSystem

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
REFUSALS: Final = FULL | {errno.EROFS, errno.EIO}  # of the disk; any other is about one path alone
PROBE_FIRST_S: Final = 1.0
PROBE_LAST_S: Final = 30.0
PROBE_BYTES: Final = 4096


@dataclass(slots=True)
class Outage:
    """The policy: when to probe the disk, how many fetches may run. Pure: `now` is an argument.

    `why` is what the disk said, empty while it takes what is written; `tries` counts refusals since it last did.
    Invariant: while it lasts, `next_probe_at` is no earlier than the last probe; so two are never without a pause.
    """

    why: str = ""
    tries: int = 0
    next_probe_at: float = 0.0

    def refused(self, why: str, now: float) -> bool:
        """Take in that the disk has refused a download; tell whether that begins an outage."""
        begins = not self.why
        self.why = why
        if begins:
            self._again_at(now)
        return begins

    def probe_is_due(self, now: float) -> bool:
        """Tell whether to probe now, also where the clock was set back; then the next is due later."""
        if not self.why or now < self.next_probe_at <= now + PROBE_LAST_S:
            return False
        self._again_at(now)
        return True

    def freed(self, now: float) -> None:
        self.next_probe_at = min(self.next_probe_at, now)

    def is_over(self) -> None:
        """Let one fetch try: a probe has come through."""
        self.why = ""

    def came_through(self) -> None:
        """Take in that a fetch is done: while the outage lasts, it may have had its room before."""
        if not self.why:
            self.tries = 0

    def slots(self, jobs: int) -> int:
        """Tell how many fetches may run, of `jobs`."""
        return 0 if self.why else 1 if self.tries else jobs

    def _again_at(self, now: float) -> None:
        self.next_probe_at = now + min(PROBE_FIRST_S * 2.0 ** min(self.tries, 30), PROBE_LAST_S)
        self.tries += 1


@dataclass(slots=True)
class DiskOutage:
    """The outage of one disk, its probes and the ids that wait. The loop's, but for `freed`.

    A probe is made by a worker, since a disk may hang, in `trash`, which a start empties; `wake` is called at its end.
    """

    trash: str
    fs: FileSystem
    workers: Workers
    tell: Callable[[Event], None]
    wake: Callable[[], None]
    outage: Outage = field(default_factory=Outage)
    _probing: bool = False
    _answers: deque[OSError | None] = field(default_factory=deque)
    _freed: threading.Event = field(default_factory=threading.Event)
    _held_back: set[str] = field(default_factory=set)

    @property
    def refusal(self) -> str:
        """Return what the disk says; empty while it takes what is written."""
        return self.outage.why

    @property
    def refuses_for_long(self) -> bool:
        """Tell whether the disk has been asked often enough in a run that is to end."""
        return self.outage.why != "" and self.outage.tries > TRIES

    @property
    def next_probe_at(self) -> float | None:
        """Return when the disk is asked next; None while it takes what is written, or is to answer."""
        return self.outage.next_probe_at if self.outage.why and not self._probing else None

    def hold_back(self, chunk_id: str, now: float) -> float:
        """Keep an id until the end of the outage; return when to decide again at the latest."""
        self._held_back.add(chunk_id)
        return now + PROBE_LAST_S

    def refused(self, error: DiskError, now: float) -> bool:
        """Take in what a download has met; tell whether it waits for the end of the outage.

        EIO pauses all, and its own chunk for longer: one file that the disk cannot take is to hold up no other.
        """
        if error.code not in REFUSALS:
            return False
        if self.outage.refused(str(error), now):
            self.tell(Event("paused", "", str(error), cause=error.cause))
        return error.code != errno.EIO

    def freed(self) -> None:
        """Take in that something has been erased. In any thread."""
        self._freed.set()
        self.wake()

    def ask(self, now: float) -> set[str]:
        """Probe the disk where that is due; return the ids that were kept, once it is over."""
        resumed: set[str] = set()
        while self._answers:
            error = self._answers.popleft()
            self._probing = False
            if error is not None:
                self.outage.why = f"the disk refuses: {error}"
            elif self.outage.why:
                self.outage.is_over()
                self.tell(Event("resumed", ""))
                resumed, self._held_back = self._held_back, set()
        if self._freed.is_set():
            self._freed.clear()
            self.outage.freed(now)
        if not self._probing and self.outage.probe_is_due(now):
            self._probing = True
            self.workers.submit(self._probe)
        return resumed

    def _probe(self) -> None:
        error, path = None, f"{self.trash}/probe"
        try:
            self.fs.write(path, bytes(PROBE_BYTES), durable=True)
            self.fs.unlink(path)
        except OSError as e:
            error = e
        self._answers.append(error)
        self.wake()
