"""Why a chunk stands as it does: facts → sentences.

Pure: what is known is passed in, `now` with it (`explain` gathers it). A sentence says only what a fact says: where
something could not be seen, that is the sentence. Invariant: each of the four answers has at least one sentence.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fsdm.model.state import ChunkState, Marker, Partial
from fsdm.model.units import ago, lasting, moment, readable

if TYPE_CHECKING:
    from fsdm.model.documents import Failure
    from fsdm.store.holders import Holder, Holders
    from fsdm.store.leader_lock import Owner

HOLDERS_MAX: Final = 5  # shown by name
SETTLED_S: Final = 3.0  # after which a want that cannot be read is no longer taken for half-written


@dataclass(frozen=True, slots=True)
class Others:
    """What else is going on in the directory: chunks that are retiring with their bytes and who holds them; downloads
    that run; wants that are older than this one."""

    retiring: int = 0
    retiring_bytes: int = 0
    retiring_held_by: tuple[Holder, ...] = ()
    running: int = 0
    older_wants: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one chunk. `name` is its state as `status` names it, None where nothing of it is there.

    `want_fault`: why what is in want/ID cannot be taken. `reconciler` None: nobody reconciles.
    `paused`, `braked`: what PAUSE and BRAKE say, None where they do not stand.
    """

    now: float
    root: str
    state: ChunkState
    name: str | None
    dataset_id: str | None = None
    block_range: range | None = None
    size_bytes: int = 0
    total_bytes: int | None = None
    failure: Failure | None = None
    want_fault: str = ""
    want_hint: str = ""
    holders: Holders | None = None
    reconciler: Owner | None = None
    free_bytes: int = 0
    read_only: bool = False
    paused: dict[str, Any] | None = None
    braked: dict[str, Any] | None = None
    others: Others = field(default_factory=Others)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is asked for, what is there, what holds it up, and what to do: sentences. `state` as in `status`, or
    *unknown*."""

    id: str
    state: str
    asked: tuple[str, ...]
    here: tuple[str, ...]
    why: tuple[str, ...]
    todo: tuple[str, ...]


def explain(facts: Facts) -> Explanation:
    """All four answers."""
    why, todo = [], []
    for reason, remedy in _reasons(facts):
        why.append(reason)
        todo += [remedy] if remedy else []
    return Explanation(
        id=facts.state.id,
        state=facts.name or "unknown",
        asked=_asked(facts),
        here=_here(facts),
        why=tuple(why) or ("nothing",),
        todo=tuple(dict.fromkeys(todo)) or ("nothing: it goes on by itself" if _is_pending(facts) else "nothing",),
    )


# --------------------------------------------------------------------------------------------------- what is asked for


def _asked(facts: Facts) -> tuple[str, ...]:
    want, delete, now = facts.state.want, facts.state.delete, facts.now
    said = []
    for marker, name, phrase in ((want, "want", "it is wanted"), (delete, "delete", "it is to be deleted")):
        if marker is not None and marker.fault:
            said.append(f"{name}/ID asks for nothing: it {marker.fault}")
        elif marker is not None:
            said.append(f"{phrase}, as asked for at {ago(marker.ctime_ns / 1e9, now)}")
    if _intent(facts.state.verify):
        said.append("its bytes are to be compared with READY: verify/ID stands")
    if _intent(want) and _intent(delete):
        said.append("both stand: the later one is carried out, and the other is about to go")
    return tuple(said) or ("nothing: there is neither want/ID nor delete/ID",)


def _intent(marker: Marker | None) -> Marker | None:
    return marker if marker is not None and not marker.fault else None


# -------------------------------------------------------------------------------------------------------- what is there


def _here(facts: Facts) -> tuple[str, ...]:
    state, said = facts.state, []
    blocks = facts.block_range
    where = f", blocks [{blocks.start}, {blocks.stop}) of dataset {facts.dataset_id}" if blocks else ""
    if state.ready:
        found = "it is complete, but nobody finds it any more" if state.delete else "it is available"
        said.append(f"{found}: {readable(facts.size_bytes)}{where}")
        said.append(f"it stands in {facts.root}/chunks/{state.ready[0].dataset_id}/{state.ready[0].name}")
    if state.unready:
        said.append(f"its directory has no READY{where}: nobody finds it, and it is to be cleared away")
    if state.partial is Partial.READY:
        said.append("all of it has come, in partial/ID: it is about to be put in its place")
    elif state.partial is Partial.BEGUN and not state.ready and not state.unready:
        total = "" if facts.total_bytes is None else f" of {readable(facts.total_bytes)}"
        said.append(f"{readable(facts.size_bytes)}{total} have come, in partial/ID")
    elif state.partial is Partial.BEGUN:
        said.append("a part of what is to take its place has come, in partial/ID")
    return tuple(said) or ("nothing of it",)


# ----------------------------------------------------------------------------------------------------- what holds it up


def _is_pending(facts: Facts) -> bool:
    state = facts.state
    return bool(state.want or state.delete or state.unready or state.partial is not Partial.NONE)


def _reasons(facts: Facts) -> list[tuple[str, str]]:
    """Reason and remedy, the first that matters first."""
    if facts.name is None:
        return [("nothing is known of it: it was never asked for, or is gone", "ask for it with `fsdm want`")]
    found = [*_of_the_directory(facts), *_of_the_markers(facts), *_of_the_failure(facts)]
    if _held_up_by_refs(facts):
        found += _of_holders(facts)
    elif facts.holders is not None and facts.holders.found:
        found += [(f"nothing: it is read by {_held_by(facts)}", "")]
    return found or _of_its_turn(facts)


def _of_the_directory(facts: Facts) -> list[tuple[str, str]]:
    if not _is_pending(facts):
        return []
    found = []
    if facts.reconciler is None:
        remedy = f"start a reconciler: {_command('run', facts)}"
        found.append(("nobody reconciles this data directory, so nothing is carried out", remedy))
    if facts.read_only:
        found.append(("the file system is read-only: nothing can be downloaded or deleted", "mount it writable again"))
    elif _intent(facts.state.want) and not facts.state.ready:
        missing = 0 if facts.total_bytes is None else facts.total_bytes - facts.size_bytes
        if facts.free_bytes < max(missing, 1):
            reason = f"the disk is full: {readable(facts.free_bytes)} are free, and {readable(missing)} are missing"
            found.append((reason, "make room on the disk: it goes on by itself then"))
    if facts.braked is not None and _held_up_by_refs(facts) and _intent(facts.state.delete):
        told = "deletes are held back, for so many were asked for that it may be a mistake (BRAKE)"
        found.append((told, f"where they are meant, let them go: {_command('release', facts)}"))
    if facts.paused is not None and facts.state.want and not facts.state.ready:
        found.append((_pause(facts.paused, facts.now), f"let them go on: {_command('resume', facts)}"))
    return found


def _command(verb: str, facts: Facts) -> str:
    """As it can be pasted into a shell."""
    return f"fsdm {verb} -d {shlex.quote(facts.root)}"


def _pause(note: dict[str, Any], now: float) -> str:
    since, by, reason = note.get("since"), note.get("by"), note.get("reason")
    when = f" since {ago(since, now)}" if isinstance(since, int | float) else ""
    who = f", by {by}" if isinstance(by, str) and by else ""
    return f"downloads are paused{when}{who}" + (f": {reason}" if isinstance(reason, str) and reason else "")


def _of_the_markers(facts: Facts) -> list[tuple[str, str]]:
    found = []
    want, delete = facts.state.want, facts.state.delete
    if delete is not None and delete.fault:
        found.append((f"delete/ID {delete.fault}: while it stands, the chunk is not available", "remove it by hand"))
    if want is not None and want.fault:
        # what could not be looked at has no inode
        remedy = "remove it, and put a JSON file there" if want.ino else "look as a user who may (dmesg, if nobody can)"
        found.append((f"want/ID {want.fault}", remedy))
    elif want is not None and facts.want_fault:
        still_s = facts.now - want.mtime_ns / 1e9
        half = "; it may be half-written, and is read again when it changes" if still_s < SETTLED_S else ""
        found.append((f"want/ID cannot be taken: {facts.want_fault}{half}", facts.want_hint or "mend it in place"))
    return found


def _of_the_failure(facts: Facts) -> list[tuple[str, str]]:
    failure = facts.failure
    if failure is None:
        if facts.state.failed and facts.name == "failed":
            return [("it has failed, but failed/ID cannot be read", "look at failed/ID, and at who may read it")]
        return []
    if failure.kind in {"want", "marker"}:
        return [] if facts.want_fault or _has_fault(facts) else [(failure.error, failure.hint)]
    if _is_of_an_older_marker(facts, failure):
        return [(f"{failure.error}; but its marker has changed since, so it is tried anew", "")]
    if failure.kind == "room":
        return _of_room(facts, failure)
    if failure.kind == "damaged":
        told = f"it was taken out of service at {ago(failure.last_at, facts.now)}: {failure.error}"
        return [(told, "" if facts.state.want else failure.hint)]
    return [(_attempts(facts, failure), failure.hint or _try_now(facts, failure))]


def _has_fault(facts: Facts) -> bool:
    return any(marker is not None and marker.fault for marker in (facts.state.want, facts.state.delete))


def _is_of_an_older_marker(facts: Facts, failure: Failure) -> bool:
    marker = _intent(facts.state.delete) or _intent(facts.state.want)
    said = failure.marker
    return marker is not None and said is not None and marker.identity != (said.ino, said.mtime_ns, said.size)


def _attempts(facts: Facts, failure: Failure) -> str:
    """The error with since when, how often, and when it is tried next."""
    now, times = facts.now, f"{failure.attempts} times" if failure.attempts != 1 else "once"
    since = f"since {moment(failure.first_at, now)}, {lasting(now - failure.first_at)} ago; " * (failure.attempts > 1)
    if failure.next_attempt_at is None:
        upcoming = "it goes on once the disk takes what is written" if failure.kind == "disk" else "not tried again"
    elif facts.reconciler is None:
        upcoming = f"it was to be tried again at {moment(failure.next_attempt_at, now)}"
    elif failure.next_attempt_at > now:
        upcoming = f"next at {ago(failure.next_attempt_at, now)}"
    else:
        upcoming = "it is being tried again"
    passing = "" if failure.transient else "; it will not pass by itself"
    return f"{failure.error}: {since}tried {times}, the last time at {ago(failure.last_at, now)}; {upcoming}{passing}"


def _try_now(facts: Facts, failure: Failure) -> str:
    if not facts.state.want or failure.kind == "disk" or (failure.transient and facts.reconciler is None):
        return ""
    if failure.transient:
        return f"to have it tried now: {_command('retry', facts)}; else it goes on by itself"
    return f"mend want/ID in place; or, where the source has been mended, have it tried now: {_command('retry', facts)}"


def _of_room(facts: Facts, failure: Failure) -> list[tuple[str, str]]:
    lacked = "" if failure.lacks_bytes is None else f": {readable(failure.lacks_bytes)} were lacking"
    told = f"there is no room for it since {ago(failure.first_at, facts.now)}{lacked}; it {failure.error}"
    found = [(told, failure.hint)]
    others = facts.others
    if others.retiring:
        chunks = "1 retiring chunk" if others.retiring == 1 else f"{others.retiring} retiring chunks"
        by = _names(others.retiring_held_by)
        when = f" once {by} let go" if by else ""
        found.append((f"{chunks} will free {readable(others.retiring_bytes)}{when}", ""))
    return found


def _held_up_by_refs(facts: Facts) -> bool:
    return bool((facts.state.ready and _intent(facts.state.delete)) or facts.state.unready)


def _of_holders(facts: Facts) -> list[tuple[str, str]]:
    holders, deleted = facts.holders, _intent(facts.state.delete)
    since = "" if deleted is None else f"; it was deleted {lasting(facts.now - deleted.ctime_ns / 1e9)} ago"
    found = []
    if holders is not None and holders.found:
        remedy = "wait until they let go, or end them: it goes by itself then"
        found.append((f"it is held by {_held_by(facts)}{since}", remedy))
    elif holders is not None and not holders.unseen:
        found.append((f"nobody holds it{since}", ""))
    else:
        found.append((f"nobody that can be seen from here holds it{since}; it may be held by who cannot be seen", ""))
    return found + [(sentence, "") for sentence in (holders.unseen if holders is not None else ())]


def _held_by(facts: Facts) -> str:
    return (
        ", ".join(_holder(holder, facts.now) for holder in facts.holders.found[:HOLDERS_MAX])
        + _more(len(facts.holders.found))
        if facts.holders is not None
        else ""
    )


def _holder(holder: Holder, now: float) -> str:
    runs = "" if holder.started_at is None else f", running for {lasting(now - holder.started_at)}"
    return f"pid {holder.pid} `{holder.command}` ({holder.user}{runs})"


def _names(holders: tuple[Holder, ...]) -> str:
    named = ", ".join(f"pid {holder.pid} `{holder.command}`" for holder in holders[:HOLDERS_MAX])
    return named + _more(len(holders))


def _more(count: int) -> str:
    return f" and {count - HOLDERS_MAX} more" if count > HOLDERS_MAX else ""


def _of_its_turn(facts: Facts) -> list[tuple[str, str]]:
    """Nothing is wrong with it."""
    others, state = facts.others, facts.state
    by = "" if facts.reconciler is None or facts.reconciler.pid is None else f" by pid {facts.reconciler.pid}"
    match facts.name:
        case "downloading":
            return [(f"it is being downloaded{by}", "")]
        case "wanted":
            ahead = f"{others.running} downloads run, and {others.older_wants} older wants wait"
            return [(f"it waits for its turn: {ahead}", "")]
        case "deleting":
            return [(f"it is being deleted{by}" if state.delete else f"it was withdrawn, and is cleared away{by}", "")]
        case "failed":
            return [("failed/ID is left from before: it is about to be removed", "")]
        case "available" if state.want:
            return [("it is here already: want/ID goes once it has been compared with what is here", "")]
    return []
