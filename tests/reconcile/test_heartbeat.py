"""A loop that rests is told from one that is stuck, and from one whose passes all fail."""

from fsdm.reconcile.heartbeat import GRACE_S, Heartbeat


class Clock:
    """A clock that only goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_is_late_once_the_beat_that_it_promised_has_not_come() -> None:
    heartbeat = Heartbeat(clock := Clock())
    heartbeat.beat(5.0)
    clock.now += 5.0
    assert (heartbeat.late_s, heartbeat.trouble()) == (0.0, "")
    clock.now += GRACE_S
    assert heartbeat.trouble() == ""
    clock.now += 1.0
    assert (heartbeat.late_s, heartbeat.trouble()) == (31.0, "the reconciler is stuck: it should have gone on 31 s ago")
    heartbeat.beat()
    assert heartbeat.trouble() == ""


def test_a_long_rest_that_was_promised_is_no_lateness() -> None:
    heartbeat = Heartbeat(clock := Clock())
    heartbeat.beat(float("inf"))
    clock.now += 1e9
    assert heartbeat.trouble() == ""


def test_passes_that_fail_one_after_the_other_are_trouble_though_the_loop_beats() -> None:
    heartbeat = Heartbeat(clock := Clock())
    for _ in range(4):
        heartbeat.failed()
        clock.now += 10.0
        heartbeat.beat(10.0)
    assert heartbeat.trouble() == "every pass of the reconciler has failed for 40 s: see its log"
    heartbeat.passed()
    assert (heartbeat.failing_s, heartbeat.trouble()) == (0.0, "")


def test_one_pass_that_failed_is_none() -> None:
    heartbeat = Heartbeat(clock := Clock())
    heartbeat.failed()
    heartbeat.passed()
    clock.now += 100.0
    heartbeat.beat()
    heartbeat.failed()
    assert heartbeat.failing_s == 0.0
