"""The way of a damaged chunk out of service, and of its want back, step by step.

| here | stands for |
|---|---|
| `quarantine` | reconcile.repair.quarantine: the bytes have been read (see `asking`), now READY goes |
| `renew`, `link` | reconcile.repair.renew and store.marker_removal.restore_want |
| `settle …` | store.marker_removal.withdraw_restored_want; the removal itself is in `removing` |
| `let go of WANT` | store.stored_want.remove |

Left out: the fsyncs, the time limit on the lock of intents, a chunk that has no WANT, `failed/ID`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .markers import (
    GONE,
    NONE,
    OF_WANT,
    RECONCILER,
    UNREADY,
    Marker,
    Removal,
    World,
    Wrong,
    free_inode,
    is_pinned,
    next_serial,
    put,
    same,
)
from .removing import look_anew, lost, removing, step_at

if TYPE_CHECKING:
    from collections.abc import Callable


def _quarantine(world: World, wrong: Wrong) -> tuple[str, World]:
    """One whose WANT went for a want that was withdrawn has to be wanted again."""
    last = GONE if world.withdrawn and not world.kept else world.last
    return "quarantines it: removes READY", look_anew(world._replace(chunk=UNREADY, damage="", last=last))


def _renew(world: World, wrong: Wrong) -> tuple[str, World] | None:
    if world.lock:
        return None
    if wrong is Wrong.WANT_GONE_FIRST:
        kept = Marker(0, 0, 0, world.kept, 0)
        return "removes WANT", step_at(world._replace(kept=NONE, lock=RECONCILER), "renew: link", want=kept)
    if world.delete is not None:
        return "flock want/, sees a delete, lets go", step_at(world, "settle: look")
    if not is_pinned(world) and wrong is not Wrong.BACK_THOUGH_KNOWN:
        return "flock want/, sees a registration that is later than WANT, lets go", step_at(world, "settle: look")
    return "flock want/, sees no delete", step_at(world._replace(lock=RECONCILER), "renew: link")


def _link(world: World, wrong: Wrong) -> tuple[str, World]:
    kept = world.reconciler.want
    back = Marker(free_inode(world), world.tick, OF_WANT, kept.files if kept else world.kept, next_serial(world))
    at = "let go of WANT" if wrong is Wrong.NOT_SETTLED else "settle: look"
    then = step_at(world._replace(lock=""), at)
    if world.want is not None and wrong is not Wrong.BACK_OVER_WANT:
        return "cannot link WANT as want/ID: one stands there, lets go", then
    return "links WANT as want/ID, lets go", put(then, "want", back)


def _settle(world: World, wrong: Wrong) -> tuple[str, World]:
    if world.want is None or world.want.mtime != OF_WANT:
        return "sees that no want stands that came back", step_at(world, "let go of WANT")
    return "sees the want that came back", step_at(world, "settle: wait", want=world.want)


def is_waiting_for_the_clock(world: World) -> bool:
    r = world.reconciler
    return r.at == "settle: wait" and r.want is not None and r.want.ctime == world.tick


def _settle_wait(world: World, wrong: Wrong) -> tuple[str, World] | None:
    """Look at what may have overruled it, once the tick has passed."""
    if is_waiting_for_the_clock(world) and wrong is not Wrong.SETTLED_SOON:
        return None
    back = world.reconciler.want
    assert back is not None
    if world.delete is None and not is_pinned(world) and wrong is not Wrong.BACK_THOUGH_KNOWN:
        then = removing(world, Removal("want", back, world.known, "known"))
        return "sees a registration that is later than WANT", then._replace(
            reconciler=then.reconciler._replace(renewing=True)
        )
    if world.delete is None:
        return "sees no delete", step_at(world, "let go of WANT")
    if wrong is Wrong.SETTLED_AT_ONCE:
        return "sees a delete", step_at(world, "settle: look again", want=back)
    then = removing(world, Removal("want", back, world.delete))
    return "sees a delete", then._replace(reconciler=then.reconciler._replace(renewing=True))


def _settle_at_once(world: World, wrong: Wrong) -> tuple[str, World] | None:
    """Unlink the want where it stands, in place of `removing`."""
    if world.lock:
        return None
    back = world.reconciler.want
    if not same(back, world.want):
        return "sees another want", step_at(world, "let go of WANT")
    return "flock want/, sees the want", step_at(world._replace(lock=RECONCILER), "settle: unlink", want=back)


def _settle_unlink(world: World, wrong: Wrong) -> tuple[str, World]:
    back = world.reconciler.want
    assert back is not None
    if world.want is not None:
        world = put(lost(world, back, world.want), "want", None)
    return "unlinks want/ID, lets go", step_at(world._replace(lock=""), "let go of WANT")


def _let_go(world: World, wrong: Wrong) -> tuple[str, World]:
    if wrong is Wrong.BACK_AGAIN and world.want is None and world.delete is None:
        return "sees no marker", step_at(world, "renew")
    return "removes WANT", look_anew(world._replace(kept=NONE))


STEPS: dict[str, Callable[[World, Wrong], tuple[str, World] | None]] = {
    "quarantine": _quarantine,
    "renew": _renew,
    "renew: link": _link,
    "settle: look": _settle,
    "settle: wait": _settle_wait,
    "settle: look again": _settle_at_once,
    "settle: unlink": _settle_unlink,
    "let go of WANT": _let_go,
}
