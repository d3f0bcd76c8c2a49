"""Taking in what has come of actions and checks. The only writer of memos.

The loop's alone, but for `memo` and `held_chunks`.
Invariant: a directory is watched, and its claim kept open, from the first refusal until its chunk is released.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from fsdm.concurrency.log import Log
from fsdm.model.errors import DiskError
from fsdm.model.events import Event
from fsdm.model.state import may_repeat
from fsdm.reconcile import actions
from fsdm.reconcile.actions import Action, CannotRead, Done, Failed, Held, Outcome, Quarantined
from fsdm.reconcile.disk_outage import FULL
from fsdm.reconcile.memo import NO_MEMO, Memo, Unreadable, Used, VerifyRequest, observe
from fsdm.reconcile.plan import VERIFY_AGAIN_S, held_delay, waits_for_room
from fsdm.reconcile.recovery import BACKOFF_LAST_S, BY_TIME, Recovery, next_failure
from fsdm.store.markers import look_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.documents import Failure
    from fsdm.model.errors import FsdmError
    from fsdm.model.layout import Layout, Place
    from fsdm.model.state import ChunkState
    from fsdm.reconcile.apply import Applier
    from fsdm.reconcile.disk_outage import DiskOutage
    from fsdm.reconcile.space_budget import SpaceBudget
    from fsdm.reconcile.watcher import Watcher
    from fsdm.verify.background import Checked

logger = Log("fsdm")


@dataclass(slots=True)
class Results:
    """The memos of one reconciler, and the directories that refs keep from it."""

    layout: Layout
    applier: Applier
    watcher: Watcher
    space: SpaceBudget
    disk: DiskOutage
    tell: Callable[[Event], None]
    clock: Callable[[], float]
    jitter: Callable[[], float]
    recovery: Recovery = BY_TIME
    _memos: dict[str, Memo] = field(default_factory=dict)
    _held: dict[str, Place] = field(default_factory=dict)

    def memo(self, chunk_id: str) -> Memo:
        """Return what is remembered of an id. In any thread."""
        return self._memos.get(chunk_id, NO_MEMO)

    def is_given_up(self, chunk_id: str) -> bool:
        """Tell whether a chunk is not tried again by itself. In any thread."""
        return self.recovery.has_given_up(self.memo(chunk_id).failure)

    def observe(self, state: ChunkState) -> Memo:
        """Take in a look at the disk."""
        memo = self._memos[state.id] = observe(self.layout, state, self._memos.get(state.id))
        return memo

    def forget(self, chunk_id: str) -> None:
        self._memos.pop(chunk_id, None)

    def _change(self, chunk_id: str, **changes: Any) -> None:
        memo = self.memo(chunk_id)
        if any(getattr(memo, name) != value for name, value in changes.items()):
            self._memos[chunk_id] = replace(memo, **changes)

    def take_in(self, action: Action, outcome: Outcome, *, others_wait: bool = False) -> None:
        """Take in an outcome. `others_wait`: for the room that a failed fetch would keep."""
        now, chunk_id, memo = self.clock(), action.id, self.memo(action.id)
        if isinstance(action, actions.Fetch):
            fits = self.space.end(chunk_id)
            self._change(chunk_id, crowded=not fits or (others_wait and outcome != Done()))
        elif not isinstance(action, actions.Report | actions.ClearFailure):
            self.space.count(chunk_id)
        match outcome:
            case Done():
                self._done(action)
            case Quarantined(failure):
                self._change(chunk_id, failure=failure, reported=True, suspect=None, found=None)
            case Held(place):
                if not memo.held:
                    self.tell(Event("retiring", chunk_id, dataset_id=place.dataset_id))
                self._held[chunk_id] = place
                # a ref may have gone between our attempt and the watch: the first time, try once more at once
                again_at_once = self.watcher.hold(place)
                until = now if again_at_once else now + held_delay(memo.held + 1)
                self._change(chunk_id, held=memo.held + 1, held_until=until)
            case CannotRead(want, error):
                is_known = isinstance(action, actions.Register) or _is_acquired(action)
                of = "unregistered" if is_known else "unreadable"
                last: Unreadable | None = getattr(memo, of)
                since = last.since if last is not None and last.want.same_as(want) else now
                again = may_repeat(want.mtime_ns, now)
                self._change(chunk_id, **{of: Unreadable(want, str(error), error.hint, since, again)})
            case Failed(error, disk):
                self._failed(action, error, disk=disk)

    def suspected(self, place: Place) -> None:
        """Take in that the chunk there may be damaged."""
        self._change(place.chunk_id, suspect=place)

    def verify_begun(self, action: actions.Verify) -> None:
        """Take in that a chunk is being read, as a marker asks for."""
        self._change(action.id, asked=VerifyRequest(action.verify))

    def verified(self, checked: Checked) -> None:
        """Take in what reading a chunk has found."""
        chunk_id = checked.place.chunk_id
        if checked.found is not None:
            self._change(chunk_id, suspect=checked.place, found=checked.found)
        if checked.verify is not None:
            again_at = None if checked.read else self.clock() + VERIFY_AGAIN_S
            self._change(chunk_id, asked=VerifyRequest(checked.verify, answered=checked.read, again_at=again_at))
            if checked.read and checked.found is None:
                self.tell(Event("verified", chunk_id))

    def admitted(self, fetch: actions.Fetch) -> None:
        """Take in that there is room for a fetch, and it begins."""
        memo = self.memo(fetch.id)
        self._change(fetch.id, failure=None if waits_for_room(memo, fetch) else memo.failure, crowded=False)

    def refused(self, failure: Failure) -> None:
        """Take in that there is no room for a fetch, and tell of it."""
        self._change(failure.id, failure=failure, reported=False, crowded=True)
        self.tell(Event("over", failure.id, failure.error, cause="room"))

    def crowded(self, chunk_id: str) -> None:
        """Take in that a fetch waits for the room of this one's partial."""
        self._change(chunk_id, crowded=True)

    def _done(self, action: Action) -> None:
        match action:
            case actions.Report(chunk_id, failure):
                if failure.kind in {"want", "marker"}:  # the others were told of when they were met
                    self.tell(Event("failed", chunk_id, failure.error, cause=failure.kind))
                self._change(chunk_id, reported=True, failure=failure)
            case actions.ClearFailure(chunk_id):
                self._change(chunk_id, failure=None)
            case actions.Quarantine(chunk_id):
                self._change(chunk_id, suspect=None, found=None)
            case actions.Use(chunk_id, _, acquire):
                self._change(chunk_id, used=Used(acquire, self.clock()))
            case actions.ClearVerify(chunk_id):
                self._change(chunk_id, asked=None)
            case actions.Retire(chunk_id) | actions.Clear(chunk_id):
                self.release(chunk_id)
                self._mended(chunk_id, "disk")
            case actions.Fetch(chunk_id):
                self.disk.outage.came_through()
                self._mended(chunk_id, "disk", "transfer")
            case actions.Forget(chunk_id):
                self._change(chunk_id, failure=None)
            case _:
                self._mended(action.id, "disk")

    def _mended(self, chunk_id: str, *kinds: str) -> None:
        failure = self.memo(chunk_id).failure
        if failure is not None and failure.kind in kinds:
            self._change(chunk_id, failure=None)

    def _failed(self, action: Action, error: FsdmError, *, disk: bool) -> None:
        if isinstance(action, actions.Report):  # failed/ID cannot be written: the next attempt tries it again
            logger.warning("%s: %s; and %s", action.id, action.failure.error, error)
            failure = action.failure
            if failure.given_up:  # nothing is given up that cannot be told to those who wait
                again_at = self.clock() + BACKOFF_LAST_S
                failure = failure.model_copy(update={"given_up": None, "next_attempt_at": again_at})
            self._change(action.id, failure=failure, reported=True)
            return
        memo = self.memo(action.id)
        brings = isinstance(action, actions.Fetch | actions.Publish)
        acquire = look_at(self.layout.acquire_marker(action.id)) if brings else None
        now = self.clock()  # after that look: who had touched the marker by then is told of this failure
        kind: Literal["transfer", "disk"] = "disk" if disk else "transfer"
        failure = next_failure(action, error, memo, now, self.jitter(), kind, acquire, self.recovery)
        self.tell(Event("failed", action.id, failure.error, cause=error.cause))
        if brings and isinstance(error, DiskError):
            if error.code in FULL:
                self.space.guard()
            if self.disk.refused(error, now):
                failure = failure.model_copy(update={"next_attempt_at": None})
        self._change(action.id, failure=failure, reported=False)

    def is_held(self, chunk_id: str) -> bool:
        """Tell whether refs kept a directory of this id when it was to go."""
        return chunk_id in self._held

    @property
    def held_chunks(self) -> int:
        """Return how many ids have a directory that refs keep. In any thread."""
        return len(self._held)

    def retry_held(self, ids: set[str]) -> None:
        """Try those of these ids soon that refs keep, and soon again: a ref may have gone."""
        for chunk_id in ids & self._held.keys():
            self._change(chunk_id, held=1, held_until=0.0)

    def release(self, chunk_id: str) -> None:
        """End the watch and the claim of an id whose directory has gone, or is no longer to go."""
        place = self._held.pop(chunk_id, None)
        if place is not None:
            self.watcher.release(place)
            self.applier.release(place)
            self._change(chunk_id, held=0, held_until=0.0)


def _is_acquired(action: Action) -> bool:
    """Tell whether an action brings a chunk that `acquire/ID` asks for, as `known/ID` names its files."""
    return isinstance(action, actions.Fetch | actions.Publish) and action.known
