"""The recovery of chunks that failed: by time, by who asks anew, or by hand (PROTOCOL.md, "Recovery").

Pure: `now` (seconds since the epoch) is an argument. Invariants: who asks anew has a chunk tried, or is told at once
that it is not; what is given up has neither a slot nor a timer; and nothing is tried before a server that said when.
"""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from fsdm.model.documents import Failure, MarkerStamp
from fsdm.model.errors import DiskError, TransferError
from fsdm.model.state import COARSE_NS, ChunkState, Marker, granule_ns, may_repeat

if TYPE_CHECKING:
    from fsdm.model.errors import FsdmError
    from fsdm.model.limits import Limits, Recover
    from fsdm.reconcile.actions import Action
    from fsdm.reconcile.memo import Memo

BACKOFF_FIRST_S: Final = 1.0
BACKOFF_LAST_S: Final = 300.0
POSTPONED_LAST_S: Final = 8.0  # where somebody waits for what was put off
PERMANENT_S: Final = 900.0  # what will not pass by itself is tried again seldom
RETRY_AFTER_MAX_S: Final = 3600.0
TRIES: Final = 3  # of a fetch, in a run that is to end, and …
HELD_TRIES: Final = 8  # … of a held directory (about half a second)


@dataclass(frozen=True, slots=True)
class Recovery:
    """The occasion of new attempts: time (*now*), the next who asks (*acquire*), `fsdm retry` alone (*never*).

    Time has it tried `max_attempts` times in all; None: for ever.
    """

    by: Recover = "now"
    max_attempts: int | None = None

    @classmethod
    def within(cls, limits: Limits) -> Recovery:
        return cls(limits.recover, limits.max_attempts)

    def ends_after(self, attempts: int) -> bool:
        """Tell whether so many attempts are all that are made without being asked anew."""
        return self.by != "now" or (self.max_attempts is not None and attempts >= self.max_attempts)

    def has_given_up(self, failure: Failure | None) -> bool:
        """Tell whether a failure is given up: it says so, and it would be by what holds now."""
        if failure is None or not failure.given_up:
            return False
        return self.by != "now" if failure.kind == "damaged" else self.ends_after(failure.attempts)


BY_TIME: Final = Recovery()


def stamp(marker: Marker | None) -> MarkerStamp | None:
    """Make the stamp by which a failure names its marker."""
    return None if marker is None else MarkerStamp(ino=marker.ino, mtime_ns=marker.mtime_ns, size=marker.size)


def still_until(until: float | None, most_s: float, now: float) -> float | None:
    """Return the end of a wait of at most `most_s`; None where it is over, or the clock was set back."""
    return until if until is not None and now < until <= now + most_s else None


class _Since(NamedTuple):
    """The changes since an attempt failed."""

    document: bool  # it is another one: another marker, or of another size
    touched: bool  # as `fsdm retry` does
    joined: bool  # somebody asks by `acquire/ID` who did not then


def rest(state: ChunkState, memo: Memo, asker: Marker, now: float, recovery: Recovery) -> float | Failure | None:
    """Tell until when a chunk that failed is not tried, for `asker`: its want, else its acquire.

    Infinite where it is given up; the failure, where those who ask are to be told of it; None: it is tried now.
    """
    failure = memo.failure
    if failure is None:
        return None
    if failure.kind == "disk":
        return still_until(failure.next_attempt_at, RETRY_AFTER_MAX_S, now)
    since, given_up = _since(failure, state, asker), recovery.has_given_up(failure)
    if since.document:
        return None
    if since.touched or (since.joined and not (given_up and recovery.by == "never")):
        return still_until(failure.not_before, RETRY_AFTER_MAX_S, now)
    if not given_up:
        return still_until(failure.next_attempt_at, RETRY_AFTER_MAX_S, now)
    told_at = now if since.joined else _looks_the_same_until(failure, state)
    if told_at > now:
        return told_at
    by = {"marker": stamp(asker)} if asker is state.acquire else {"acquire": stamp(state.acquire)}
    return failure.model_copy(update={"last_at": now, **by})


def _since(failure: Failure, state: ChunkState, asker: Marker) -> _Since:
    if asker is state.acquire:
        return _Since(*_changed(failure.known, state.known), joined=failure.marker != stamp(asker))
    joined = state.asked != "" and failure.acquire != stamp(state.acquire)
    # the want of a quarantined chunk has come back as a copy: another file, with the same times
    return _Since(*_changed(failure.marker, asker, is_copy=failure.kind == "damaged"), joined=joined)


def _changed(before: MarkerStamp | None, now: Marker | None, *, is_copy: bool = False) -> tuple[bool, bool]:
    """Tell whether a document is another one than it was, and whether it was touched."""
    if before is None or now is None:
        return True, True
    is_other = before.size != now.size or (before.ino != now.ino and not is_copy)
    return is_other, before.mtime_ns != now.mtime_ns


def _looks_the_same_until(failure: Failure, state: ChunkState) -> float:
    """Tell from when on nobody can have asked since, and the marker have the time that it had; else infinite."""
    if state.acquire is None or not state.asked:
        return math.inf
    touched_ns = state.acquire.mtime_ns
    until = (touched_ns + granule_ns(touched_ns)) / 1e9
    return until if touched_ns / 1e9 <= failure.last_at < until else math.inf


def kept_until(state: ChunkState, memo: Memo, now: float, recovery: Recovery) -> float | None:
    """Tell how long a failure of a registered chunk is told that nobody asks for: as long as it holds for the next."""
    failure = memo.failure
    if failure is None or failure.known is None or state.ready:
        return None
    is_other, is_touched = _changed(failure.known, state.known)
    if is_other:
        return None
    if recovery.has_given_up(failure) and not is_touched:
        return math.inf
    return still_until(failure.not_before, RETRY_AFTER_MAX_S, now)


def next_failure(
    action: Action,
    error: FsdmError,
    memo: Memo,
    now: float,
    jitter: float,
    kind: Literal["transfer", "disk"],
    acquire: Marker | None = None,
    recovery: Recovery = BY_TIME,
) -> Failure:
    """Make the failure of one more attempt: twice the last wait, times `jitter` (0.5 … 1).

    `acquire` is the marker by which others ask for the chunk, as it stands by now: who has joined it since the attempt
    began gets the same outcome.

    One that was put off is no attempt: nobody is told of it as the outcome, and it gives nothing up.

    It is at least as long as the server asks for, and long where trying again will not help. A lease of another process
    (fcntl(2)) is broken by the attempt itself, within `lease-break-time`: so that is tried each second.
    """
    document: Marker | None = getattr(action, "delete", None) or getattr(action, "want", None)
    is_registered = bool(getattr(action, "known", False))
    marker = stamp((acquire if is_registered else None) or document)
    last = memo.failure
    again = last if last is not None and last.kind == kind and last.marker == marker else None
    attempts = (again.attempts if again else 0) + (not error.is_postponed)
    postponed = 1 + ((again.postponed or 0) if again else 0) if error.is_postponed else None
    doubled = min((postponed or attempts) - 1, 30)
    delay = min(BACKOFF_FIRST_S * 2.0**doubled, BACKOFF_LAST_S) if error.transient else PERMANENT_S
    if postponed and (is_registered or acquire is not None):
        delay = min(delay, POSTPONED_LAST_S)
    if isinstance(error, DiskError) and error.code == errno.EAGAIN:
        delay = BACKOFF_FIRST_S
    # what it was asked for by may be another already, and look the same
    repeats = any(one is not None and may_repeat(one.mtime_ns, now) for one in (marker, stamp(acquire)))
    if repeats:
        delay = min(delay, COARSE_NS / 1e9)
    asked = min((error.retry_after_s if isinstance(error, TransferError) else None) or 0.0, RETRY_AFTER_MAX_S)
    given_up = kind == "transfer" and not postponed and recovery.ends_after(attempts) and not repeats
    return Failure(
        id=action.id,
        kind=kind,
        error=str(error),
        hint=error.hint,
        transient=error.transient,
        attempts=attempts,
        first_at=again.first_at if again else now,
        last_at=now if not postponed else again.last_at if again else 0.0,
        postponed=postponed,
        next_attempt_at=None if given_up else now + max(delay * jitter, asked),
        given_up=True if given_up else None,
        not_before=now + asked if asked else None,
        marker=marker,
        acquire=None if is_registered else stamp(acquire),
        known=stamp(document) if is_registered else None,
    )


def is_stuck(memo: Memo) -> bool:
    """Tell whether an id has been tried as often as makes sense in a run that is to end."""
    failure = memo.failure
    if failure is None:
        return memo.held >= HELD_TRIES
    is_long = not failure.postponed and (failure.next_attempt_at or 0.0) - failure.last_at > BACKOFF_LAST_S / 4
    return memo.reported and (failure.next_attempt_at is None or is_long or tries(memo) >= TRIES)


def tries(memo: Memo) -> int:
    """Return how often an id has been tried, or that was put off."""
    return 0 if memo.failure is None else memo.failure.attempts + (memo.failure.postponed or 0)


def trouble(memo: Memo, otherwise: str) -> str:
    """Say why an id has not converged; `otherwise` where nothing is known of it."""
    if memo.failure is not None:
        return memo.failure.error
    return "refs hold it" if memo.held else otherwise
