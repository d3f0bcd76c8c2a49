"""An outage of the disk: when it is asked again, and how many fetches may run meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fsdm.reconcile.outage import PROBE_FIRST_S, PROBE_LAST_S, Outage

NOW = 1_000_000.0


def test_a_refusal_pauses_all_and_only_the_first_begins_an_outage() -> None:
    outage = Outage()
    assert outage.slots(8) == 8
    assert outage.refused("full", NOW)
    assert not outage.refused("full as well", NOW)
    assert (outage.why, outage.slots(8)) == ("full as well", 0)


def test_probes_come_ever_less_often_and_after_half_a_minute_at_the_latest() -> None:
    outage, now, pauses = Outage(), NOW, []
    outage.refused("full", now)
    for _ in range(8):
        pauses.append(outage.next_probe_at - now)
        now = outage.next_probe_at
        assert not outage.probe_is_due(now - 0.001)
        assert outage.probe_is_due(now)
        assert not outage.probe_is_due(now)
    assert pauses == [PROBE_FIRST_S, 2.0, 4.0, 8.0, 16.0, PROBE_LAST_S, PROBE_LAST_S, PROBE_LAST_S]


def test_what_is_freed_is_a_reason_to_probe_at_once() -> None:
    outage = Outage()
    outage.refused("full", NOW)
    outage.freed(NOW + 0.1)
    assert outage.probe_is_due(NOW + 0.1)


def test_after_an_outage_one_fetch_tries_and_all_follow_once_it_is_done() -> None:
    outage = Outage()
    outage.refused("full", NOW)
    outage.is_over()
    assert outage.slots(8) == 1
    outage.came_through()
    assert outage.slots(8) == 8


def test_a_fetch_that_is_done_while_it_lasts_says_little() -> None:
    outage = Outage()
    outage.refused("full", NOW)
    outage.came_through()
    outage.is_over()
    assert outage.slots(8) == 1


def test_an_outage_that_comes_back_before_a_fetch_was_done_waits_longer_than_the_first() -> None:
    outage = Outage()
    outage.refused("full", NOW)
    outage.is_over()
    assert outage.refused("full", NOW)
    assert outage.next_probe_at == NOW + 2.0


def test_a_clock_that_was_set_back_holds_up_no_probe() -> None:
    outage = Outage()
    outage.refused("full", NOW)
    assert outage.probe_is_due(NOW - 3600.0)


@given(st.lists(st.sampled_from(["refused", "probe", "freed", "over", "through", "wait"]), max_size=40))
def test_it_probes_only_while_it_lasts_and_never_twice_at_one_time(steps: list[str]) -> None:
    outage, now = Outage(), NOW
    for step in steps:
        match step:
            case "refused":
                outage.refused("no", now)
            case "probe":
                due = outage.probe_is_due(now)
                assert outage.why or not due
                assert not outage.probe_is_due(now)
            case "freed":
                outage.freed(now)
            case "over":
                outage.is_over()
            case "through":
                outage.came_through()
            case _:
                now += 7.0
        assert outage.slots(4) in ({0} if outage.why else {1, 4})
