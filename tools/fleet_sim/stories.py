"""The failure stories of other systems, as short lives of a small fleet: each ends in checks of what must hold in it.

The line of each says what holds, and which reports tell of the opposite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fsdm.fleet.placing import Bounds
from tools.fleet_sim.checks import balanced, below, check, moved, safe
from tools.fleet_sim.fleet import GRACE_S, STEP_S, a_fleet

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.bench.report import Figure
    from tools.fleet_sim.fleet import Fleet

    Story = Callable[[], list[Figure]]

WORKERS: Final = 40
CHUNKS: Final = 5000


def settled(full: float = 0.85, **more: object) -> Fleet:
    """Return a fleet at rest, whose figures begin now."""
    fleet = a_fleet(CHUNKS, WORKERS, full=full, spare_workers=WORKERS // 3, spare_chunks=CHUNKS // 5, **more)  # type: ignore[arg-type]
    fleet.settle()
    seen = fleet.seen
    seen.fetched_bytes = seen.least_bytes = seen.flight_bytes = 0
    seen.below_s = 0.0
    return fleet


def fetched(fleet: Fleet, most_gb: float = 0) -> Figure:
    """Return what was fetched."""
    return check("bytes fetched", fleet.seen.fetched_bytes / 1e9, "GB", most_gb)


def short(fleet: Fleet, most: int = 0, replicas: int = 3) -> Figure:
    """Return how many chunks have fewer copies that can be read."""
    return check(f"chunks with fewer than {replicas} copies", int((fleet.copies() < replicas).sum()), "chunks", most)


def surplus(fleet: Fleet) -> Figure:
    """Return how many copies there are that nobody asks for."""
    extra = fleet.disk.size - int(fleet.listed.sum()) * fleet.replicas
    return check("copies too many on disks", extra, "copies")


def restart_of_all() -> list[Figure]:
    """All restart within the grace, and no storm of copies follows (druid#17594, elasticsearch#2908)."""
    fleet = settled()
    everybody = fleet.some_up
    fleet.stop(everybody)
    for wave in np.array_split(everybody, 10):
        fleet.live(fleet.now + 50)
        fleet.start(wave)
    fleet.settle()
    return [fetched(fleet), short(fleet), below(fleet), *safe(fleet)]


def one_comes_back() -> list[Figure]:
    """A worker comes back after its copies were made anew, and is not stripped (druid#17594)."""
    fleet = settled()
    one = np.array([7])
    fleet.stop(one)
    fleet.live(fleet.now + 3600)
    had = int((fleet.disk % fleet.count == 7).sum())
    fleet.start(one)
    fleet.settle()
    kept = int((fleet.planned % fleet.count == 7).sum())
    stays = check("copies that it does not keep", 100 * (1 - kept / had), "%", 5)
    return [stays, moved(fleet, 1.0), below(fleet), surplus(fleet), *balanced(fleet), *safe(fleet)]


def nothing_changes() -> list[Figure]:
    """With nothing changed nothing moves, however often it is placed (druid#3354, helix#931)."""
    fleet = settled()
    lists = fleet.planned
    for _ in range(20):
        fleet.step(STEP_S)
    return [fetched(fleet), check("lists that differ", int(not np.array_equal(lists, fleet.planned)), "lists")]


def drop_comes() -> list[Figure]:
    """Old copies go once they have moved: none stays for ever (druid#12881)."""
    fleet = settled()
    fleet.join(np.arange(WORKERS, WORKERS + 6))
    fleet.settle()
    leaving = check("copies that are still to leave", fleet.leaving.size, "copies")
    return [leaving, surplus(fleet), moved(fleet), below(fleet), *balanced(fleet), *safe(fleet)]


def first_new_node() -> list[Figure]:
    """The first of the new workers is not sent everything at once (druid#5882)."""
    fleet = settled(bounds=Bounds(in_flight_bytes=10 * 10**9, moves=10_000))
    fleet.join(np.array([WORKERS]))
    fleet.settle()
    return [moved(fleet), *balanced(fleet), *safe(fleet)]


def unlike_disks() -> list[Figure]:
    """Disks of 1, 2 and 6 parts are equally full, for bytes are counted and not copies (kafka, druid)."""
    fleet = settled(skew=(1, 2, 6))
    return [*balanced(fleet), *safe(fleet)]


def repair_beside_rebalance() -> list[Figure]:
    """A loss is made good at once, however much is being balanced meanwhile (elasticsearch#20716)."""
    fleet = settled(bounds=Bounds(in_flight_bytes=10 * 10**9, moves=80))
    fleet.join(np.arange(WORKERS, WORKERS + WORKERS // 5))
    fleet.step(STEP_S)
    lost = np.array([3])
    fleet.stop(lost)
    fleet.destroy(lost)
    fleet.live(fleet.now + GRACE_S + 240)
    moving = check("nothing is being balanced meanwhile", int(not fleet.leaving.size), "times")
    return [short(fleet), below(fleet), moving, *safe(fleet)]


def one_worker_too_few() -> list[Figure]:
    """With too few workers third copies go, and everybody still has a list (SQD: 1,884 of 1,885 workers)."""
    fleet = settled(0.93)
    fleet.drain(np.arange(5))
    fleet.settle()
    fleet.remove(np.arange(5))
    fleet.settle()
    lists = check("workers without a list", WORKERS - 5 - int(fleet.has_list.sum()), "workers")
    degraded = check("there is room for all copies", int((fleet.copies() >= 3).all()), "times")
    fleet.join(np.arange(WORKERS, WORKERS + 8))
    fleet.settle()
    return [lists, degraded, short(fleet, replicas=2), short(fleet), *safe(fleet)]


def planned_is_not_held() -> list[Figure]:
    """A copy stays while those that are to take its place have not come (SQD: the last copy was deleted)."""
    fleet = settled()
    fleet.drain(np.arange(4))
    had = fleet.disk
    fleet.speed = 0.0
    fleet.live(fleet.now + 1800)
    gone = check("copies that went", had.size - int(np.isin(had, fleet.disk).sum()), "copies")
    fleet.speed = 1.25e9
    fleet.settle()
    left = check("copies on what has drained", int(np.isin(fleet.disk % fleet.count, np.arange(4)).sum()), "copies")
    return [gone, left, short(fleet), below(fleet), *safe(fleet)]


def holders_leave_again() -> list[Figure]:
    """Those who have confirmed leave before the old copy goes: it stays (SQD: a quorum of the departed)."""
    fleet = settled()
    fleet.drain(np.array([0]))
    fleet.step(STEP_S)
    fleet.step(STEP_S)
    new = np.unique(fleet.planned[~np.isin(fleet.planned, fleet.leaving)] % fleet.count)[:3]
    fleet.stop(new)
    fleet.live(fleet.now + 2 * 3600)
    fleet.destroy(new)
    fleet.settle()
    return [short(fleet), *safe(fleet)]


def empty_disk() -> list[Figure]:
    """A worker comes back with an empty disk: it is no holder until it has fetched all again (SQD)."""
    fleet = settled()
    one = np.array([5])
    fleet.stop(one)
    fleet.live(fleet.now + 200)
    fleet.start(one)
    fleet.destroy(one)
    found = fleet.round()
    held = 0 if found is None else int((found.confirmed % int((fleet.has_list | fleet.nodes.listed).sum()) == 5).sum())
    fleet.settle()
    return [check("copies that count while it is empty", held, "copies"), moved(fleet, 1.0), short(fleet), *safe(fleet)]


def no_slack() -> list[Figure]:
    """A fleet that is full to the brim goes on: what may go goes first, and no capacity is passed (SQD)."""
    fleet = settled(0.97)
    degraded = check("there is room for all copies", int((fleet.copies() >= 3).all()), "times")
    fleet.listed[: CHUNKS // 8] = False  # they are taken out of the list
    fleet.grow(np.arange(CHUNKS, CHUNKS + CHUNKS // 12))
    fleet.settle()
    return [degraded, short(fleet, replicas=2), short(fleet), *safe(fleet)]


def many_are_gone() -> list[Figure]:
    """A third of the workers are gone at once: nothing moves, and nothing has moved when they are back."""
    fleet = settled()
    some = np.arange(WORKERS // 3)
    fleet.stop(some)
    fleet.live(fleet.now + 3600)
    braked = check("it was placed without a brake", int(not fleet.seen.placer_brakes), "times")
    fleet.start(some)
    fleet.settle()
    return [braked, fetched(fleet), short(fleet), *safe(fleet)]


def large_placement() -> list[Figure]:
    """Half of the copies move, and no node's own brake is met."""
    fleet = settled(0.4)
    fleet.drain(np.arange(0, WORKERS, 3))
    fleet.settle()
    left = check("copies on what has drained", int((fleet.disk % fleet.count % 3 == 0).sum()), "copies")
    return [left, moved(fleet), short(fleet), below(fleet), *safe(fleet)]


def placer_is_away() -> list[Figure]:
    """The placer is away for a day, and two workers die meanwhile: nothing goes, and all is there soon after."""
    fleet = settled(zones=20)
    for lost in (3, 4):
        fleet.stop(np.array([lost]))
        fleet.destroy(np.array([lost]))
    for _ in range(24):
        fleet.pass_time(3600)
    fleet.step(STEP_S)
    fleet.step(STEP_S)
    return [short(fleet), moved(fleet), *safe(fleet)]


def all_holders_die() -> list[Figure]:
    """Chunks all of whose holders are gone are named, and none of the others is touched (druid PR 13967)."""
    fleet = settled()
    dead = np.arange(3)
    fleet.stop(dead)
    fleet.live(fleet.now + GRACE_S + 300)
    chunk, worker = np.divmod(fleet.disk, fleet.count)
    readable = np.bincount(chunk[fleet.nodes.up[worker]], minlength=len(fleet.size)) > 0
    unread = int((fleet.listed & ~readable).sum())
    named = np.bincount(fleet.last.confirmed // WORKERS, minlength=CHUNKS) if fleet.last is not None else np.zeros(0)
    back = check("chunks without a copy that are not named", abs(unread - int((named == 0).sum())), "chunks")
    fleet.start(dead)
    fleet.settle()
    return [back, short(fleet), surplus(fleet), *safe(fleet)]


STORIES: Final[dict[str, Story]] = {
    story.__name__: story
    for story in (
        restart_of_all,
        one_comes_back,
        nothing_changes,
        drop_comes,
        first_new_node,
        unlike_disks,
        repair_beside_rebalance,
        one_worker_too_few,
        planned_is_not_held,
        holders_leave_again,
        empty_disk,
        no_slack,
        many_are_gone,
        large_placement,
        placer_is_away,
        all_holders_die,
    )
}
