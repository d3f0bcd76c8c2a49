"""The connections' threads: bounded, fair between chunks, with room for what is small."""

import itertools
import resource
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.errors import InvalidInputError, StoppedError
from fsdm.transfer.scheduler import Scheduler, _Piece, lent_max
from tests.support import PATIENCE_S, eventually
from tests.support.servers import InThread


class Gate:
    """Work that waits until it is opened, and tells what has begun."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun: list[str] = []

    def work(self, name: str) -> None:
        self.begun.append(name)
        assert self.open.wait(PATIENCE_S)


def test_no_more_than_its_size_runs_at_once_and_all_that_was_submitted_is_run() -> None:
    scheduler, gate = Scheduler("t", 3, 0), Gate()
    for number in range(9):
        scheduler.submit(str(number), partial(gate.work, str(number)), small=False)
    eventually(lambda: len(gate.begun) == 3)
    gate.open.set()
    assert scheduler.close(PATIENCE_S)
    assert sorted(gate.begun) == [str(number) for number in range(9)]


def test_small_work_does_not_wait_for_large_work() -> None:
    scheduler, gate = Scheduler("t", 4, 1), Gate()
    for number in range(8):
        scheduler.submit(str(number), partial(gate.work, "large"), small=False)
    eventually(lambda: len(gate.begun) == 3)
    done = threading.Event()
    scheduler.submit("9", done.set, small=True)
    assert done.wait(PATIENCE_S)
    assert gate.begun == ["large"] * 3  # the reserved thread has taken none
    gate.open.set()
    assert scheduler.close(PATIENCE_S)


def test_one_chunk_leaves_half_of_the_connections_to_the_others() -> None:
    scheduler, gate = Scheduler("t", 4, 0), Gate()
    for _ in range(10):
        scheduler.submit("silent", partial(gate.work, "silent"), small=False)
    for _ in range(2):
        scheduler.submit("other", partial(gate.work, "other"), small=False)
    eventually(lambda: len(gate.begun) == 4)
    assert sorted(gate.begun) == ["other", "other", "silent", "silent"]
    gate.open.set()
    assert scheduler.close(PATIENCE_S)


def test_the_chunk_with_the_fewest_running_comes_first() -> None:
    scheduler, first, rest = Scheduler("t", 2, 0), Gate(), Gate()
    scheduler.submit("a", partial(first.work, "a"), small=False)
    scheduler.submit("b", partial(rest.work, "b"), small=False)
    eventually(lambda: first.begun + rest.begun == ["a", "b"])
    scheduler.submit("b", partial(rest.work, "b again"), small=False)
    scheduler.submit("c", partial(rest.work, "c"), small=False)
    first.open.set()
    eventually(lambda: len(rest.begun) == 2)
    assert rest.begun == ["b", "c"]
    rest.open.set()
    assert scheduler.close(PATIENCE_S)


def test_what_is_left_at_the_end_is_run_and_what_hangs_is_told() -> None:
    scheduler, gate = Scheduler("t", 1, 0), Gate()
    scheduler.submit("a", partial(gate.work, "a"), small=False)
    scheduler.submit("b", partial(gate.work, "b"), small=False)
    assert not scheduler.close(0.01)
    gate.open.set()
    assert scheduler.close(PATIENCE_S)
    assert gate.begun == ["a", "b"]


class Gated:
    """Work that waits at a gate, and counts how much of it is under way."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.threads: set[str] = set()
        self.running = self.ended = self.most = 0
        self._mutex = threading.Lock()

    def __call__(self) -> None:
        with self._mutex:
            self.running += 1
            self.most = max(self.most, self.running)
            self.threads.add(threading.current_thread().name)
        assert self.gate.wait(PATIENCE_S)
        with self._mutex:
            self.running -= 1
            self.ended += 1


@pytest.fixture
def gated() -> Iterator[Gated]:
    gated = Gated()
    yield gated
    gated.gate.set()


_chunks = map(str, itertools.count())


def submit(scheduler: Scheduler, work: Callable[[], None], *, small: bool) -> None:
    """For a chunk of its own."""
    scheduler.submit(next(_chunks), work, small=small)


def run_small(scheduler: Scheduler) -> str:
    """Run something small now; the thread that it ran in."""
    ran: list[str] = []
    done = threading.Event()

    def work() -> None:
        ran.append(threading.current_thread().name)
        done.set()

    submit(scheduler, work, small=True)
    assert done.wait(PATIENCE_S), "it waits behind the large ones"
    return ran[0]


@pytest.mark.parametrize(("size", "reserved"), [(1, 0), (1, 1), (3, 0), (3, 1), (3, 2), (3, 9)])
def test_every_lane_is_used_and_none_besides(gated: Gated, size: int, reserved: int) -> None:
    scheduler = Scheduler("t", size, reserved)
    for _ in range(3 * size):
        submit(scheduler, gated, small=True)
        submit(scheduler, gated, small=False)
    eventually(lambda: gated.running == size, "all lanes are taken")
    gated.gate.set()
    assert scheduler.close(PATIENCE_S)
    assert (gated.most, gated.ended) == (size, 6 * size)
    assert gated.threads == {f"t-{number}" for number in range(size)}


@pytest.mark.parametrize(("size", "reserved"), [(2, 1), (4, 1), (4, 3), (2, 5)])
def test_large_work_leaves_the_reserved_lanes_alone(gated: Gated, size: int, reserved: int) -> None:
    scheduler, open_to_large = Scheduler("t", size, reserved), max(size - reserved, 1)
    for _ in range(2 * size):
        submit(scheduler, gated, small=False)
    eventually(lambda: gated.running == open_to_large)
    for _ in range(3):
        assert run_small(scheduler) not in gated.threads
    gated.gate.set()
    assert scheduler.close(PATIENCE_S)
    assert (gated.most, gated.ended) == (open_to_large, 2 * size)


def test_small_work_is_taken_before_large_work_that_was_there_first(gated: Gated) -> None:
    scheduler, order = Scheduler("t", 1, 0), list[str]()
    submit(scheduler, gated, small=False)
    eventually(lambda: gated.running == 1)
    for name, small in (("large 1", False), ("small 1", True), ("large 2", False), ("small 2", True)):
        submit(scheduler, partial(order.append, name), small=small)
    gated.gate.set()
    assert scheduler.close(PATIENCE_S)
    assert order == ["small 1", "small 2", "large 1", "large 2"]


def test_small_files_of_one_chunk_may_use_every_lane(gated: Gated) -> None:
    scheduler = Scheduler("t", 4, 1)
    for _ in range(6):
        scheduler.submit("a", gated, small=True)
    eventually(lambda: gated.running == 4)
    gated.gate.set()
    assert scheduler.close(PATIENCE_S)
    assert gated.ended == 6


def test_the_first_lane_to_be_made_takes_large_work(gated: Gated) -> None:
    scheduler = Scheduler("t", 3, 2)
    run_small(scheduler)
    submit(scheduler, gated, small=False)
    eventually(lambda: gated.running == 1)
    gated.gate.set()
    assert scheduler.close(PATIENCE_S)


def test_no_thread_is_started_before_there_is_work_and_none_keeps_the_process_alive(gated: Gated) -> None:
    scheduler = Scheduler("unused", 8, 2)
    assert not any(thread.name.startswith("unused") for thread in threading.enumerate())
    for small in (True, False):
        submit(scheduler, gated, small=small)
    eventually(lambda: gated.running == 2)
    found = [thread for thread in threading.enumerate() if thread.name.startswith("unused")]
    assert [thread.daemon for thread in found] == [True, True]
    gated.gate.set()
    assert scheduler.close(PATIENCE_S)
    assert not any(thread.is_alive() for thread in found)


def test_closing_waits_for_what_runs_and_for_what_waits(gated: Gated) -> None:
    scheduler, late = Scheduler("t", 2, 1), threading.Event()
    for small in (True, False) * 4:
        scheduler.submit("a", gated, small=small)
    eventually(lambda: gated.running == 2)
    assert not scheduler.close(0.0), "something runs still"
    scheduler.submit("b", late.set, small=False)
    gated.gate.set()
    assert scheduler.close(PATIENCE_S)
    assert gated.ended == 8
    assert late.is_set()
    assert scheduler.close(0.0), "a second time it has nothing to wait for"


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("used", [False, True])
def test_what_is_submitted_after_the_close_is_run_by_who_brings_it(used: bool, small: bool) -> None:
    scheduler, ran = Scheduler("t", 2, 1), list[threading.Thread]()
    if used:
        run_small(scheduler)
    assert scheduler.close(PATIENCE_S)
    submit(scheduler, lambda: ran.append(threading.current_thread()), small=small)
    assert scheduler.close(PATIENCE_S)
    assert ran == [threading.current_thread()], "whoever waits for it waits for ever"


def test_work_runs_here_where_there_is_a_slot_and_else_in_another_thread(gated: Gated) -> None:
    scheduler, ran, here = Scheduler("t", 1, 0), list[str](), threading.current_thread().name
    work = partial(scheduler.submit, "a", lambda: ran.append(threading.current_thread().name), small=False, here=True)
    work()
    assert ran == [here]
    scheduler.submit("b", gated, small=False)
    eventually(lambda: gated.running == 1)
    work()
    assert ran == [here]
    gated.gate.set()
    assert scheduler.close(PATIENCE_S)
    assert ran == [here, "t-0"]


def test_end_of_work_that_ran_here_has_threads_run_what_waits(gated: Gated) -> None:
    scheduler, done, here = Scheduler("t", 2, 0, per_host=1), threading.Event(), list[int]()

    def work() -> None:
        here.append(threading.get_ident())
        for _ in range(3):
            scheduler.submit("b", gated, small=True, host="h")
        scheduler.submit("c", done.set, small=True)

    scheduler.submit("a", work, small=True, host="h", here=True)
    assert here == [threading.get_ident()]
    assert done.wait(PATIENCE_S), "it is for another host"
    eventually(lambda: gated.running == 1)
    gated.gate.set()
    assert scheduler.close(PATIENCE_S)
    assert (gated.most, gated.ended) == (1, 3)
    assert threading.current_thread().name not in gated.threads


# ---------------------------------------------------------------------------------------------------- a bound for hosts


def begun(*gates: Gate) -> list[str]:
    return sorted(name for gate in gates for name in gate.begun)


def test_work_for_a_host_that_has_enough_is_passed_over_and_the_others_go_on() -> None:
    scheduler, held, free = Scheduler("t", 6, 0, per_host=2), Gate(), Gate()
    for number in range(5):
        scheduler.submit(f"held {number}", partial(held.work, "held"), small=number % 2 == 0, host="held")
    for number in range(2):
        scheduler.submit(f"free {number}", partial(free.work, "free"), small=False, host="free")
    eventually(lambda: begun(held, free) == ["free", "free", "held", "held"])
    free.open.set()
    done = threading.Event()
    scheduler.submit("other", done.set, small=False, host="other")
    assert done.wait(PATIENCE_S)
    assert begun(held) == ["held", "held"]
    held.open.set()
    assert scheduler.close(PATIENCE_S)
    assert len(held.begun) == 5


def test_bound_that_a_host_has_of_its_own_holds_in_place_of_the_common_one() -> None:
    scheduler, own, common, free = Scheduler("t", 8, 0, per_host=1), Gate(), Gate(), Gate()
    for number in range(5):
        scheduler.submit(f"own {number}", partial(own.work, "own"), small=False, host="own", most=3)
        scheduler.submit(f"common {number}", partial(common.work, "common"), small=False, host="common")
    scheduler.submit("free", partial(free.work, "free"), small=False, host="free")
    eventually(lambda: begun(own, common, free) == ["common", "free", "own", "own", "own"])
    for gate in (own, common, free):
        gate.open.set()
    assert scheduler.close(PATIENCE_S)
    assert len(begun(own, common)) == 10


def test_one_that_ends_lets_the_next_for_its_host_begin() -> None:
    scheduler, gates = Scheduler("t", 3, 0, per_host=1), [Gate(), Gate(), Gate()]
    for number, gate in enumerate(gates):
        scheduler.submit("a", partial(gate.work, str(number)), small=True, host="h")
    for number, gate in enumerate(gates):
        eventually(lambda gate=gate: gate.begun)
        assert begun(*gates) == [str(before) for before in range(number + 1)]
        gate.open.set()
    assert scheduler.close(PATIENCE_S)


@pytest.mark.parametrize(("per_host", "host"), [(None, "h"), (1, "")])
def test_without_a_bound_or_without_a_host_all_threads_are_used(gated: Gated, per_host: int | None, host: str) -> None:
    scheduler = Scheduler("t", 4, 0, per_host=per_host)
    for _ in range(6):
        scheduler.submit(next(_chunks), gated, small=False, host=host)
    eventually(lambda: gated.running == 4)
    gated.gate.set()
    assert scheduler.close(PATIENCE_S)


def test_a_reserved_thread_that_ends_wakes_another_for_what_it_may_not_take_itself() -> None:
    scheduler, large, small, done = Scheduler("t", 2, 1, per_host=1), Gate(), Gate(), threading.Event()
    scheduler.submit("a", partial(large.work, "large"), small=False, host="other")
    eventually(lambda: large.begun)
    scheduler.submit("b", partial(small.work, "small"), small=True, host="h")
    eventually(lambda: small.begun)
    scheduler.submit("c", done.set, small=False, host="h")
    large.open.set()
    eventually(lambda: scheduler._running.keys() == {"b"})  # the one that takes everything finds nothing to take
    small.open.set()
    assert done.wait(PATIENCE_S)
    assert scheduler.close(PATIENCE_S)


def test_one_end_may_make_way_for_two() -> None:
    scheduler, ends, stays, rest = Scheduler("t", 4, 0, per_host=1), Gate(), Gate(), Gate()
    scheduler.submit("a", partial(ends.work, "ends"), small=False, host="x")
    scheduler.submit("a", partial(stays.work, "stays"), small=False, host="z")
    eventually(lambda: begun(ends, stays) == ["ends", "stays"])
    scheduler.submit("a", partial(rest.work, "the chunk had its share"), small=False, host="y")
    scheduler.submit("b", partial(rest.work, "the host was full"), small=False, host="x")
    scheduler.submit("c", partial(rest.work, "c"), small=False, host="c")  # so that every thread has been there
    eventually(lambda: rest.begun == ["c"])
    ends.open.set()
    eventually(lambda: begun(rest) == ["c", "the chunk had its share", "the host was full"])
    for gate in (stays, rest):
        gate.open.set()
    assert scheduler.close(PATIENCE_S)


def test_a_reserved_thread_may_make_way_for_two_that_it_does_not_take() -> None:
    scheduler, others, stays, ends, rest = Scheduler("t", 5, 1, per_host=1), Gate(), Gate(), Gate(), Gate()
    scheduler.submit("a", partial(stays.work, "stays"), small=False, host="z")
    for name in "cde":
        scheduler.submit(name, partial(others.work, name), small=False, host=name)
    eventually(lambda: len(begun(others, stays)) == 4)
    scheduler.submit("a", partial(ends.work, "ends"), small=True, host="x")
    eventually(lambda: ends.begun)
    others.open.set()
    eventually(lambda: scheduler._running == {"a": 2})
    scheduler.submit("a", partial(rest.work, "the chunk had its share"), small=False, host="y")
    scheduler.submit("b", partial(rest.work, "the host was full"), small=False, host="x")
    ends.open.set()
    eventually(lambda: begun(rest) == ["the chunk had its share", "the host was full"])
    for gate in (stays, rest):
        gate.open.set()
    assert scheduler.close(PATIENCE_S)


@pytest.mark.parametrize("small", [True, False])
def test_what_waits_for_its_host_is_run_before_the_end_too(small: bool) -> None:
    scheduler, gate = Scheduler("t", 4, 2, per_host=1), Gate()
    for number in range(6):
        scheduler.submit(str(number), partial(gate.work, str(number)), small=small, host="h")
    eventually(lambda: gate.begun)
    assert not scheduler.close(0.0)
    gate.open.set()
    assert scheduler.close(PATIENCE_S)
    assert gate.begun == [str(number) for number in range(6)]


def test_no_end_comes_while_something_waits_for_the_share_of_its_chunk() -> None:
    scheduler, large, small, late = Scheduler("t", 2, 1), Gate(), Gate(), threading.Event()
    scheduler.submit("other", partial(large.work, "large"), small=False)
    eventually(lambda: large.begun)
    scheduler.submit("a", partial(small.work, "small"), small=True)
    eventually(lambda: small.begun)  # in the reserved thread
    large.open.set()
    eventually(lambda: scheduler._running.keys() == {"a"})
    scheduler.submit("a", late.set, small=False)  # its chunk has its share
    assert not scheduler.close(0.0)
    assert not late.is_set()
    small.open.set()
    assert scheduler.close(PATIENCE_S)
    assert late.is_set()


@pytest.mark.parametrize("per_host", [0, -1])
def test_a_bound_that_lets_nothing_through_is_refused(per_host: int) -> None:
    with pytest.raises(InvalidInputError, match=rf"per_host: must be at least 1, it is {per_host}"):
        Scheduler("t", 4, 0, per_host=per_host)


def test_nothing_is_lost_and_no_bound_is_broken_when_much_comes_from_everywhere() -> None:
    scheduler, mutex = Scheduler("t", 8, 2, per_host=2), threading.Lock()
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    ended: list[str] = []

    def work(host: str) -> None:
        with mutex:
            running[host] += 1
            most[host] = max(most[host], running[host])
        with mutex:
            running[host] -= 1
            ended.append(host)

    def submit_all(name: str) -> None:
        for number in range(300):
            host = str(number % 7 % 5)
            scheduler.submit(f"{name} {number % 11}", partial(work, host), small=number % 3 == 0, host=host)

    threads = [InThread(partial(submit_all, name)) for name in "abc"]
    for thread in threads:
        thread.join()
    eventually(lambda: len(ended) == 900)  # without a close, which would wake them all
    assert scheduler.close(PATIENCE_S)
    assert max(most.values()) <= 2
    assert not scheduler._running
    assert not scheduler._busy
    assert not scheduler._full
    assert not scheduler._small._turns
    assert not scheduler._large._turns


# ----------------------------------------------------------------------------------------------------------- whose turn


class Unmanned(Scheduler):
    """Scheduler whose work is taken by the test."""

    def _dispatch(self, own: object = None) -> list[_Piece]:
        return []


@settings(max_examples=200, deadline=None)
@given(data=st.data(), per_host=st.sampled_from([None, 1, 2]), size=st.integers(1, 6), reserved=st.integers(0, 5))
def test_who_is_next_is_what_a_look_at_all_that_waits_would_say(
    data: st.DataObject, per_host: int | None, size: int, reserved: int
) -> None:
    scheduler, reserved = Unmanned("t", size, reserved, per_host), min(reserved, size - 1)
    waiting: list[tuple[int, str, str, bool]] = []  # number, chunk, host, small
    running: list[tuple[_Piece, str, str]] = []
    since: dict[tuple[str, bool], int] = {}

    def expected() -> tuple[int, str, str, bool] | None:
        chunks, hosts = Counter(chunk for _, chunk, _ in running), Counter(host for _, _, host in running)
        in_reserved = sum(piece.reserved for piece, _, _ in running)
        assert all(piece.small for piece, _, _ in running if piece.reserved)
        is_open = {True: len(running) < size, False: len(running) - in_reserved < size - reserved}
        for small, share in ((True, size), (False, max(1, size // 2))):
            could = [
                entry
                for entry in waiting
                if entry[3] == small
                and is_open[small]
                and (per_host is None or not entry[2] or hosts[entry[2]] < per_host)
                and chunks[entry[1]] < share
            ]
            if could:
                return min(could, key=lambda entry: (chunks[entry[1]], since[entry[1], entry[3]], entry[0]))
        return None

    for number in range(data.draw(st.integers(1, 40))):
        step = data.draw(st.sampled_from(["submit", "submit", "take", "end"]))
        if step == "submit":
            entry = (
                number,
                data.draw(st.sampled_from("abc")),
                data.draw(st.sampled_from(["", "x", "y"])),
                number % 3 == 0,
            )
            since.setdefault((entry[1], entry[3]), number)
            waiting.append(entry)
            scheduler.submit(entry[1], partial(int, number), small=entry[3], host=entry[2])
        elif step == "end":
            if running:
                ended = running.pop(data.draw(st.integers(0, len(running) - 1)))[0]
                assert scheduler._end(ended, goes_on=False) == []
        else:
            due, piece = expected(), scheduler._take()
            assert (None if piece is None else piece.work()) == (None if due is None else due[0])
            if due is not None and piece is not None:
                waiting.remove(due)
                running.append((piece, due[1], due[2]))
                if not any((entry[1], entry[3]) == (due[1], due[3]) for entry in waiting):
                    del since[due[1], due[3]]


class Counted(int):
    """A number that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: object) -> bool:
        Counted.compared += 1
        return int(self) < int(other)  # type: ignore[call-overload]

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return int(self) == int(other)  # type: ignore[call-overload]

    __hash__ = int.__hash__


@pytest.mark.parametrize(("per_host", "hosts"), [(None, 3000), (2, 3)])
def test_a_take_does_not_look_at_all_that_waits(per_host: int | None, hosts: int) -> None:
    scheduler = Unmanned("t", 8, 0, per_host)
    for number in range(6000):
        scheduler.submit(str(number % 3000), print, small=False, host=str(number % hosts))
    for turns in scheduler._large._turns.values():
        turns[:] = [(Counted(turn[0]), *turn[1:]) for turn in turns]
    Counted.compared = 0
    assert [scheduler._take() is not None for _ in range(4)] == [True] * 4
    assert 0 < Counted.compared < 400


# ---------------------------------------------------------------------------------------------------------- lent slots


class Lending(Gate):
    """Work that lends its slot until it is opened, and then goes on, as others may, until `ends` is set."""

    def __init__(self, scheduler: Scheduler, stop: Cancellation | None = None) -> None:
        super().__init__()
        self.ends, self.lent = threading.Event(), threading.Event()
        self.scheduler, self.stop, self.going_on = scheduler, stop or Cancellation(), list[str]()

    def work(self, name: str) -> None:
        self.scheduler.lend()
        super().work(name)
        try:
            self.scheduler.reclaim(self.stop)
        except StoppedError:
            return
        self.going_on.append(name)
        assert self.ends.wait(PATIENCE_S)


@pytest.mark.parametrize("small", [True, False])
def test_lent_slots_are_used_and_no_more_go_on_than_there_are(small: bool) -> None:
    scheduler = Scheduler("lends", 3, 1)
    lending, woken = Lending(scheduler), Gate()
    scheduler.on_lent = lambda: woken.begun.append("lent")
    for number in range(9):
        scheduler.submit(str(number), partial(lending.work, str(number)), small=small)
    eventually(lambda: len(lending.begun) == 9)
    eventually(lambda: scheduler.lent == 9 == len(woken.begun))
    assert all(scheduler.has_lent(str(number)) for number in range(9))
    assert run_small(scheduler).startswith("lends-"), "they hold up others"
    lending.open.set()
    open_to_them = 3 if small else 2
    eventually(lambda: scheduler.lent == 9 - open_to_them)
    assert len(lending.going_on) <= open_to_them
    lending.ends.set()
    eventually(lambda: sum(thread.name.startswith("lends-") for thread in threading.enumerate()) <= 3)
    assert scheduler.close(PATIENCE_S)
    assert sorted(lending.going_on) == [str(number) for number in range(9)]
    assert (scheduler.lent, +scheduler._running) == (0, Counter())


def test_what_has_lent_its_slot_goes_on_before_what_is_new() -> None:
    scheduler, gate = Scheduler("t", 1, 0), Gate()
    lending = Lending(scheduler)
    lending.ends.set()
    scheduler.submit("a", partial(lending.work, "a"), small=False)
    eventually(lambda: lending.begun)
    scheduler.submit("b", partial(gate.work, "b"), small=False)
    eventually(lambda: gate.begun)
    scheduler.submit("c", partial(lending.going_on.append, "new"), small=True)
    lending.open.set()
    eventually(lambda: scheduler._returning)
    gate.open.set()
    eventually(lambda: lending.going_on == ["a", "new"])
    assert scheduler.close(PATIENCE_S)


def test_small_work_that_has_lent_its_slot_goes_on_in_a_reserved_one() -> None:
    scheduler, gate = Scheduler("t", 2, 1), Gate()
    lending = Lending(scheduler)
    lending.ends.set()
    scheduler.submit("a", partial(lending.work, "a"), small=True)
    eventually(lambda: scheduler.lent)
    scheduler.submit("b", partial(gate.work, "b"), small=False)
    eventually(lambda: gate.begun)
    lending.open.set()
    eventually(lambda: lending.going_on == ["a"])
    gate.open.set()
    assert scheduler.close(PATIENCE_S)


def test_what_waits_at_the_end_is_run_beside_what_has_lent_its_slot() -> None:
    scheduler, gate, done = Scheduler("t", 1, 0), Gate(), threading.Event()
    lending = Lending(scheduler)
    scheduler.submit("a", partial(lending.work, "a"), small=False)
    eventually(lambda: scheduler.lent)
    scheduler.submit("b", partial(gate.work, "b"), small=False)
    eventually(lambda: gate.begun)
    scheduler.submit("c", done.set, small=False)
    lending.open.set()
    eventually(lambda: scheduler._returning)
    assert not scheduler.close(0.01)
    gate.open.set()
    lending.ends.set()
    assert done.wait(PATIENCE_S)
    assert scheduler.close(PATIENCE_S)


def test_stop_ends_the_wait_for_a_slot() -> None:
    scheduler, gate, stop = Scheduler("t", 1, 0), Gate(), Cancellation()
    lending = Lending(scheduler, stop)
    scheduler.submit("a", partial(lending.work, "a"), small=False)
    eventually(lambda: lending.begun)
    scheduler.submit("b", partial(gate.work, "b"), small=False)
    eventually(lambda: gate.begun)
    lending.open.set()
    eventually(lambda: scheduler._returning)
    stop.set()
    eventually(lambda: not scheduler.lent)
    gate.open.set()
    assert run_small(scheduler)
    assert scheduler.close(PATIENCE_S)
    assert not lending.going_on


def test_no_more_are_lent_than_descriptors_allow_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256 + 4 * 2, -1))
    scheduler = Scheduler("t", 2, 0)
    lending = Lending(scheduler)
    for number in range(6):
        scheduler.submit(str(number), partial(lending.work, str(number)), small=True)
    eventually(lambda: len(lending.begun) == 4)
    assert scheduler.lent == 2 == lent_max()
    for event in (lending.open, lending.ends):
        event.set()
    assert scheduler.close(PATIENCE_S)
    assert len(lending.going_on) == 6


def test_close_waits_for_what_has_lent_its_slot() -> None:
    scheduler = Scheduler("t", 1, 0)
    lending, other = Lending(scheduler), Gate()
    scheduler.submit("a", partial(lending.work, "a"), small=False)
    eventually(lambda: scheduler.lent)
    scheduler.submit("b", partial(other.work, "b"), small=False)
    eventually(lambda: other.begun)
    lending.open.set()
    assert not scheduler.close(0.0)
    eventually(lambda: lending.going_on)  # it is to end, and waits for nothing
    for event in (lending.ends, other.open):
        event.set()
    assert scheduler.close(PATIENCE_S)


def test_what_is_not_the_scheduler_s_has_no_slot_to_lend() -> None:
    scheduler = Scheduler("t", 1, 0)
    scheduler.lend()
    scheduler.reclaim(Cancellation())
    assert scheduler.lent == 0


# ----------------------------------------------------------------------------------------------- a machine that is full


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Called with True, no thread can be started any more, until it is called with False."""
    start, refuse = threading.Thread.start, False

    def starting(thread: threading.Thread) -> None:
        if refuse and thread.name.startswith("lane"):
            raise RuntimeError("can't start new thread")
        start(thread)

    def switch(on: bool) -> None:
        nonlocal refuse
        refuse = on

    monkeypatch.setattr(threading.Thread, "start", starting)
    return switch


def test_where_no_thread_can_be_added_the_others_do_the_work_and_it_is_said_once(
    no_threads: Callable[[bool], None], gated: Gated, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler, done = Scheduler("lane", 3, 1), threading.Event()
    scheduler.submit("a", gated, small=False)
    no_threads(True)
    for _ in range(3):
        scheduler.submit("b", gated, small=True)
    scheduler.submit("c", done.set, small=False)
    eventually(lambda: gated.running == 1)
    assert not done.is_set()
    assert caplog.messages == ["lane goes on with 1 threads: can't start new thread"]
    gated.gate.set()
    assert done.wait(PATIENCE_S)
    assert gated.threads == {"lane-0"}
    no_threads(False)
    again = Gated()
    for _ in range(2):
        submit(scheduler, again, small=False)
    eventually(lambda: again.threads == {"lane-0", "lane-1"})
    no_threads(True)
    submit(scheduler, again, small=True)
    eventually(lambda: len(caplog.messages) == 2, "it had passed in between")
    again.gate.set()
    assert scheduler.close(PATIENCE_S)
    assert again.ended == 3


def test_where_there_is_no_thread_at_all_the_work_is_done_by_who_brings_it(
    no_threads: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    scheduler, ran = Scheduler("lane", 3, 1, per_host=1), list[str]()

    def work() -> None:
        ran.append(threading.current_thread().name)
        if len(ran) == 1:  # it holds up nobody else meanwhile
            other = InThread(lambda: scheduler.submit("b", work, small=True, host="h"))
            other.join()

    no_threads(True)
    scheduler.submit("a", work, small=False, host="h")
    assert len(ran) == 2
    assert ran[0] == threading.current_thread().name
    no_threads(False)
    assert run_small(scheduler) == "lane-0"
    assert scheduler.close(PATIENCE_S)
    assert caplog.messages == ["lane goes on with 0 threads: can't start new thread"]
