"""The disk as downloads find it: the outage, and the probes that find its end.

A probe is a small write, made durable, by a hand: so the loop does not wait for a disk that hangs. It is made in
`trash/`, which is emptied at the start: so a crash leaves nothing of it. `freed` and a probe's answer come from any
thread, all else is the loop's.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from fsdm.model.events import Event
from fsdm.reconcile.outage import PROBE_LAST_S, REFUSALS, Outage
from fsdm.reconcile.verdict import TRIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.workers import Workers
    from fsdm.model.errors import DiskError
    from fsdm.store.filesystem import FileSystem

PROBE_BYTES: Final = 4096


class Disk:
    """Whether the disk takes what downloads write. `wake` is called when there is an answer."""

    def __init__(
        self, trash: str, *, fs: FileSystem, workers: Workers, tell: Callable[[Event], None], wake: Callable[[], None]
    ) -> None:
        self._path = f"{trash}/probe"
        self._fs = fs
        self._workers = workers
        self._tell = tell
        self._wake = wake
        self._outage = Outage()
        self._probing = False
        self._answers: deque[OSError | None] = deque()
        self._freed = threading.Event()
        self._held_back: set[str] = set()

    @property
    def refusal(self) -> str:
        """What the disk says; empty while it takes what is written."""
        return self._outage.why

    @property
    def refuses_for_long(self) -> bool:
        """Whether a run that is to end has asked it often enough."""
        return self._outage.why != "" and self._outage.tries > TRIES

    @property
    def next_probe_at(self) -> float | None:
        """When it is asked next; None while it refuses nothing, or has not answered yet: then the answer wakes."""
        return self._outage.next_probe_at if self._outage.why and not self._probing else None

    def slots(self, jobs: int) -> int:
        """How many fetches may run, of `jobs`."""
        return self._outage.slots(jobs)

    def hold_back(self, chunk_id: str, now: float) -> float:
        """This id waits for the end of the outage; until when, at the longest, before it is decided again."""
        self._held_back.add(chunk_id)
        return now + PROBE_LAST_S

    def refused(self, error: DiskError, now: float) -> bool:
        """A download met this. Whether the download is to wait with all the others, rather than to back off by itself.

        EIO pauses all, and its own chunk for longer: one file that the disk cannot take is to hold up no other.
        """
        if error.code not in REFUSALS:
            return False
        if self._outage.refused(str(error), now):
            self._tell(Event("paused", "", str(error), cause=error.cause))
        return error.code != errno.EIO

    def came_through(self) -> None:
        """A fetch is done."""
        self._outage.came_through()

    def freed(self) -> None:
        """Something has been erased. In any thread."""
        self._freed.set()
        self._wake()

    def ask(self, now: float) -> set[str]:
        """Probe it where that is due; the ids that were held back, once it refuses no more."""
        resumed: set[str] = set()
        while self._answers:
            error = self._answers.popleft()
            self._probing = False
            if error is not None:
                self._outage.why = f"the disk refuses: {error}"
            elif self._outage.why:
                self._outage.is_over()
                self._tell(Event("resumed", ""))
                resumed, self._held_back = self._held_back, set()
        if self._freed.is_set():
            self._freed.clear()
            self._outage.freed(now)
        if not self._probing and self._outage.probe_is_due(now):
            self._probing = True
            self._workers.submit(self._probe)
        return resumed

    def _probe(self) -> None:
        error = None
        try:
            self._fs.write(self._path, bytes(PROBE_BYTES), durable=True)
            self._fs.unlink(self._path)
        except OSError as e:
            error = e
        self._answers.append(error)
        self._wake()
