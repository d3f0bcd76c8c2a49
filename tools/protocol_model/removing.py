"""The removal of a marker, and the finish of one that a crash cut off, step by step.

| here | stands for |
|---|---|
| `start`, `finish` | store.marker_removal.finish_removals, from reconcile.reconciler.Reconciler.open |
| `flock` … `unlink the judged` | store.marker_removal.remove_marker |
| `look at its opposite` … `unlink what was aside` | store.marker_removal.restore_marker |

The time limit of 50 ms on the lock of intents is left out: here it is always got in the end. So are the fsyncs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .markers import (
    GONE,
    KNOWN,
    NONE,
    OF_WANT,
    RECONCILER,
    Aside,
    Kind,
    Marker,
    Reconciler,
    Removal,
    World,
    Wrong,
    holds,
    overruling,
    put,
    same,
    same_text,
    standing,
    unchanged,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def removing(world: World, removal: Removal) -> World:
    return step_at(world, "flock", removal=removal)


def step_at(
    world: World,
    at: str,
    *,
    want: Marker | None = None,
    delete: Marker | None = None,
    known: Marker | None = None,
    removal: Removal | None = None,
    opposite: int = 0,
) -> World:
    r = world.reconciler
    return world._replace(
        reconciler=Reconciler(at, want, delete, removal, opposite, r.alone, r.unreadable, known, r.renewing)
    )


def look_anew(world: World) -> World:
    """Let go of the lock, and begin again; or go on with what the removal was a step of."""
    lock, r = "" if world.lock == RECONCILER else world.lock, world.reconciler
    world = world._replace(lock=lock, reconciler=r._replace(renewing=False))
    return step_at(world, "let go of WANT" if r.renewing else "look")


# ---------------------------------------------------------------------------------------------- what a crash left aside


def _start(world: World, wrong: Wrong) -> tuple[str, World]:
    at = "look" if world.aside is None or wrong is Wrong.NO_FINISH else "finish"
    return "starts", step_at(world, at)


def _finish(world: World, wrong: Wrong) -> tuple[str, World] | None:
    if wrong is Wrong.FINISH_UNLOCKED:
        return "finds a marker aside", step_at(world, "look at what was aside")
    if world.lock:
        return None
    return "finds a marker aside, flock want/", step_at(world._replace(lock=RECONCILER), "look at what was aside")


def _look_aside(world: World, wrong: Wrong) -> tuple[str, World]:
    assert world.aside is not None
    judged, marker = world.aside.judged, world.aside.marker
    is_finish = world.reconciler.at == "look at what was aside"
    blind = wrong is Wrong.TEXT_UNSEEN or (wrong is Wrong.TEXT_NOT_NAMED and is_finish)
    if same(judged, marker) and (blind or same_text(judged, marker)):
        return "what is aside was judged", step_at(world, "unlink the judged")
    return "what is aside is another than was judged", step_at(world, _first_of_put_back(wrong))


def _first_of_put_back(wrong: Wrong) -> str:
    return "link it back" if wrong in {Wrong.BACK_REGARDLESS, Wrong.BACK_OVER} else "look at its opposite"


def _look_opposite(world: World, wrong: Wrong) -> tuple[str, World]:
    """Look at the opposite marker: one that is younger than the rename aside came after it.

    Where both came between the last look at the judged one and that rename, no process can tell which was later, and
    neither was asked for with care: then either may count as the later.
    """
    aside = world.aside
    assert aside is not None
    again = standing(world, aside.kind)
    either = not world.firm and (again is None or again.files == NONE)
    seen = 0
    for kind in overruling(aside.kind):
        other = standing(world, kind)
        if kind == "known" and wrong is Wrong.KNOWN_BACK:
            seen = max(seen, other.serial if other else 0)
            continue
        is_kept = kind == "known" and aside.kind == "want"  # tied with a registration, a want stays
        if other is None or other.ctime < aside.marker.ctime + is_kept or other.files == NONE:
            if other is not None and world.last == other.files and either:
                world = world._replace(last=aside.marker.files)
            seen = max(seen, other.serial if other else 0)
            continue
        if other.ctime == aside.marker.ctime and world.last == aside.marker.files and either:
            world = world._replace(last=other.files)
        return "a marker that overrules it has come", step_at(world, "unlink what was aside")
    return "no later marker stands that overrules it", step_at(world, "link it back", opposite=seen)


def _link_back(world: World, wrong: Wrong) -> tuple[str, World]:
    aside = world.aside
    assert aside is not None
    back = aside.marker._replace(ctime=world.tick)
    if wrong is Wrong.BACK_OVER:
        return "renames it back", look_anew(put(world, aside.kind, back)._replace(aside=None))
    if standing(world, aside.kind) is not None:
        return "cannot link it back: a newer one stands there", step_at(world, "unlink what was aside")
    came = any(
        other is not None and other.files == world.last and other.serial > world.reconciler.opposite
        for other in (standing(world, kind) for kind in overruling(aside.kind))
    )
    if came and not world.firm and wrong is not Wrong.BACK_REGARDLESS:
        world = world._replace(last=back.files)  # a careless one that comes in this very instant is as if tied
    world = put(world, aside.kind, back)._replace(aside=aside._replace(marker=back))
    return "links it back", step_at(world, "unlink what was aside")


def _unlink_aside(world: World, wrong: Wrong) -> tuple[str, World]:
    return "unlinks what is aside, and lets go", look_anew(world._replace(aside=None))


# ---------------------------------------------------------------------------------------------------- removing a marker


def _flock(world: World, wrong: Wrong) -> tuple[str, World] | None:
    """Take the lock, and look: careless writers do not care which of them comes first."""
    if world.lock:
        return None
    removal = world.reconciler.removal
    assert removal is not None
    if removal.winner is not None and wrong is not Wrong.NO_LOOK_AT_WINNER:
        look = _look_winner
    elif removal.winner is None and removal.kind == "delete" and wrong is not Wrong.FORGET_REGARDLESS:
        look = _look_for_want
    else:
        look = _look_judged
    what, then = look(world._replace(lock=RECONCILER), wrong)
    return f"flock want/, {what}", then


def _look_for_want(world: World, wrong: Wrong) -> tuple[str, World]:
    if world.want is not None and world.want.files != NONE:
        return "sees a want, lets go", look_anew(world)
    return "sees no want", step_at(world, "look at the judged", removal=world.reconciler.removal)


def _look_winner(world: World, wrong: Wrong) -> tuple[str, World]:
    removal = world.reconciler.removal
    assert removal is not None
    if not unchanged(removal.winner, standing(world, removal.by)):
        return "the winner does not stand any more, lets go", look_anew(world)
    return "the winner stands", step_at(world, "look at the judged", removal=removal)


def _look_judged(world: World, wrong: Wrong) -> tuple[str, World]:
    removal = world.reconciler.removal
    assert removal is not None
    if not unchanged(removal.judged, standing(world, removal.kind)):
        return "the judged does not stand any more, lets go", look_anew(world)
    if removal.kind == "delete" and removal.by != "known":
        world = met(world, removal.winner, world.delete)
    is_unlinked = wrong is Wrong.UNLINK_AT_ONCE or (wrong is Wrong.KNOWN_AT_ONCE and removal.kind == "known")
    at = "unlink at once" if is_unlinked else "rename aside"
    return f"the judged {removal.kind} stands", step_at(world, at, removal=removal)


def met(world: World, want: Marker | None, delete: Marker | None) -> World:
    """Let the want be the later intent where both are met tied for the first time.

    Where it cannot be told from one that was seen before the delete, the delete is.
    """
    alone = world.reconciler.alone
    if (
        want is not None
        and delete is not None
        and (want, delete) == (world.want, world.delete)
        and want.ctime == delete.ctime
        and want.files != NONE
        and want.mtime != OF_WANT  # it is no new intent
        and not world.firm
        and (alone is None or alone.serial != want.serial)
    ):
        if same(alone, want):
            return world if world.last == KNOWN else world._replace(last=GONE)
        return world._replace(last=want.files) if world.last == GONE else world
    return world


def _rename_aside(world: World, wrong: Wrong) -> tuple[str, World]:
    removal = world.reconciler.removal
    assert removal is not None
    there = standing(world, removal.kind)
    if there is None:
        return "nothing is there any more, lets go", look_anew(world)
    aside = Aside(removal.kind, removal.judged, there._replace(ctime=world.tick))
    at = "unlink the judged" if wrong is Wrong.NO_SECOND_LOOK else "look again"
    return f"renames {removal.kind}/ID aside", step_at(put(world, removal.kind, None)._replace(aside=aside), at)


def _unlink_judged(world: World, wrong: Wrong) -> tuple[str, World]:
    aside = world.aside
    assert aside is not None
    world = lost(world, aside.judged, aside.marker)._replace(aside=None)
    return f"unlinks the {aside.kind} that is aside, lets go", look_anew(world)


def _unlink_at_once(world: World, wrong: Wrong) -> tuple[str, World]:
    removal = world.reconciler.removal
    assert removal is not None
    there = standing(world, removal.kind)
    if there is not None:
        world = put(lost(world, removal.judged, there), removal.kind, None)
    return f"unlinks {removal.kind}/ID, lets go", look_anew(world)


def lost(world: World, judged: Marker, gone: Marker) -> World:
    """Find what is wrong where `gone` goes.

    A careless marker that looks in all as the judged one cannot be told from it: its opposite may count as the later.
    """
    if gone.serial <= judged.serial or world.last != gone.files:
        return world
    kind: Kind = "delete" if gone.files == GONE else "known" if gone.files == KNOWN else "want"
    if (again := standing(world, kind)) is not None and again.files == gone.files and again.serial > gone.serial:
        return world
    others = {other: standing(world, other) for other in overruling(kind)}
    against = [m for k, m in others.items() if m is not None and (k != "known" or m.ctime >= judged.ctime)]
    if same(judged, gone) and same_text(judged, gone) and not world.firm and against:
        return world._replace(last=max(against, key=lambda marker: marker.ctime).files)
    fault = "" if holds(world, gone) else "a marker that is newer than the judged one was removed"
    return world._replace(fault=fault or world.fault)


STEPS: dict[str, Callable[[World, Wrong], tuple[str, World] | None]] = {
    "start": _start,
    "finish": _finish,
    "look at what was aside": _look_aside,
    "look again": _look_aside,
    "look at its opposite": _look_opposite,
    "link it back": _link_back,
    "unlink what was aside": _unlink_aside,
    "flock": _flock,
    "look at the judged": _look_judged,
    "rename aside": _rename_aside,
    "unlink the judged": _unlink_judged,
    "unlink at once": _unlink_at_once,
}
