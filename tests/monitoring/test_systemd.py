"""What systemd is told: over paths and abstract names, and only that we live while we do."""

from __future__ import annotations

import os

import pytest

from fsdm.monitoring import systemd as notify
from fsdm.monitoring.health import Health
from fsdm.monitoring.systemd import Notifier
from tests.support.monitoring import systemd

WELL, STUCK = Health(True, "reconciling"), Health(False, "the reconciler is stuck")


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_it_says_that_it_is_ready_how_it_stands_and_that_it_stops(kind: str) -> None:
    with systemd(kind) as it:
        notifier = Notifier.of({"NOTIFY_SOCKET": it.address})
        assert notifier is not None
        with notifier.serving(lambda: WELL):
            assert it.heard() == ["READY=1", "STATUS=reconciling"]
        assert it.heard() == ["STOPPING=1", "STATUS=stopping"]


def test_it_says_that_it_lives_several_times_within_what_systemd_waits() -> None:
    with systemd() as it:
        notifier = Notifier.of({"NOTIFY_SOCKET": it.address, "WATCHDOG_USEC": "30000"})
        assert notifier is not None
        assert notifier.watchdog_s == 0.03
        with notifier.serving(lambda: WELL):
            it.heard()
            assert [it.heard() for _ in range(3)] == [["WATCHDOG=1", "STATUS=reconciling"]] * 3


def test_while_the_loop_is_stuck_it_says_so_and_not_that_it_lives() -> None:
    verdict = STUCK
    with systemd() as it:
        notifier = Notifier(it.address, watchdog_s=0.03)
        with notifier.serving(lambda: verdict):
            assert it.heard() == ["READY=1", "STATUS=the reconciler is stuck"]
            assert [it.heard() for _ in range(5)] == [["STATUS=the reconciler is stuck"]] * 5
            verdict = WELL
            assert it.all_until("WATCHDOG=1")[-1] == ["WATCHDOG=1", "STATUS=reconciling"]


def test_without_a_watchdog_it_tells_how_it_stands_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "STATUS_S", 0.01)
    with systemd() as it, Notifier(it.address).serving(lambda: WELL):
        it.heard()
        assert it.heard() == ["STATUS=reconciling"]


def test_a_watchdog_of_another_process_is_none_of_ours() -> None:
    asked = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000000"}
    for pid, expected in ((os.getpid(), 1.0), (1, None)):
        notifier = Notifier.of(asked | {"WATCHDOG_PID": str(pid)})
        assert notifier is not None
        assert notifier.watchdog_s == expected


@pytest.mark.parametrize("usec", ["", "0", "-1", "x", "٣"])
def test_a_watchdog_that_is_no_number_is_none(usec: str) -> None:
    notifier = Notifier.of({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": usec})
    assert notifier is not None
    assert notifier.watchdog_s is None


def test_without_the_variable_nothing_is_said_and_vsock_is_not_known() -> None:
    assert Notifier.of({}) is None
    assert Notifier.of({"NOTIFY_SOCKET": ""}) is None
    assert Notifier.of({"NOTIFY_SOCKET": "vsock:2:1234"}) is None


def test_a_socket_that_is_gone_or_full_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    Notifier("/nowhere/notify").send("READY=1")
    assert "systemd was not told READY=1" in caplog.text
    with systemd() as it:
        notifier = Notifier(it.address)
        for _ in range(2000):  # nobody reads
            notifier.send("STATUS=x")
        assert "Resource temporarily unavailable" in caplog.text


def test_a_line_break_begins_no_other_state() -> None:
    with systemd() as it:
        Notifier(it.address).send("STATUS=one\nMAINPID=1", "X=2")
        assert it.heard() == ["STATUS=one MAINPID=1", "X=2"]
