"""The passes of the reconciler: take in what has ended, look, decide, dispatch; and how it stands between two of them.

A pass asks the rooms below it for what each of them knows, and carries nothing out. It never waits for the disk beyond
looks, nor for a ref, nor for the network. What an event named is looked at, and whatever no event named is found by the
next scan, at the latest after `Limits.poll_s` (or longer, where a scan costs more than a fiftieth of that).

The loop's alone, but for what says otherwise.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from fsdm.model.events import Event
from fsdm.reconcile.actions import Absolve, Fetch, Publish, Report, Retire, Verify, Wait
from fsdm.reconcile.outcome import Done
from fsdm.reconcile.plan import Asked, decide
from fsdm.reconcile.verdict import is_stuck, trouble
from fsdm.store.scan import look, scan

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.layout import Layout, Place
    from fsdm.model.limits import Limits
    from fsdm.model.state import ChunkState
    from fsdm.reconcile.admission import Admission
    from fsdm.reconcile.delete_brake import DeleteBrake
    from fsdm.reconcile.disk_outage import Disk
    from fsdm.reconcile.executor import Executor
    from fsdm.reconcile.heartbeat import Heartbeat
    from fsdm.reconcile.ledger import Part
    from fsdm.reconcile.memo import Memos
    from fsdm.reconcile.results import Results
    from fsdm.reconcile.space_budget import SpaceBudget
    from fsdm.reconcile.work_queue import WorkQueue
    from fsdm.store.catalog import Catalog
    from fsdm.store.pause import Pause
    from fsdm.verify.inspection import Inspection

SCAN_SHARE: Final = 50  # a scan is followed by so many times its own duration without one


@dataclass(slots=True, kw_only=True)
class Loop:
    """What one reconciler knows of each id that is pending, and what it makes of it, a pass at a time.

    `keep_up` is called before each scan: it makes anew what may have gone since the last one.
    """

    layout: Layout
    catalog: Catalog
    limits: Limits
    work_queue: WorkQueue
    memos: Memos
    space: SpaceBudget
    admission: Admission
    disk: Disk
    paused: Pause
    delete_brake: DeleteBrake
    executor: Executor
    results: Results
    inspection: Inspection
    heartbeat: Heartbeat
    clock: Callable[[], float]
    tell: Callable[[Event], None]
    keep_up: Callable[[], None]
    next_scan: float = field(default=0.0, init=False)  # monotonic
    states: dict[str, ChunkState] = field(default_factory=dict, init=False)
    _suspects: deque[Place] = field(default_factory=deque, init=False)

    # -------------------------------------------------------------------------------------------------------- one pass

    def make(self, woken: set[str], *, everything: bool) -> bool:
        """One pass: look at what rang (or at `everything`), decide, dispatch. Whether anything was dispatched."""
        self.results.ask_again(woken)
        ids = woken | self._settle_all() | self.disk.ask(self.clock()) | set(self.work_queue.due(self.clock()))
        if everything or time.monotonic() >= self.next_scan:
            ids |= self._scan()
        for chunk_id in ids:
            state = self.states[chunk_id] = look(self.layout, self.catalog, chunk_id)
            self.delete_brake.see(state, self.memos.see(state))
            self.heartbeat.beat()
        for chunk_id in ids | self.delete_brake.judge(
            self.clock()
        ):  # all have been seen: so many at once may be too many
            self._decide(chunk_id)
            self.heartbeat.beat()
        if (size := self.space.news()) is not None:
            self.tell(Event("size", "", size))
        return self._dispatch()

    def suspect(self, place: Place) -> None:
        """The chunk there may be damaged: the next pass has it looked at. In any thread."""
        self._suspects.append(place)

    def _settle_all(self) -> set[str]:
        """Take in what has come since the last pass; the ids that it is about."""
        settled = set()
        for action, outcome in self.executor.outcomes():
            memo = self.memos.of(action.id)
            if isinstance(action, Fetch):
                gives_way = self.work_queue.parked_fetches > 0 and not (outcome == Done() or self.paused.why)
                memo = replace(memo, crowded=not self.space.end(action.id) or gives_way)
            elif not isinstance(action, Report | Absolve):
                self.space.count(action.id)
            self.memos.put(action.id, self.results.take_in(action, outcome, memo))
            settled.add(action.id)
        while self._suspects:
            place = self._suspects.popleft()
            self.memos.change(place.chunk_id, suspect=place)
            settled.add(place.chunk_id)
        for answer in self.inspection.answers():
            self.results.answered(answer)
            settled.add(answer.place.chunk_id)
        return settled

    def _scan(self) -> set[str]:
        """List what is pending; the ids to look at."""
        began = time.monotonic()
        self.keep_up()
        if self.paused.look():
            self.executor.stop_fetches(self.paused.why)
        changed = self.catalog.refresh()
        for chunk_id in changed:
            self.space.count(chunk_id)
        if self.space.is_limited and (fetch := self.space.too_much()) is not None:
            self.executor.stop(fetch, "it brings more than there is room for")
        ids = changed | self.states.keys() | scan(self.layout, self.catalog).ids
        took = time.monotonic() - began
        self.next_scan = time.monotonic() + max(self.limits.poll_s, took * SCAN_SHARE)
        return ids

    def _decide(self, chunk_id: str) -> None:
        state = self.states[chunk_id]
        if chunk_id in self.executor:
            self.executor.stop_if_unwanted(state)
            return
        now = self.clock()
        if self.results.is_held(chunk_id) and not (state.delete or state.unready):
            self.results.let_go(chunk_id)
            if state.ready:
                told = "the delete was withdrawn, nothing is fetched"
                self.tell(Event("available", chunk_id, told, state.ready[0].dataset_id))
        memo = self.memos.of(chunk_id)
        decision = decide(state, memo, now)
        if self.disk.refusal and isinstance(decision, Publish):
            decision = Wait(self.disk.hold_back(chunk_id, now))
        if isinstance(decision, Retire) and self.delete_brake.holds_back(chunk_id):
            decision = None
        self.work_queue.put(chunk_id, decision, memo.failure.attempts if memo.failure else 0)
        if decision is None and state.at_rest:
            del self.states[chunk_id]
            self.memos.forget(chunk_id)
            self.space.forget(chunk_id)

    def _dispatch(self) -> bool:
        dispatched = False
        slots = 0 if self.paused.why else self.disk.slots(self.limits.jobs) - self.executor.fetching
        self.admission.open(slots)
        for action in self.work_queue.take(slots, lambda fetch: self.admission.admit(fetch, self.clock())):
            dispatched = True
            if isinstance(action, Verify):
                self.memos.change(action.id, asked=Asked(action.verify))
                self.inspection.ask(action)
                continue
            absolve = isinstance(action, Fetch) and self.memos.of(action.id).failure is None
            absolve = absolve and self.states[action.id].failed  # what kept it from its start is over
            self.executor.begin(action, absolve=absolve)
        return dispatched

    # --------------------------------------------------------------------------------------------------- how it stands

    def pause(self) -> float:
        """Seconds until the next pass has something to do by itself."""
        pauses = [self.next_scan - time.monotonic()]
        if (next_at := self.work_queue.next_at) is not None:
            pauses.append(next_at - self.clock())
        if (probe_at := self.disk.next_probe_at) is not None:
            pauses.append(probe_at - self.clock())
        if self.work_queue.parked_fetches:  # somebody may make room, and no event tells of that
            pauses.append(self.limits.poll_s)
        return max(min(pauses), 0.0)

    def at_its_end(self) -> bool:
        """Whether nothing runs, and what is left has been tried as often as makes sense in one go."""
        if self.next_scan == 0.0 or self.executor or (self.work_queue.parked_fetches and self.space.is_emptying):
            return False
        refused = self.disk.refuses_for_long or self.paused.why != ""
        return (refused or not self.work_queue.waiting_fetches) and all(
            is_stuck(self.memos.of(chunk_id))
            or self.delete_brake.holds_back(chunk_id)
            or (refused and state.want is not None)
            for chunk_id, state in self.states.items()
        )

    def troubles(self) -> dict[str, str]:
        """Why what has not converged has not: a sentence by id or path."""
        found = {oddity.path: oddity.why for oddity in scan(self.layout, self.catalog).oddities}
        for chunk_id in self.states:
            braked = self.delete_brake.holds_back(chunk_id) and f"its delete is held back: {self.delete_brake.refusal}"
            found[chunk_id] = braked or trouble(
                self.memos.of(chunk_id), self.disk.refusal or self.paused.why or "not done"
            )
        return found

    def bytes_by_part(self) -> dict[Part, int] | None:
        """What there is on the disk, as far as it is counted. In any thread; it looks at what is being fetched."""
        return self.space.bytes_by_part([fetch.id for fetch in self.executor.fetches])
