"""The connections' threads: bounded, fair between chunks, with room for what is small."""

from __future__ import annotations

import threading
from functools import partial

from fsdm.lanes import Lanes
from tests.kit import PATIENCE_S, eventually


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
