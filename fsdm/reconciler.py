"""The loop: doorbell, scan, plan, apply. One thread looks and decides; crews carry out.

Invariants: only one action runs for an id at a time; the loop itself never waits for the disk beyond looks, nor for a
ref, nor for the network; what an event named is looked at, and whatever no event named is found by the next scan, at
the latest after `Limits.poll_s` (or longer, where a scan costs more than a fiftieth of that).
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fsdm.action import Absolve, Fetch, Publish, Report, Retire, Verify, Wait
from fsdm.admission import Admission
from fsdm.aftermath import Aftermath
from fsdm.agenda import Agenda
from fsdm.apply import Applier
from fsdm.audit import Audit
from fsdm.catalog import Catalog
from fsdm.crew import Crew, ThreadCrew
from fsdm.deletes import Deletes
from fsdm.disk import Disk
from fsdm.doorbell import Doorbell
from fsdm.errands import Errands
from fsdm.events import Event
from fsdm.fetcher import HttpFetcher
from fsdm.fs import FileSystem
from fsdm.gauges import Gauges, read_gauges
from fsdm.heart import Heart
from fsdm.inspection import Inspection
from fsdm.intents import clear_temporaries, finish_removals
from fsdm.lanes import Lanes
from fsdm.limits import Limits
from fsdm.memory import Memory
from fsdm.outcome import Done
from fsdm.pause import Pause
from fsdm.plan import Asked, decide
from fsdm.room import Room
from fsdm.scan import look, scan
from fsdm.tally import Tally
from fsdm.trash import Trash
from fsdm.verdict import is_stuck, trouble
from fsdm.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.download import Fetcher
    from fsdm.layout import Layout, Place
    from fsdm.ledger import Part
    from fsdm.state import ChunkState

logger = logging.getLogger("fsdm")

SCAN_SHARE: Final = 50  # a scan is followed by so many times its own duration without one


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
        self.limits = limits = limits or Limits()
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
        self._agenda = Agenda()
        self._memory = Memory(layout)
        self._room = Room(
            layout,
            self.catalog,
            max_bytes=limits.max_bytes,
            keep_free_bytes=limits.keep_free_bytes or None,
            counts=limits.count_bytes,
        )
        self._admission = Admission(self._room, self._agenda, self._memory, bell=self._bell, tell=self._tell)
        self._disk = Disk(layout.trash, fs=self._fs, hands=self._hands, tell=self._tell, wake=self._bell.wake)
        self._paused = Pause(layout, self._tell)
        self._deletes = Deletes(
            layout, self.catalog, share=limits.brake_share, fs=self._fs, hands=self._hands, tell=self._tell
        )
        self._trash = Trash(layout.trash, fs=self._fs, erasers=self._erasers, room=self._room, freed=self._disk.freed)
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
        self._aftermath = Aftermath(
            self._applier,
            self._watch,
            memory=self._memory,
            room=self._room,
            disk=self._disk,
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
        self._states: dict[str, ChunkState] = {}
        self._suspects: deque[Place] = deque()
        self._changes: deque[Limits] = deque()
        self._next_scan = 0.0  # monotonic
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------------------------------------------- its life

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

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.step(self.pause())
            except Exception as e:  # one pass failed: say so, and begin the next with a scan
                is_defect = not isinstance(e, OSError)  # what the disk says needs no more than a line
                logger.log(logging.ERROR, "a pass of the reconciler failed: %s", e, exc_info=is_defect)
                self.heart.failed()
                self._tally.pass_failed()
                self.heart.beat(self.limits.poll_s)
                self._next_scan = 0.0
                self._stopping.wait(self.limits.poll_s)

    # -------------------------------------------------------------------------------------------------------- one pass

    def step(self, timeout_s: float | None = 0.0) -> bool:
        """One pass: wait for the bell, look, decide, dispatch. Whether anything was dispatched."""
        self.heart.beat(math.inf if timeout_s is None else timeout_s)
        rang, everything = self._bell.answer(timeout_s)
        began = time.monotonic()
        self.heart.beat()
        while self._changes:
            self._keep_to(self._changes.popleft())
        self._aftermath.ask_again(rang)
        ids = rang | self._settle_all() | self._disk.ask(self._clock()) | set(self._agenda.due(self._clock()))
        if everything or time.monotonic() >= self._next_scan:
            ids |= self._scan()
        for chunk_id in ids:
            state = self._states[chunk_id] = look(self.layout, self.catalog, chunk_id)
            self._deletes.see(state, self._memory.see(state))
            self.heart.beat()
        for chunk_id in ids | self._deletes.judge(self._clock()):  # all have been seen: so many at once may be too many
            self._decide(chunk_id)
            self.heart.beat()
        if (size := self._room.news()) is not None:
            self._tell(Event("size", "", size))
        dispatched = self._dispatch()
        self.heart.passed()
        self._tally.passed(time.monotonic() - began)
        return dispatched

    def audit(self) -> None:
        """Look at every chunk at once: for a caller that makes the passes itself."""
        for place in self.catalog.all_places():
            self._audit.look(place)

    def at_its_end(self) -> bool:
        """Whether nothing runs, and what is left has been tried as often as makes sense in one go."""
        if self._next_scan == 0.0 or self._errands or (self._agenda.parked_fetches and self._room.is_emptying):
            return False
        refused = self._disk.refuses_for_long or self._paused.why != ""
        return (refused or not self._agenda.waiting_fetches) and all(
            is_stuck(self._memory.of(chunk_id))
            or self._deletes.holds_back(chunk_id)
            or (refused and state.want is not None)
            for chunk_id, state in self._states.items()
        )

    def troubles(self) -> dict[str, str]:
        """Why what has not converged has not: a sentence by id or path."""
        found = {oddity.path: oddity.why for oddity in scan(self.layout, self.catalog).oddities}
        for chunk_id in self._states:
            braked = self._deletes.holds_back(chunk_id) and f"its delete is held back: {self._deletes.refusal}"
            found[chunk_id] = braked or trouble(
                self._memory.of(chunk_id), self._disk.refusal or self._paused.why or "not done"
            )
        return found

    @property
    def is_running(self) -> bool:
        """Whether the thread that reconciles is alive."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def received_bytes(self) -> int | None:
        """What has come of files so far, also of those that failed; None where the fetcher does not count it."""
        return getattr(self._fetcher, "received_bytes", None)

    def gauges(self) -> Gauges:
        """How it stands, in numbers. In any thread."""
        return read_gauges(
            list(self._states.values()),
            self._errands.actions,
            held=self._aftermath.held_chunks,
            catalog=self.catalog,
            memory=self._memory,
            agenda=self._agenda,
            room=self._room,
            disk=self._disk,
            pause=self._paused,
            deletes=self._deletes,
        )

    def bytes_by_part(self) -> dict[Part, int] | None:
        """What there is on the disk, as far as it is counted. In any thread; it looks at what is being fetched."""
        return self._room.bytes_by_part([fetch.id for fetch in self._errands.fetches])

    def pause(self) -> float:
        """Seconds until the next pass has something to do by itself."""
        pauses = [self._next_scan - time.monotonic()]
        if (next_at := self._agenda.next_at) is not None:
            pauses.append(next_at - self._clock())
        if (probe_at := self._disk.next_probe_at) is not None:
            pauses.append(probe_at - self._clock())
        if self._agenda.parked_fetches:  # somebody may make room, and no event tells of that
            pauses.append(self.limits.poll_s)
        return max(min(pauses), 0.0)

    def _keep_to(self, limits: Limits) -> None:
        self.limits, waits = self.limits.changed_to(limits)
        if waits:
            logger.warning("not before the next start: %s", ", ".join(waits))
        self._fetchers.resize(self.limits.jobs)
        if isinstance(self._fetcher, HttpFetcher):
            self._fetcher.change(self.limits.bytes_per_s)
        self._room.change(
            max_bytes=self.limits.max_bytes,
            keep_free_bytes=self.limits.keep_free_bytes or None,
            running=self._errands.fetches,
        )
        self._deletes.change(self.limits.brake_share)

    def _scan(self) -> set[str]:
        """List what is pending; the ids to look at."""
        began = time.monotonic()
        for name in self.layout.directories():
            self._fs.mkdir(os.path.join(self.layout.root, name))
        self._watch.arm()
        for crew in (self._fetchers, self._hands, self._erasers, self._inspection):
            crew.hire()
        if self._paused.look():
            self._errands.stop_fetches(self._paused.why)
        changed = self.catalog.refresh()
        for chunk_id in changed:
            self._room.count(chunk_id)
        if self._room.is_limited and (fetch := self._room.too_much()) is not None:
            self._errands.stop(fetch, "it brings more than there is room for")
        ids = changed | self._states.keys() | scan(self.layout, self.catalog).ids
        took = time.monotonic() - began
        self._next_scan = time.monotonic() + max(self.limits.poll_s, took * SCAN_SHARE)
        return ids

    def _decide(self, chunk_id: str) -> None:
        state = self._states[chunk_id]
        if chunk_id in self._errands:
            self._errands.stop_if_unwanted(state)
            return
        now = self._clock()
        if self._aftermath.is_held(chunk_id) and not (state.delete or state.unready):
            self._aftermath.let_go(chunk_id)
            if state.ready:
                told = "the delete was withdrawn, nothing is fetched"
                self._tell(Event("available", chunk_id, told, state.ready[0].dataset_id))
        memo = self._memory.of(chunk_id)
        decision = decide(state, memo, now)
        if self._disk.refusal and isinstance(decision, Publish):
            decision = Wait(self._disk.hold_back(chunk_id, now))
        if isinstance(decision, Retire) and self._deletes.holds_back(chunk_id):
            decision = None
        self._agenda.put(chunk_id, decision, memo.failure.attempts if memo.failure else 0)
        if decision is None and state.at_rest:
            del self._states[chunk_id]
            self._memory.forget(chunk_id)
            self._room.forget(chunk_id)

    def _dispatch(self) -> bool:
        dispatched = False
        slots = 0 if self._paused.why else self._disk.slots(self.limits.jobs) - self._errands.fetching
        self._admission.open(slots)
        for action in self._agenda.take(slots, lambda fetch: self._admission.admit(fetch, self._clock())):
            dispatched = True
            if isinstance(action, Verify):
                self._memory.change(action.id, asked=Asked(action.verify))
                self._inspection.ask(action)
                continue
            absolve = isinstance(action, Fetch) and self._memory.of(action.id).failure is None
            absolve = absolve and self._states[action.id].failed  # what kept it from its start is over
            self._errands.begin(action, absolve=absolve)
        return dispatched

    # -------------------------------------------------------------------------------------------------------- outcomes

    def _settle_all(self) -> set[str]:
        settled = set()
        for action, outcome in self._errands.outcomes():
            memo = self._memory.of(action.id)
            if isinstance(action, Fetch):
                gives_way = self._agenda.parked_fetches > 0 and not (outcome == Done() or self._paused.why)
                memo = replace(memo, crowded=not self._room.end(action.id) or gives_way)
            elif not isinstance(action, Report | Absolve):
                self._room.count(action.id)
            self._memory.put(action.id, self._aftermath.take_in(action, outcome, memo))
            settled.add(action.id)
        while self._suspects:
            place = self._suspects.popleft()
            self._memory.change(place.chunk_id, suspect=place)
            settled.add(place.chunk_id)
        for answer in self._inspection.answers():
            self._aftermath.answered(answer)
            settled.add(answer.place.chunk_id)
        return settled

    # ---------------------------------------------------------------------------------------------------------- shared

    def _suspect(self, place: Place) -> None:
        self._suspects.append(place)
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
