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

from fsdm.concurrency.workers import ThreadWorkers, Workers
from fsdm.model.limits import Limits
from fsdm.reconcile.admission import Admission
from fsdm.reconcile.apply import Applier
from fsdm.reconcile.counters import Counters
from fsdm.reconcile.delete_brake import DeleteBrake
from fsdm.reconcile.disk_outage import Disk
from fsdm.reconcile.executor import Executor
from fsdm.reconcile.heartbeat import Heartbeat
from fsdm.reconcile.loop import Loop
from fsdm.reconcile.memo import Memos
from fsdm.reconcile.results import Results
from fsdm.reconcile.space_budget import SpaceBudget
from fsdm.reconcile.trash import Trash
from fsdm.reconcile.wakeup import Wakeup
from fsdm.reconcile.watcher import Watch
from fsdm.reconcile.work_queue import WorkQueue
from fsdm.store.catalog import Catalog
from fsdm.store.filesystem import FileSystem
from fsdm.store.marker_removal import clear_temporaries, finish_removals
from fsdm.store.pause import Pause
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.scheduler import Scheduler
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
        counters: Counters | None = None,
        crews: tuple[Workers, Workers, Workers] | None = None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311 not a secret
    ) -> None:
        self.layout = layout
        self.catalog = Catalog(layout, own=True)
        limits = limits or Limits()
        self._fs = fs or FileSystem(durable=limits.durable)
        self._clock = clock
        self._on_event = on_event
        self._counters = counters or Counters()
        self.heartbeat = Heartbeat(time.monotonic)
        self._wakeup = Wakeup()
        self._fetchers, self._workers, self._erasers = crews or (
            ThreadWorkers("fsdm-fetch", limits.jobs),
            ThreadWorkers("fsdm-hand", limits.workers),
            ThreadWorkers("fsdm-erase", 1),
        )
        reserved = -(-limits.connections // 4)
        size = limits.connections + reserved
        self._scheduler = None if crews else Scheduler("fsdm-connection", size, reserved, limits.per_host)
        work_queue, memos = WorkQueue(), Memos(layout)
        self._space = SpaceBudget(
            layout,
            self.catalog,
            max_bytes=limits.max_bytes,
            keep_free_bytes=limits.keep_free_bytes or None,
            counts=limits.count_bytes,
        )
        disk = Disk(layout.trash, fs=self._fs, workers=self._workers, tell=self._tell, wake=self._wakeup.wake)
        self._delete_brake = DeleteBrake(
            layout, self.catalog, share=limits.brake_share, fs=self._fs, workers=self._workers, tell=self._tell
        )
        self._trash = Trash(layout.trash, fs=self._fs, erasers=self._erasers, space=self._space, freed=disk.freed)
        self._fetcher = fetcher or HttpFetcher.within(limits)
        self._applier = Applier(
            layout,
            fs=self._fs,
            catalog=self.catalog,
            fetcher=self._fetcher,
            scheduler=self._scheduler,
            tell=self._tell,
            erase=self._trash.erase,
        )
        self._executor = Executor(
            self._applier, fetchers=self._fetchers, workers=self._workers, tell=self._tell, wake=self._wakeup.wake
        )
        self._watch = Watch(layout, self._wakeup.notify)
        results = Results(
            self._applier,
            self._watch,
            memos=memos,
            space=self._space,
            disk=disk,
            tell=self._tell,
            clock=clock,
            jitter=jitter,
        )
        self._audit = Audit(layout, self.catalog, suspect=self._suspect, notify=self._wakeup.notify)
        self._inspection = Inspection(
            layout,
            self.catalog,
            fs=self._fs,
            workers=crews[1] if crews else None,
            days=limits.scrub_days,
            clock=clock,
            wake=self._wakeup.wake,
        )
        self.loop = Loop(
            layout=layout,
            catalog=self.catalog,
            limits=limits,
            work_queue=work_queue,
            memos=memos,
            space=self._space,
            admission=Admission(self._space, work_queue, memos, wakeup=self._wakeup, tell=self._tell),
            disk=disk,
            paused=Pause(layout, self._tell),
            delete_brake=self._delete_brake,
            executor=self._executor,
            results=results,
            inspection=self._inspection,
            heartbeat=self.heartbeat,
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
        self._space.open()
        self._delete_brake.open()
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
        self._wakeup.wake()
        if self._thread is not None:
            self._thread.join(timeout_s)
        self._audit.stop()
        inspected = self._inspection.stop(timeout_s)
        self._watch.stop()
        self._executor.stop_fetches("the reconciler stops")
        crews = [
            workers
            for workers in (self._scheduler, self._fetchers, self._workers, self._erasers)
            if workers is not None
        ]
        ended = inspected & all([workers.close(timeout_s) for workers in crews])  # noqa: C419 every crew is to be closed
        ended = ended and not (self._thread is not None and self._thread.is_alive())
        if ended:
            self._applier.close()
        return ended

    def notify(self, chunk_id: str | None) -> None:
        """Look at this id (or at everything) now rather than when an event or a scan would."""
        self._wakeup.notify(chunk_id)

    def change(self, limits: Limits) -> None:
        """Keep to these limits from the next pass on: what runs goes on. In any thread.

        What cannot be changed at run time (see `limits.AT_RUN_TIME`) is logged, and stays as it is.
        """
        self._changes.append(limits)
        self._wakeup.wake()

    def audit(self) -> None:
        """Look at every chunk at once: for a caller that makes the passes itself."""
        for place in self.catalog.all_places():
            self._audit.look(place)

    def step(self, timeout_s: float | None = 0.0) -> bool:
        """Wait for the bell, and make one pass. Whether anything was dispatched."""
        self.heartbeat.beat(math.inf if timeout_s is None else timeout_s)
        woken, everything = self._wakeup.answer(timeout_s)
        began = time.monotonic()
        self.heartbeat.beat()
        while self._changes:
            self._keep_to(self._changes.popleft())
        dispatched = self.loop.make(woken, everything=everything)
        self.heartbeat.passed()
        self._counters.passed(time.monotonic() - began)
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
                self.step(self.loop.pause())
            except Exception as e:  # one pass failed: say so, and begin the next with a scan
                is_defect = not isinstance(e, OSError)  # what the disk says needs no more than a line
                logger.log(logging.ERROR, "a pass of the reconciler failed: %s", e, exc_info=is_defect)
                self.heartbeat.failed()
                self._counters.pass_failed()
                self.heartbeat.beat(self.loop.limits.poll_s)
                self.loop.next_scan = 0.0
                self._stopping.wait(self.loop.limits.poll_s)

    def _keep_to(self, limits: Limits) -> None:
        limits, waits = self.loop.limits.changed_to(limits)
        self.loop.limits = limits
        if waits:
            logger.warning("not before the next start: %s", ", ".join(waits))
        self._fetchers.resize(limits.jobs)
        if isinstance(self._fetcher, HttpFetcher):
            self._fetcher.change(limits.bytes_per_s)
        self._space.change(
            max_bytes=limits.max_bytes,
            keep_free_bytes=limits.keep_free_bytes or None,
            running=self._executor.fetches,
        )
        self._delete_brake.change(limits.brake_share)

    def _keep_up(self) -> None:
        """What may have gone since the last scan is there again: directories, watches, threads."""
        for name in self.layout.directories():
            self._fs.mkdir(os.path.join(self.layout.root, name))
        self._watch.arm()
        for workers in (self._fetchers, self._workers, self._erasers, self._inspection):
            workers.replenish()

    def _suspect(self, place: Place) -> None:
        self.loop.suspect(place)
        self._wakeup.wake()

    def _tell(self, event: Event) -> None:
        if logger.isEnabledFor(logging.INFO):
            logger.info("%s", event, extra=event.fields())
        self._counters.tell(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:  # somebody else's code: what it was told of has happened, and goes on
                logger.exception("on_event failed at: %s", event)
