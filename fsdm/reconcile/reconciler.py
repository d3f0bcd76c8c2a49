"""Putting a reconciler together, starting and stopping it. What it does stands in `loop`."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from typing import TYPE_CHECKING

from fsdm.concurrency.log import Log
from fsdm.concurrency.workers import Workers
from fsdm.index.background import Indexing
from fsdm.index.building import Building
from fsdm.index.known_naming import KnownNaming
from fsdm.model.layout import is_id
from fsdm.model.limits import Limits
from fsdm.reconcile.admission import Admission
from fsdm.reconcile.apply import Applier
from fsdm.reconcile.counters import Counters
from fsdm.reconcile.delete_brake import Brake, DeleteBrake
from fsdm.reconcile.disk_outage import DiskOutage
from fsdm.reconcile.eviction import Eviction
from fsdm.reconcile.executor import Executor
from fsdm.reconcile.heartbeat import Heartbeat
from fsdm.reconcile.loop import Loop
from fsdm.reconcile.recovery import Recovery
from fsdm.reconcile.results import Results
from fsdm.reconcile.space_budget import SpaceBudget
from fsdm.reconcile.trash import Trash
from fsdm.reconcile.wakeup import Wakeup
from fsdm.reconcile.watcher import Watcher
from fsdm.reconcile.work_queue import WorkQueue
from fsdm.store.catalog import Catalog
from fsdm.store.data_dir import Root
from fsdm.store.filesystem import FileSystem
from fsdm.store.marker_removal import clear_temporaries, finish_removals
from fsdm.store.pause import Pause
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.scheduler import Scheduler, lent_max
from fsdm.verify.background import BackgroundCheck
from fsdm.verify.manifest_check import ManifestCheck
from fsdm.verify.scrub import Scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsdm.model.events import Event
    from fsdm.model.indexes import Index
    from fsdm.model.layout import Layout
    from fsdm.transfer.chunk_download import FileFetcher
    from fsdm.transfer.requests_engine import Sessions

logger = Log("fsdm")


class Reconciler:
    """The parts of one reconciler. The caller holds `LOCK` while this lives.

    `root` is the directory that the path is to go on naming; without, the one that it names now.
    `workers` carry out everything in place of threads: for a caller that makes the passes itself (`loop.step`).
    """

    def __init__(
        self,
        layout: Layout,
        *,
        root: Root | None = None,
        limits: Limits | None = None,
        fetcher: FileFetcher | None = None,
        sources: Sources | None = None,
        session: Sessions | None = None,
        fs: FileSystem | None = None,
        on_event: Callable[[Event], None] | None = None,
        counters: Counters | None = None,
        indexes: Iterable[Index] = (),
        workers: Workers | None = None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311 not a secret
    ) -> None:
        limits, counters = limits or Limits(), counters or Counters()
        self.layout = layout
        self.catalog = catalog = Catalog(layout, own=True)
        self._fs = fs = fs or FileSystem(durable=limits.durable)
        self._clock = clock
        self.heartbeat = Heartbeat(time.monotonic)
        fetchers = workers or Workers("fsdm-fetch", limits.jobs + lent_max())
        helpers = workers or Workers("fsdm-worker", limits.workers)
        erasers = workers or Workers("fsdm-erase", 1)
        verifiers = workers or Workers("fsdm-verify", 1)
        indexers = workers or Workers("fsdm-indexer", limits.index_jobs)
        building = Building(layout, fs, clock, limits.keep_free_bytes)
        self.indexing = Indexing(layout, catalog, building, indexes, limits.index_jobs, indexers)
        reserved = -(-limits.connections // 4)
        size = limits.connections + reserved
        sources = sources or Sources()
        self._scheduler = (
            None if workers else Scheduler("fsdm-connection", size, reserved, limits.per_host, sources.group)
        )
        tell, wakeup, work_queue = _event_sink(counters, on_event, self.indexing), Wakeup(), WorkQueue()
        space = SpaceBudget(layout, catalog, limits)
        disk = DiskOutage(layout.trash, fs=fs, workers=helpers, tell=tell, wake=wakeup.wake)
        self._trash = Trash(layout.trash, fs=fs, workers=erasers, space=space, freed=disk.freed)
        self._fetcher = fetcher or HttpFetcher.within(limits, sources, session, data_dir=layout.root)
        if self._scheduler is not None and isinstance(self._fetcher, HttpFetcher):
            self._fetcher.scheduler = self._scheduler
            self._scheduler.on_lent = wakeup.wake
        self._applier = Applier(layout, fs, catalog, self._fetcher, self._scheduler, tell, self._trash)
        watcher = Watcher(layout, wakeup.notify)
        results = Results(layout, self._applier, watcher, space=space, disk=disk, tell=tell, clock=clock, jitter=jitter)
        results.recovery = Recovery.within(limits)
        background = BackgroundCheck(layout, fs=fs, workers=verifiers, wake=wakeup.wake)
        days = limits.scrub_days
        self.scrub = None if days is None else Scrub(layout, catalog, days=days, check=background.check, clock=clock)
        self.loop = Loop(
            layout=layout,
            root=root or Root(layout),
            catalog=catalog,
            fs=fs,
            limits=limits,
            fetcher=self._fetcher,
            pools=(fetchers, helpers, erasers, verifiers, indexers),
            wakeup=wakeup,
            watcher=watcher,
            work_queue=work_queue,
            space=space,
            admission=Admission(space, work_queue, results, wakeup),
            eviction=Eviction(layout, catalog, space, work_queue, helpers, wakeup.wake),
            disk=disk,
            paused=Pause(layout, tell),
            delete_brake=DeleteBrake(layout, catalog, Brake(limits.brake_share), fs, helpers, tell, space.here_bytes),
            executor=Executor(self._applier, fetchers=fetchers, workers=helpers, tell=tell, wake=wakeup.wake),
            results=results,
            manifest_check=ManifestCheck(layout, catalog, wake=wakeup.wake, notify=wakeup.notify),
            background=background,
            heartbeat=self.heartbeat,
            counters=counters,
            clock=clock,
            tell=tell,
        )
        self._known_naming = KnownNaming(layout)
        self._stopping = threading.Event()
        self.error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Restore what is complete, and take up what a crash left. Finds can be answered then."""
        self.catalog.refresh()
        self.loop.space.open()
        self.loop.delete_brake.open()
        finish_removals(self.layout, self._fs)
        clear_temporaries(self.layout, self._fs, self._clock())
        layout = self.layout
        self._trash.empty([*map(layout.dataset, filter(is_id, os.listdir(layout.chunks))), layout.partial])

    def start(self) -> None:
        """Reconcile in a thread of its own, until `stop`.

        Raises:
            RuntimeError: the system gives no thread; `stop` ends what has begun.
        """
        self.loop.watcher.start()
        self.loop.manifest_check.start()
        if self.scrub is not None:
            self.scrub.start()
        self.indexing.start()
        self._known_naming.start()
        thread = threading.Thread(target=self._run, name="fsdm-reconciler", daemon=True)
        thread.start()
        self._thread = thread

    def _run(self) -> None:
        """Make passes until `stop`; what ends them before that stands in `error`, for the thread that watches LOCK."""
        try:
            self.loop.run(self._stopping)
        except BaseException as e:
            self.error = e

    def stop(self, timeout_s: float | None = 5.0) -> bool:
        """Stop the transfers and end; what was not finished is taken up by the next reconciler.

        Returns:
            Whether all ended in time. Until it has, LOCK must be kept: a worker may be in the middle of a step.
        """
        loop, thread = self.loop, self._thread
        self._stopping.set()
        loop.wakeup.wake()
        if thread is not None:
            thread.join(timeout_s)
        loop.manifest_check.stop()
        loop.background.stop()
        ended = [self.scrub is None or self.scrub.stop(timeout_s), self.indexing.stop(timeout_s)]
        ended.append(self._known_naming.stop(timeout_s))
        loop.watcher.stop()
        loop.executor.stop_fetches("the reconciler stops")
        if self._scheduler is not None:
            ended.append(self._scheduler.close(timeout_s))
        ended += [workers.close(timeout_s) for workers in loop.pools]
        ended.append(thread is None or not thread.is_alive())
        if all(ended):
            self._applier.close()
        return all(ended)

    @property
    def is_running(self) -> bool:
        """Tell whether the thread that reconciles is alive."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def received_bytes(self) -> int | None:
        """The bytes that have come so far, also of failed files; None if the fetcher does not count."""
        return getattr(self._fetcher, "received_bytes", None)


def _event_sink(
    counters: Counters, on_event: Callable[[Event], None] | None, indexing: Indexing
) -> Callable[[Event], None]:
    """Make the function that logs and counts an event, tells of it, and wakes the indexes."""

    def tell(event: Event) -> None:
        if logger.isEnabledFor(logging.INFO):
            logger.info("%s", event, extra=event.fields())
        counters.tell(event)
        if event.kind == "available":
            indexing.wake(event.chunk_id)
        if on_event is not None:
            on_event(event)

    return tell
