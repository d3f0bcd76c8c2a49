"""The intent after a want was withdrawn: the chunk stays as it is.

Unless the reconciler was past its last look: then it carries out what it has begun.

A chunk that was quarantined, or whose delete was cut off by a crash, comes back by its WANT where the want is withdrawn
before the reconciler has linked it, or before the next one has finished (PROTOCOL.md, "Verifying").

Left out: a withdrawal while another marker is on its way out, or in the middle of a writer's call.
"""

from __future__ import annotations

from .markers import GONE, KNOWN, NONE, UNREADY, World, is_pinned

GOES_ON = frozenset({"publish: look for a delete", "publish"})
RETIRES = frozenset({"retire: remove READY", "clear", "replace: remove READY", "replace: remove WANT"})
RENEWED = frozenset({"settle: look", "settle: wait", "let go of WANT"})
REMOVES = frozenset({"look at the judged", "rename aside"})


def can_withdraw(world: World) -> bool:
    return world.want is not None and world.aside is None and all(writer.at == "idle" for writer in world.writers)


def withdrawn(world: World) -> World:
    """Withdraw the want: `rm want/ID`."""
    return _judged(world._replace(want=None, firm=False, withdrawn=True))


def killed(world: World, at: str) -> World:
    """Judge a withdrawal anew where the reconciler was killed at the step `at`."""
    is_half_done = at == "replace: remove WANT" and world.chunk == UNREADY  # READY of other files went first
    if not world.withdrawn or world.want is not None or world.aside is not None or is_half_done:
        return world
    return _judged(world)


def _judged(world: World) -> World:
    left = _left(world)
    if world.known is not None and (left == NONE or (left == world.chunk and not is_pinned(world))):
        return world._replace(last=KNOWN)
    return world._replace(last=left or GONE)


def _left(world: World) -> str:
    r = world.reconciler
    removal = r.removal if r.at in REMOVES else None
    if world.delete is not None and (removal is None or removal.kind == "want"):
        return GONE
    if r.at in GOES_ON:
        return world.partial
    if r.at in RETIRES:
        return GONE
    if world.chunk == UNREADY:
        return NONE if r.at in RENEWED or r.renewing else world.kept
    return world.chunk
