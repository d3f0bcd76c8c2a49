"""Who may go to a host and who may not, and which mirror comes first. No real time: waits are told by a clock."""

import math
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.errors import StoppedError, TransferError
from fsdm.transfer.host_health import (
    ASKED_LAST_S,
    FRESH_S,
    HALF_LIFE_S,
    LATELY_S,
    LIVE_S,
    MANY,
    Hosts,
    Request,
)
from fsdm.transfer.http.target import origin_of
from tests.support import PATIENCE_S, eventually
from tests.support.servers import InThread

HOST = "http://host"
ROUNDING_S = 1e-6


class Clock:
    """A clock, and a way to wait that lets it go on; what happens meanwhile is in `meanwhile`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self.meanwhile: list[Callable[[], object]] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float, event: threading.Event) -> None:
        """Until something happens that sets the event, or all of the seconds."""
        assert seconds > 0
        assert not event.is_set()
        self.waits.append(seconds)
        while self.meanwhile:
            self.meanwhile.pop(0)()
            if event.is_set():
                return
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hosts(clock: Clock) -> Hosts:
    return Hosts(clock=clock)


def never(seconds: float, event: threading.Event) -> None:
    pytest.fail("it waits")


def refused(hosts: Hosts, clock: Clock, origin: str = HOST) -> TransferError:
    """What a visitor is told who may not go in."""
    with pytest.raises(TransferError) as told:
        hosts.enter(origin, clock.wait)
    assert told.value.transient
    return told.value


def failing(hosts: Hosts, error: str = "refused", origin: str = HOST, retry_after_s: float | None = None) -> None:
    """A visit that fails."""
    with hosts.enter(origin, never) as request:
        request.failed(error, retry_after_s)


def good(hosts: Hosts, origin: str = HOST) -> None:
    """A visit that gets what it came for."""
    with hosts.enter(origin, never) as request:
        request.proven()


# ---------------------------------------------------------------------------------------------------------------- trial


def test_a_host_that_has_answered_lets_everybody_in(hosts: Hosts) -> None:
    good(hosts)
    with ExitStack() as visits:
        for _ in range(100):
            visits.enter_context(hosts.enter(HOST, never))


def test_of_a_host_that_has_not_answered_only_so_many_wait(hosts: Hosts, clock: Clock) -> None:
    with hosts.enter(HOST, never), hosts.enter(HOST, never):
        told = refused(hosts, clock)
    assert str(told) == "http://host has not answered yet: 2 others wait for it"
    assert clock.waits == [1.0]
    assert told.retry_after_s is None
    assert told.is_postponed, "nothing was asked"


@pytest.mark.parametrize("trials", [1, 3])
def test_how_many_and_how_long_are_what_they_are_told_to_be(clock: Clock, trials: int) -> None:
    hosts = Hosts(clock=clock, trials=trials, trial_wait_s=7.0)
    with ExitStack() as visits:
        for _ in range(trials):
            visits.enter_context(hosts.enter(HOST, never))
        told = refused(hosts, clock)
    assert clock.waits == [7.0]
    assert ("another one waits" if trials == 1 else "3 others wait") in str(told)


def test_one_host_that_does_not_answer_holds_up_no_other(hosts: Hosts) -> None:
    with hosts.enter(HOST, never), hosts.enter(HOST, never):
        hosts.enter("http://other", never)
        hosts.enter("https://host", never)
        hosts.enter("http://host:81", never)


def test_the_first_good_byte_lets_in_who_waits_at_once(hosts: Hosts, clock: Clock) -> None:
    with hosts.enter(HOST, never) as first, hosts.enter(HOST, never):
        clock.meanwhile = [first.proven]
        hosts.enter(HOST, clock.wait)
        assert (clock.now, clock.waits) == (1000, [1.0])
        hosts.enter(HOST, never)


def test_all_who_wait_are_let_in_together(hosts: Hosts) -> None:
    real, stop = Hosts(trial_wait_s=PATIENCE_S), Cancellation()
    with real.enter(HOST, never) as first, real.enter(HOST, never):
        threads = [InThread(lambda: real.enter(HOST, stop.wait)) for _ in range(8)]
        eventually(lambda: len(real._hosts[HOST]._waiting) == 8)
        first.proven()
        assert all(isinstance(thread.join(), Request) for thread in threads)
    assert real._hosts[HOST]._waiting == set()
    assert stop._waits == set()


def test_a_failure_lets_those_fail_who_wait(hosts: Hosts, clock: Clock) -> None:
    with hosts.enter(HOST, never) as first, hosts.enter(HOST, never):
        clock.meanwhile = [lambda: first.failed("no route")]
        assert "no route" in str(refused(hosts, clock))
        assert clock.now == 1000


def test_a_request_that_ends_without_an_outcome_leaves_its_place_to_the_next(hosts: Hosts, clock: Clock) -> None:
    first, second = hosts.enter(HOST, never), hosts.enter(HOST, never)
    clock.meanwhile = [lambda: first.__exit__(None, None, None)]
    with hosts.enter(HOST, clock.wait), second:
        assert clock.now == 1000
        refused(hosts, clock)


def test_a_wait_that_ends_early_is_taken_up_again(hosts: Hosts, clock: Clock) -> None:
    asked: list[float] = []

    def wait(seconds: float, event: threading.Event) -> None:
        asked.append(seconds)
        clock.now += 0.4

    with hosts.enter(HOST, never), hosts.enter(HOST, never), pytest.raises(TransferError, match="has not answered yet"):
        hosts.enter(HOST, wait)
    assert asked == pytest.approx([1.0, 0.6, 0.2])


def test_wait_counts_from_the_first_who_tries(hosts: Hosts, clock: Clock) -> None:
    with hosts.enter(HOST, never):
        clock.now += 0.75
        with hosts.enter(HOST, never):
            refused(hosts, clock)
    assert clock.waits == [0.25]


def test_answer_ends_the_wait_for_it_at_once(hosts: Hosts, clock: Clock) -> None:
    with hosts.enter(HOST, never) as first, hosts.enter(HOST, never) as second:
        assert first.await_answer(never, 1)
        first.proven()
        clock.meanwhile = [first.host.answered]
        assert not second.await_answer(clock.wait, 1)
        assert (clock.now, clock.waits) == (1000, [1.0])


def test_one_who_is_woken_for_nothing_waits_on(clock: Clock) -> None:
    hosts = Hosts(clock=clock, trials=3)
    with hosts.enter(HOST, never) as first, hosts.enter(HOST, never) as second:
        assert first.await_answer(never, 1)
        clock.meanwhile = [lambda: hosts.enter(HOST, never).__exit__()]
        with pytest.raises(TransferError, match="has not answered yet"):
            second.await_answer(clock.wait, 1)
    assert clock.waits == [1.0, 1.0]


def test_patience_doubles_until_there_is_an_answer(hosts: Hosts) -> None:
    host = hosts.get(HOST)
    seen = []
    for _ in range(1100):
        host.hurry(0.5)
        seen.append(host.within(60.0))
    assert (seen[:3], seen[-1]) == ([0.5, 1.0, 2.0], 60.0)
    host.answered()
    assert host.within(math.inf) == math.inf
    host.hurry(0.5)
    assert host.within(60.0) == 0.5


def test_a_stop_ends_the_wait_and_leaves_nothing_behind() -> None:
    hosts, stop = Hosts(trial_wait_s=1e6), Cancellation()
    with hosts.enter(HOST, never), hosts.enter(HOST, never):
        thread = InThread(lambda: hosts.enter(HOST, stop.wait))
        eventually(lambda: stop._waits)
        stop.set()
        assert isinstance(thread.join(), StoppedError)
    host = hosts._hosts[HOST]
    assert (host._waiting, host.inside, host._trying) == (set(), 0, 0)


# ----------------------------------------------------------------------------------------------------------------- down


def test_a_host_that_was_never_heard_of_is_down_with_its_first_failure(hosts: Hosts, clock: Clock) -> None:
    failing(hosts, "Connection refused")
    told = refused(hosts, clock)
    assert str(told) == "http://host: Connection refused; it is left alone for a while"
    assert not told.is_postponed, "it has failed"
    assert told.retry_after_s == 1.0
    assert clock.waits == [], "it is said at once"


def test_the_time_that_is_left_is_told_and_stands_in_no_text_that_is_kept(hosts: Hosts, clock: Clock) -> None:
    failing(hosts)
    clock.now += 0.75
    told = refused(hosts, clock)
    assert told.retry_after_s == 0.25
    assert not any(map(str.isdigit, str(told)))


def test_after_the_cool_down_one_may_try_and_the_others_wait_for_it(hosts: Hosts, clock: Clock) -> None:
    failing(hosts)
    clock.now += 1.0
    with hosts.enter(HOST, never) as probe:
        assert str(refused(hosts, clock)) == "http://host has not answered yet: another one waits for it"
        probe.proven()
        hosts.enter(HOST, never)
        hosts.enter(HOST, never)


def test_the_cool_down_doubles_up_to_its_last_and_a_success_resets_it(hosts: Hosts, clock: Clock) -> None:
    seen = []
    for _ in range(1100):  # 2.0 ** 1024 is too large for a float
        failing(hosts)
        seen.append(refused(hosts, clock).retry_after_s)
        clock.now += seen[-1] or 0
    assert seen[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert seen[-1] == 60
    good(hosts)
    clock.now += FRESH_S
    failing(hosts)
    failing(hosts)
    assert refused(hosts, clock).retry_after_s == 1


def test_the_first_and_last_cool_down_are_what_they_are_told_to_be(clock: Clock) -> None:
    hosts = Hosts(clock=clock, first_s=3.0, last_s=5.0)
    for expected in (3.0, 5.0, 5.0):
        failing(hosts)
        assert refused(hosts, clock).retry_after_s == expected
        clock.now += expected


def test_one_broken_connection_is_no_dead_host(hosts: Hosts, clock: Clock) -> None:
    good(hosts)
    clock.now += 100
    failing(hosts)
    with hosts.enter(HOST, never), hosts.enter(HOST, never):
        refused(hosts, clock)  # but it is on trial again


def test_the_second_failure_with_nothing_good_between_takes_it_down(hosts: Hosts, clock: Clock) -> None:
    good(hosts)
    clock.now += 100
    failing(hosts, "first")
    failing(hosts, "second")
    assert "second" in str(refused(hosts, clock))


def test_failures_beside_visits_that_receive_do_not_take_it_down(hosts: Hosts, clock: Clock) -> None:
    with hosts.enter(HOST, never) as receiving:
        receiving.proven()
        for _ in range(20):
            clock.now += FRESH_S * 0.9
            failing(hosts)
            failing(hosts)
            failing(hosts)
            receiving.proven()
            hosts.enter(HOST, never).__exit__()
        clock.now += FRESH_S
        failing(hosts)
        failing(hosts)
        assert refused(hosts, clock).retry_after_s == 1.0, "now it has been silent, and this is the first time"


def test_while_bytes_are_fresh_failures_leave_it_on_trial(hosts: Hosts, clock: Clock) -> None:
    with hosts.enter(HOST, never) as receiving:
        receiving.proven()
        for _ in range(5):
            failing(hosts)
        with hosts.enter(HOST, never), hosts.enter(HOST, never):
            refused(hosts, clock)
            receiving.proven()
            hosts.enter(HOST, never)


def test_connections_that_break_together_are_one_outage(hosts: Hosts, clock: Clock) -> None:
    good(hosts)
    with ExitStack() as visits:
        all_16 = [visits.enter_context(hosts.enter(HOST, never)) for _ in range(16)]
        clock.now += 30
        for request in all_16:
            request.failed("silent")
        with hosts.enter(HOST, never) as retry, hosts.enter(HOST, never) as other:
            refused(hosts, clock)  # the sixteen take no place of the two who try
            retry.failed("refused")
            other.failed("too late")
    told = refused(hosts, clock)
    assert told.retry_after_s == 1.0
    assert "refused" in str(told)


def test_two_trials_that_fail_together_double_nothing(hosts: Hosts, clock: Clock) -> None:
    with hosts.enter(HOST, never) as one, hosts.enter(HOST, never) as other:
        one.failed("refused")
        clock.now += 0.5
        other.failed("refused too")
    assert refused(hosts, clock).retry_after_s == 0.5


def test_a_probe_need_not_wait_for_connections_from_before(hosts: Hosts, clock: Clock) -> None:
    stalled = [hosts.enter(HOST, never), hosts.enter(HOST, never)]
    stalled[0].failed("silent")
    clock.now += 1
    with hosts.enter(HOST, never):
        for request in stalled:
            request.__exit__()
        refused(hosts, clock)  # their end makes no place for a second probe


def test_a_failure_from_before_does_not_count_against_a_host_that_has_come_back(hosts: Hosts, clock: Clock) -> None:
    with hosts.enter(HOST, never) as one, hosts.enter(HOST, never) as stalled:
        one.failed("refused")
        clock.now += 1
        good(hosts)
        clock.now += 10
        stalled.failed("silent")
        with ExitStack() as visits:
            for _ in range(5):
                visits.enter_context(hosts.enter(HOST, never))


def test_a_good_byte_on_an_old_connection_ends_the_cool_down(hosts: Hosts) -> None:
    with hosts.enter(HOST, never) as one, hosts.enter(HOST, never) as other:
        one.failed("refused")
        other.proven()
        for _ in range(3):
            hosts.enter(HOST, never)


# ---------------------------------------------------------------------------------------------------------- Retry-After


@pytest.mark.parametrize(
    ("asked_s", "kept_s"),
    [(20.0, 20.0), (0.0, 1.0), (-5.0, 1.0), (math.nan, 1.0), (1e9, ASKED_LAST_S), (math.inf, ASKED_LAST_S)],
)
def test_what_the_server_asks_for_is_kept_within_bounds(
    hosts: Hosts, clock: Clock, asked_s: float, kept_s: float
) -> None:
    good(hosts)
    failing(hosts, "HTTP 429", retry_after_s=asked_s)
    told = refused(hosts, clock)
    assert told.retry_after_s == kept_s
    assert str(told) == "http://host: HTTP 429; it is left alone for a while"
    assert told.is_postponed, "the server has said when"
    clock.now += kept_s
    with hosts.enter(HOST, never):
        assert "another one" in str(refused(hosts, clock)), "it was down: one tries"


def test_bytes_that_still_come_do_not_shorten_what_the_server_asks_for(hosts: Hosts, clock: Clock) -> None:
    with hosts.enter(HOST, never) as receiving:
        receiving.proven()
        failing(hosts, "HTTP 503", retry_after_s=20.0)
        clock.now += 5
        receiving.proven()
        assert refused(hosts, clock).retry_after_s == 15
        clock.now += 15
        for _ in range(5):
            hosts.enter(HOST, never)


def test_of_several_that_are_asked_to_wait_the_longest_counts_and_they_count_once(hosts: Hosts, clock: Clock) -> None:
    good(hosts)
    visits = [hosts.enter(HOST, never) for _ in range(4)]
    for request, seconds in zip(visits, (5.0, 9.0, 2.0, None), strict=True):
        request.failed(f"asks for {seconds}", seconds)
        request.__exit__()
    told = refused(hosts, clock)
    assert told.retry_after_s == 9
    clock.now += 9
    failing(hosts)
    assert refused(hosts, clock).retry_after_s == 2, "the second time in a row"


# -------------------------------------------------------------------------------------------------------------- origins


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://host/path?sig=secret#part", "http://host"),
        ("http://host:80/x", "http://host"),
        ("https://host:443", "https://host"),
        ("https://host:80", "https://host:80"),
        ("http://host:443", "http://host:443"),
        ("HTTP://HOST.Example/X", "http://host.example"),
        ("http://user:secret@host:8080/x", "http://host:8080"),
        ("http://a@b:c@host/x", "http://host"),
        ("http://[2001:DB8::1]:80/x", "http://[2001:db8::1]"),
        ("https://u:p@[::1]:8443/x", "https://[::1]:8443"),
        ("http://host:0/", "http://host:0"),
    ],
)
def test_an_origin_is_the_same_however_it_is_written_and_has_no_secrets(url: str, origin: str) -> None:
    assert origin_of(url) == origin
    assert origin_of(origin) == origin


def test_a_visit_by_url_is_a_visit_to_its_origin_and_its_error_shows_nothing_else(hosts: Hosts, clock: Clock) -> None:
    failing(hosts, "refused", "http://user:secret@HOST:80/a?key=secret")
    assert str(refused(hosts, clock, "http://host/b?key=secret")).startswith("http://host: refused;")


def test_no_more_than_so_many_hosts_are_remembered_and_the_longest_unused_goes(hosts: Hosts, clock: Clock) -> None:
    for number in range(MANY):
        failing(hosts, origin=f"http://h{number}")
    clock.now += 1
    used = hosts.enter("http://h0", never)
    good(hosts, "http://h3")
    for number in range(MANY, MANY + 5):
        failing(hosts, origin=f"http://h{number}")
    assert len(hosts._hosts) == MANY
    assert {f"http://h{number}" for number in range(8)} & hosts._hosts.keys() == {
        f"http://h{number}" for number in (0, 3, 7)
    }
    used.failed("again")
    assert refused(hosts, clock, "http://h0").retry_after_s == 2, "it is the one that it was"


def test_a_host_that_somebody_is_at_is_not_forgotten(clock: Clock) -> None:
    hosts = Hosts(clock=clock)
    with hosts.enter(HOST, never) as request:
        for number in range(2 * MANY):
            good(hosts, f"http://h{number}")
        request.failed("refused")
        refused(hosts, clock)
    for number in range(MANY):
        good(hosts, f"http://h{number}")
    assert HOST not in hosts._hosts


# -------------------------------------------------------------------------------------------------------------- mirrors

A, B, C = ("http://a/x", "http://b/x", "http://c/x")


def rated(hosts: Hosts, url: str, *speeds: float) -> None:
    for speed in speeds:
        with hosts.enter(url, never) as request:
            request.proven()
            request.host.rate(speed)


def test_mirrors_of_which_nothing_is_known_stay_as_they_are_given(hosts: Hosts) -> None:
    assert hosts.order([B, A, C, A]) == [B, A, C, A]
    assert hosts.order((A,)) == [A]
    assert hosts.order([]) == []
    assert hosts._hosts == {}, "to ask for an order is no visit"


def test_mirror_that_is_down_goes_last_and_one_that_failed_behind_the_slow(hosts: Hosts, clock: Clock) -> None:
    slow, good_one = "http://slow/x", "http://good/x"
    rated(hosts, good_one, 100.0)
    rated(hosts, slow, 1.0)
    failing(hosts, origin=B)
    clock.now += 1
    failing(hosts, origin=A)
    assert hosts.order([A, B, slow, C, good_one]) == [C, good_one, slow, B, A]


def test_one_that_failed_is_tried_first_again_after_a_success_or_some_time(hosts: Hosts, clock: Clock) -> None:
    failing(hosts, origin=A)
    clock.now += 1
    assert hosts.order([A, B]) == [B, A]
    good(hosts, A)
    assert hosts.order([A, B]) == [A, B]
    clock.now += FRESH_S
    failing(hosts, origin=A)
    assert hosts.order([A, B]) == [B, A]
    clock.now += LATELY_S - 0.01
    assert hosts.order([A, B]) == [B, A]
    clock.now += 0.01
    assert hosts.order([A, B]) == [A, B]


def test_one_that_asked_for_time_is_down_in_the_order_too(hosts: Hosts, clock: Clock) -> None:
    failing(hosts, origin=A, retry_after_s=1000)
    clock.now += LATELY_S + 1
    failing(hosts, origin=B)
    clock.now += 1
    assert hosts.order([A, B, C]) == [C, B, A]


@pytest.mark.parametrize(("speed", "slow"), [(24.0, True), (25.0, False), (1000.0, False)])
def test_a_mirror_is_slow_if_another_of_the_list_is_four_times_faster(hosts: Hosts, speed: float, slow: bool) -> None:
    rated(hosts, A, speed)
    rated(hosts, B, 100.0)
    rated(hosts, "http://not-in-the-list", 1e9)
    assert hosts.order([A, B]) == ([B, A] if slow else [A, B])
    assert hosts.order([A, C]) == [A, C], "there is nothing to compare it with"


def test_that_a_mirror_was_slow_is_forgiven_with_time(hosts: Hosts, clock: Clock) -> None:
    rated(hosts, A, 10.0)
    rated(hosts, B, 100.0)
    clock.now += HALF_LIFE_S
    assert hosts.order([A, B]) == [B, A]
    clock.now += HALF_LIFE_S / 2
    assert hosts.order([A, B]) == [A, B]
    rated(hosts, A, 10.0)
    assert hosts.order([A, B]) == [B, A]


def test_one_slow_transfer_among_many_does_not_make_a_mirror_slow_but_several_do(hosts: Hosts) -> None:
    rated(hosts, B, 100.0)
    rated(hosts, A, 100.0, 100.0, 100.0, 1.0)
    assert hosts.order([A, B]) == [A, B]
    rated(hosts, A, 1.0, 1.0, 1.0, 1.0)
    assert hosts.order([A, B]) == [B, A]


def test_an_old_measurement_counts_less_than_a_new_one(hosts: Hosts, clock: Clock) -> None:
    rated(hosts, A, 1.0)
    clock.now += 10 * HALF_LIFE_S
    rated(hosts, B, 100.0)
    rated(hosts, A, 26.0)
    assert hosts.order([A, B]) == [A, B]


# ----------------------------------------------------------------------------------------------------- whatever happens


class Visits(RuleBasedStateMachine):
    """Visits that come, receive, fail and go in any order; and what must hold of every host at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.hosts = Hosts(clock=self.clock, trials=2)
        self.visits: list[tuple[str, Request]] = []

    @rule(host=st.sampled_from([HOST, A]))
    def enter(self, host: str) -> None:
        before, told = self.clock.now, None
        try:
            self.visits.append((host, self.hosts.enter(host, self.clock.wait)))
        except TransferError as e:
            told = e
        assert self.clock.now - before <= 1.0 + ROUNDING_S
        assert told is None or told.retry_after_s is None or 0 < told.retry_after_s <= ASKED_LAST_S + ROUNDING_S

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def receive(self, data: st.DataObject) -> None:
        host, request = data.draw(st.sampled_from(self.visits))
        request.proven()
        state = self.hosts._hosts[origin_of(host)]
        if self.clock.now >= state._asked_until:
            self.visits += [(host, self.hosts.enter(host, never)) for _ in range(3)]

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), retry_after_s=st.none() | st.floats(-1, 5000))
    def fail(self, data: st.DataObject, retry_after_s: float | None) -> None:
        host, request = data.draw(st.sampled_from(self.visits))
        if retry_after_s is None and self.clock.now - self.hosts._hosts[origin_of(host)].good_at < FRESH_S:
            until = self.hosts._hosts[origin_of(host)]._down_until
            request.failed("why")
            assert self.hosts._hosts[origin_of(host)]._down_until == until, "bytes have just come"
        else:
            request.failed("why", retry_after_s)

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        _, request = self.visits.pop(data.draw(st.integers(0, len(self.visits) - 1)))
        request.__exit__()

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 70.0, 4000.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def the_accounts_are_right(self) -> None:
        for origin, host in self.hosts._hosts.items():
            inside = [request for url, request in self.visits if origin_of(url) == origin]
            assert host.inside == len(inside)
            assert host._trying == sum(request._era == host._era for request in inside)
            assert host._waiting == set()
            assert not host.proven or (host._downs, host._failed_at) == (0, -math.inf)

    def teardown(self) -> None:
        """Where nobody is, anybody can go once the time is over that is told; nothing blocks for ever."""
        for _, request in self.visits:
            request.__exit__()
        for host in (HOST, A):
            try:
                self.hosts.enter(host, never)
            except TransferError as e:
                self.clock.now += (e.retry_after_s or 0) + ROUNDING_S
                self.hosts.enter(host, never)


TestVisits = Visits.TestCase
TestVisits.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# --------------------------------------------------------------------------------------------- requests without a slot


def test_host_without_an_answer_has_few_requests_without_a_slot(hosts: Hosts, clock: Clock) -> None:
    with ExitStack() as stack:
        for _ in range(10):
            request = stack.enter_context(hosts.enter(HOST, never))
            request.proven()
            if request.host._unanswered < 8:
                assert request.await_answer(never, 8)
        with pytest.raises(TransferError, match="has not answered yet: 8 others wait for it"):
            request.await_answer(clock.wait, 8)
        assert clock.waits == [1.0]
        clock.meanwhile.append(request.host.answered)
        clock.now -= 0.5
        assert not request.await_answer(clock.wait, 8)  # it is live: a slot is needed
    assert hosts.get(HOST)._unanswered == 0
    assert not hosts.get(HOST)._waiting


def test_host_is_live_from_its_answer_until_it_is_silent_or_fails(hosts: Hosts, clock: Clock) -> None:
    host = hosts.get(HOST)
    with hosts.enter(HOST, never) as request:
        request.proven()
        assert not host.is_live
        host.answered()
        assert host.is_live
        clock.now += LIVE_S
        assert not host.is_live
        request.proven()
        assert host.is_live
        request.failed("reset")
        assert not host.is_live


def test_hurried_host_has_twice_as_long_each_time_until_it_answers(hosts: Hosts) -> None:
    host = hosts.get(HOST)
    assert host.within(30.0) == 30.0
    for seconds in (1.0, 2.0, 4.0):
        host.hurry(1.0)
        assert (host.within(30.0), host.within(0.5)) == (seconds, 0.5)
    host.hurry(math.inf)
    assert host.within(30.0) == 30.0
    host.hurry(1.0)
    assert host.within(30.0) == 8.0
    host.answered()
    assert host.within(30.0) == 30.0
    host.hurry(1.0)
    assert host.within(30.0) == 1.0
