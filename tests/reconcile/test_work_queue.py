"""The work queue: what can be started now, in which order, and when to look again."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdm.model.state import Marker
from fsdm.reconcile import actions
from fsdm.reconcile.actions import Action, Wait
from fsdm.reconcile.work_queue import MANY_REFUSALS, WorkQueue
from tests.support.states import DELETE, NOW, OLD, WANT, _failure


def _fetch(chunk_id: str, ctime_ns: int) -> actions.Fetch:
    return actions.Fetch(chunk_id, Marker(1, ctime_ns, 1, 1))


def test_deletes_go_before_the_rest_and_all_of_them_before_downloads() -> None:
    work_queue = WorkQueue()
    first = [
        actions.Overrule("1", "want", WANT, DELETE),
        actions.Register("14", "delete", DELETE, WANT),
        actions.Unregister("15", WANT, DELETE),
        actions.Evict("18", OLD, WANT),
        actions.Retire("2", OLD, DELETE),
        actions.Clear("3", OLD),
        actions.Discard("4"),
        actions.Forget("5", DELETE),
    ]
    rest = [
        actions.Publish("6", WANT),
        actions.Confirm("7", WANT, OLD),
        actions.Quarantine("8", OLD),
        actions.Report("9", _failure()),
        actions.ClearFailure("10"),
    ]
    rest += [actions.ClearEvict("19", WANT), actions.Use("16", OLD, WANT), actions.ClearAcquire("17", WANT)]
    rest += [actions.Renew("11", OLD), actions.Verify("12", OLD, WANT), actions.ClearVerify("13", WANT)]
    for action in [_fetch("0", 1), *rest, *first]:
        work_queue.put(action.id, action)
    taken = list(work_queue.take(1))
    assert {type(action).__name__ for action in taken} == {each.__name__ for each in Action.__subclasses__()}
    assert (taken[:8], taken[8:19], taken[19:]) == (first, rest, [_fetch("0", 1)])
    assert list(work_queue.take(1)) == []


def _asked(chunk_id: str, registered_ns: int, asked_ns: int) -> actions.Fetch:
    return actions.Fetch(chunk_id, Marker(1, registered_ns, 1, 1), True, asked_ns)


def test_what_is_asked_for_takes_its_turn_by_that_and_not_by_its_registration() -> None:
    work_queue = WorkQueue()
    for fetch in (_asked("b", 1, 30), _asked("c", 9, 10), _fetch("a", 20)):
        work_queue.put(fetch.id, fetch)
    assert [action.id for action in work_queue.take(9)] == ["c", "a", "b"]


def test_others_that_ask_as_well_do_not_put_off_what_waits() -> None:
    for park in (False, True):
        work_queue = WorkQueue()
        for fetch in (_asked("a", 1, 10), _asked("b", 1, 20)):
            work_queue.put(fetch.id, fetch)
        if park:
            for action in [*work_queue.take(2)]:
                assert isinstance(action, actions.Fetch)
                work_queue.park(action, 100)
        work_queue.put("a", _asked("a", 1, 30))
        assert work_queue.parked_needs(9) == [100] * 2 * park
        work_queue.unpark(100, 1)
        assert [action.id for action in work_queue.take(1)] == ["a"]


def test_new_wants_are_fetched_before_failing_ones_and_older_before_younger() -> None:
    work_queue = WorkQueue()
    for chunk_id, ctime_ns, attempts in [("e", 1, 7), ("c", 9, 0), ("d", 1, 1), ("b", 5, 0), ("a", 9, 0)]:
        work_queue.put(chunk_id, _fetch(chunk_id, ctime_ns), attempts)
    assert work_queue.waiting_fetches == 5
    assert [action.id for action in work_queue.take(2)] == ["b", "a"]
    assert [action.id for action in work_queue.take(0)] == []
    assert work_queue.waiting_fetches == 3
    assert [action.id for action in work_queue.take(9)] == ["c", "d", "e"]


def test_an_older_want_moves_up_and_an_unchanged_one_stays() -> None:
    work_queue = WorkQueue()
    for chunk_id, ctime_ns in [("a", 9), ("b", 5), ("b", 5), ("b", 5)]:
        work_queue.put(chunk_id, _fetch(chunk_id, ctime_ns))
    assert len(work_queue._queue) == 2, "each scan would make it longer"
    work_queue.put("a", _fetch("a", 1))
    assert list(work_queue.take(2)) == [_fetch("a", 1), _fetch("b", 5)]


@pytest.mark.parametrize("other", [None, Wait(NOW + 1), actions.Discard("a")])
def test_a_new_decision_replaces_a_fetch(other: Action | Wait | None) -> None:
    work_queue = WorkQueue()
    work_queue.put("a", _fetch("a", 1))
    work_queue.put("a", other)
    assert work_queue.waiting_fetches == 0
    assert list(work_queue.take(1)) == ([other] if isinstance(other, actions.Discard) else [])
    work_queue.put("a", _fetch("a", 2))
    assert list(work_queue.take(1)) == [_fetch("a", 2)]
    assert work_queue.next_at is None


def test_waits_come_due_in_their_time_and_only_the_last_one_of_an_id() -> None:
    work_queue = WorkQueue()
    for chunk_id, until in [("a", 5.0), ("b", 3.0), ("a", 9.0), ("c", 4.0), ("d", 3.0)]:
        work_queue.put(chunk_id, Wait(until))
    work_queue.put("d", None)
    assert (work_queue.due(2.9), work_queue.next_at) == ([], 3.0)
    assert (work_queue.due(3.0), work_queue.next_at) == (["b"], 4.0)
    assert (work_queue.due(8.9), work_queue.next_at) == (["c"], 9.0)
    assert (work_queue.due(1e9), work_queue.next_at) == (["a"], None)


chunk_ids = st.sampled_from("abc")
decisions = st.one_of(
    st.none(),
    st.builds(lambda until: Wait(float(until)), st.integers(0, 20)),
    st.builds(lambda ctime: ("fetch", ctime), st.integers(1, 3)),
    st.just("discard"),
)
steps = st.lists(
    st.tuples(st.just("put"), chunk_ids, decisions, st.integers(0, 2))
    | st.tuples(st.just("take"), st.integers(0, 3))
    | st.tuples(st.just("due"), st.integers(0, 20)),
    max_size=40,
)


@given(steps)
@settings(max_examples=400, deadline=None)
def test_a_queue_tells_each_decision_once_and_only_the_last_one_of_an_id(steps: list[Any]) -> None:
    work_queue, pending = WorkQueue(), dict[str, Action | Wait]()
    for step in steps:
        match step:
            case ("put", chunk_id, what, attempts):
                if what == "discard":
                    what = actions.Discard(chunk_id)
                elif isinstance(what, tuple):
                    what = _fetch(chunk_id, what[1])
                work_queue.put(chunk_id, what, attempts)
                pending.pop(chunk_id, None)
                if what is not None:
                    pending[chunk_id] = what
            case ("take", slots):
                taken = list(work_queue.take(slots))
                soon = [action for action in pending.values() if isinstance(action, actions.Discard)]
                fetches = [action for action in pending.values() if isinstance(action, actions.Fetch)]
                counts = Counter(type(action) for action in taken)
                assert (counts[actions.Discard], counts[actions.Fetch]) == (len(soon), min(slots, len(fetches)))
                for action in taken:
                    assert pending.pop(action.id) == action
            case ("due", now):
                over = {chunk_id for chunk_id, what in pending.items() if isinstance(what, Wait) and what.until <= now}
                due = work_queue.due(float(now))
                assert (set(due), len(due)) == (over, len(over))
                for chunk_id in over:
                    del pending[chunk_id]
        waits = [what.until for what in pending.values() if isinstance(what, Wait)]
        assert work_queue.next_at == min(waits, default=None)
        assert work_queue.waiting_fetches == sum(isinstance(what, actions.Fetch) for what in pending.values())


def test_a_fetch_that_is_not_admitted_holds_up_no_other() -> None:
    work_queue = WorkQueue()
    for chunk_id, ctime_ns in [("a", 1), ("b", 2), ("c", 3)]:
        work_queue.put(chunk_id, _fetch(chunk_id, ctime_ns))

    def admit(fetch: actions.Fetch) -> bool:
        if fetch.id == "a":
            work_queue.park(fetch, 100)
        return fetch.id != "a"

    assert [action.id for action in work_queue.take(2, admit)] == ["b", "c"]
    assert (work_queue.waiting_fetches, work_queue.parked_fetches) == (0, 1)


def test_parked_fetches_come_back_oldest_first_as_they_fit() -> None:
    work_queue = WorkQueue()
    for chunk_id, ctime_ns, need in [("a", 1, 90), ("b", 2, 40), ("c", 3, 70), ("d", 4, 50), ("e", 5, 5)]:
        work_queue.park(_fetch(chunk_id, ctime_ns), need)
    for too_little, slots in [(4, 9), (-1, 9), (100, 0)]:
        work_queue.unpark(too_little, slots)
        assert work_queue.waiting_fetches == 0
    work_queue.unpark(94, 2)
    assert [action.id for action in work_queue.take(9)] == ["a"]  # the 4 that are left are too few for any
    work_queue.unpark(94, 2)
    assert [action.id for action in work_queue.take(9)] == ["b", "d"]
    assert work_queue.parked_fetches == 2


def test_a_parked_fetch_leaves_with_another_decision() -> None:
    work_queue = WorkQueue()
    work_queue.park(_fetch("a", 1), 10)
    work_queue.put("a", _fetch("a", 1))
    assert (work_queue.waiting_fetches, work_queue.parked_fetches) == (0, 1)
    work_queue.put("a", actions.Fetch("a", Marker(1, 1, 2, 1)))  # another want: what it needs is not known
    assert (work_queue.waiting_fetches, work_queue.parked_fetches) == (1, 0)
    work_queue.park(_fetch("b", 1), 10)
    work_queue.put("b", None)
    assert work_queue.parked_fetches == 0


def test_so_many_refusals_end_a_round_so_that_deletes_do_not_wait_for_all_of_them() -> None:
    work_queue, asked = WorkQueue(), list[str]()
    for number in range(MANY_REFUSALS + 10):
        work_queue.put(str(number), _fetch(str(number), number))
    assert list(work_queue.take(1, lambda fetch: bool(asked.append(fetch.id)))) == []
    assert len(asked) == MANY_REFUSALS
    assert work_queue.waiting_fetches == 10


needs = st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(st.integers(1, 5), st.integers(0, 100)), max_size=8)


@given(needs, st.lists(st.tuples(st.integers(-10, 150), st.integers(0, 4)), max_size=6))
@settings(max_examples=400, deadline=None)
def test_unparked_fetches_fit_and_none_is_left(needs: dict[str, tuple[int, int]], rooms: list[tuple[int, int]]) -> None:
    work_queue = WorkQueue()
    for chunk_id, (ctime_ns, need) in needs.items():
        work_queue.park(_fetch(chunk_id, ctime_ns), need)
    parked = dict(needs)
    for space, slots in rooms:
        work_queue.unpark(space, slots)
        came = {action.id for action in work_queue.take(9)}
        expected, left = set(), space
        for chunk_id in sorted(parked, key=lambda name: (parked[name][0], name)):
            if len(expected) < slots and parked[chunk_id][1] <= left:
                expected.add(chunk_id)
                left -= parked[chunk_id][1]
        assert came == expected
        for chunk_id in came:
            del parked[chunk_id]
        assert work_queue.parked_fetches == len(parked)
