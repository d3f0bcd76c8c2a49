"""The model of acquiring and evicting: two waiters, the shell, the fetch, and the reconciler; the chunk is registered.

What the reconciler decides is asked of reconcile.plan.decide. What is done:

| here | stands for |
|---|---|
| `takes a ref` | store.acquiring.Acquirer.look |
| `opens …`, `flock`, `takes the time`, `touches it` | store.acquiring.Asking.join |
| `is told of the failure` | store.acquiring.Acquirer.look: the `last_at` of `failed/ID`, against `since` |
| `is killed` | SIGKILL at any step: its flocks go with its descriptors |
| `touches acquire/ID` | store.markers.place_acquire, or `touch` |
| `looks` | store.scan.look with store.acquiring.asked_by; reconcile.executor.Executor.stop_if_unwanted |
| `the fetch` | reconcile.apply.Applier.apply of Fetch, in a thread of its own; reconcile.results.Results.take_in |
| `clears it` | store.marker_removal.remove_marker (see `removing`); no flock is needed for it |
| `removes acquire/ID` | `rm`, by hand |
| `touches evict/ID` | store.eviction.ask, or reconcile.eviction.Eviction |
| `evict: …` | reconcile.apply.Applier._take_out with reconcile.caching.may_go, under the claim |

A failure that was not asked for anew is tried again after a time for which no waiter is to wait: here never; or it is
given up (`recover`), and stays in `failed/ID`. What was put off is tried again at once; what failed/ID says of it is
left out, for its `last_at` is that of an attempt before. What no process can see (ghosts): `Waiter.outcome`, that an
attempt has failed since it took the time; `Waiter.owed`, that the chunk was published since it touched the marker;
`World.fault`.
Left out: a chunk that is wanted or deleted meanwhile, a registration that goes, refs (see `holding`), the minute for
which an empty marker stays, room, a number of an inode that is given away again in one tick, and a test of the flock
that meets that of a waiter.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Literal

from fsdm.model.documents import Failure
from fsdm.model.state import ChunkState, Partial
from fsdm.model.state import Marker as Seen
from fsdm.reconcile.memo import Memo, Used
from fsdm.reconcile.plan import USE_S, decide
from fsdm.reconcile.recovery import Recovery, stamp

from .acquiring_world import (
    Marker,
    Reconciler,
    Waiter,
    World,
    asked_anew,
    at,
    closed,
    failed,
    free_inode,
    published,
    put_off,
    timed,
    told,
    touched,
    waits,
)
from .judging import ID, PLACE
from .search import Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.model.limits import Recover

NAMES = ("waiter A", "waiter B")
LATE_S = 2 * USE_S
KNOWN = Seen(9, 1, 1, 9)


class Wrong(Enum):
    """A rule of the protocol that is broken; the value says what is done instead."""

    NOTHING = "the protocol as it is"
    UNTOLD = "who asks for what is given up is not told of it"
    GIVEN_UP_FOR_GOOD = "what is given up is not tried for who asks anew"
    ANY_OUTCOME = "a waiter takes whatever failed/ID says for the outcome of its attempt"
    NOT_ASKED_ANEW = "who joins a marker does not touch it"
    LATE_TIME = "who joins a marker takes the time after it has touched it"
    LOST_INODE = "a waiter does not look whether the marker that it holds still is at the path"
    EVICTED_UNASKED = "a chunk is evicted without any look whether somebody asks for it"
    EVICTED_HELD = "a chunk is evicted without a claim"
    PUT_OFF_TOLD = "what is put off is told as a failure, though nothing was tried"
    LEFT_HELD = "a marker that says held counts without a flock on it as well"


@dataclass(frozen=True)
class Acquiring:
    """The model; `failures` of the fetch, `touches` and `removals` by the shell, `crashes` of the reconciler.

    `postpones`: how often the fetch is put off, before it has asked for anything.

    `asks`: how often each waiter may ask. `recover`: what has tried again what has failed.
    """

    wrong: Wrong = Wrong.NOTHING
    failures: int = 1
    touches: int = 1
    crashes: int = 1
    removals: int = 0
    evicts: int = 0
    postpones: int = 0
    asks: tuple[int, int] = (1, 1)
    recover: Recover = "now"

    def starts(self) -> Iterator[World]:
        one, two = (Waiter(asks=asks) for asks in self.asks)
        yield World(
            None,
            (one, two),
            Reconciler(),
            failures=self.failures,
            touches=self.touches,
            crashes=self.crashes,
            removals=self.removals,
            evicts=self.evicts,
            postpones=self.postpones,
        )

    def steps(self, world: World) -> Iterator[Step[World]]:
        for number in (0, 1):
            yield from self._wait(world, number)
        if world.touches:
            yield Step(
                "the shell", "touches acquire/ID", touched(world._replace(touches=world.touches - 1)), must=False
            )
        if world.removals and world.marker is not None:
            removed = world._replace(marker=None, removals=world.removals - 1)
            yield Step("the shell", "removes acquire/ID", removed, must=False)
        if world.evicts:
            asked = world._replace(evict=True, evicts=world.evicts - 1)
            yield Step("the shell", "touches evict/ID", asked, must=False)
        yield from self._fetch(world)
        yield from self._reconcile(world)

    def wrong_with(self, world: World) -> str:
        return world.fault

    def settled(self, world: World) -> bool:
        is_given_up = world.given_up is not None and world.marker == world.given_up and not world.given_up.held
        return (
            all(waiter.at in {"idle", "has failed"} for waiter in world.waiters)
            and not world.evict
            and (world.marker is None or is_given_up)
            and not (world.fetch or world.partial)
            and (world.told is None or self.recover != "now")
            and world.reconciler.at == "look"
        )

    def show(self, world: World) -> str:
        parts = []
        if world.marker is not None:
            parts.append(f"acquire {world.marker.ino}{', held' * world.marker.held}@{world.marker.time}")
        parts += [f"the fetch {world.fetch}"] if world.fetch else []
        parts += ["partial"] if world.partial else []
        parts += ["evict"] if world.evict else []
        parts += ["here"] if world.here else []
        parts += ["failed/ID"] if world.told else []
        for waiter, name in zip(world.waiters, NAMES, strict=True):
            if waiter.at != "idle":
                parts.append(f"{name} {waiter.at}{f' {waiter.ino}' * waiter.locked}")
        return f"| {', '.join(parts)}"

    # -------------------------------------------------------------------------------------------------------- waiters

    def _wait(self, world: World, number: int) -> Iterator[Step[World]]:
        waiter, who = world.waiters[number], NAMES[number]
        if waiter.at == "has failed" or (waiter.at == "idle" and not waiter.asks):
            return
        if waiter.at == "idle":
            yield Step(who, "begins", waits(world, number, Waiter("looks", asks=waiter.asks - 1)), must=False)
            return
        yield Step(who, *self._go_on(world, number))
        yield Step(who, "is killed", waits(world, number, Waiter(asks=waiter.asks)), must=False)

    def _go_on(self, world: World, number: int) -> tuple[str, World]:
        waiter, marker = world.waiters[number], world.marker
        match waiter.at:
            case "has a ref":
                return "closes it", waits(world, number, Waiter(asks=waiter.asks))
            case "looks" if world.here and not world.reconciler.at.startswith("evict:"):
                return "takes a ref", waits(world, number, Waiter("has a ref", asks=waiter.asks))
            case "looks" if waiter.locked and self._is_at_path(world, waiter):
                return "finds none, has the marker", waits(world, number, waiter._replace(at="looks at failed/ID"))
            case "looks" if marker is None:
                joined = waiter._replace(at="joins", ino=free_inode(world), locked=True)
                return "links a marker that is locked", waits(world, number, joined)._replace(
                    marker=Marker(joined.ino, True, 0)
                )
            case "looks":
                assert marker is not None
                return "opens the marker", waits(
                    world, number, waiter._replace(at="flock", ino=marker.ino, locked=False)
                )
            case "flock" | "joins" | "takes the time" | "touches it":
                return self._join(world, number)
            case _ if world.told is not None and (self.wrong is Wrong.ANY_OUTCOME or world.told[number]):
                failed = waits(world, number, Waiter("has failed", asks=waiter.asks))
                fault = "" if waiter.outcome else "a waiter was told of an attempt that had failed before it asked"
                return "is told of the failure", failed._replace(fault=fault)
            case _:
                return "sees no failure of its attempt", waits(world, number, waiter._replace(at="looks"))

    def _join(self, world: World, number: int) -> tuple[str, World]:
        waiter = world.waiters[number]
        match waiter.at:
            case "flock":
                return "flock: LOCK_SH", waits(world, number, waiter._replace(at="joins", locked=True))
            case "joins" if not self._is_at_path(world, waiter):
                return "sees another marker, or none, closes", waits(world, number, closed(waiter))
            case "joins" if self.wrong is Wrong.LATE_TIME:
                return "touches it", asked_anew(world, number, "takes the time")
            case "joins":
                return "it still is at the path; takes the time", timed(world, number, "touches it")
            case "takes the time":
                return "takes the time", timed(world, number, "looks at failed/ID")
            case "touches it" if self.wrong is Wrong.NOT_ASKED_ANEW:
                return "does not touch it", waits(world, number, waiter._replace(at="looks at failed/ID", joined=True))
            case _:
                return "touches it", asked_anew(world, number, "looks at failed/ID")

    def _is_at_path(self, world: World, waiter: Waiter) -> bool:
        if self.wrong is Wrong.LOST_INODE and waiter.at == "looks":
            return True
        return world.marker is not None and world.marker.ino == waiter.ino

    # ------------------------------------------------------------------------------------------------------ the fetch

    def _fetch(self, world: World) -> Iterator[Step[World]]:
        if world.fetch == "runs":
            done = world._replace(fetch="", partial=True, reconciler=world.reconciler._replace(failed=None))
            yield Step("the fetch", "is done", done)
            if world.failures:
                yield Step("the fetch", "fails", failed(world), must=False)
            if world.postpones:
                after = put_off(world, is_told=self.wrong is Wrong.PUT_OFF_TOLD)
                yield Step("the fetch", "is put off", after, must=False)
        elif world.fetch:
            yield Step("the fetch", "ends", world._replace(fetch=""))

    # ----------------------------------------------------------------------------------------------------- reconciler

    def _reconcile(self, world: World) -> Iterator[Step[World]]:
        yield Step("reconciler", *self._next(world))
        if world.crashes:
            anew = Reconciler(failed=world.given_up)
            killed = world._replace(reconciler=anew, fetch="", crashes=world.crashes - 1)
            yield Step("reconciler", "is killed, the next one starts", killed, must=False)

    def _next(self, world: World) -> tuple[str, World]:
        r = world.reconciler
        match r.at:
            case "look":
                return self._look(world)
            case "ClearAcquire":
                gone = world.marker == r.marker
                what = "clears it" if gone else "sees another marker, or that it was touched"
                return what, at(world, "look")._replace(marker=None if gone else world.marker)
            case "ClearEvict" | "Evict" | "evict: look again" | "evict: take out":
                return self._evict(world)
            case "Publish":
                return "publishes", published(at(world, "look"))
            case "Use":
                return "notes the use", at(world, "look", used=r.marker)
            case "Report":
                return "writes failed/ID", at(world, "look", reported=True)._replace(
                    told=(world.waiters[0].outcome, world.waiters[1].outcome),
                    given_up=None if self.recover == "now" else r.failed,
                )
            case "ClearFailure":
                return "removes failed/ID", at(world, "look", failed=None)._replace(told=None, given_up=None)
            case "Discard":
                return "trashes the partial", at(world, "look")._replace(partial=False)
        return "begins a fetch", at(world, "look")._replace(fetch="runs")

    def _evict(self, world: World) -> tuple[str, World]:
        is_held = any(waiter.at == "has a ref" for waiter in world.waiters)
        match world.reconciler.at:
            case "ClearEvict":
                return "refuses to evict it", at(world, "look")._replace(evict=False)
            case "Evict" if is_held and self.wrong is not Wrong.EVICTED_HELD:
                return "evict: the claim is refused", at(world, "look")._replace(evict=False)
            case "Evict":
                return "evict: LOCK_EX", at(world, "evict: look again")
            case "evict: look again" if self._asked(world) and self.wrong is not Wrong.EVICTED_UNASKED:
                return "evict: somebody asks for it, lets go", at(world, "look")._replace(evict=False)
            case "evict: look again":
                return "evict: nobody asks for it", at(world, "evict: take out")
        fault = "a chunk was evicted while a ref was held" if is_held else ""
        if any(waiter.owed for waiter in world.waiters) and not fault:
            fault = "a chunk was evicted before who waited for it had it"
        gone = at(world, "look", used=None)._replace(evict=False, here=False, fault=fault)
        return "evict: takes it out of service, lets go", gone

    def _look(self, world: World) -> tuple[str, World]:
        r, marker, asked = world.reconciler, world.marker, self._asked(world)
        if world.fetch:
            if world.fetch == "runs" and not asked:
                cut = not self.removals and any(waiter.joined for waiter in world.waiters)
                fault = "a fetch was cut while somebody waited for it" if cut else ""
                return "looks: nobody asks, stops the fetch", world._replace(fetch="is stopped", fault=fault)
            return "looks: the fetch runs", world
        failed = marker if self.wrong is Wrong.GIVEN_UP_FOR_GOOD and r.failed is not None else r.failed
        is_told = world.told is not None
        seen = (marker, asked, world.partial, world.here, failed, r.used, is_told, r.reported, world.evict)
        decided = _decide(*seen, self.recover)
        if decided == "Report" and r.reported:  # what is given up is told again
            if self.wrong is Wrong.UNTOLD:
                return "has nothing to do now", world
            return "looks, decides: Report", at(told(world), "Report", marker=marker)
        if self.wrong is Wrong.EVICTED_UNASKED and world.evict and world.here:
            decided = "Evict"
        if decided == "NoneType" and marker is None:  # at rest, all is forgotten
            return "has nothing to do", world._replace(reconciler=Reconciler(failed=world.given_up))
        if decided in {"NoneType", "Wait"}:
            return "has nothing to do now", world
        return f"looks, decides: {decided}", at(world, decided, marker=marker)

    def _asked(self, world: World) -> Literal["", "touched", "held"]:
        marker = world.marker
        if marker is None:
            return ""
        is_locked = any(waiter.locked and waiter.ino == marker.ino for waiter in world.waiters)
        if is_locked or (marker.held and self.wrong is Wrong.LEFT_HELD):
            return "held"
        return "" if marker.held else "touched"


def _seen(marker: Marker | None) -> Seen | None:
    return marker and Seen(marker.ino, marker.time + 1, marker.time + 1, int(marker.held))  # a fine time is not 0


@cache
def _decide(
    marker: Marker | None,
    asked: Literal["", "touched", "held"],
    partial: bool,
    here: bool,
    failed: Marker | None,
    used: Marker | None,
    is_told: bool,
    reported: bool,
    evict: bool,
    recover: Recover,
) -> str:
    acquire, of, noted = _seen(marker), _seen(failed), _seen(used)
    state = ChunkState(
        ID,
        known=KNOWN if marker is not None or is_told else None,
        acquire=acquire,
        asked=asked,
        partial=Partial.READY if partial else Partial.NONE,
        ready=(PLACE,) if here else (),
        failed=is_told,
        evict=Seen(7, 0, 0, 0) if evict else None,
    )
    failure = None
    if of is not None:
        at = {"first_at": 0.0, "last_at": 0.0, "next_attempt_at": LATE_S if recover == "now" else None}
        given_up = None if recover == "now" else True
        failure = Failure(
            id=ID, kind="transfer", error="fails", marker=stamp(of), known=stamp(KNOWN), given_up=given_up, **at
        )
    memo = Memo(failure=failure, reported=reported, used=None if noted is None else Used(noted, 0.0))
    return type(decide(state, memo, LATE_S if asked == "touched" else 0.0, Recovery(recover))).__name__
