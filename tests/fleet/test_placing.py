"""A placement: nothing is lost, nothing moves without a reason, and every bound holds."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsdm.fleet.inventory import Chunks, Copies, Presence, Worker, Workers
from fsdm.fleet.placing import Bounds, Placement, Reason, place
from fsdm.model.errors import BrakedError
from tests.support.fleets import GB, Fleet, chunk_id, chunks_of, pairs, some_workers

SIZES = (1, 4, 17, 109, 219, 356, 391)  # MB, of real chunks


def mixed_sizes(count: int, seed: int = 1) -> dict[int, int]:
    random_ = random.Random(seed)
    return {number: random_.choice(SIZES) * 10**6 for number in range(count)}


def full(share: float, workers: int, sizes: dict[int, int], replicas: int = 3, zones: int = 0) -> list[Worker]:
    """Workers of capacities 1 and 2 in turn, that are full to a share."""
    units = sum(1 + n % 2 for n in range(workers))
    unit = round(sum(sizes.values()) * replicas / share / units)
    return [replace(w, capacity_bytes=unit * (1 + n % 2)) for n, w in enumerate(some_workers(workers, zones=zones))]


# ------------------------------------------------------------------------------------------------ lives of small fleets

numbers = st.integers(0, 7)
events = st.one_of(
    st.tuples(st.just("join"), numbers, st.integers(1, 4), st.sampled_from(["", "a", "b", "c"])),
    st.tuples(st.sampled_from(["away", "gone", "back", "drain", "undrain", "emptied", "removed"]), numbers),
    st.tuples(st.just("weigh"), numbers, st.sampled_from([0.0, 0.5, 2.0])),
    st.tuples(st.just("resize"), numbers, st.integers(1, 4)),
    st.tuples(st.just("grow"), st.integers(1, 6)),
    st.tuples(st.just("replicas"), st.integers(1, 4)),
    st.tuples(st.just("forget"), st.integers(0, 30)),
    st.tuples(st.just("round"), st.sets(numbers)),
)
lives = st.lists(events, max_size=25)
bounds = st.builds(
    Bounds,
    in_flight_bytes=st.sampled_from([1 << 60, GB, 10**8]),
    moves=st.sampled_from([1 << 60, 2, 0]),
    brake=st.none(),
)


def happen(fleet: Fleet, event: tuple) -> None:  # noqa: C901 a table of events
    """Let something happen to the fleet; what does not fit it does nothing."""
    what, *how = event
    names = sorted(fleet.workers)
    name = names[how[0] % len(names)] if isinstance(how[0], int) else names[0]
    match what:
        case "join":
            new = f"n{how[0]}"
            if new not in fleet.workers:
                fleet.workers[new] = Worker(new, how[1] * GB, how[2])
        case "away" | "gone":
            fleet.change(name, presence=Presence[what.upper()])
        case "back":
            fleet.change(name, presence=Presence.LIVE)
        case "drain" | "undrain":
            fleet.change(name, draining=what == "drain")
        case "emptied":
            fleet.disks[name] = set()
        case "removed" if len(names) > 1:
            del fleet.workers[name]
        case "weigh":
            fleet.change(name, weight=how[1])
        case "resize":
            fleet.change(name, capacity_bytes=how[1] * GB)
        case "grow":
            fleet.grow(SIZES[number] * 10**6 for number in range(how[0]))
        case "replicas":
            fleet.replicas = how[0]
        case "forget" if how[0] in fleet.sizes and len(fleet.sizes) > 1:
            del fleet.sizes[how[0]]


def check_round(fleet: Fleet) -> None:
    """Place and publish once, and see that every invariant holds."""
    chunks, workers, before, found = fleet.place()
    listed, held = pairs(found.listed, chunks, workers), seen(chunks, workers, before)
    planned, leaving = pairs(before.planned, chunks, workers), pairs(found.leaving, chunks, workers)
    check_drops(chunks, workers, before, found)
    here = {worker.name: worker for worker in workers.all}
    added = listed - planned
    news = pairs(found.added, chunks, workers)
    assert news <= added
    for _, name in news:
        assert here[name].presence == Presence.LIVE
        assert not here[name].draining
        assert here[name].weight > 0
    for name, worker in here.items():
        mine = {chunk for chunk, at in news if at == name}
        kept = {chunk for chunk, at in listed - leaving if at == name}
        disk = {chunk for chunk, at in listed | planned | held if at == name}
        if mine:  # who is given something has room for it
            assert fleet.bytes_of(kept) <= fleet.bounds.full * worker.capacity_bytes
            assert fleet.bytes_of(disk) <= worker.capacity_bytes
            flight = {chunk for chunk, at in (listed | planned) - held if at == name}
            flight_bytes = fleet.bytes_of(flight)
            assert flight_bytes <= fleet.bounds.in_flight_bytes or (flight == mine and len(mine) == 1)
    assert int((found.reasons != Reason.MISSING).sum()) <= fleet.bounds.moves
    copies = Counter(chunk for chunk, _ in listed - leaving)
    assert all(copies[chunk] <= fleet.replicas for chunk in copies)
    assert np.array_equal(found.kept, [copies[bytes(raw).ljust(32, b"\0").hex()] for raw in chunks.ids])
    zones = Counter((chunk, here[name].zone or name) for chunk, name in listed - leaving)
    most = most_in_a_zone(fleet, workers, found)
    assert all(number <= most for number in zones.values())
    # the order of the inputs changes nothing
    order = random.Random(len(listed))
    ids, shuffled = list(fleet.sizes.items()), list(fleet.workers.values())
    order.shuffle(ids)
    order.shuffle(shuffled)
    others, more = chunks_of(dict(ids), fleet.replicas), Workers.of(shuffled)
    again = place(others, more, fleet.before(others, more), fleet.bounds)
    assert pairs(again.listed, others, more) == listed
    assert pairs(again.leaving, others, more) == leaving


def most_in_a_zone(fleet: Fleet, workers: Workers, found: Placement) -> int:
    """As few as the zones allow, or as it takes for all copies to have room."""
    room: Counter[str] = Counter()
    for worker in workers.all:
        if worker.presence != Presence.GONE and not worker.draining:
            room[worker.zone or worker.name] += int(fleet.bounds.full * worker.capacity_bytes)
    sizes = fleet.chunks().size
    needed = int((sizes * found.replicas).sum())
    for most in range(1, fleet.replicas + 1):
        each = np.minimum(found.replicas, np.maximum(most, 0))
        if most * len(room) >= found.replicas.max(initial=0) and needed <= sum(
            min(space, int((sizes * each).sum())) for space in room.values()
        ):
            return most
    return fleet.replicas


def seen(chunks: Chunks, workers: Workers, before: Copies) -> set[tuple[str, str]]:
    """The copies that live workers report: what others have reported last may no longer be so."""
    live = {worker.name for worker in workers.all if worker.presence == Presence.LIVE}
    return {(chunk, name) for chunk, name in pairs(before.held, chunks, workers) if name in live}


def check_drops(chunks: Chunks, workers: Workers, before: Copies, found: Placement) -> None:
    """See that what was dropped is confirmed elsewhere, as often as the chunk is to be there."""
    staying = pairs(found.listed, chunks, workers) - pairs(found.leaving, chunks, workers)
    held, planned = seen(chunks, workers, before), pairs(before.planned, chunks, workers)
    was_listed = {worker.name: bool(has) for worker, has in zip(workers.all, before.listed, strict=True)}
    sure = {(c, w) for c, w in staying & held if (c, w) in planned or not was_listed[w]}
    confirmed = Counter(chunk for chunk, _ in sure)
    wanted = dict(zip((bytes(raw).ljust(32, b"\0").hex() for raw in chunks.ids), found.replicas, strict=True))
    here = {worker.name for worker in workers.all if worker.presence != Presence.GONE}
    for chunk, name in planned - pairs(found.listed, chunks, workers):
        assert name not in here or confirmed[chunk] >= wanted[chunk], f"{chunk[:6]} goes from {name}"


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(lives, bounds, st.integers(1, 3), st.sampled_from([0, 2, 3]))
def test_small_fleet_keeps_every_invariant_through_any_life(life, bounds, replicas, zones) -> None:
    fleet = Fleet.of(some_workers(4, 3 * GB, zones), mixed_sizes(20), bounds=bounds, replicas=replicas)
    fleet.settle(500) if bounds.moves and bounds.in_flight_bytes > GB else check_round(fleet)
    for event in [*life, ("round", set(range(8)))]:
        if event[0] != "round":
            happen(fleet, event)
            continue
        had = {chunk: fleet.holders(chunk) for chunk in map(bytes.hex, map(chunk_id, fleet.sizes))}
        check_round(fleet)
        fleet.round()
        names = sorted(fleet.workers)
        fleet.apply({names[number % len(names)] for number in event[1]})
        for chunk, holders in had.items():
            seen = {n for n in holders if n in fleet.workers and fleet.workers[n].presence == Presence.LIVE}
            assert not seen or fleet.holders(chunk) & set(fleet.workers), f"the last copy of {chunk[:6]} has gone"


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.integers(1, 5), st.integers(0, 3), st.integers(0, 9))
def test_where_there_is_room_each_chunk_has_all_its_copies(sizes, replicas, more, zones) -> None:
    workers = Workers.of(some_workers(replicas + more, capacity=4 * sum(sizes), zones=zones))
    chunks = chunks_of(dict(enumerate(sizes)), replicas)
    found = place(chunks, workers, Copies.none(len(workers)), Bounds())
    assert found.kept.tolist() == [replicas] * len(sizes)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(lives, st.sampled_from([Bounds(brake=None), Bounds(brake=None, moves=3, in_flight_bytes=GB)]))
def test_any_fleet_comes_to_rest_and_stays_there(life, bounds) -> None:
    fleet = Fleet.of(some_workers(5, 3 * GB), mixed_sizes(20), bounds=bounds)
    for event in life:
        happen(fleet, event) if event[0] != "round" else (fleet.round(), fleet.apply())
    for name in fleet.workers:
        fleet.change(name, presence=Presence.LIVE)
    fleet.settle(200)
    moved = fleet.moved_bytes
    fleet.round()
    fleet.apply()
    assert fleet.moved_bytes == moved
    for chunk, some in Counter(chunk for disk in fleet.disks.values() for chunk in disk).items():
        assert some >= 1, chunk


# -------------------------------------------------------------------------------------------------- figures and stories


@pytest.fixture(scope="module")
def once_settled() -> Fleet:
    """40 workers of two capacities, 85 % full, with 600 copies each, all of them confirmed."""
    sizes = mixed_sizes(8000)
    fleet = Fleet.of(full(0.85, 40, sizes), sizes)
    fleet.settle()
    fleet.moved_bytes = 0
    return fleet


@pytest.fixture
def settled(once_settled: Fleet) -> Fleet:
    """One like that, to be changed."""
    return once_settled.copy()


def names_added(fleet: Fleet) -> set[str]:
    """Place once, and tell which workers are given something."""
    _, workers, _, found = fleet.place()
    return {workers.all[number].name for number in set((found.added % len(workers)).tolist())}


def test_bytes_are_balanced_by_capacity_and_no_worker_is_over(settled: Fleet) -> None:
    fullness = settled.fullness()
    assert fullness.std() <= 0.02
    assert 0.95 <= fullness.min() <= fullness.max() <= 1.05
    for name, some in settled.lists.items():
        assert settled.bytes_of(some) <= 0.95 * settled.workers[name].capacity_bytes
    assert sorted(map(len, map(settled.holders, settled.lists["w000"]))) == [3] * len(settled.lists["w000"])


def test_worker_that_joins_gets_its_share_and_nothing_moves_between_others(settled: Fleet) -> None:
    total = sum(worker.capacity_bytes for worker in settled.workers.values())
    capacity = settled.workers["w000"].capacity_bytes
    settled.workers["new"] = Worker("new", capacity)
    assert names_added(settled) == {"new"}
    _, workers, _, found = settled.place()
    given = np.unique(found.leaving % len(workers))
    assert given.size > 30
    # none gives so much that it would be given some back
    assert (found.loads.kept[given] >= 0.99 * found.loads.target[given]).all()
    settled.settle()
    share = 3 * sum(settled.sizes.values()) * capacity / (total + capacity)
    assert 0.95 <= settled.moved_bytes / share <= 1.05
    assert 0.95 <= settled.fullness().min() <= settled.fullness().max() <= 1.05


@pytest.mark.parametrize("change", ["joins", "drains", "gone"])
def test_placed_again_before_anything_is_confirmed_it_is_the_same(settled: Fleet, change: str) -> None:
    match change:
        case "joins":
            settled.workers["new"] = Worker("new", settled.workers["w000"].capacity_bytes)
        case "drains":
            settled.change("w000", draining=True)
        case "gone":
            settled.change("w000", presence=Presence.GONE)
    assert settled.round().added.size > 100
    for _ in range(2):
        _, _, before, found = settled.place()
        assert found.added.size == 0
        assert found.same_lists(before)


@pytest.mark.parametrize("share", [0.85, 0.92])
def test_of_a_worker_that_leaves_only_its_own_copies_are_made_anew(share: float) -> None:
    sizes = mixed_sizes(8000)
    fleet = Fleet.of(full(share, 100, sizes), sizes)
    fleet.settle()
    lost = fleet.bytes_of(fleet.lists["w007"])
    fleet.moved_bytes = 0
    fleet.change("w007", presence=Presence.GONE)
    fleet.settle()
    assert lost <= fleet.moved_bytes <= 1.05 * lost
    assert all(len(fleet.holders(chunk) - {"w007"}) == 3 for chunk in fleet.disks["w007"])


@pytest.mark.parametrize("share", [0.85, 0.91])
def test_more_chunks_move_no_old_copy(share: float) -> None:
    sizes = mixed_sizes(8000)
    fleet = Fleet.of(full(share, 40, sizes), sizes)
    fleet.settle()
    fleet.moved_bytes = 0
    fleet.sizes |= {8000 + number: 200 * 10**6 for number in range(160)}
    fleet.settle()
    assert fleet.moved_bytes == 3 * 160 * 200 * 10**6


def test_worker_that_is_away_for_less_than_the_grace_moves_nothing(settled: Fleet) -> None:
    had = {name: set(disk) for name, disk in settled.disks.items()}
    settled.change("w003", presence=Presence.AWAY)
    settled.round()
    settled.apply()
    settled.change("w003", presence=Presence.LIVE)
    settled.settle()
    assert settled.moved_bytes == 0
    assert settled.disks == had


def test_worker_that_comes_back_after_the_grace_keeps_what_it_has(settled: Fleet) -> None:
    had = set(settled.disks["w003"])
    settled.change("w003", presence=Presence.GONE)
    settled.settle()
    moved = settled.moved_bytes
    settled.change("w003", presence=Presence.LIVE)
    settled.settle()
    assert settled.moved_bytes == moved
    assert len(settled.lists["w003"] & had) >= 0.95 * len(had)
    assert settled.fullness().max() <= 1.05


def test_fleet_of_which_no_worker_is_seen_is_left_as_it_is(settled: Fleet) -> None:
    had = {name: set(some) for name, some in settled.lists.items()}
    for name in settled.workers:
        settled.change(name, presence=Presence.AWAY)
    settled.sizes |= {9000: 10**8}
    settled.round()
    assert settled.lists == had


def test_disk_that_is_empty_is_filled_again_and_is_no_holder_meanwhile(settled: Fleet) -> None:
    had = settled.disks["w003"]
    settled.disks["w003"] = set()
    chunks, workers, _, found = settled.place()
    assert found.dropped.size == found.added.size == 0
    assert {name for _, name in pairs(found.confirmed, chunks, workers)} == set(settled.workers) - {"w003"}
    settled.settle()
    assert settled.disks["w003"] == had


def test_first_new_worker_is_given_no_more_than_its_bytes_in_flight(settled: Fleet) -> None:
    settled.bounds = Bounds(in_flight_bytes=20 * GB)
    settled.workers["new"] = Worker("new", settled.workers["w000"].capacity_bytes)
    rounds = 0
    while settled.round().added.size:
        assert settled.bytes_of(settled.lists["new"] - settled.disks.get("new", set())) <= 20 * GB
        settled.apply()
        rounds += 1
    assert rounds > 5
    assert settled.fullness().min() >= 0.95


def test_what_is_missing_is_made_though_moves_fill_their_half_of_the_flight(settled: Fleet) -> None:
    settled.bounds = Bounds(in_flight_bytes=4 * GB)
    for name in ("w000", "w001", "w002"):
        settled.change(name, draining=True)
    moving = settled.round()
    assert (moving.reasons == Reason.LEAVING).all()
    settled.change("w009", presence=Presence.GONE)
    _, _, _, found = settled.place()
    missing = int((found.reasons == Reason.MISSING).sum())
    assert missing > len(settled.lists["w009"]) / 2


def test_chunks_with_the_fewest_copies_are_made_first(settled: Fleet) -> None:
    lost = settled.disks["w001"] & settled.disks["w002"], settled.disks["w001"] ^ settled.disks["w002"]
    for name in ("w001", "w002"):
        settled.change(name, presence=Presence.GONE)
    settled.bounds = Bounds(in_flight_bytes=GB)
    chunks, workers, _, found = settled.place()
    added = {chunk for chunk, _ in pairs(found.added, chunks, workers)}
    assert lost[0] <= added
    assert len(lost[1] & added) < len(lost[1])


def test_moves_of_a_round_are_bounded(settled: Fleet) -> None:
    settled.bounds = Bounds(moves=7)
    settled.change("w001", draining=True)
    for _ in range(3):
        assert settled.round().added.size == 7
        settled.apply()


def test_worker_that_drains_ends_empty_and_no_chunk_is_short_meanwhile(settled: Fleet) -> None:
    settled.bounds = Bounds(moves=200)
    settled.change("w001", draining=True)
    watched = set(settled.lists["w001"])
    moved = settled.bytes_of(watched)
    while settled.lists["w001"]:
        settled.round()
        settled.apply()
        assert all(len(settled.holders(chunk)) >= 3 for chunk in watched)
    settled.settle()
    assert settled.moved_bytes <= 1.05 * moved


@pytest.mark.parametrize(("what", "least", "most"), [("drains", 0.9, 1.0), ("dies", 0.0, 0.8)])
def test_copies_go_first_to_a_worker_that_is_to_be_given_some_unless_they_are_missing(
    what: str, least: float, most: float
) -> None:
    sizes = mixed_sizes(4000)
    fleet = Fleet.of(full(0.85, 80, sizes), sizes)
    fleet.settle()
    for number in range(80):  # each comes to lack something
        fleet.change(f"w{number:03}", capacity_bytes=fleet.workers[f"w{number:03}"].capacity_bytes * (98 + number % 5))
    fleet.workers["new"] = Worker("new", fleet.workers["w001"].capacity_bytes)
    fleet.change("w001", draining=True) if what == "drains" else fleet.change("w001", presence=Presence.GONE)
    _, workers, _, found = fleet.place()
    reason = Reason.LEAVING if what == "drains" else Reason.MISSING
    new = found.added[found.reasons == reason] % len(workers) == workers.names["new"]
    assert new.size > 100
    assert least <= new.mean() <= most


def test_what_drains_waits_for_a_new_worker_only_as_long_as_that_goes_on(settled: Fleet) -> None:
    settled.bounds = Bounds(in_flight_bytes=20 * GB)
    settled.workers["new"] = Worker("new", settled.workers["w001"].capacity_bytes)
    settled.change("w001", draining=True)
    others = settled.workers.keys() - {"new"}  # the new one fetches nothing
    for _ in range(4):
        settled.round()
        settled.apply(others)
    assert settled.bytes_of(settled.lists["new"]) <= 10 * GB
    assert len(settled.leaving) > 500
    settled.slow = {"new"}
    for _ in range(30):
        settled.round()
        settled.apply(others)
    assert len(settled.leaving) < 100, "what the new one has not fetched yet"


def test_worker_loses_no_more_in_a_round_than_its_own_brake_lets_go(settled: Fleet) -> None:
    settled.change("w001", draining=True)
    settled.round()
    settled.apply()
    while settled.lists["w001"]:
        had = len(settled.lists["w001"])
        settled.round()
        settled.apply()
        assert had - len(settled.lists["w001"]) <= max(50, 0.2 * had)


def test_copy_stays_where_its_new_holder_has_left_again(settled: Fleet) -> None:
    settled.workers["new"] = Worker("new", settled.workers["w000"].capacity_bytes)
    settled.round()
    promised = set(settled.lists["new"])
    settled.apply()  # all of it is there
    settled.change("new", presence=Presence.GONE)
    settled.settle()
    assert promised
    assert all(len(settled.holders(chunk) - {"new"}) == 3 for chunk in promised)
    assert settled.moved_bytes == settled.bytes_of(promised)  # those on their way, and nothing after


def test_copy_that_is_taken_back_is_no_reason_to_drop_another_until_it_is_confirmed_anew() -> None:
    fleet = Fleet.of(some_workers(2), {0: GB}, replicas=2)
    fleet.settle()
    fleet.replicas = 1
    fleet.round()
    [kept], [dropped] = ([name for name, some in fleet.lists.items() if bool(some) is has] for has in (True, False))
    fleet.change(kept, draining=True)  # the other one may be removing what it has reported last
    fleet.round()
    assert fleet.lists == {kept: {chunk_id(0).hex()}, dropped: {chunk_id(0).hex()}}
    fleet.apply()
    fleet.round()
    assert fleet.lists == {kept: set(), dropped: {chunk_id(0).hex()}}


def test_copies_of_a_worker_that_is_away_are_no_reason_to_drop_others() -> None:
    fleet = Fleet.of(some_workers(3), {0: GB}, replicas=2)
    fleet.settle()
    drains, away = sorted(fleet.holders(chunk_id(0).hex()))
    fleet.change(away, presence=Presence.AWAY)
    fleet.change(drains, draining=True)
    for _ in range(3):
        fleet.round()
        fleet.apply()
    assert len(fleet.holders(chunk_id(0).hex())) == 3
    fleet.change(away, presence=Presence.LIVE)
    fleet.settle()
    assert fleet.disks[drains] == set()


def test_copy_on_its_way_is_not_sent_elsewhere_before_it_is_there(settled: Fleet) -> None:
    settled.grow([200 * 10**6] * 400)
    settled.round()
    settled.change("w000", weight=0.5)
    settled.round()
    leaving = {chunk for chunk, name in settled.leaving if name == "w000"}
    assert settled.lists["w000"] - settled.disks["w000"]
    assert len(leaving) > 50
    assert leaving <= settled.disks["w000"]


def test_too_little_room_gives_each_chunk_one_copy_before_any_has_two() -> None:
    sizes = mixed_sizes(600)
    fleet = Fleet.of(full(1.9, 12, sizes), sizes)  # it takes half of what three copies need
    fleet.settle()
    copies = Counter(chunk for some in fleet.lists.values() for chunk in some)
    assert set(copies.values()) == {1, 2}
    assert len(copies) == 600
    had = set(copies)
    fleet.sizes |= {1000 + number: 300 * 10**6 for number in range(20)}  # what is new comes before second copies
    fleet.settle(100)
    copies = Counter(chunk for some in fleet.lists.values() for chunk in some)
    assert len(copies) == 620
    assert had <= set(copies)


def test_no_room_at_all_is_told_of_the_chunks_that_have_none() -> None:
    chunks = chunks_of(dict.fromkeys(range(30), GB), 1)
    found = place(chunks, workers := Workers.of(some_workers(2, 10 * GB)), Copies.none(2), Bounds(full=1.0))
    assert sorted(found.kept.tolist()) == [0] * 10 + [1] * 20
    assert found.listed.size == 20
    assert np.bincount(found.listed % len(workers)).tolist() == [10, 10]


def test_copies_lie_in_zones_as_different_as_there_are() -> None:
    sizes = mixed_sizes(900)
    fleet = Fleet.of(full(0.6, 9, sizes, zones=3), sizes)
    fleet.settle()
    for chunk in fleet.chunks().ids:
        assert {fleet.workers[name].zone for name in fleet.holders(bytes(chunk).ljust(32, b"\0").hex())} == {
            "z0",
            "z1",
            "z2",
        }
    fleet.change("w000", zone="z1")  # a worker that is carried to another room
    fleet.settle()
    for chunk in fleet.disks["w000"]:
        assert len({fleet.workers[name].zone for name in fleet.holders(chunk)}) == 3


def test_workers_that_are_gone_together_brake_it(settled: Fleet) -> None:
    for number in range(15):
        settled.change(f"w{number:03}", presence=Presence.GONE)
    with pytest.raises(BrakedError, match=r"are on workers that are gone: that is more than 25%"):
        settled.place()
    settled.bounds = Bounds(brake=None)
    assert settled.round().added.size > 1000


def test_chunks_that_are_no_longer_listed_together_brake_it(settled: Fleet) -> None:
    for number in range(2100):
        del settled.sizes[number]
    with pytest.raises(BrakedError, match=r"of chunks that are no longer listed"):
        settled.place()
    settled.sizes |= mixed_sizes(300)
    settled.settle()
    assert sum(map(len, settled.disks.values())) == 3 * 6200


def test_dropped_copy_that_is_needed_again_is_taken_back_from_the_disk_where_it_still_is(settled: Fleet) -> None:
    settled.replicas = 2
    settled.round()
    dropped = {(chunk, name) for name, disk in settled.disks.items() for chunk in disk - settled.lists[name]}
    settled.replicas = 3
    settled.settle()
    assert dropped
    assert settled.moved_bytes == 0
