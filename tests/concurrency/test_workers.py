"""Workers: submitted work runs once, on few threads; closed workers drop the rest."""

import threading
from collections.abc import Iterator
from unittest.mock import Mock

import pytest

from fsdm.concurrency.workers import Workers
from tests.support.waiting import PATIENCE_S, eventually
from tools.support.workers import InlineWorkers


class Gate:
    """Work that says that it has begun, and stays until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self.name = ""

    def __call__(self) -> None:
        self.name = threading.current_thread().name
        self.begun.set()
        self.open.wait(PATIENCE_S)


@pytest.fixture
def gates() -> Iterator[list[Gate]]:
    gates = [Gate() for _ in range(4)]
    yield gates
    for gate in gates:
        gate.open.set()


@pytest.mark.parametrize("size", [1, 3])
def test_everything_submitted_is_run_once_and_begun_in_order(size: int) -> None:
    workers, ran, done = Workers("hand", size), list[int](), threading.Semaphore(0)
    for number in range(100):
        workers.submit(lambda number=number: (ran.append(number), done.release()))  # type: ignore[misc]
    assert all(done.acquire(timeout=PATIENCE_S) for _ in range(100))
    assert sorted(ran) == list(range(100))
    assert size > 1 or ran == sorted(ran)
    assert workers.close(PATIENCE_S)


def test_no_more_than_size_run_at_once(gates: list[Gate]) -> None:
    workers = Workers("hand", 2)
    for gate in gates:
        workers.submit(gate)
    assert gates[0].begun.wait(PATIENCE_S)
    assert gates[1].begun.wait(PATIENCE_S)
    assert len(workers._threads) == 2
    assert not gates[2].begun.is_set()
    gates[0].open.set()
    assert gates[2].begun.wait(PATIENCE_S)
    assert not gates[3].begun.is_set()
    assert {gates[0].name, gates[1].name} == {"hand-0", "hand-1"}
    assert gates[2].name == gates[0].name


def test_threads_are_daemons_started_only_as_they_are_needed(gates: list[Gate]) -> None:
    workers, idle = Workers("hand", 4), threading.Condition()

    class Counted:  # the workers' own mutex, that tells when a thread is idle again
        def __enter__(self) -> None:
            idle.acquire()

        def __exit__(self, *_: object) -> None:
            idle.notify_all()
            idle.release()

    workers._mutex = Counted()  # type: ignore[assignment]
    assert workers._threads == []
    for gate in gates:
        gate.open.set()
        workers.submit(gate)
        with idle:
            assert idle.wait_for(lambda: workers._idle == 1, PATIENCE_S)
    assert [thread.name for thread in workers._threads] == ["hand-0"]
    assert workers._threads[0].daemon
    assert workers.close(PATIENCE_S)


def test_work_that_raises_is_logged_and_takes_no_thread_with_it(caplog: pytest.LogCaptureFixture) -> None:
    workers, done = Workers("hand", 1), threading.Event()
    workers.submit(Mock(side_effect=RuntimeError("a defect of ours")))
    workers.submit(done.set)
    assert done.wait(PATIENCE_S)
    assert [(record.name, record.exc_text and "a defect of ours" in record.exc_text) for record in caplog.records] == [
        ("fsdm.concurrency.workers", True)
    ]


def test_closed_workers_finish_what_runs_and_drop_what_waits(gates: list[Gate]) -> None:
    workers = Workers("hand", 1)
    workers.submit(gates[0])
    workers.submit(gates[1])
    assert gates[0].begun.wait(PATIENCE_S)
    assert not workers.close(0), "what runs has not ended"
    workers.submit(gates[2])
    gates[0].open.set()
    assert workers.close(PATIENCE_S)
    assert not gates[1].begun.is_set()
    assert not gates[2].begun.is_set()


@pytest.mark.parametrize("timeout_s", [600.0, None])
def test_first_joined_thread_may_take_all_the_time(timeout_s: float | None) -> None:
    workers, given = Workers("hand", 4), list[float | None]()

    class Ended(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            given.append(timeout)

    workers._threads = [Ended() for _ in range(4)]
    assert workers.close(timeout_s)
    assert len(given) == 4
    assert given == [None] * 4 if timeout_s is None else min(t or 0 for t in given) > timeout_s / 2


@pytest.mark.parametrize("workers", [Workers("hand", 4), InlineWorkers()])
def test_idle_workers_close_at_once_and_twice(workers: Workers) -> None:
    assert workers.close(0)
    assert workers.close(0)


def test_workers_grow_at_once_and_shrink_as_work_ends() -> None:
    workers, gate, ended = Workers("hand", 1), threading.Event(), threading.Semaphore(0)
    running = threading.Semaphore(0)

    def work() -> None:
        running.release()
        gate.wait(PATIENCE_S)
        ended.release()

    for _ in range(6):
        workers.submit(work)
    assert running.acquire(timeout=PATIENCE_S)
    assert len(workers._threads) == 1
    workers.resize(4)
    for _ in range(3):
        assert running.acquire(timeout=PATIENCE_S)
    assert len(workers._threads) == 4
    workers.resize(2)
    gate.set()
    for _ in range(6):
        assert ended.acquire(timeout=PATIENCE_S)
    eventually(lambda: len(workers._threads) == 2)
    workers.submit(work)
    assert ended.acquire(timeout=PATIENCE_S)
    assert workers.close(PATIENCE_S)


def test_workers_that_shrink_and_grow_have_their_size() -> None:
    workers, ran = Workers("hand", 4), threading.Semaphore(0)
    for size in (1, 4, 2, 4, 1, 3):
        workers.resize(size)
        barrier = threading.Barrier(size + 1)
        for _ in range(size):
            workers.submit(lambda barrier=barrier: (barrier.wait(PATIENCE_S), ran.release()))  # type: ignore[misc]
        barrier.wait(PATIENCE_S)  # all of them run at once
        for _ in range(size):
            assert ran.acquire(timeout=PATIENCE_S)
        eventually(lambda size=size: len(workers._threads) <= size)  # type: ignore[misc]
    assert workers.close(PATIENCE_S)


def test_workers_that_shrank_close_like_others() -> None:
    workers, gate = Workers("hand", 3), threading.Event()
    for _ in range(3):
        workers.submit(lambda: gate.wait(PATIENCE_S) and None)
    workers.resize(1)
    assert not workers.close(0.0)
    gate.set()
    assert workers.close(PATIENCE_S)
