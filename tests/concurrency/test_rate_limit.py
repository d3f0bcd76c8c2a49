"""The limit holds for all connections and is shared fairly; a slow transfer is found.

Connections are threads on a timeline: one runs at a time, and time goes on only when all of them wait.
"""

import heapq
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdm.concurrency import rate_limit
from fsdm.concurrency.cancellation import Cancellation
from fsdm.concurrency.rate_limit import BLOCK_S, BURST_S, LEAST_BYTES, LOOK_S, TAKER_S, Floor, Rate
from fsdm.model.errors import InvalidInputError, StoppedError
from tests.support.servers import InThread
from tests.support.waiting import PATIENCE_S, eventually

MOST = 512 << 10


class Clock:
    """A clock that goes on when it is told to, and notes how long each sleep was."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Timeline:
    """Threads that take turns on a clock of their own, the one that is due first."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[tuple[float, int, threading.Semaphore]] = []
        self._numbers = itertools.count()
        self._idle = threading.Semaphore(0)
        self._ended = False

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        turn = threading.Semaphore(0)
        heapq.heappush(self._due, (self.now + max(seconds, 0), next(self._numbers), turn))
        self._idle.release()
        assert turn.acquire(timeout=PATIENCE_S)
        if self._ended:
            raise StoppedError("the end")

    def run(self, connections: list[Callable[[], None]], seconds: float) -> None:
        threads = []
        for connection in connections:
            threads.append(InThread(lambda connection=connection: self._run(connection)))
            assert self._idle.acquire(timeout=PATIENCE_S)  # each waits for its first turn
        end = self.now + seconds
        while self._due:
            due, _, turn = heapq.heappop(self._due)
            self.now, self._ended = max(self.now, min(due, end)), due >= end
            turn.release()
            assert self._idle.acquire(timeout=PATIENCE_S)
        assert all(thread.join() is None for thread in threads)

    def _run(self, connection: Callable[[], None]) -> None:
        try:
            with suppress(StoppedError):
                self.sleep(0)
                connection()
        finally:
            self._idle.release()


class Link:
    """The bytes of all connections under one limit: when, whose, and how many."""

    def __init__(self, bytes_per_s: float | None) -> None:
        self.timeline = Timeline()
        self.rate = Rate(bytes_per_s, clock=self.timeline)
        self.came: list[tuple[float, str, int]] = []

    def connection(
        self, name: str, *, starts: float = 0.0, own_bytes_per_s: float = 1e12, most: int = MOST, total: int = 10**18
    ) -> Callable[[], None]:
        """Make a connection: it begins after `starts` seconds, and ends after `total` bytes."""

        def body() -> None:
            self.timeline.sleep(starts)
            left = total
            while left > 0:
                count = self.rate.block(min(most, left))
                assert 0 < count <= most
                self.timeline.sleep(count / own_bytes_per_s)
                self.came.append((self.timeline.now, name, count))
                left -= count
                self.rate.took(count, self.timeline.sleep)

        return body

    def by_name(self, since: float = 0.0) -> Counter[str]:
        total = Counter[str]()
        for at, name, count in self.came:
            total[name] += count * (at >= 1000 + since)
        return total

    def windows(self, seconds: float, since: float = 0.0) -> list[int]:
        """Sum the bytes in windows of so many seconds, one from each arrival on."""
        sums = list(itertools.accumulate((count for _, _, count in self.came), initial=0))
        found, end = [], 0
        for start, (at, _, _) in enumerate(self.came):
            while end < len(self.came) and self.came[end][0] < at + seconds:
                end += 1
            if end == len(self.came):
                break
            if at >= 1000 + since:
                found.append(sums[end] - sums[start])
        return found


def within_5_percent(sums: list[int], bytes_per_s: float, seconds: float) -> bool:
    assert sums
    return all(0.95 <= total / (bytes_per_s * seconds) <= 1.05 for total in sums)


@pytest.mark.parametrize("bytes_per_s", [1e6, 1e7, 1e9])
@pytest.mark.parametrize("connections", [1, 2, 7, 12])
def test_the_sum_over_any_few_seconds_is_what_the_cap_says(bytes_per_s: float, connections: int) -> None:
    link = Link(bytes_per_s)
    most = max(MOST, int(bytes_per_s / 50))  # so that the fastest does not take all day to simulate
    link.timeline.run([link.connection(str(n), most=most) for n in range(connections)], 7)
    assert within_5_percent(link.windows(3), bytes_per_s, 3)


def test_many_that_begin_at_once_do_not_break_the_cap() -> None:
    link = Link(5e6)
    link.timeline.run([link.connection(str(n)) for n in range(64)], 5)
    assert within_5_percent(link.windows(2), 5e6, 2)
    assert sum(count for at, _, count in link.came if at < 1000.5) <= 5e6 * (0.5 + BURST_S + BLOCK_S)


def test_what_was_not_used_while_nothing_came_is_not_made_up_for() -> None:
    link = Link(1e6)
    link.timeline.run([link.connection(str(n), starts=100) for n in range(4)], 104)
    assert within_5_percent(link.windows(3), 1e6, 3)
    assert sum(count for at, _, count in link.came if at <= 1100.0) <= 1e6 * (BURST_S + BLOCK_S)


def test_a_short_break_of_all_is_made_up_for(clock: Clock) -> None:
    rate = Rate(1e6, clock=clock)
    rate.took(50_000, clock.sleep)
    clock.slept.clear()
    clock.now += 0.08  # the machine was busy
    assert rate.took(80_000, clock.sleep) == 0
    assert clock.slept == []
    clock.now += 10
    rate.took(int(1e6 * BURST_S) + 20_000, clock.sleep)
    assert clock.slept == [pytest.approx(0.02)]


def test_equal_connections_get_equal_parts() -> None:
    link = Link(4e6)
    link.timeline.run([link.connection(str(n)) for n in range(8)], 5)
    parts = link.by_name().values()
    assert min(parts) > 0.9 * max(parts)
    assert {count for at, _, count in link.came if at > 1001} == {int(4e6 * BLOCK_S / 8)}, "they take turns"


def test_what_two_take_at_the_same_instant_is_paid_for_by_both() -> None:
    rate, left = Rate(1e6, clock=Clock()), list[float]()

    def note(seconds: float) -> None:
        left.append(seconds)
        raise StoppedError("that is enough")

    class Bytes(int):
        def __truediv__(self, bytes_per_s: float) -> float:  # in the middle of this account comes another
            self.other = InThread(lambda: rate.took(500_000, note))
            self.other._thread.join(0.1)
            return int(self) / bytes_per_s

    count = Bytes(500_000)
    with pytest.raises(StoppedError):
        rate.took(count, note)
    assert isinstance(count.other.join(), StoppedError)
    assert sorted(left) == [0.5, 1.0]


def test_one_that_comes_later_is_not_starved_and_starves_nobody() -> None:
    link = Link(4e6)
    link.timeline.run([link.connection("a"), link.connection("b"), link.connection("late", starts=2)], 6)
    parts = link.by_name(since=2.5)
    assert min(parts.values()) > 0.9 * max(parts.values())
    gaps = [b - a for (a, _, _), (b, _, _) in itertools.pairwise(c for c in link.came if c[1] == "late")]
    assert max(gaps) < 4 * BLOCK_S


def test_what_a_slow_connection_leaves_goes_to_the_others() -> None:
    link = Link(4e6)
    link.timeline.run([link.connection("slow", own_bytes_per_s=2e5), link.connection("a"), link.connection("b")], 6)
    assert within_5_percent(link.windows(3, since=1), 4e6, 3)
    parts = link.by_name(since=1)
    assert parts["slow"] > 0.8 * 2e5 * 5
    assert parts["a"] == pytest.approx(parts["b"], rel=0.1)


def test_connections_that_have_ended_do_not_count_for_long() -> None:
    link = Link(4e6)
    link.timeline.run([link.connection("a"), *(link.connection(str(n), total=100_000) for n in range(9))], TAKER_S + 3)
    assert within_5_percent(link.windows(3), 4e6, 3)
    assert link.came[-1][2] == int(4e6 * BLOCK_S), "alone it takes whole blocks again"


def test_a_block_is_small_enough_to_be_smooth_and_never_larger_than_asked(clock: Clock) -> None:
    rate = Rate(1e6, clock=clock)
    assert rate.block(MOST) == LEAST_BYTES, "it may be one of many that begin"
    assert rate.block(MOST) == int(1e6 * BLOCK_S)
    assert rate.block(1000) == 1000
    assert [Rate(1.0, clock=clock).block(MOST) for _ in range(2)] == [LEAST_BYTES] * 2
    huge = Rate(1e12, clock=clock)
    assert [huge.block(MOST) for _ in range(2)] == [LEAST_BYTES, MOST]


def test_a_wait_that_returns_early_is_taken_up_again(clock: Clock) -> None:
    asked: list[float] = []

    def wait(seconds: float) -> None:
        asked.append(seconds)
        clock.now += 0.04

    assert Rate(1e6, clock=clock).took(100_000, wait) == pytest.approx(0.12)
    assert asked == pytest.approx([0.1, 0.06, 0.02])


def test_a_stop_during_the_wait_raises_at_once_and_the_bytes_stay_accounted_for(clock: Clock) -> None:
    rate, stop = Rate(1e6, clock=clock), Cancellation()
    thread = InThread(lambda: rate.took(2_000_000, stop.wait))
    eventually(lambda: stop._waits)
    stop.set()
    assert isinstance(thread.join(), StoppedError)
    rate.took(1_000_000, clock.sleep)
    assert sum(clock.slept) == 3.0


def test_no_cap_asks_no_clock_takes_no_lock_and_never_waits() -> None:
    rate = Rate(None, clock=lambda: 0.0)
    rate._clock = rate._mutex = None  # type: ignore[assignment]
    assert rate.block(MOST) == MOST
    assert rate.took(1 << 40, lambda seconds: pytest.fail("it waits")) == 0


@pytest.mark.parametrize("bytes_per_s", [0, -1, float("nan")])
def test_a_cap_that_lets_nothing_through_is_refused(bytes_per_s: float) -> None:
    with pytest.raises(InvalidInputError, match=r"bytes_per_s: must be more than 0"):
        Rate(bytes_per_s)


@settings(max_examples=15, deadline=None)
@given(
    cap=st.floats(5e5, 5e7),
    shapes=st.lists(
        st.tuples(st.floats(0, 4), st.floats(2e4, 1e9), st.integers(20_000, MOST), st.integers(10_000, 10**9)),
        min_size=1,
        max_size=5,
    ),
)
def test_no_set_of_connections_breaks_the_limit(cap: float, shapes: list[tuple[float, float, int, int]]) -> None:
    link = Link(cap)
    connections = [
        link.connection(str(n), starts=starts, own_bytes_per_s=own, most=most, total=total)
        for n, (starts, own, most, total) in enumerate(shapes)
    ]
    link.timeline.run(connections, 6)
    blocks = max(cap * BLOCK_S, len(shapes) * LEAST_BYTES) * 1.5  # one that is new comes on top of the others' shares
    assert all(total <= cap * (1 + BURST_S) + 2 * blocks for total in link.windows(1))
    assert all(total <= cap * (3 + BURST_S) + 2 * blocks for total in link.windows(3))


def dripping(floor: Floor, clock: Clock, count: int, every_s: float, *, at_most_s: float) -> float | None:
    """Return after how many seconds a transfer of `count` bytes every so often is given up."""
    for number in range(1, int(at_most_s / every_s) + 1):
        clock.now += every_s
        if not floor.took(count):
            return number * every_s
    return None


@pytest.mark.parametrize(
    ("count", "every_s", "given_up"),
    [
        (1, 20.0, True),
        (1024, 1.0, False),
        (1023, 1.0, True),
        (250_000, 1.0, False),  # 200 MB at 2 Mbit/s
        (25_000, 20.0, False),  # in gusts
        (29 * 1023, 29.0, True),
    ],
)
def test_a_transfer_below_the_floor_is_given_up(count: int, every_s: float, given_up: bool, clock: Clock) -> None:
    after_s = dripping(Floor(clock=clock), clock, count, every_s, at_most_s=900)
    if given_up:
        assert after_s is not None
        assert 60 <= after_s < 60 + every_s
    else:
        assert after_s is None
    assert (rate_limit.FLOOR_BYTES_PER_S, rate_limit.FLOOR_WINDOW_S) == (1024, 60)


def test_one_that_was_fast_is_found_within_two_windows_of_becoming_slow(clock: Clock) -> None:
    floor = Floor(100, 10, clock=clock)
    clock.now += 1
    assert floor.took(10**9)
    after_s = dripping(floor, clock, 1, 1.0, at_most_s=60)
    assert after_s is not None
    assert after_s <= 20


def test_a_window_does_not_begin_before_the_last_one_was_judged(clock: Clock) -> None:
    floor = Floor(100, 10, clock=clock)
    clock.now += 50
    assert not floor.took(4999), "less than 100 a second over 50 seconds"
    clock.now += 50
    assert floor.took(5000)
    clock.now += 9.9
    assert floor.took(0), "the window is not over"
    clock.now += 0.1
    assert not floor.took(0)


def test_the_time_that_the_cap_takes_does_not_count(clock: Clock) -> None:
    floor, rate = Floor(1000, 10, clock=clock), Rate(100, clock=clock)  # the cap is far below the floor
    for _ in range(50):
        clock.now += 0.5
        assert floor.took(4096)
        floor.paused(rate.took(4096, clock.sleep))
    assert clock.now > 1000 + 1000
    for _ in range(19):
        clock.now += 0.5
        floor.paused(rate.took(4096, clock.sleep))
        assert floor.took(1)
    clock.now += 10
    assert not floor.took(1), "what is slow beside that is"


@pytest.mark.parametrize("cap", [None, 2e6])
def test_who_waits_at_a_cap_that_is_changed_waits_no_longer_than_a_look(cap: float | None, clock: Clock) -> None:
    rate = Rate(10, clock=clock)
    rate.took(1_000_000, lambda seconds: (clock.sleep(seconds), rate.change(cap)))
    assert clock.slept == [LOOK_S]
    assert rate.is_capped == (cap is not None)


@pytest.mark.parametrize(("before", "after", "slept_s"), [(10, 1e6, 0.25), (1e6, 1e6, 0.75)])
def test_changed_limit_drops_the_schedule_and_the_same_one_does_not(
    before: float, after: float, slept_s: float, clock: Clock
) -> None:
    rate = Rate(before, clock=clock)
    with pytest.raises(StoppedError):
        rate.took(500_000, Mock(side_effect=StoppedError("that is enough")))
    rate.change(after)
    rate.took(250_000, clock.sleep)
    assert sum(clock.slept) == slept_s


def test_a_cap_that_is_none_is_refused_and_changes_nothing() -> None:
    rate = Rate(1e6)
    with pytest.raises(InvalidInputError, match=r"^bytes_per_s: must be more than 0, it is 0$"):
        rate.change(0)
    assert rate.is_capped
