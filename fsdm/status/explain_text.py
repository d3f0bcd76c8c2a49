"""Explanations of how a chunk stands: facts → sentences.

Pure: what is known is passed in, `now` with it. A sentence says only what a fact says: where something could not be
seen, that is the sentence. Invariant: each of the four answers has at least one sentence.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fsdm.model.state import ChunkState, Marker, Partial
from fsdm.model.units import ago, count, how_far, lasting, moment, readable
from fsdm.store.leader_lock import LockHolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fsdm.model.documents import Failure
    from fsdm.model.errors import InvalidInputError
    from fsdm.status.chunk_status import ChunkStatus, Status
    from fsdm.store.holders import Holder, Holders
    from fsdm.store.index_failures import IndexFailure

HOLDERS_MAX: Final = 5  # shown by name
SETTLED_S: Final = 3.0  # after which a want that cannot be read is no longer taken for half-written

_Reason = tuple[str, str]  # and what to do about it, or nothing


@dataclass(frozen=True, slots=True)
class Others:
    """Other work: retiring chunks with their bytes and holders, running downloads, older wants."""

    retiring: int = 0
    retiring_bytes: int = 0
    retiring_held_by: tuple[Holder, ...] = ()
    running: int = 0
    older_wants: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one chunk. `status` is None where nothing of it is there.

    `around` has no chunks. `want_fault`: why what is in want/ID cannot be taken. `holders` is None where it has no
    directory.
    """

    now: float
    root: str
    state: ChunkState
    status: ChunkStatus | None
    around: Status
    failure: Failure | None = None
    want_fault: InvalidInputError | None = None
    holders: Holders | None = None
    others: Others = field(default_factory=Others)
    dataset_names: Mapping[str, str] = field(default_factory=dict)
    verified_at: float | None = None  # when its bytes were last compared with READY, and right
    index_failures: tuple[IndexFailure, ...] = ()

    @property
    def name(self) -> str:
        """The state as `status` names it, or *unknown*."""
        return self.status.state if self.status else "unknown"

    @property
    def want(self) -> Marker | None:
        return _intent(self.state.want)

    @property
    def delete(self) -> Marker | None:
        return _intent(self.state.delete)

    @property
    def is_pending(self) -> bool:
        """Return whether anything is still to be done about it."""
        state = self.state
        return bool(state.want or state.delete or state.unready or state.partial is not Partial.NONE)

    @property
    def waits_for_refs(self) -> bool:
        """Return whether it goes once no process holds it."""
        return bool((self.state.ready and self.delete) or self.state.unready)

    def command(self, verb: str) -> str:
        return f"fsdm {verb} -d {shlex.quote(self.root)}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Sentences: what is asked for, what is here, what holds it up, what to do."""

    id: str
    state: str
    asked: tuple[str, ...]
    here: tuple[str, ...]
    why: tuple[str, ...]
    todo: tuple[str, ...]


def explain(facts: Facts) -> Explanation:
    reasons = list(_reasons(facts)) or list(_of_its_turn(facts))
    todo = dict.fromkeys(remedy for _, remedy in reasons if remedy)
    return Explanation(
        id=facts.state.id,
        state=facts.name,
        asked=tuple(_asked(facts)) or _nothing_asked(facts),
        here=tuple(_here(facts, facts.status) if facts.status else ()) or ("nothing of it",),
        why=tuple(reason for reason, _ in reasons) or ("nothing",),
        todo=tuple(todo) or ("nothing: it goes on by itself" if facts.is_pending else "nothing",),
    )


def _nothing_asked(facts: Facts) -> tuple[str]:
    if facts.status is not None and facts.status.known:
        return ("nothing: it is registered (known/ID), so it comes when somebody asks for it",)
    return ("nothing: there is neither want/ID nor delete/ID",)


def _asked(facts: Facts) -> Iterator[str]:
    asked = ((facts.state.want, "want", "it is wanted"), (facts.state.delete, "delete", "it is to be deleted"))
    for marker, name, phrase in asked:
        if marker is not None and marker.fault:
            yield f"{name}/ID asks for nothing: it {marker.fault}"
        elif marker is not None:
            yield f"{phrase}, as asked for at {ago(marker.ctime_ns / 1e9, facts.now)}"
    if facts.state.asked and not facts.state.ready:
        who = "somebody waits for it" if facts.state.asked == "held" else "it was touched"
        yield f"it is asked for: acquire/ID is there, and {who}"
    if _intent(facts.state.verify):
        yield "its bytes are to be compared with READY: verify/ID is there"
    if facts.want and facts.delete:
        yield "both markers are there: the later one is carried out, and the other is about to go"


def _intent(marker: Marker | None) -> Marker | None:
    return marker if marker is not None and not marker.fault else None


def _here(facts: Facts, status: ChunkStatus) -> Iterator[str]:
    state, blocks, size = facts.state, status.block_range, readable(status.size_bytes)
    name = facts.dataset_names.get(status.dataset_id or "")
    dataset = f"{name} ({status.dataset_id})" if name else status.dataset_id
    where = f", blocks [{blocks.start}, {blocks.stop}) of dataset {dataset}" if blocks else ""
    if state.ready:
        found = "it is complete, but readers no longer find it" if state.delete else "it is available"
        yield f"{found}: {size}{where}"
        if status.cached:
            yield "it is cached: registered and not wanted, so it may be evicted where its room is needed"
        yield f"it stands in {facts.root}/chunks/{state.ready[0].dataset_id}/{state.ready[0].name}"
        if facts.verified_at is not None:
            yield f"its bytes were read again, and were what READY says, at {ago(facts.verified_at, facts.now)}"
    if state.unready:
        yield f"its directory has no READY{where}: readers do not find it, and it is to be cleared away"
    if state.partial is Partial.READY:
        yield "all of it has come, in partial/ID: it is about to be put in its place"
    elif state.partial is Partial.BEGUN and not state.ready and not state.unready:
        yield f"{how_far(status.size_bytes, status.total_bytes, status.least_bytes)} have come, in partial/ID"
    elif state.partial is Partial.BEGUN:
        yield "a part of what is to take its place has come, in partial/ID"


def _reasons(facts: Facts) -> Iterator[_Reason]:
    """List reasons and remedies, the first that matters first."""
    if facts.status is None:
        yield "nothing is known of it: it was never asked for, or is gone", "ask for it with `fsdm want`"
        return
    if facts.name == "known":
        yield (
            "nobody has asked for it",
            f"to have it come: fsdm acquire; to have it stay as well: {facts.command('want')}",
        )
        return
    if facts.is_pending:
        yield from _of_the_directory(facts, facts.status)
    yield from _of_the_markers(facts)
    yield from _of_the_failure(facts)
    yield from _of_indexes(facts)
    if facts.waits_for_refs:
        yield from _of_holders(facts)
    elif facts.holders is not None and facts.holders.found:
        yield f"nothing: it is read by {_held_by(facts.holders, facts.now)}", ""


def _of_the_directory(facts: Facts, status: ChunkStatus) -> Iterator[_Reason]:
    around, disk = facts.around, facts.around.disk
    if around.reconciler is None:
        told = "no process is reconciling this data directory, so nothing is carried out"
        yield told, f"start a reconciler: {facts.command('run')}"
    elif around.reconciler_trouble is not None:
        pid = LockHolder.parse(around.reconciler).pid or "PID"
        remedy = f"let it go on: kill -CONT {pid}; where it hangs, see its log, and end it: kill -9 {pid}"
        yield around.reconciler_trouble, remedy
    if disk.read_only:
        yield "the file system is read-only: nothing can be downloaded or deleted", "mount it writable again"
    elif facts.want and not facts.state.ready:
        missing = (status.total_bytes or status.least_bytes) - status.size_bytes
        if disk.free_bytes < max(missing, 1):
            told = f"the disk is full: {readable(disk.free_bytes)} are free, and {readable(missing)} are missing"
            yield told, "make room on the disk: it goes on by itself then"
    if around.braked is not None and facts.waits_for_refs and facts.delete:
        told = "deletes are held back (BRAKE): so many were asked for that it may be a mistake"
        yield told, f"if they are meant, release them: {facts.command('release')}"
    if around.paused is not None and facts.state.want and not facts.state.ready:
        yield _pause(around.paused, facts.now), f"resume them: {facts.command('resume')}"


def _pause(note: dict[str, Any], now: float) -> str:
    since, by, reason = note.get("since"), note.get("by"), note.get("reason")
    when = f" since {ago(since, now)}" if isinstance(since, int | float) else ""
    who = f", by {by}" if isinstance(by, str) and by else ""
    return f"downloads are paused{when}{who}" + (f": {reason}" if isinstance(reason, str) and reason else "")


def _of_the_markers(facts: Facts) -> Iterator[_Reason]:
    want, delete = facts.state.want, facts.state.delete
    if delete is not None and delete.fault:
        yield f"delete/ID {delete.fault}: while it is there, the chunk is not available", "remove it by hand"
    if want is not None and want.fault:
        # what could not be looked at has no inode
        remedy = "remove it, and put a JSON file there" if want.ino else "look as a user who may; if none may, at dmesg"
        yield f"want/ID {want.fault}", remedy
    elif want is not None and facts.want_fault:
        still_s = facts.now - want.mtime_ns / 1e9
        half = "; it may be half-written, and is read again when it changes" if abs(still_s) < SETTLED_S else ""
        yield f"want/ID cannot be taken: {facts.want_fault}{half}", facts.want_fault.hint or "mend it in place"


def _of_the_failure(facts: Facts) -> Iterator[_Reason]:
    failure, state, marker = facts.failure, facts.state, facts.delete or facts.want
    said = None if failure is None else failure.marker
    if failure is None:
        if state.failed and facts.name == "failed":
            yield "it has failed, but failed/ID cannot be read", "look at failed/ID, and at who may read it"
    elif failure.kind in {"want", "marker"}:
        if not facts.want_fault and not any(one is not None and one.fault for one in (state.want, state.delete)):
            yield failure.error, failure.hint
    elif failure.kind == "damaged":
        told = f"it was taken out of service at {ago(failure.last_at, facts.now)}: {failure.error}"
        yield told, "" if state.want and not failure.given_up else failure.hint
    elif marker is not None and said is not None and marker.identity != (said.ino, said.mtime_ns, said.size):
        yield f"{failure.error}; but its marker has changed since, so it is tried anew", ""
    elif failure.kind == "room":
        yield from _of_room(facts, failure)
    else:
        yield _attempts(facts, failure), _remedy(facts, failure)


def _of_indexes(facts: Facts) -> Iterator[_Reason]:
    for failure in facts.index_failures:
        times = f"{failure.attempts} times" if failure.attempts != 1 else "once"
        told = f"its index {failure.name} cannot be made, tried {times}: {failure.error}"
        yield f"{told}; the next attempt is at {ago(failure.next_attempt_at, facts.now)}", failure.hint


def _attempts(facts: Facts, failure: Failure) -> str:
    """Tell the error with since when, how often, and when it is tried next."""
    now, times = facts.now, f"{failure.attempts} times" if failure.attempts != 1 else "once"
    since = f"since {moment(failure.first_at, now)}, {lasting(now - failure.first_at)} ago; " * (failure.attempts > 1)
    if failure.given_up:
        upcoming = "given up: not tried again before it is asked for anew"
    elif failure.next_attempt_at is None:
        upcoming = "it goes on once the disk takes what is written" if failure.kind == "disk" else "not tried again"
    elif facts.around.reconciler is None:
        upcoming = f"it was to be tried again at {moment(failure.next_attempt_at, now)}"
    elif failure.next_attempt_at > now:
        upcoming = f"next at {ago(failure.next_attempt_at, now)}"
    else:
        upcoming = "it is being tried again"
    passing = "" if failure.transient or failure.given_up else "; it will not pass by itself"
    if failure.not_before is not None and failure.not_before > now:
        passing += f"; the server has asked for nothing before {ago(failure.not_before, now)}"
    tried = f"tried {times}, the last time at {ago(failure.last_at, now)}" if failure.attempts else "not tried yet"
    put_off = f", put off {count(failure.postponed, 'time')} since" if failure.postponed else ""
    return f"{failure.error}: {since}{tried}{put_off}; {upcoming}{passing}"


def _remedy(facts: Facts, failure: Failure) -> str:
    """Tell what to mend, and how to have it tried now."""
    retry = f"to have it tried now: {facts.command('retry')} {facts.state.id}"
    if failure.given_up:
        return f"{failure.hint or 'mend its source'}; {retry}"
    if not facts.state.want or failure.kind == "disk" or (failure.transient and facts.around.reconciler is None):
        return failure.hint
    if failure.transient:
        return f"{failure.hint}; {retry}" if failure.hint else f"{retry}; else it goes on by itself"
    return f"{failure.hint or 'mend want/ID in place, or its source'}; {retry}"


def _of_room(facts: Facts, failure: Failure) -> Iterator[_Reason]:
    lacked = "" if failure.lacks_bytes is None else f": {readable(failure.lacks_bytes)} were lacking"
    yield f"there is no room for it since {ago(failure.first_at, facts.now)}{lacked}; it {failure.error}", failure.hint
    others = facts.others
    if others.retiring:
        by = _list([f"pid {holder.pid} `{holder.command}`" for holder in others.retiring_held_by])
        when = f" once released by {by}" if by else ""
        yield f"{count(others.retiring, 'retiring chunk')} will free {readable(others.retiring_bytes)}{when}", ""


def _of_holders(facts: Facts) -> Iterator[_Reason]:
    holders, deleted = facts.holders, facts.delete
    since = "" if deleted is None else f"; it was deleted {lasting(facts.now - deleted.ctime_ns / 1e9)} ago"
    if holders is not None and holders.found:
        remedy = "wait until they release it, or end them: it goes by itself then"
        yield f"it is held by {_held_by(holders, facts.now)}{since}", remedy
    elif holders is not None and not holders.unseen:
        yield f"no process holds it{since}", ""
    else:
        yield f"no process that can be seen from here holds it{since}; one that cannot be seen may", ""
    yield from ((sentence, "") for sentence in (holders.unseen if holders is not None else ()))


def _held_by(holders: Holders, now: float) -> str:
    names = []
    for holder in holders.found:
        runs = "" if holder.started_at is None else f", running for {lasting(now - holder.started_at)}"
        names.append(f"pid {holder.pid} `{holder.command}` ({holder.user}{runs})")
    return _list(names)


def _list(names: list[str]) -> str:
    more = f" and {len(names) - HOLDERS_MAX} more" if len(names) > HOLDERS_MAX else ""
    return ", ".join(names[:HOLDERS_MAX]) + more


def _of_its_turn(facts: Facts) -> Iterator[_Reason]:
    """Tell what is about to happen where nothing is wrong."""
    others, state = facts.others, facts.state
    pid = None if facts.around.reconciler is None else LockHolder.parse(facts.around.reconciler).pid
    by = "" if pid is None else f" by pid {pid}"
    match facts.name:
        case "downloading":
            yield f"it is being downloaded{by}", ""
        case "wanted":
            running, older = count(others.running, "running download"), count(others.older_wants, "older want")
            yield f"it waits for its turn, after {running} and {older}", ""
        case "deleting":
            yield f"it is being deleted{by}" if state.delete else f"it was withdrawn, and is cleared away{by}", ""
        case "failed":
            yield "failed/ID is left from before: it is about to be removed", ""
        case "available" if state.want:
            yield "it is here already: want/ID goes once it has been compared with what is here", ""
