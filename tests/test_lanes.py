"""The connections' threads: bounded, fair between chunks, with room for what is small."""

from __future__ import annotations

import itertools
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from fsdm.lanes import Lanes
from tests.kit import PATIENCE_S, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Gate:
    """Work that waits until it is opened, and tells what has begun."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun: list[str] = []

    def work(self, name: str) -> None:
        self.begun.append(name)
        assert self.open.wait(PATIENCE_S)


def test_no_more_than_its_size_runs_at_once_and_all_that_was_submitted_is_run() -> None:
    lanes, gate = Lanes("t", 3, 0), Gate()
    for number in range(9):
        lanes.submit(str(number), partial(gate.work, str(number)), small=False)
    eventually(lambda: len(gate.begun) == 3)
    gate.open.set()
    assert lanes.close(PATIENCE_S)
    assert sorted(gate.begun) == [str(number) for number in range(9)]


def test_small_work_does_not_wait_for_large_work() -> None:
    lanes, gate = Lanes("t", 4, 1), Gate()
    for number in range(8):
        lanes.submit(str(number), partial(gate.work, "large"), small=False)
    eventually(lambda: len(gate.begun) == 3)
    done = threading.Event()
    lanes.submit("9", done.set, small=True)
    assert done.wait(PATIENCE_S)
    assert gate.begun == ["large"] * 3  # the reserved thread has taken none
    gate.open.set()
    assert lanes.close(PATIENCE_S)


def test_one_chunk_leaves_half_of_the_connections_to_the_others() -> None:
    lanes, gate = Lanes("t", 4, 0), Gate()
    for _ in range(10):
        lanes.submit("silent", partial(gate.work, "silent"), small=False)
    for _ in range(2):
        lanes.submit("other", partial(gate.work, "other"), small=False)
    eventually(lambda: len(gate.begun) == 4)
    assert sorted(gate.begun) == ["other", "other", "silent", "silent"]
    gate.open.set()
    assert lanes.close(PATIENCE_S)


def test_the_chunk_with_the_fewest_running_comes_first() -> None:
    lanes, first, rest = Lanes("t", 2, 0), Gate(), Gate()
    lanes.submit("a", partial(first.work, "a"), small=False)
    lanes.submit("b", partial(rest.work, "b"), small=False)
    eventually(lambda: first.begun + rest.begun == ["a", "b"])
    lanes.submit("b", partial(rest.work, "b again"), small=False)
    lanes.submit("c", partial(rest.work, "c"), small=False)
    first.open.set()
    eventually(lambda: len(rest.begun) == 2)
    assert rest.begun == ["b", "c"]
    rest.open.set()
    assert lanes.close(PATIENCE_S)


def test_what_is_left_at_the_end_is_run_and_what_hangs_is_told() -> None:
    lanes, gate = Lanes("t", 1, 0), Gate()
    lanes.submit("a", partial(gate.work, "a"), small=False)
    lanes.submit("b", partial(gate.work, "b"), small=False)
    assert not lanes.close(0.01)
    gate.open.set()
    assert lanes.close(PATIENCE_S)
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


def submit(lanes: Lanes, work: Callable[[], None], *, small: bool) -> None:
    """For a chunk of its own."""
    lanes.submit(next(_chunks), work, small=small)


def run_small(lanes: Lanes) -> str:
    """Run something small now; the thread that it ran in."""
    ran: list[str] = []
    done = threading.Event()

    def work() -> None:
        ran.append(threading.current_thread().name)
        done.set()

    submit(lanes, work, small=True)
    assert done.wait(PATIENCE_S), "it waits behind the large ones"
    return ran[0]


@pytest.mark.parametrize(("size", "reserved"), [(1, 0), (1, 1), (3, 0), (3, 1), (3, 2), (3, 9)])
def test_every_lane_is_used_and_none_besides(gated: Gated, size: int, reserved: int) -> None:
    lanes = Lanes("t", size, reserved)
    for _ in range(3 * size):
        submit(lanes, gated, small=True)
        submit(lanes, gated, small=False)
    eventually(lambda: gated.running == size, "all lanes are taken")
    gated.gate.set()
    assert lanes.close(PATIENCE_S)
    assert (gated.most, gated.ended) == (size, 6 * size)
    assert gated.threads == {f"t-{number}" for number in range(size)}


@pytest.mark.parametrize(("size", "reserved"), [(2, 1), (4, 1), (4, 3), (2, 5)])
def test_large_work_leaves_the_reserved_lanes_alone(gated: Gated, size: int, reserved: int) -> None:
    lanes, open_to_large = Lanes("t", size, reserved), max(size - reserved, 1)
    for _ in range(2 * size):
        submit(lanes, gated, small=False)
    eventually(lambda: gated.running == open_to_large)
    for _ in range(3):
        assert run_small(lanes) not in gated.threads
    gated.gate.set()
    assert lanes.close(PATIENCE_S)
    assert (gated.most, gated.ended) == (open_to_large, 2 * size)


def test_small_work_is_taken_before_large_work_that_was_there_first(gated: Gated) -> None:
    lanes, order = Lanes("t", 1, 0), list[str]()
    submit(lanes, gated, small=False)
    eventually(lambda: gated.running == 1)
    for name, small in (("large 1", False), ("small 1", True), ("large 2", False), ("small 2", True)):
        submit(lanes, partial(order.append, name), small=small)
    gated.gate.set()
    assert lanes.close(PATIENCE_S)
    assert order == ["small 1", "small 2", "large 1", "large 2"]


def test_small_files_of_one_chunk_may_use_every_lane(gated: Gated) -> None:
    lanes = Lanes("t", 4, 1)
    for _ in range(6):
        lanes.submit("a", gated, small=True)
    eventually(lambda: gated.running == 4)
    gated.gate.set()
    assert lanes.close(PATIENCE_S)
    assert gated.ended == 6


def test_the_first_lane_to_be_made_takes_large_work(gated: Gated) -> None:
    lanes = Lanes("t", 3, 2)
    run_small(lanes)
    submit(lanes, gated, small=False)
    eventually(lambda: gated.running == 1)
    gated.gate.set()
    assert lanes.close(PATIENCE_S)


def test_no_thread_is_started_before_there_is_work_and_none_keeps_the_process_alive(gated: Gated) -> None:
    lanes = Lanes("unused", 8, 2)
    assert not any(thread.name.startswith("unused") for thread in threading.enumerate())
    for small in (True, False):
        submit(lanes, gated, small=small)
    found = [thread for thread in threading.enumerate() if thread.name.startswith("unused")]
    assert [thread.daemon for thread in found] == [True, True]
    gated.gate.set()
    assert lanes.close(PATIENCE_S)
    assert not any(thread.is_alive() for thread in found)


def test_closing_waits_for_what_runs_and_for_what_waits(gated: Gated) -> None:
    lanes, late = Lanes("t", 2, 1), threading.Event()
    for small in (True, False) * 4:
        lanes.submit("a", gated, small=small)
    eventually(lambda: gated.running == 2)
    assert not lanes.close(0.0), "something runs still"
    lanes.submit("b", late.set, small=False)
    gated.gate.set()
    assert lanes.close(PATIENCE_S)
    assert gated.ended == 8
    assert late.is_set()
    assert lanes.close(0.0), "a second time it has nothing to wait for"


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("used", [0, 1, 2])
def test_what_is_submitted_after_the_close_is_run(used: int, small: bool) -> None:
    lanes, ran = Lanes("t", 2, 1), threading.Event()
    for _ in range(used):
        run_small(lanes)
    assert lanes.close(PATIENCE_S)
    submit(lanes, ran.set, small=small)
    assert lanes.close(PATIENCE_S)
    assert ran.is_set(), "whoever waits for it waits for ever"
