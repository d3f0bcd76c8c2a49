"""The reconciler looks, decides, and acts on its chunk, step by step.

It can be killed between any two steps.

What it decides is not copied here: reconcile.plan.decide itself is asked. What it does then:

| here | stands for |
|---|---|
| `look`, `look on` | store.scan.look, reconcile.memo.observe, reconcile.plan.decide |
| `read, then …` | reconcile.apply.Applier._read in: `_fetch`, `_publish`, `_confirm`, `_overrule` |
| `publish …` | reconcile.apply.Applier._publish: the look at the delete; the rename; then the want goes |
| `read known/ID` | reconcile.apply.Applier._register: a registration that can be read overrules what is earlier |
| `retire …`, `clear` | reconcile.apply.Applier._retire: `still_deleted` looks at want, then delete; `_take_out` |
| `replace …` | reconcile.apply.Applier._confirm, where the files are others |
| (see `removing`) | store.marker_removal.remove_marker, restore_marker, finish_removals |
| (see `renewing`) | reconcile.repair |

Left out here: refs (see `holding`: a claim is always granted here), a fetch that fails or is cut (it is one step, done
when it begins), the fsyncs.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from fsdm.model.layout import Place
from fsdm.model.state import ChunkState, Partial
from fsdm.model.state import Marker as Seen
from fsdm.reconcile.actions import (
    Action,
    Clear,
    Confirm,
    Discard,
    Fetch,
    Forget,
    Overrule,
    Publish,
    Quarantine,
    Register,
    Renew,
    Report,
    Retire,
    Unregister,
    Wait,
)
from fsdm.reconcile.memo import Memo, Unreadable
from fsdm.reconcile.plan import decide

from . import removing as removals
from . import renewing, withdrawing
from .markers import (
    BEFORE,
    GONE,
    KNOWN,
    NONE,
    OF_WANT,
    RECONCILER,
    UNREAD,
    UNREADY,
    Damage,
    Marker,
    Reconciler,
    Removal,
    World,
    Wrong,
    same,
    unchanged,
)
from .removing import look_anew, met, removing, step_at
from .search import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ID = "1" * 64
PLACE = Place("d" * 64, f"{0:020}-{35:020}-{ID}")
SETTLED_S = 100.0  # later than any SETTLE_S after 0


def steps(world: World, wrong: Wrong) -> Iterator[Step[World]]:
    """Yield what the reconciler can do next."""
    step = STEPS[world.reconciler.at](world, wrong)
    if step is not None:  # else it waits for the lock of intents
        yield Step(RECONCILER, *step)
    if world.crashes and world.reconciler.at != "start":
        lock = "" if world.lock == RECONCILER else world.lock
        damage: Damage = "done" if world.damage else ""
        killed = world._replace(reconciler=Reconciler(), crashes=world.crashes - 1, lock=lock, damage=damage)
        yield Step(RECONCILER, "is killed", withdrawing.killed(killed, world.reconciler.at), must=False)


# ---------------------------------------------------------------------------------------------------- looking, deciding


def _look(world: World, wrong: Wrong) -> tuple[str, World]:
    if wrong is Wrong.DELETE_SEEN_FIRST:
        return "looks at delete/ID", step_at(world, "look on", delete=world.delete)
    return "looks at want/ID", step_at(world, "look on", want=world.want)


def _look_on(world: World, wrong: Wrong) -> tuple[str, World]:
    r = world.reconciler
    r = r._replace(want=world.want) if wrong is Wrong.DELETE_SEEN_FIRST else r._replace(delete=world.delete)
    if r.want is not None and r.delete is None:
        r = r._replace(alone=r.want._replace(ctime=0))
    world = met(world._replace(reconciler=r), r.want, r.delete)
    if world.reconciler.want is not None or world.reconciler.delete is not None:
        return "looks at the other marker", world._replace(reconciler=world.reconciler._replace(at="look at known/ID"))
    return _judge(world, wrong)


def _look_at_known(world: World, wrong: Wrong) -> tuple[str, World]:
    world = _met_known(world._replace(reconciler=world.reconciler._replace(known=world.known)))
    return _judge(world, wrong)


def _met_known(world: World) -> World:
    """Let the data stay where a registration is met that is tied with the later one of want and delete."""
    r = world.reconciler
    other = r.delete or r.want
    stands = world.delete if r.delete is not None or world.delete is not None else world.want
    as_seen = (other, r.known) == (stands, world.known)
    if r.known is None or other is None or r.known.ctime != other.ctime or world.firm or not as_seen:
        return world
    if r.delete is not None and world.last == GONE:
        return world._replace(last=KNOWN)
    if r.delete is None and world.last == KNOWN and other.files != NONE and other.mtime != OF_WANT:
        return world._replace(last=other.files)
    return world


def _judge(world: World, wrong: Wrong) -> tuple[str, World]:
    action = _decided(world, wrong)
    return _SAID.get(type(action), "has nothing to do now"), _begun(world, action, wrong)


def _decided(world: World, wrong: Wrong) -> Action | Wait | None:
    r = world.reconciler
    writing = r.want is not None and any(w.at == "cp" and w.new and w.new.ino == r.want.ino for w in world.writers)
    quarantined = world.chunk == UNREADY and world.kept != NONE and wrong is not Wrong.CLEARED_FIRST
    action = _decide(
        _seen(r.want),
        _seen(r.delete),
        _seen(r.known),
        world.partial,
        world.chunk,
        _seen(r.alone),
        _seen(r.unreadable),
        settled=not writing,
        quarantined=quarantined,
        found=world.damage == "found",
    )
    if isinstance(action, Overrule) and action.want.ctime_ns == action.delete.ctime_ns:
        if wrong is Wrong.TIE_TO_DELETE:
            return Overrule(ID, "want", action.want, action.delete)
        if wrong is Wrong.TIE_TO_WANT:
            return Overrule(ID, "delete", action.want, action.delete)
    return action


def _seen(marker: Marker | None) -> Seen | None:
    return marker and Seen(marker.ino, marker.ctime, marker.mtime, int(marker.files != NONE))


@cache
def _decide(
    want: Seen | None,
    delete: Seen | None,
    known: Seen | None,
    partial: str,
    chunk: str,
    alone: Seen | None,
    unreadable: Seen | None,
    *,
    settled: bool,
    quarantined: bool,
    found: bool,
) -> Action | Wait | None:
    state = ChunkState(
        ID,
        want,
        delete,
        known=known,
        partial=Partial.READY if partial else Partial.NONE,
        ready=(PLACE,) if chunk not in {NONE, UNREADY} else (),
        unready=(PLACE,) if chunk == UNREADY else (),
        quarantined=(PLACE,) if quarantined else (),
    )
    memo = Memo(
        want_alone=alone,
        unreadable=None if unreadable is None else Unreadable(unreadable, "half-written", "", 0.0),
        suspect=PLACE if found else None,
    )
    now = SETTLED_S if settled else 0.0
    action = decide(state, memo, now)
    return decide(state, replace(memo, failure=action.failure), now) if isinstance(action, Report) else action


def _begun(world: World, action: Action | Wait | None, wrong: Wrong) -> World:
    r = world.reconciler
    match action:
        case Overrule(loser="want"):
            assert r.want is not None
            return removing(world, Removal("want", r.want._replace(files=r.want.files and UNREAD), r.delete))
        case Forget():
            assert r.delete is not None
            return removing(world, Removal("delete", r.delete, None))
        case Register():
            return step_at(
                world, f"read known/ID against the {action.loser}", want=r.want, delete=r.delete, known=r.known
            )
        case Unregister():
            assert r.known is not None
            assert r.delete is not None
            if wrong is Wrong.KNOWN_KEPT:
                return removing(world, Removal("delete", r.delete, None))
            return removing(world, Removal("known", r.known, r.delete))
        case Overrule() | Fetch() | Publish() | Confirm():
            return step_at(world, f"read, then {type(action).__name__}", delete=r.delete, want=r.want)
        case Retire():
            return step_at(world, "retire: look for a want", delete=r.delete)
        case Clear():
            return step_at(world, "clear")
        case Discard():
            return step_at(world, "discard")
        case Quarantine():
            return step_at(world, "quarantine")
        case Renew():
            return step_at(world, "renew")
    at_rest = r.want is None and r.delete is None and not world.partial and world.chunk != UNREADY
    return look_anew(world._replace(reconciler=Reconciler()) if at_rest else world)


_SAID: dict[type[object], str] = {
    action: f"looks at the other, decides: {action.__name__}"
    for action in (
        Overrule,
        Register,
        Unregister,
        Fetch,
        Publish,
        Confirm,
        Retire,
        Clear,
        Discard,
        Forget,
        Quarantine,
        Renew,
    )
}


# ----------------------------------------------------------------------------------------------------- the chunk itself


def _read(world: World, wrong: Wrong) -> tuple[str, World]:
    r = world.reconciler
    if not same(r.want, world.want):
        return "reads a want that is not the one that was judged", look_anew(world)
    assert r.want is not None
    if r.want.files == NONE:
        return "cannot read the want", look_anew(world._replace(reconciler=r._replace(unreadable=r.want)))
    # with the same identity it may still be another: what is read is what stands
    assert world.want is not None
    files = world.want.files
    match r.at:
        case "read, then Fetch":
            return f"fetches {files}", look_anew(world._replace(partial=files))
        case "read, then Publish" if world.partial != files:
            return "discards another partial", look_anew(world._replace(partial=NONE))
        case "read, then Publish":
            return "reads the want", step_at(world, "publish: look for a delete", want=world.want)
        case "read, then Confirm" if world.delete is not None:
            return "reads the want, sees a delete", look_anew(world)
        case "read, then Confirm" if world.chunk != files:
            at = "replace: remove READY" if wrong is Wrong.READY_BEFORE_WANT else "replace: remove WANT"
            return "reads the want: it is for other files", step_at(world, at)
        case "read, then Confirm":
            judged = Removal("want", world.want, None)
            wanted = world.wanted if wrong is Wrong.NEVER_WANTED_AGAIN else judged.judged.ctime
            return "reads the want: it is there", removing(world._replace(kept=files, wanted=wanted), judged)
    assert r.delete is not None
    return "reads the want", removing(world, Removal("delete", r.delete, world.want, "want"))


def _read_known(world: World, wrong: Wrong) -> tuple[str, World]:
    r = world.reconciler
    if not unchanged(r.known, world.known):
        return "reads a registration that is not the one that was judged", look_anew(world)
    assert r.known is not None
    if r.delete is not None:
        return "reads the registration", removing(world, Removal("delete", r.delete, r.known, "known"))
    assert r.want is not None
    judged = r.want._replace(files=r.want.files and UNREAD)
    return "reads the registration", removing(world, Removal("want", judged, r.known, "known"))


def _replace_want(world: World, wrong: Wrong) -> tuple[str, World]:
    world = world._replace(kept=NONE)
    then = look_anew(world) if wrong is Wrong.READY_BEFORE_WANT else step_at(world, "replace: remove READY")
    return "removes WANT of other files", then


def _replace_ready(world: World, wrong: Wrong) -> tuple[str, World]:
    world = world._replace(chunk=UNREADY, damage="")
    then = step_at(world, "replace: remove WANT") if wrong is Wrong.READY_BEFORE_WANT else look_anew(world)
    return "removes READY of other files", then


def _publish_look(world: World, wrong: Wrong) -> tuple[str, World]:
    if world.delete is not None:
        return "sees a delete", look_anew(world)
    if wrong is Wrong.WANT_BEFORE_PUBLISH:
        return "removes the want", step_at(world._replace(want=None), "publish", want=world.reconciler.want)
    return "sees no delete", step_at(world, "publish", want=world.reconciler.want)


def _publish(world: World, wrong: Wrong) -> tuple[str, World]:
    want = world.reconciler.want
    assert want is not None
    wanted = world.tick if wrong is Wrong.WANTED_WHEN_WRITTEN else want.ctime
    world = world._replace(chunk=world.partial, kept=world.partial, wanted=wanted, partial=NONE)
    return "publishes", removing(world, Removal("want", want, None))


def _retire_look(world: World, wrong: Wrong) -> tuple[str, World]:
    if world.want is not None and world.want.files != NONE:
        return "claims the chunk, sees a want", look_anew(world)
    return "claims the chunk, sees no want", step_at(world, "retire: look again", delete=world.reconciler.delete)


def _retire_look_again(world: World, wrong: Wrong) -> tuple[str, World]:
    if not same(world.reconciler.delete, world.delete):
        return "sees that the delete is not the judged one", look_anew(world)
    return "sees the delete", step_at(world, "retire: remove READY")


def _retire_ready(world: World, wrong: Wrong) -> tuple[str, World]:
    return "removes READY", step_at(world._replace(chunk=UNREADY, damage=""), "clear")


def _clear(world: World, wrong: Wrong) -> tuple[str, World]:
    return "renames the directory into trash/", look_anew(world._replace(chunk=NONE, kept=NONE, wanted=BEFORE))


def _discard(world: World, wrong: Wrong) -> tuple[str, World]:
    return "renames the partial into trash/", look_anew(world._replace(partial=NONE))


STEPS: dict[str, Callable[[World, Wrong], tuple[str, World] | None]] = {
    **removals.STEPS,
    **renewing.STEPS,
    "look": _look,
    "look on": _look_on,
    "look at known/ID": _look_at_known,
    "read known/ID against the want": _read_known,
    "read known/ID against the delete": _read_known,
    "read, then Overrule": _read,
    "read, then Fetch": _read,
    "read, then Publish": _read,
    "read, then Confirm": _read,
    "replace: remove WANT": _replace_want,
    "replace: remove READY": _replace_ready,
    "publish: look for a delete": _publish_look,
    "publish": _publish,
    "retire: look for a want": _retire_look,
    "retire: look again": _retire_look_again,
    "retire: remove READY": _retire_ready,
    "clear": _clear,
    "discard": _discard,
}
