"""Carrying out actions by workers, one for an id at a time.

Each action ends with an outcome, whatever happens on its way: an id that stayed busy would never be looked after again.
The loop's alone, but for what says otherwise.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from fsdm.concurrency.cancellation import Cancellation
from fsdm.concurrency.log import Log
from fsdm.concurrency.turn import rest
from fsdm.model.errors import DiskError, FsdmError
from fsdm.model.events import Event
from fsdm.reconcile.actions import ClearFailure, Done, Failed, Fetch, Forget, Publish, Retire
from fsdm.store.filesystem import exists
from fsdm.store.markers import read_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsdm.concurrency.workers import Workers
    from fsdm.model.state import ChunkState
    from fsdm.reconcile.actions import Action, Evict, Outcome
    from fsdm.reconcile.apply import Applier

logger = Log("fsdm")


@dataclass(slots=True)
class Executor:
    """The running actions of one reconciler. `wake` is called when one has ended."""

    applier: Applier
    fetchers: Workers
    workers: Workers
    tell: Callable[[Event], None]
    wake: Callable[[], None]
    _busy: dict[str, tuple[Action, Cancellation]] = field(default_factory=dict)
    _fetches: dict[str, Fetch] = field(default_factory=dict)  # of these, until what was fetched is published
    _ended: deque[list[tuple[Action, Outcome]]] = field(default_factory=deque)  # of one id each

    def __len__(self) -> int:
        return len(self._busy)

    def __contains__(self, chunk_id: str) -> bool:
        return chunk_id in self._busy

    @property
    def actions(self) -> list[Action]:
        """The running actions. In any thread."""
        return [action for action, _ in list(self._busy.values())]

    @property
    def fetches(self) -> list[Fetch]:
        """The fetches among them. In any thread."""
        return list(self._fetches.values())

    def looks_again(self, chunk_id: str) -> bool:
        """Tell whether a short action runs for an id: it is looked at when that has ended, and needs no look before."""
        return chunk_id in self._busy and chunk_id not in self._fetches

    @property
    def slots_taken(self) -> int:
        """Return how many fetches have a slot: those that wait for a server's first word have lent theirs."""
        scheduler = self.applier.scheduler
        return sum(scheduler is None or not scheduler.has_lent(fetch.id) for fetch in self.fetches)

    def waits_for_server_of(self, fetch: Fetch) -> bool:
        """Tell whether others wait for the first word of a server that a want names, as far as it can be read."""
        scheduler = self.applier.scheduler
        try:
            files = read_chunk(self.applier.layout, fetch.id, fetch.want, known=fetch.known)[0].files
        except (FsdmError, OSError):  # whatever that is, it is told where it is fetched
            return False
        return scheduler is not None and scheduler.waits_for(source.url for source in files.values())

    def begin(self, action: Action, *, clear_failure: bool) -> None:
        """Have an action carried out. `clear_failure`: remove `failed/ID` first."""
        stop = Cancellation()
        self._is_at(action, stop)
        workers = self.fetchers if isinstance(action, Fetch) else self.workers
        workers.submit(partial(self._carry_out, action, stop, clear_failure=clear_failure))

    def begin_evictions(self, evictions: list[Evict]) -> None:
        """Have chunks evicted by one worker, one after the other; they are erased once all are out of service."""
        stop = Cancellation()
        for action in evictions:
            self._is_at(action, stop)
        if evictions:
            self.workers.submit(partial(self._evict, evictions, stop))

    def _is_at(self, action: Action, stop: Cancellation) -> None:
        self._busy[action.id] = (action, stop)
        if isinstance(action, Fetch):
            self._fetches[action.id] = action
        else:
            self._fetches.pop(action.id, None)

    def outcomes(self) -> Iterator[tuple[Action, Outcome]]:
        """Yield the actions that have ended since the last call; their ids are free again."""
        while self._ended:
            done = self._ended.popleft()
            del self._busy[done[0][0].id]
            self._fetches.pop(done[0][0].id, None)
            yield from done

    def stop(self, fetch: Fetch, why: str) -> None:
        """Stop a running fetch; that is told once."""
        self._stop(*self._busy[fetch.id], why)

    def stop_fetches(self, why: str) -> None:
        """Stop all fetches. In any thread."""
        for fetch in self.fetches:
            if (busy := self._busy.get(fetch.id)) is not None:
                self._stop(*busy, why)

    def stop_if_unwanted(self, state: ChunkState) -> None:
        """Stop the fetch of an id whose want is another, or gone."""
        action, stop = self._busy[state.id]
        if not isinstance(action, Fetch) or stop.is_set():
            return
        acquired = state.want is None and state.asked != ""
        document = state.known if acquired else state.want
        if document is None or (state.delete is not None and state.delete.fault is None):
            self._stop(action, stop, "nobody waits for it" if action.known else "no longer wanted")
        elif (action.want, action.known) != (document, acquired) and not (
            (action.known == acquired and action.want.same_as(document))
            or self.applier.is_fetching(state.id, document, known=acquired)
        ):
            self._stop(action, stop, "wanted anew")

    def _stop(self, action: Action, stop: Cancellation, why: str) -> None:
        if not stop.is_set():
            stop.set()
            self.tell(Event("stopped", action.id, why))

    def _carry_out(self, action: Action, stop: Cancellation, *, clear_failure: bool) -> None:
        """Carry out an action, and what follows from it."""
        done: list[tuple[Action, Outcome]] = []
        try:
            if clear_failure:
                self.applier.apply(ClearFailure(action.id), stop)
            following: Action | None = action
            while following is not None:
                action = following
                self._is_at(action, stop)
                outcome = self.applier.apply(action, stop)
                done.append((action, outcome))
                following = self._following(action, outcome, stop)
        except Exception as e:  # a defect of ours: it must not leave the id busy for ever
            done.append((action, _defect(action, e)))
        self._ended.append(done)
        self.wake()

    def _evict(self, evictions: list[Evict], stop: Cancellation) -> None:
        for action in evictions:
            try:
                outcome = self.applier.apply(action, stop)
            except Exception as e:  # as above; and the others go on
                outcome = _defect(action, e)
            self._ended.append([(action, outcome)])
            rest()
        self.applier.trash.erase_left()
        self.wake()

    def _following(self, action: Action, outcome: Outcome, stop: Cancellation) -> Action | None:
        """Return what can be done at once, where nothing in `chunks/` stands in its way."""
        if not isinstance(outcome, Done) or not self.applier.is_free(action.id):
            return None
        if isinstance(action, Fetch) and outcome.fetched and not stop.is_set():
            return Publish(action.id, action.want, action.known, outcome.fetched)
        if not isinstance(action, Retire) or exists(self.applier.layout.known_marker(action.id)):
            return None
        return Forget(action.id, action.delete)


def _defect(action: Action, error: Exception) -> Failed:
    logger.error("%s failed", action, exc_info=error)
    return Failed(DiskError(f"unexpected: {error!r}", hint="please report this", cause="defect"), disk=True)
