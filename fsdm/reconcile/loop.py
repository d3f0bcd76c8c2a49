"""The reconciler's loop: wait for a notification, look, decide, dispatch.

A pass never waits for the disk beyond looks, nor for a ref, nor for the network. It looks at the ids that an event has
named; all others are found by the next scan. All of it belongs to the loop's thread, but for what says otherwise.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.log import Log
from fsdm.concurrency.turn import in_turn, rest
from fsdm.model.errors import NoDataDirectoryError
from fsdm.model.events import Event
from fsdm.reconcile.actions import Evict, Fetch, Publish, Retire, Verify, Wait
from fsdm.reconcile.delete_brake import see
from fsdm.reconcile.plan import decide, takes_away
from fsdm.reconcile.recovery import Recovery, is_stuck, tries, trouble
from fsdm.store.data_dir import make_directories
from fsdm.store.scan import look, scan
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.scheduler import lent_max

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from fsdm.concurrency.workers import Workers
    from fsdm.model.layout import Layout
    from fsdm.model.limits import Limits
    from fsdm.model.state import ChunkState
    from fsdm.reconcile.admission import Admission
    from fsdm.reconcile.counters import Counters
    from fsdm.reconcile.delete_brake import DeleteBrake
    from fsdm.reconcile.disk_outage import DiskOutage
    from fsdm.reconcile.eviction import Eviction
    from fsdm.reconcile.executor import Executor
    from fsdm.reconcile.heartbeat import Heartbeat
    from fsdm.reconcile.results import Results
    from fsdm.reconcile.space_budget import Part, SpaceBudget
    from fsdm.reconcile.wakeup import Wakeup
    from fsdm.reconcile.watcher import Watcher
    from fsdm.reconcile.work_queue import WorkQueue
    from fsdm.store.catalog import Catalog
    from fsdm.store.data_dir import Root
    from fsdm.store.filesystem import FileSystem
    from fsdm.store.pause import Pause
    from fsdm.transfer.chunk_download import FileFetcher
    from fsdm.verify.background import BackgroundCheck
    from fsdm.verify.manifest_check import ManifestCheck

logger = Log("fsdm")

LENT_AFTER_S: Final = 0.25  # wants that have waited so long get the slots of those that wait for a server
REST_S: Final = 0.002  # after a pass, while several actions run: the next one is for all that comes meanwhile
SCAN_SHARE: Final = 50  # a scan is followed by so many times its own duration without one


@dataclass(slots=True, kw_only=True)
class Loop:
    """The passes of one reconciler, and the last seen state of each id that is pending."""

    layout: Layout
    root: Root
    catalog: Catalog
    fs: FileSystem
    limits: Limits
    fetcher: FileFetcher
    pools: tuple[Workers, ...]
    wakeup: Wakeup
    watcher: Watcher
    work_queue: WorkQueue
    space: SpaceBudget
    admission: Admission
    eviction: Eviction
    disk: DiskOutage
    paused: Pause
    delete_brake: DeleteBrake
    executor: Executor
    results: Results
    manifest_check: ManifestCheck
    background: BackgroundCheck
    heartbeat: Heartbeat
    counters: Counters
    clock: Callable[[], float]
    tell: Callable[[Event], None]
    next_scan: float = field(default=0.0, init=False)  # monotonic
    states: dict[str, ChunkState] = field(default_factory=dict, init=False)
    _lend_at: float = field(default=math.inf, init=False)  # monotonic: then slots are lent to the wants that wait
    _new_limits: deque[Limits] = field(default_factory=deque, init=False)

    def run(self, stopping: threading.Event) -> None:
        """Make passes until `stopping` is set and the loop woken.

        Raises:
            NoDataDirectoryError: the data directory has gone, or another one is in its place.
        """
        while not stopping.is_set():
            try:
                self.step(self.wait_s())
                if len(self.executor) > 1:
                    stopping.wait(REST_S)
            except NoDataDirectoryError:  # the root has gone, or is another one: no pass will mend that
                raise
            except Exception as e:  # one pass failed: say so, and begin the next with a scan
                is_defect = not isinstance(e, OSError)  # what the disk says needs no more than a line
                logger.log(logging.ERROR, "a pass of the reconciler failed: %s", e, exc_info=is_defect)
                self.heartbeat.failed()
                self.counters.pass_failed()
                self.heartbeat.beat(self.limits.poll_s)
                self.next_scan = 0.0
                stopping.wait(self.limits.poll_s)

    def step(self, timeout_s: float | None = 0.0) -> bool:
        """Wait for a notification, and make one pass; tell whether anything was dispatched."""
        self.heartbeat.beat(math.inf if timeout_s is None else timeout_s)
        self.wakeup.wait(timeout_s)
        with in_turn():
            began = time.monotonic()
            woken, everything = self.wakeup.take()
            self.heartbeat.beat()
            while self._new_limits:
                self._keep_to(self._new_limits.popleft())
            dispatched = self.run_pass(woken, everything=everything)
        self.heartbeat.passed()
        self.counters.passed(time.monotonic() - began)
        return dispatched

    def change(self, limits: Limits) -> None:
        """Keep to these limits from the next pass on: what runs goes on. In any thread.

        What cannot be changed at run time (see `limits.AT_RUN_TIME`) is logged, and stays as it is.
        """
        self._new_limits.append(limits)
        self.wakeup.wake()

    def _keep_to(self, limits: Limits) -> None:
        self.limits, waits = self.limits.changed_to(limits)
        if waits:
            logger.warning("not before the next start: %s", ", ".join(waits))
        self.executor.fetchers.resize(self.limits.jobs + lent_max())
        if isinstance(self.fetcher, HttpFetcher):
            self.fetcher.change(self.limits.bytes_per_s)
        self.space.change(self.limits, self.executor.fetches)
        self.delete_brake.brake.share = self.limits.brake_share
        self.results.recovery = Recovery.within(self.limits)

    def run_pass(self, woken: set[str], *, everything: bool) -> bool:
        """Look at the `woken` ids (or at `everything`), decide, dispatch; tell whether anything was."""
        self.root.check()
        self.results.retry_held(woken)
        ids = woken | self._take_in_results() | self.disk.ask(self.clock()) | set(self.work_queue.due(self.clock()))
        began = time.monotonic()
        is_scan = everything or began >= self.next_scan
        if is_scan:
            ids |= self._scan()
        ids = {chunk_id for chunk_id in ids if not self.executor.looks_again(chunk_id)}
        for chunk_id in ids:
            state = self.states[chunk_id] = look(self.layout, self.catalog, chunk_id)
            see(self.delete_brake.brake, self.layout, state, is_going=takes_away(state, self.results.observe(state)))
            self._go_on()
        # only now that all have been seen: so many deletes at once may be too many
        for chunk_id in ids | self.delete_brake.judge(self.clock()):
            self._decide(chunk_id)
            self._go_on()
        if is_scan:
            now = time.monotonic()
            self.next_scan = now + max(self.limits.poll_s, (now - began) * SCAN_SHARE)
        if (size := self.space.news()) is not None:
            self.tell(Event("size", "", size))
        return self._dispatch()

    def _go_on(self) -> None:
        self.heartbeat.beat()
        rest()

    def _take_in_results(self) -> set[str]:
        """Take in what has ended since the last pass; return the ids that it is about."""
        ids = set()
        for action, outcome in self.executor.outcomes():
            others_wait = self.work_queue.parked_fetches > 0 and not self.paused.why
            self.results.take_in(action, outcome, others_wait=others_wait)
            ids.add(action.id)
        for place in self.manifest_check.suspects():
            self.results.suspected(place)
            ids.add(place.chunk_id)
        for checked in self.background.checked():
            self.results.verified(checked)
            ids.add(checked.place.chunk_id)
        return ids

    def _scan(self) -> set[str]:
        """List what is pending; return the ids to look at."""
        self._restore()
        if self.paused.look():
            self.executor.stop_fetches(self.paused.why)
        changed = self.catalog.refresh()
        for chunk_id in changed:
            self.space.count(chunk_id)
        if not self.executor:  # else a chunk may be on its way there
            for dataset_id in self.catalog.empty_datasets():
                self.fs.rmdir(self.layout.dataset(dataset_id))
        if self.space.is_limited and (fetch := self.space.too_much()) is not None:
            self.executor.stop(fetch, "it brings more than there is room for")
        return changed | self.states.keys() | scan(self.layout, self.catalog).ids

    def _restore(self) -> None:
        """Make again what may have gone since the last scan: directories, watches, threads."""
        make_directories(self.layout, self.fs)
        self.watcher.arm()
        for workers in self.pools:
            workers.replenish()

    def _decide(self, chunk_id: str) -> None:
        state = self.states[chunk_id]
        if chunk_id in self.executor:
            self.executor.stop_if_unwanted(state)
            return
        now = self.clock()
        if self.results.is_held(chunk_id) and not (state.delete or state.unready):
            self.results.release(chunk_id)
            if state.ready:
                told = "the delete was withdrawn, nothing is fetched"
                self.tell(Event("available", chunk_id, told, state.ready[0].dataset_id))
        memo = self.results.memo(chunk_id)
        decision = decide(state, memo, now, self.results.recovery)
        if self.disk.refusal and isinstance(decision, Publish):
            decision = Wait(self.disk.hold_back(chunk_id, now))
        if isinstance(decision, Retire) and self.delete_brake.brake.holds_back(chunk_id):
            decision = None
        self.work_queue.put(chunk_id, decision, tries(memo))
        if decision is None and state.at_rest:
            del self.states[chunk_id]
            self.results.forget(chunk_id)
            self.space.forget(chunk_id)

    def _dispatch(self) -> bool:
        dispatched = False
        allowed = 0 if self.paused.why else self.disk.outage.slots(self.limits.jobs)
        slots, now = allowed - len(self.executor.fetches), time.monotonic()
        if slots > 0 or not allowed or not self.work_queue.waiting_fetches:
            self._lend_at = math.inf
        elif self._lend_at == math.inf:
            self._lend_at = now + LENT_AFTER_S
        elif now >= self._lend_at:
            slots = allowed - self.executor.slots_taken
        self.admission.open(slots)
        evictions = []
        for action in self.work_queue.take(slots, self._admit):
            dispatched = True
            if isinstance(action, Verify):
                self.results.verify_begun(action)
                self.background.ask(action.place, action.verify)
                continue
            if isinstance(action, Evict):
                evictions.append(action)
                continue
            if isinstance(action, Fetch) and action.known:
                self.counters.missed()
            is_over = isinstance(action, Fetch) and self.results.memo(action.id).failure is None
            self.executor.begin(action, clear_failure=is_over and self.states[action.id].failed)
        self.executor.begin_evictions(evictions)
        self.eviction.begin(self.limits.jobs)
        return dispatched

    def _admit(self, fetch: Fetch) -> bool:
        """Tell whether a fetch may begin; a slot that is lent is for wants of other servers than those waited for."""
        is_lent = len(self.executor.fetches) >= self.limits.jobs
        if is_lent and self.executor.waits_for_server_of(fetch):
            self.work_queue.put(fetch.id, Wait(self.clock() + LENT_AFTER_S))
            return False
        return self.admission.admit(fetch, self.clock())

    def wait_s(self) -> float:
        """Tell how long the next pass can wait, in seconds, if nothing wakes the loop before."""
        waits = [self.next_scan - time.monotonic()]
        if (next_at := self.work_queue.next_at) is not None:
            waits.append(next_at - self.clock())
        if (probe_at := self.disk.next_probe_at) is not None:
            waits.append(probe_at - self.clock())
        if (lend_s := self._lend_at - time.monotonic()) > 0:
            waits.append(lend_s)
        if self.work_queue.parked_fetches:  # room may be made elsewhere, and no event tells of that
            waits.append(self.limits.poll_s)
        return max(min(waits), 0.0)

    def is_done(self) -> bool:
        """Tell whether nothing runs, and what is left has been tried often enough."""
        if self.next_scan == 0.0 or self.executor or (self.work_queue.parked_fetches and self.space.is_emptying):
            return False
        refused = self.disk.refuses_for_long or self.paused.why != ""
        return (refused or not self.work_queue.waiting_fetches) and all(
            is_stuck(self.results.memo(chunk_id))
            or self.delete_brake.brake.holds_back(chunk_id)
            or (refused and state.want is not None)
            for chunk_id, state in self.states.items()
        )

    def troubles(self) -> dict[str, str]:
        """Say why what has not converged has not: a sentence by id or path."""
        found = {oddity.path: oddity.why for oddity in scan(self.layout, self.catalog).oddities}
        otherwise = self.disk.refusal or self.paused.why or "not done"
        for chunk_id, state in self.states.items():
            if state.asks_nothing and self.results.is_given_up(chunk_id):
                continue  # it is told of, and nobody asks for it
            braked = (
                self.delete_brake.brake.holds_back(chunk_id) and f"its delete is held back: {self.delete_brake.refusal}"
            )
            found[chunk_id] = braked or trouble(self.results.memo(chunk_id), otherwise)
        return found

    def bytes_by_part(self) -> dict[Part, int] | None:
        """Tell what is on the disk, as far as it is counted. In any thread; it looks at partials."""
        return self.space.bytes_by_part([fetch.id for fetch in self.executor.fetches])
