"""What an outcome leaves behind: in the memo of its id, and of the directories that refs keep.

It decides nothing about what comes next (see `plan`): it remembers what was met, tells of it, and watches the
directories that are to go when their last ref does. The loop's alone.

Invariant: a directory is watched, and its claim kept open, from the first refusal until its chunk is let go of.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import DiskError
from fsdm.model.events import Event
from fsdm.reconcile import outcome as outcomes
from fsdm.reconcile.actions import Absolve, Action, Clear, Condemn, Dismiss, Fetch, Forget, Publish, Report, Retire
from fsdm.reconcile.outage import FULL
from fsdm.reconcile.plan import Asked, Memo, Unreadable, held_delay, next_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.errors import FsdmError
    from fsdm.model.layout import Place
    from fsdm.reconcile.apply import Applier
    from fsdm.reconcile.disk_outage import Disk
    from fsdm.reconcile.memo import Memos
    from fsdm.reconcile.space_budget import SpaceBudget
    from fsdm.reconcile.watcher import Watch
    from fsdm.verify.background import Answer

VERIFY_AGAIN_S: Final = 10.0  # where a chunk could not be read to its end

logger = logging.getLogger("fsdm")


class Results:
    """Takes in the outcomes of one reconciler."""

    def __init__(
        self,
        applier: Applier,
        watch: Watch,
        *,
        memos: Memos,
        space: SpaceBudget,
        disk: Disk,
        tell: Callable[[Event], None],
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._applier = applier
        self._watch = watch
        self._memos = memos
        self._space = space
        self._disk = disk
        self._tell = tell
        self._clock = clock
        self._jitter = jitter
        self._held: dict[str, Place] = {}

    def is_held(self, chunk_id: str) -> bool:
        """Whether refs kept a directory of this id when it was to go."""
        return chunk_id in self._held

    @property
    def held_chunks(self) -> int:
        """How many ids that is so of."""
        return len(self._held)

    def ask_again(self, ids: set[str]) -> None:
        """A ref of these may have gone: try soon, and soon again."""
        for chunk_id in ids & self._held.keys():
            self._memos.change(chunk_id, held=1, held_until=0.0)

    def let_go(self, chunk_id: str) -> None:
        """Nothing of this id is to go any more, or it has gone."""
        place = self._held.pop(chunk_id, None)
        if place is not None:
            self._watch.release(place)
            self._applier.let_go(place)
            self._memos.change(chunk_id, held=0, held_until=0.0)

    def take_in(self, action: Action, outcome: outcomes.Outcome, memo: Memo) -> Memo:
        """What is to be remembered of the id after this."""
        now = self._clock()
        match outcome:
            case outcomes.Done():
                return self._done(action, memo)
            case outcomes.Condemned(failure):
                return replace(memo, failure=failure, reported=True, suspect=None, found=None)
            case outcomes.Held(place):
                if not memo.held:
                    self._tell(Event("retiring", action.id, dataset_id=place.dataset_id))
                self._held[action.id] = place
                # a ref may have gone between our attempt and the watch: the first time, try once more at once
                again_at_once = self._watch.hold(place)
                until = now if again_at_once else now + held_delay(memo.held + 1)
                return replace(memo, held=memo.held + 1, held_until=until)
            case outcomes.CannotRead(want, error):
                last = memo.unreadable
                since = last.since if last is not None and last.want.same_as(want) else now
                return replace(memo, unreadable=Unreadable(want, str(error), error.hint, since))
            case outcomes.Failed(error, disk):
                return self._failed(action, error, memo, disk=disk)
            case _:
                return memo

    def answered(self, answer: Answer) -> None:
        """The inspector has read a chunk, or could not."""
        chunk_id = answer.place.chunk_id
        if answer.found is not None:
            self._memos.change(chunk_id, suspect=answer.place, found=answer.found)
        if answer.verify is not None:
            again_at = None if answer.read else self._clock() + VERIFY_AGAIN_S
            self._memos.change(chunk_id, asked=Asked(answer.verify, answered=answer.read, again_at=again_at))
            if answer.read and answer.found is None:
                self._tell(Event("verified", chunk_id))

    def _done(self, action: Action, memo: Memo) -> Memo:
        failure = memo.failure
        match action:
            case Report():
                if action.failure.kind in {"want", "marker"}:  # the others were told of when they were met
                    self._tell(Event("failed", action.id, action.failure.error, cause=action.failure.kind))
                return replace(memo, reported=True, failure=action.failure)
            case Absolve():
                return replace(memo, failure=None)
            case Condemn():
                return replace(memo, suspect=None, found=None)
            case Dismiss():
                return replace(memo, asked=None)
            case Retire() | Clear():
                self.let_go(action.id)
                memo = replace(memo, held=0, held_until=0.0)
            case Fetch():
                self._disk.came_through()
                if failure is not None and failure.kind == "transfer":
                    failure = None
            case Forget():
                failure = None
        if failure is not None and failure.kind == "disk":
            failure = None
        return replace(memo, failure=failure)

    def _failed(self, action: Action, error: FsdmError, memo: Memo, *, disk: bool) -> Memo:
        if isinstance(action, Report):  # failed/ID cannot be written: the log has it; with the next attempt it is tried
            logger.warning("%s: %s; and %s", action.id, action.failure.error, error)
            return replace(memo, failure=action.failure, reported=True)
        failure = next_failure(action, error, memo, self._clock(), self._jitter(), "disk" if disk else "transfer")
        self._tell(Event("failed", action.id, failure.error, cause=error.cause))
        if isinstance(action, Fetch | Publish) and isinstance(error, DiskError):
            if error.code in FULL:
                self._space.guard()
            if self._disk.refused(error, self._clock()):
                failure = failure.model_copy(update={"next_attempt_at": None})
        return replace(memo, failure=failure, reported=False)
