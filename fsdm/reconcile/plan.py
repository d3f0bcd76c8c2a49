"""State → action: what is to be done next for one id.

Pure, total and deterministic: no clock, no disk, no network; `now` (seconds since the epoch) is an argument. A
decision is for one id alone, so what is pending is not walked for every event; `agenda` orders the decisions. Actions
are data; `apply` carries them out and looks at each precondition again. Two properties carry the tests: from any state
`decide` comes to rest, and where a decision waits, it says until when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from fsdm.model.documents import Failure, MarkerStamp
from fsdm.model.errors import TransferError
from fsdm.model.state import ChunkState, Found, Marker, Partial
from fsdm.reconcile.actions import (
    Absolve,
    Action,
    Clear,
    Condemn,
    Confirm,
    Discard,
    Dismiss,
    Fetch,
    Forget,
    Overrule,
    Publish,
    Renew,
    Report,
    Retire,
    Verify,
    Wait,
)

if TYPE_CHECKING:
    from fsdm.model.errors import FsdmError
    from fsdm.model.layout import Place

SETTLE_S: Final = 3.0  # a want that cannot be read may be half-written: so long it must lie still
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_LAST_S: Final = 300.0
PERMANENT_S: Final = 900.0  # what will not pass by itself is tried again seldom
RETRY_AFTER_MAX_S: Final = 3600.0
HELD_FIRST_S: Final = 0.002
HELD_LAST_S: Final = 1.0


# -------------------------------------------------------------------------------------------------------- what is known


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A want that could not be taken, and since when it has lain still."""

    want: Marker
    error: str
    hint: str
    since: float


@dataclass(frozen=True, slots=True)
class Asked:
    """How far it is with a marker in `verify/`: `answered`, or still being read, or (`again_at`) to be tried again."""

    verify: Marker
    answered: bool = False
    again_at: float | None = None


@dataclass(frozen=True, slots=True)
class Memo:
    """What the reconciler remembers of one id between two looks.

    `want_alone` is the last want that was seen while no delete stood: if it still stands beside a delete of the same
    ctime, then that delete is the later one. `suspect` is a place whose files were seen not to match its READY, or
    whose bytes do not, as was `found`. `asked` is what has become of a request to compare them.
    `crowded`: a fetch waits for the room that this one's partial takes up; so it gives way.
    `held_until` is when a directory that refs keep is tried again, after `held` refusals in a row.
    """

    want_alone: Marker | None = None
    unreadable: Unreadable | None = None
    failure: Failure | None = None
    reported: bool = True
    suspect: Place | None = None
    found: Found | None = None
    asked: Asked | None = None
    crowded: bool = False
    held: int = 0
    held_until: float = 0.0


NO_MEMO: Final = Memo()


# ------------------------------------------------------------------------------------------------------------- deciding


def decide(state: ChunkState, memo: Memo, now: float) -> Action | Wait | None:
    """The next step for one id, or until when to wait, or None where nothing is to be done before something changes."""
    if memo.failure is not None and not memo.reported:
        return Report(state.id, memo.failure)
    if memo.suspect in state.ready and memo.suspect is not None and not _backing_off(memo, None, now):
        return Condemn(state.id, memo.suspect, memo.found)
    verify, asked = _intent(state.verify), memo.asked
    if not _backing_off(memo, None, now):
        if state.condemned:  # before anything is decided of the markers: it may be in the middle of placing one
            return Renew(state.id, state.condemned[0])
        if verify and asked and asked.answered and asked.verify.same_as(verify):
            return Dismiss(state.id, verify)
    step = _converge(state, memo, now)
    if verify is None or not (step is None or isinstance(step, Wait)):
        return step
    compare = _compare(state, memo, verify, now) or step
    if isinstance(compare, Wait) and isinstance(step, Wait):
        return min(compare, step, key=lambda wait: wait.until)
    return compare


def _compare(state: ChunkState, memo: Memo, verify: Marker, now: float) -> Action | Wait | None:
    """What is to be done for somebody who asks for a chunk's bytes to be compared with READY."""
    if state.delete is not None or not state.ready:
        return None if _backing_off(memo, None, now) else Dismiss(state.id, verify)
    asked = memo.asked if memo.asked and memo.asked.verify.same_as(verify) else None
    if asked and asked.again_at is not None and now < asked.again_at:
        return Wait(asked.again_at)
    if asked and asked.again_at is None:
        return None
    return Verify(state.id, state.ready[0], verify)


def _converge(state: ChunkState, memo: Memo, now: float) -> Action | Wait | None:
    """The next step towards what the markers in `want/` and `delete/` ask for."""
    want, delete = _intent(state.want), _intent(state.delete)
    unreadable = memo.unreadable if want and memo.unreadable and memo.unreadable.want.same_as(want) else None
    if want and delete and (until := _backing_off(memo, delete, now)):
        return Wait(until)
    if want and delete and (unreadable is None or delete_is_later(want, delete, memo)):
        loser: Literal["want", "delete"] = "want" if delete_is_later(want, delete, memo) else "delete"
        return Overrule(state.id, loser, want, delete)
    if unreadable and now < unreadable.since + SETTLE_S:
        return Wait(unreadable.since + SETTLE_S)
    if delete:
        return _deleted(state, memo, delete, now)
    fault = _fault(state, unreadable, now)
    if fault is not None and not _says(memo.failure, fault):
        return Report(state.id, fault)
    if fault is not None:
        return None if want and not unreadable else _leftovers(state, memo, now)
    if want:
        return _wanted(state, memo, want, now)
    return _unasked(state, memo, now)


def delete_is_later(want: Marker, delete: Marker, memo: Memo) -> bool:
    """Which of two markers is the later intent (PROTOCOL.md, "Asking"): by ctime, then by what has been seen."""
    if delete.ctime_ns != want.ctime_ns:
        return delete.ctime_ns > want.ctime_ns
    return want.same_as(memo.want_alone)


def _intent(marker: Marker | None) -> Marker | None:
    return marker if marker is not None and marker.fault is None else None


def _wanted(state: ChunkState, memo: Memo, want: Marker, now: float) -> Action | Wait | None:
    until = _backing_off(memo, want, now)
    if memo.crowded and state.partial is not Partial.NONE and not (until and _is_of_the_disk(memo)):
        return Discard(state.id)
    if until:
        return Wait(until)
    if state.ready:
        return Confirm(state.id, want, state.ready[0])
    if state.partial is Partial.READY:
        return _clear(state, memo, now) if state.unready else Publish(state.id, want)
    if state.unready and not memo.held:
        return _clear(state, memo, now)
    return Fetch(state.id, want)


def _deleted(state: ChunkState, memo: Memo, delete: Marker, now: float) -> Action | Wait | None:
    if until := _backing_off(memo, delete, now):
        return Wait(until)
    if state.partial is not Partial.NONE:
        return Discard(state.id)
    if state.unready or state.ready:
        if now < memo.held_until:
            return Wait(memo.held_until)
        return Retire(state.id, (state.ready + state.unready)[0], delete)
    return Forget(state.id, delete)


def _unasked(state: ChunkState, memo: Memo, now: float) -> Action | Wait | None:
    if (step := _leftovers(state, memo, now)) is not None:
        return step
    damaged = memo.failure is not None and memo.failure.kind == "damaged"
    if state.failed and not (damaged and not state.ready):
        return Absolve(state.id)
    return None


def _leftovers(state: ChunkState, memo: Memo, now: float) -> Action | Wait | None:
    """What nobody asks for."""
    if until := _backing_off(memo, None, now):
        return Wait(until)
    if state.partial is not Partial.NONE:
        return Discard(state.id)
    return _clear(state, memo, now) if state.unready else None


def _clear(state: ChunkState, memo: Memo, now: float) -> Action | Wait:
    return Wait(memo.held_until) if now < memo.held_until else Clear(state.id, state.unready[0])


def _backing_off(memo: Memo, marker: Marker | None, now: float) -> float | None:
    """Until when a failed attempt waits. A marker touched since is a new request, but not one that mends the disk."""
    failure = memo.failure
    if failure is None or failure.next_attempt_at is None:
        return None
    if not now < failure.next_attempt_at <= now + RETRY_AFTER_MAX_S:  # it is over, or the clock was set back
        return None
    return failure.next_attempt_at if _is_of_the_disk(memo) or failure.marker == stamp(marker) else None


def _is_of_the_disk(memo: Memo) -> bool:
    return memo.failure is not None and memo.failure.kind == "disk"


def waiting_for_room(
    fetch: Fetch, error: str, hint: str, now: float, *, needs_bytes: int | None = None, lacks_bytes: int | None = None
) -> Failure:
    """What `failed/ID` says while there is no room for a want."""
    return Failure(
        id=fetch.id,
        kind="room",
        error=error,
        hint=hint,
        attempts=0,
        first_at=now,
        last_at=now,
        marker=stamp(fetch.want),
        needs_bytes=needs_bytes,
        lacks_bytes=lacks_bytes,
    )


def waits_for_room(memo: Memo, fetch: Fetch) -> bool:
    """Whether it has been told that there is no room for this want."""
    return memo.failure is not None and memo.failure.kind == "room" and memo.failure.marker == stamp(fetch.want)


def _fault(state: ChunkState, unreadable: Unreadable | None, now: float) -> Failure | None:
    """What keeps an entry of `want/` or `delete/` from being an intent, as the document that explains it."""
    found: list[tuple[Literal["want", "marker"], str, str, Marker]] = []
    if state.delete is not None and state.delete.fault:
        found.append(("marker", f"delete/{state.id} {state.delete.fault}", "remove it by hand", state.delete))
    if state.want is not None and state.want.fault:
        found.append(("marker", f"want/{state.id} {state.want.fault}", "put a JSON file there", state.want))
    if unreadable is not None:
        found.append(("want", unreadable.error, unreadable.hint, unreadable.want))
    if not found:
        return None
    kind, error, hint, marker = found[0]
    return Failure(
        id=state.id, kind=kind, error=error, hint=hint, attempts=0, first_at=now, last_at=now, marker=stamp(marker)
    )


def _says(there: Failure | None, failure: Failure) -> bool:
    return there is not None and (there.kind, there.error, there.marker) == (
        failure.kind,
        failure.error,
        failure.marker,
    )


def stamp(marker: Marker | None) -> MarkerStamp | None:
    """Which marker a failure speaks of."""
    return None if marker is None else MarkerStamp(ino=marker.ino, mtime_ns=marker.mtime_ns, size=marker.size)


# ---------------------------------------------------------------------------------------- what an outcome leaves behind


def next_failure(
    action: Action, error: FsdmError, memo: Memo, now: float, jitter: float, kind: Literal["transfer", "disk"]
) -> Failure:
    """The failure after one more attempt: it waits twice as long as the last, times `jitter` (0.5 … 1).

    At least as long as the server asks for, and long where trying again will not help.
    """
    marker = stamp(getattr(action, "delete", None) or getattr(action, "want", None))
    last = memo.failure
    again = last if last is not None and last.kind == kind and last.marker == marker else None
    attempts = again.attempts + 1 if again else 1
    delay = min(BACKOFF_FIRST_S * 2.0 ** min(attempts - 1, 30), BACKOFF_LAST_S) if error.transient else PERMANENT_S
    asked = (error.retry_after_s if isinstance(error, TransferError) else None) or 0.0
    return Failure(
        id=action.id,
        kind=kind,
        error=str(error),
        hint=error.hint,
        transient=error.transient,
        attempts=attempts,
        first_at=again.first_at if again else now,
        last_at=now,
        next_attempt_at=now + max(delay * jitter, min(asked, RETRY_AFTER_MAX_S)),
        marker=marker,
    )


def held_delay(held: int) -> float:
    """How long to leave a held directory alone after so many refusals, in seconds. The kernel tells of releases too."""
    return min(HELD_FIRST_S * 2.0 ** min(held - 1, 30), HELD_LAST_S)
