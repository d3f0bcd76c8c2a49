"""The world of the model of acquiring: one id, who waits for it, its fetch, what the reconciler remembers; its changes.

What no process can see (ghosts) is told in `acquiring`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

NOBODY = 0  # the number of no inode


class Marker(NamedTuple):
    """The file `acquire/ID`; `time` counts the touches."""

    ino: int
    held: bool
    time: int


class Waiter(NamedTuple):
    """A process that asks: its next step, the inode that it has open, locked or not."""

    at: str = "idle"
    ino: int = NOBODY
    locked: bool = False
    asks: int = 1  # how often it may still begin
    timed: bool = False
    joined: bool = False
    outcome: bool = False
    owed: bool = False


class Reconciler(NamedTuple):
    """Its next step, and its memo: the marker of the last failure, and of the last use."""

    at: str = "look"
    marker: Marker | None = None
    failed: Marker | None = None
    reported: bool = True
    used: Marker | None = None


class World(NamedTuple):
    """The state of one id. `told`: of which waiter's attempt `failed/ID` speaks; None where it is not there.

    `given_up` is the marker that it names, where it says so.
    """

    marker: Marker | None
    waiters: tuple[Waiter, Waiter]
    reconciler: Reconciler
    fetch: Literal["", "runs", "is stopped"] = ""
    partial: bool = False
    here: bool = False
    told: tuple[bool, bool] | None = None
    given_up: Marker | None = None
    failures: int = 1  # that may still come
    touches: int = 0
    crashes: int = 0
    removals: int = 0
    evict: bool = False
    evicts: int = 0
    postpones: int = 0
    fault: str = ""


def at(world: World, at: str, **changes: object) -> World:
    return world._replace(reconciler=world.reconciler._replace(at=at, **changes))  # type: ignore[arg-type]


def waits(world: World, number: int, waiter: Waiter) -> World:
    one, two = world.waiters
    return world._replace(waiters=(waiter, two) if number == 0 else (one, waiter))


def closed(waiter: Waiter) -> Waiter:
    return Waiter("looks", asks=waiter.asks)


def timed(world: World, number: int, then: str) -> World:
    """Take the time: what fails from now on is the outcome of this waiter's attempt."""
    waiter = world.waiters[number]._replace(at=then, timed=True, outcome=False)
    told = None if world.told is None else (world.told[0] and number != 0, world.told[1] and number != 1)
    return waits(world, number, waiter)._replace(told=told)


def asked_anew(world: World, number: int, then: str) -> World:
    """Touch the marker: from now on a fetch is not to be cut; it may be at the path no more."""
    waiter, marker = world.waiters[number], world.marker
    is_there = marker is not None and marker.ino == waiter.ino
    world = waits(world, number, waiter._replace(at=then, joined=is_there))
    if marker is None or not is_there:
        return world
    return world._replace(marker=marker._replace(time=_free_time(world, marker.ino)))


def touched(world: World) -> World:
    ino = free_inode(world) if world.marker is None else world.marker.ino
    held = world.marker is not None and world.marker.held
    return world._replace(marker=Marker(ino, held, _free_time(world, ino)))


def _remembered(world: World) -> list[Marker]:
    r = world.reconciler
    return [marker for marker in (world.marker, r.marker, r.failed, r.used, world.given_up) if marker is not None]


def free_inode(world: World) -> int:
    used = {marker.ino for marker in _remembered(world)} | {waiter.ino for waiter in world.waiters}
    return next(number for number in range(1, len(used) + 2) if number not in used)


def _free_time(world: World, ino: int) -> int:
    used = {marker.time for marker in _remembered(world) if marker.ino == ino}
    return next(number for number in range(len(used) + 1) if number not in used)


def failed(world: World) -> World:
    """Take in a failure: the outcome of all that have taken the time by now; it speaks of the marker as it is now."""
    one, two = (waiter._replace(outcome=waiter.timed) for waiter in world.waiters)
    reconciler = world.reconciler._replace(failed=world.marker, reported=False)
    return world._replace(fetch="", failures=world.failures - 1, waiters=(one, two), reconciler=reconciler)


def put_off(world: World, *, is_told: bool) -> World:
    """Take in that nothing was tried; `is_told`: failed/ID says that it failed now."""
    after = world._replace(fetch="", postpones=world.postpones - 1)
    if not is_told:
        return after
    one, two = world.waiters
    reconciler = world.reconciler._replace(failed=world.marker)
    return after._replace(told=(one.timed, two.timed), reconciler=reconciler)


def told(world: World) -> World:
    """Take in that what is given up is told again: to all that have joined by now."""
    return failed(world)._replace(failures=world.failures)


def published(world: World) -> World:
    one, two = (waiter._replace(owed=waiter.joined) for waiter in world.waiters)
    return world._replace(partial=False, here=True, waiters=(one, two))
