"""The loop: doorbell, scan, plan, apply. One thread looks and decides; crews carry out.

Here it is put together, begins and ends; what a pass of it does stands in `passes`. The loop waits for the doorbell
alone. A pass that fails is no end: the next one begins with a scan.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from fsdm.concurrency.workers import Crew, ThreadCrew
from fsdm.model.limits import Limits
from fsdm.reconcile.admission import Admission
from fsdm.reconcile.apply import Applier
from fsdm.reconcile.counters import Tally
from fsdm.reconcile.delete_brake import Deletes
from fsdm.reconcile.disk_outage import Disk
from fsdm.reconcile.doorbell import Doorbell
from fsdm.reconcile.executor import Errands
from fsdm.reconcile.heartbeat import Heart
from fsdm.reconcile.loop import Passes
from fsdm.reconcile.memo import Memory
from fsdm.reconcile.results import Aftermath
from fsdm.reconcile.space_budget import Room
from fsdm.reconcile.trash import Trash
from fsdm.reconcile.watcher import Watch
from fsdm.reconcile.work_queue import Agenda
from fsdm.store.catalog import Catalog
from fsdm.store.filesystem import FileSystem
from fsdm.store.marker_removal import clear_temporaries, finish_removals
from fsdm.store.pause import Pause
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.scheduler import Lanes
from fsdm.verify.inspection import Inspection
from fsdm.verify.manifest_check import Audit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.events import Event
    from fsdm.model.layout import Layout, Place
    from fsdm.transfer.chunk_download import Fetcher

logger = logging.getLogger("fsdm")


class Reconciler:
    """Makes one data directory into what its markers ask for. The caller holds `LOCK` while this lives."""

    def __init__(
        self,
        layout: Layout,
        *,
        limits: Limits | None = None,
        fetcher: Fetcher | None = None,
        fs: FileSystem | None = None,
        on_event: Callable[[Event], None] | None = None,
        tally: Tally | None = None,
        crews: tuple[Crew, Crew, Crew] | None = None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311 not a secret
    ) -> None:
        self.layout = layout
        self.catalog = Catalog(layout, own=True)
        limits = limits or Limits()
        self._fs = fs or FileSystem(durable=limits.durable)
        self._clock = clock
        self._on_event = on_event
        self._tally = tally or Tally()
        self.heart = Heart(time.monotonic)
        self._bell = Doorbell()
        self._fetchers, self._hands, self._erasers = crews or (
            ThreadCrew("fsdm-fetch", limits.jobs),
            ThreadCrew("fsdm-hand", limits.hands),
            ThreadCrew("fsdm-erase", 1),
        )
        reserved = -(-limits.connections // 4)
        size = limits.connections + reserved
        self._lanes = None if crews else Lanes("fsdm-connection", size, reserved, limits.per_host)
        agenda, memory = Agenda(), Memory(layout)
        self._room = Room(
            layout,
            self.catalog,
            max_bytes=limits.max_bytes,
            keep_free_bytes=limits.keep_free_bytes or None,
            counts=limits.count_bytes,
        )
        disk = Disk(layout.trash, fs=self._fs, hands=self._hands, tell=self._tell, wake=self._bell.wake)
        self._deletes = Deletes(
            layout, self.catalog, share=limits.brake_share, fs=self._fs, hands=self._hands, tell=self._tell
        )
        self._trash = Trash(layout.trash, fs=self._fs, erasers=self._erasers, room=self._room, freed=disk.freed)
        self._fetcher = fetcher or HttpFetcher.within(limits)
        self._applier = Applier(
            layout,
            fs=self._fs,
            catalog=self.catalog,
            fetcher=self._fetcher,
            lanes=self._lanes,
            tell=self._tell,
            erase=self._trash.erase,
        )
        self._errands = Errands(
            self._applier, fetchers=self._fetchers, hands=self._hands, tell=self._tell, wake=self._bell.wake
        )
        self._watch = Watch(layout, self._bell.ring)
        aftermath = Aftermath(
            self._applier,
            self._watch,
            memory=memory,
            room=self._room,
            disk=disk,
            tell=self._tell,
            clock=clock,
            jitter=jitter,
        )
        self._audit = Audit(layout, self.catalog, suspect=self._suspect, ring=self._bell.ring)
        self._inspection = Inspection(
            layout,
            self.catalog,
            fs=self._fs,
            crew=crews[1] if crews else None,
            days=limits.scrub_days,
            clock=clock,
            wake=self._bell.wake,
        )
        self.passes = Passes(
            layout=layout,
            catalog=self.catalog,
            limits=limits,
            agenda=agenda,
            memory=memory,
            room=self._room,
            admission=Admission(self._room, agenda, memory, bell=self._bell, tell=self._tell),
            disk=disk,
            paused=Pause(layout, self._tell),
            deletes=self._deletes,
            errands=self._errands,
            aftermath=aftermath,
            inspection=self._inspection,
            heart=self.heart,
            clock=clock,
            tell=self._tell,
            keep_up=self._keep_up,
        )
        self._changes: deque[Limits] = deque()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Restore what is complete and take up what a crash left: the first finds can be answered after this."""
        self.catalog.refresh()
        self._room.open()
        self._deletes.open()
        finish_removals(self.layout, self._fs)
        clear_temporaries(self.layout, self._fs, self._clock())
        self._trash.empty()

    def start(self) -> None:
        """Reconcile in a thread of its own, until `stop`.

        Raises:
            RuntimeError: the system gives no thread; `stop` ends what has begun.
        """
        self._watch.start()
        self._audit.start()
        self._inspection.start()
        thread = threading.Thread(target=self._run, name="fsdm-reconciler", daemon=True)
        thread.start()
        self._thread = thread

    def stop(self, timeout_s: float | None = 5.0) -> bool:
        """Stop the transfers and end; what was not finished is taken up by the next.

        Returns:
            Whether all ended in time. Until it has, LOCK must not be let go of: a hand may be in the middle of a step.
        """
        self._stopping.set()
        self._bell.wake()
        if self._thread is not None:
            self._thread.join(timeout_s)
        self._audit.stop()
        inspected = self._inspection.stop(timeout_s)
        self._watch.stop()
        self._errands.stop_fetches("the reconciler stops")
        crews = [crew for crew in (self._lanes, self._fetchers, self._hands, self._erasers) if crew is not None]
        ended = inspected & all([crew.close(timeout_s) for crew in crews])  # noqa: C419 every crew is to be closed
        ended = ended and not (self._thread is not None and self._thread.is_alive())
        if ended:
            self._applier.close()
        return ended

    def ring(self, chunk_id: str | None) -> None:
        """Look at this id (or at everything) now rather than when an event or a scan would."""
        self._bell.ring(chunk_id)

    def change(self, limits: Limits) -> None:
        """Keep to these limits from the next pass on: what runs goes on. In any thread.

        What cannot be changed at run time (see `limits.AT_RUN_TIME`) is logged, and stays as it is.
        """
        self._changes.append(limits)
        self._bell.wake()

    def audit(self) -> None:
        """Look at every chunk at once: for a caller that makes the passes itself."""
        for place in self.catalog.all_places():
            self._audit.look(place)

    def step(self, timeout_s: float | None = 0.0) -> bool:
        """Wait for the bell, and make one pass. Whether anything was dispatched."""
        self.heart.beat(math.inf if timeout_s is None else timeout_s)
        rang, everything = self._bell.answer(timeout_s)
        began = time.monotonic()
        self.heart.beat()
        while self._changes:
            self._keep_to(self._changes.popleft())
        dispatched = self.passes.make(rang, everything=everything)
        self.heart.passed()
        self._tally.passed(time.monotonic() - began)
        return dispatched

    @property
    def is_running(self) -> bool:
        """Whether the thread that reconciles is alive."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def received_bytes(self) -> int | None:
        """What has come of files so far, also of those that failed; None where the fetcher does not count it."""
        return getattr(self._fetcher, "received_bytes", None)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.step(self.passes.pause())
            except Exception as e:  # one pass failed: say so, and begin the next with a scan
                is_defect = not isinstance(e, OSError)  # what the disk says needs no more than a line
                logger.log(logging.ERROR, "a pass of the reconciler failed: %s", e, exc_info=is_defect)
                self.heart.failed()
                self._tally.pass_failed()
                self.heart.beat(self.passes.limits.poll_s)
                self.passes.next_scan = 0.0
                self._stopping.wait(self.passes.limits.poll_s)

    def _keep_to(self, limits: Limits) -> None:
        limits, waits = self.passes.limits.changed_to(limits)
        self.passes.limits = limits
        if waits:
            logger.warning("not before the next start: %s", ", ".join(waits))
        self._fetchers.resize(limits.jobs)
        if isinstance(self._fetcher, HttpFetcher):
            self._fetcher.change(limits.bytes_per_s)
        self._room.change(
            max_bytes=limits.max_bytes,
            keep_free_bytes=limits.keep_free_bytes or None,
            running=self._errands.fetches,
        )
        self._deletes.change(limits.brake_share)

    def _keep_up(self) -> None:
        """What may have gone since the last scan is there again: directories, watches, threads."""
        for name in self.layout.directories():
            self._fs.mkdir(os.path.join(self.layout.root, name))
        self._watch.arm()
        for crew in (self._fetchers, self._hands, self._erasers, self._inspection):
            crew.hire()

    def _suspect(self, place: Place) -> None:
        self.passes.suspect(place)
        self._bell.wake()

    def _tell(self, event: Event) -> None:
        if logger.isEnabledFor(logging.INFO):
            logger.info("%s", event, extra=event.fields())
        self._tally.tell(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:  # somebody else's code: what it was told of has happened, and goes on
                logger.exception("on_event failed at: %s", event)
