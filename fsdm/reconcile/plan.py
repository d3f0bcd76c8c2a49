"""Deciding on the next step for one id (PROTOCOL.md, "Reconciling").

Pure, total and deterministic: no clock, no disk, no network; `now` (seconds since the epoch) is an argument. A
decision is for one id alone; `work_queue` orders the decisions, and `apply` looks at each precondition again. Two
properties carry the tests: from any state `decide` comes to rest, and where a decision waits, it says until when.
"""

from __future__ import annotations

import math
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Literal

from fsdm.model.documents import Failure
from fsdm.model.state import ChunkState, Marker, Partial
from fsdm.reconcile import actions
from fsdm.reconcile.actions import Action, Wait
from fsdm.reconcile.recovery import BY_TIME, RETRY_AFTER_MAX_S, Recovery, kept_until, rest, stamp, still_until

if TYPE_CHECKING:
    from fsdm.reconcile.memo import Memo, Unreadable

SETTLE_S: Final = 3.0  # a want that cannot be read may be half-written: so long it must lie still
HELD_FIRST_S: Final = 0.002
HELD_LAST_S: Final = 1.0
VERIFY_AGAIN_S: Final = 10.0  # where a chunk could not be read to its end
FOR_EVER: Final = Wait(math.inf)
FORGOTTEN: Final = frozenset({"transfer", "damaged"})  # kinds of failures that an eviction makes forgotten
USE_S: Final = 60.0  # so long after its chunk is available an acquire stands that was only touched


def decide(state: ChunkState, memo: Memo, now: float, recovery: Recovery = BY_TIME) -> Action | Wait | None:
    """Decide on the next step for one id, or how long to wait; None until something changes."""
    step = _decide(state, memo, now, recovery)
    return None if step == FOR_EVER else step


def _decide(state: ChunkState, memo: Memo, now: float, recovery: Recovery) -> Action | Wait | None:
    if memo.failure is not None and not memo.reported:
        return actions.Report(state.id, memo.failure)
    if memo.suspect in state.ready and memo.suspect is not None and not _backing_off(memo, None, now):
        return actions.Quarantine(state.id, memo.suspect, memo.found, recovery.by)
    verify, asked = _intent(state.verify), memo.asked
    if not _backing_off(memo, None, now):
        if state.quarantined:  # before anything is decided of the markers: it may be in the middle of placing one
            return actions.Renew(state.id, state.quarantined[0])
        if verify and asked and asked.answered and asked.verify.same_as(verify):
            return actions.ClearVerify(state.id, verify)
    step = _first(_converge(state, memo, now, recovery), _evicted(state, memo, now))
    return step if verify is None else _first(step, _compare(state, memo, verify, now))


def _first(step: Action | Wait | None, other: Action | Wait | None) -> Action | Wait | None:
    """Return the one that is due first, of two that do not depend on each other."""
    if isinstance(step, Action) or other is None:
        return step
    if isinstance(step, Wait) and isinstance(other, Wait):
        return min(step, other, key=lambda wait: wait.until)
    return other


def _evicted(state: ChunkState, memo: Memo, now: float) -> Action | Wait | None:
    """Decide on a request to evict: what is wanted, deleted or asked for is none of its business."""
    evict = _intent(state.evict)
    if evict is None:
        return None
    if (wait := _disk_first(memo, now)) is not None:
        return wait
    if not state.ready and memo.failure is not None and memo.failure.kind in FORGOTTEN:
        return _forgotten(state, evict)
    if state.want or state.delete or state.asked or not state.ready:
        return actions.ClearEvict(state.id, evict)
    return actions.Evict(state.id, state.ready[0], evict)


def _forgotten(state: ChunkState, evict: Marker) -> Action:
    """Clear away what has come of a chunk that failed; and that it did, where nobody asks for it."""
    if state.partial is not Partial.NONE:
        return actions.Discard(state.id)
    asked = state.want or state.delete or state.asked
    return actions.ClearFailure(state.id) if state.failed and not asked else actions.ClearEvict(state.id, evict)


def _compare(state: ChunkState, memo: Memo, verify: Marker, now: float) -> Action | Wait | None:
    if state.delete is not None or not state.ready:
        return None if _backing_off(memo, None, now) else actions.ClearVerify(state.id, verify)
    asked = memo.asked if memo.asked and memo.asked.verify.same_as(verify) else None
    if asked and asked.again_at is None:
        return None
    until = still_until(asked.again_at if asked and asked.again_at else now, VERIFY_AGAIN_S, now)
    return Wait(until) if until else actions.Verify(state.id, state.ready[0], verify)


def _converge(state: ChunkState, memo: Memo, now: float, recovery: Recovery) -> Action | Wait | None:
    """Decide on the next step towards what the markers in `want/` and `delete/` ask for."""
    want, delete = _intent(state.want), _intent(state.delete)
    unreadable = memo.unreadable if want and memo.unreadable and memo.unreadable.want.same_as(want) else None
    if unreadable and unreadable.again and now >= unreadable.since + SETTLE_S:
        unreadable = None
    if want and delete and (until := _backing_off(memo, delete, now)):
        return Wait(until)
    if want and delete and (unreadable is None or delete_is_later(want, delete, memo)):
        loser: Literal["want", "delete"] = "want" if delete_is_later(want, delete, memo) else "delete"
        return actions.Overrule(state.id, loser, want, delete)
    if (step := _registered(state, memo, now)) is not None:
        return step
    if unreadable and (until := still_until(unreadable.since + SETTLE_S, SETTLE_S, now)):
        return Wait(until)
    if delete:
        return _deleted(state, memo, delete, now)
    fault = _fault(state, unreadable, now)
    if fault is not None and not _says(memo.failure, fault):
        return actions.Report(state.id, fault)
    if fault is not None:
        return None if want and not unreadable else _leftovers(state, memo, now)
    if want:
        return _wanted(state, memo, want, now, recovery)
    if (acquire := _intent(state.acquire)) is not None:
        return _acquired(state, memo, acquire, now, recovery)
    return _unasked(state, memo, now, recovery)


def delete_is_later(want: Marker, delete: Marker, memo: Memo) -> bool:
    """Tell whether the delete is the later intent: by ctime, then by what has been seen."""
    if delete.ctime_ns != want.ctime_ns:
        return delete.ctime_ns > want.ctime_ns
    return want.same_as(memo.want_alone)


def registration_is_later(known: Marker, other: Marker, *, than_delete: bool) -> bool:
    """Tell whether a registration is later than a want or a delete; where they are tied, the data stays."""
    return known.ctime_ns > other.ctime_ns or (than_delete and known.ctime_ns == other.ctime_ns)


def _registered(state: ChunkState, memo: Memo, now: float) -> Action | Wait | None:
    """Decide on what a later registration overrules: the delete, else the want."""
    want, delete, known = _intent(state.want), _intent(state.delete), _intent(state.known)
    overruled = delete or want
    if (
        known is None
        or overruled is None
        or not registration_is_later(known, overruled, than_delete=delete is not None)
    ):
        return None
    bad = _unregistered(memo, known)
    if bad is not None:
        until = still_until(bad.since + SETTLE_S, SETTLE_S, now)
        if until or not bad.again:
            return Wait(until) if until else None
    if until := _backing_off(memo, None, now):
        return Wait(until)
    return actions.Register(state.id, "want" if delete is None else "delete", overruled, known)


def _unregistered(memo: Memo, known: Marker) -> Unreadable | None:
    return memo.unregistered if memo.unregistered and memo.unregistered.want.same_as(known) else None


def takes_away(state: ChunkState, memo: Memo) -> bool:
    """Tell whether a delete stands that would take away what is here."""
    want, delete = state.want, _intent(state.delete)
    if delete is None or not (state.ready or state.unready):
        return False
    known = _intent(state.known)
    if known and not _unregistered(memo, known) and registration_is_later(known, delete, than_delete=True):
        return False
    if want is None or want.fault is not None:
        return True
    unreadable = memo.unreadable is not None and memo.unreadable.want.same_as(want)
    return unreadable or delete_is_later(want, delete, memo)


def _intent(marker: Marker | None) -> Marker | None:
    return marker if marker is not None and marker.fault is None else None


def _wanted(state: ChunkState, memo: Memo, want: Marker, now: float, recovery: Recovery) -> Action | Wait | None:
    if (step := _makes_way(state, memo, want, now, recovery)) is not None:
        return step
    if state.ready:
        return actions.Confirm(state.id, want, state.ready[0])
    return _brought(state, memo, want, now, known=False)


def _makes_way(state: ChunkState, memo: Memo, marker: Marker, now: float, recovery: Recovery) -> Action | Wait | None:
    """Give up the room of a partial that others wait for, and rest where the last attempt has failed."""
    until = rest(state, memo, marker, now, recovery)
    if memo.crowded and state.partial is not Partial.NONE and not (until and _is_of_the_disk(memo)):
        return actions.Discard(state.id)
    if isinstance(until, Failure):
        return actions.Report(state.id, until)
    if until is None:
        return None
    # what was taken out of service goes meanwhile
    leftover = _clear(state, memo, now) if state.unready and not _is_of_the_disk(memo) else None
    return _first(leftover, Wait(until))


def _brought(state: ChunkState, memo: Memo, document: Marker, now: float, *, known: bool) -> Action | Wait:
    """Bring a chunk that is not available, by its want or its registration."""
    if state.partial is Partial.READY:
        return _clear(state, memo, now) if state.unready else actions.Publish(state.id, document, known)
    if state.unready and not memo.held:
        return _clear(state, memo, now)
    return actions.Fetch(state.id, document, known, state.acquire.ctime_ns if known and state.acquire else 0)


def _acquired(state: ChunkState, memo: Memo, acquire: Marker, now: float, recovery: Recovery) -> Action | Wait | None:
    """Decide on what `acquire/ID` asks for, while neither a want nor a delete stands."""
    known = _intent(state.known)
    if not state.asked or (state.asked == "touched" and known is None and not state.ready):
        return _disk_first(memo, now) or actions.ClearAcquire(state.id, acquire)
    if state.ready:
        return _used(state, memo, acquire, now, recovery)
    if known is None:
        return _unasked(state, memo, now, recovery)
    bad = _unregistered(memo, known)
    if bad and now < bad.since + SETTLE_S:
        return Wait(bad.since + SETTLE_S)
    if bad and not bad.again:
        fault = _fault_of(acquire, state.id, "want", f"known/{state.id}: {bad.error}", bad.hint, now)
        return _leftovers(state, memo, now) if _says(memo.failure, fault) else actions.Report(state.id, fault)
    return _makes_way(state, memo, acquire, now, recovery) or _brought(state, memo, known, now, known=True)


def _used(state: ChunkState, memo: Memo, acquire: Marker, now: float, recovery: Recovery) -> Action | Wait | None:
    """Note the use; what was only touched stands for a while, so that who finds the chunk then finds it here."""
    if (step := _unasked(state, memo, now, recovery)) is not None:
        return step
    used = memo.used
    if used is None or not used.acquire.same_as(acquire):
        return actions.Use(state.id, state.ready[0], acquire)
    if state.asked == "held":
        return None
    return Wait(used.at + USE_S) if used.at <= now < used.at + USE_S else actions.ClearAcquire(state.id, acquire)


def _disk_first(memo: Memo, now: float) -> Wait | None:
    until = _backing_off(memo, None, now)
    return Wait(until) if until else None


def _deleted(state: ChunkState, memo: Memo, delete: Marker, now: float) -> Action | Wait | None:
    if until := _backing_off(memo, delete, now):
        return Wait(until)
    if state.partial is not Partial.NONE:
        return actions.Discard(state.id)
    if state.unready or state.ready:
        if until := still_until(memo.held_until, HELD_LAST_S, now):
            return Wait(until)
        return actions.Retire(state.id, (state.ready + state.unready)[0], delete)
    known = _intent(state.known)
    if known is not None and not registration_is_later(known, delete, than_delete=True):
        return actions.Unregister(state.id, known, delete)
    return actions.Forget(state.id, delete)


def _unasked(state: ChunkState, memo: Memo, now: float, recovery: Recovery) -> Action | Wait | None:
    if (step := _leftovers(state, memo, now)) is not None:
        return step
    damaged = memo.failure is not None and memo.failure.kind == "damaged"
    if not state.failed or (damaged and not state.ready):
        return None
    until = kept_until(state, memo, now, recovery)
    return actions.ClearFailure(state.id) if until is None else Wait(until)


def _leftovers(state: ChunkState, memo: Memo, now: float) -> Action | Wait | None:
    """Clear away a partial, or a directory without READY."""
    if until := _backing_off(memo, None, now):
        return Wait(until)
    if state.partial is not Partial.NONE:
        return actions.Discard(state.id)
    return _clear(state, memo, now) if state.unready else None


def _clear(state: ChunkState, memo: Memo, now: float) -> Action | Wait:
    until = still_until(memo.held_until, HELD_LAST_S, now)
    return Wait(until) if until else actions.Clear(state.id, state.unready[0])


def _backing_off(memo: Memo, marker: Marker | None, now: float) -> float | None:
    """Tell until when a failed attempt waits. A touched marker is tried anew (not by a disk)."""
    failure = memo.failure
    if failure is None or failure.next_attempt_at is None:
        return None
    if not still_until(failure.next_attempt_at, RETRY_AFTER_MAX_S, now):
        return None
    return failure.next_attempt_at if _is_of_the_disk(memo) or failure.marker == stamp(marker) else None


def _is_of_the_disk(memo: Memo) -> bool:
    return memo.failure is not None and memo.failure.kind == "disk"


def waiting_for_room(fetch: actions.Fetch, error: str, hint: str, now: float, **sizes: int) -> Failure:
    """Make the failure of a want without room; `sizes`: `needs_bytes` and `lacks_bytes`."""
    return _fault_of(fetch.want, fetch.id, "room", error, hint, now).model_copy(update=sizes)


def waits_for_room(memo: Memo, fetch: actions.Fetch) -> bool:
    """Tell whether the memo says already that there is no room for this want."""
    return memo.failure is not None and memo.failure.kind == "room" and memo.failure.marker == stamp(fetch.want)


def _fault(state: ChunkState, unreadable: Unreadable | None, now: float) -> Failure | None:
    """Make the failure that explains why an entry of `want/` or `delete/` is no intent."""
    want, delete = state.want, state.delete
    if delete is not None and delete.fault:
        error = f"delete/{state.id} {delete.fault}"
        return _fault_of(delete, state.id, "marker", error, "remove it by hand", now)
    if want is not None and want.fault:
        return _fault_of(want, state.id, "marker", f"want/{state.id} {want.fault}", "put a JSON file there", now)
    if unreadable is not None:
        return _fault_of(unreadable.want, state.id, "want", unreadable.error, unreadable.hint, now)
    return None


def _fault_of(
    marker: Marker, chunk_id: str, kind: Literal["want", "marker", "room"], error: str, hint: str, now: float
) -> Failure:
    """Make a failure that is no attempt's, but lasts as long as its marker stands like this."""
    return Failure(
        id=chunk_id, kind=kind, error=error, hint=hint, attempts=0, first_at=now, last_at=now, marker=stamp(marker)
    )


def _says(there: Failure | None, failure: Failure) -> bool:
    told = attrgetter("kind", "error", "marker")
    return there is not None and told(there) == told(failure)


def held_delay(held: int) -> float:
    """Compute the pause after so many refusals of a held directory, in seconds."""
    return min(HELD_FIRST_S * 2.0 ** min(held - 1, 30), HELD_LAST_S)
