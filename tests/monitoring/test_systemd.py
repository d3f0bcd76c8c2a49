"""What systemd is told: over paths and abstract names, and only that we live while we do."""

import os

import pytest

from fsdm.monitoring import systemd as notify
from fsdm.monitoring.health import Health
from fsdm.monitoring.systemd import Notifier
from tests.support.monitoring import systemd

WELL, STUCK = Health(True, "reconciling"), Health(False, "the reconciler is stuck")


def notifier(**environment: str) -> Notifier:
    """The notifier that an environment asks for."""
    made = Notifier.of(environment)
    assert made is not None
    return made


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_it_says_that_it_is_ready_how_it_stands_and_that_it_stops(kind: str) -> None:
    with systemd(kind) as it:
        with notifier(NOTIFY_SOCKET=it.address).serving(lambda: WELL):
            assert it.heard() == ["READY=1", "STATUS=reconciling"]
        assert it.heard() == ["STOPPING=1", "STATUS=stopping"]


def test_it_says_that_it_lives_several_times_within_what_systemd_waits() -> None:
    with systemd() as it:
        every_30_ms = notifier(NOTIFY_SOCKET=it.address, WATCHDOG_USEC="30000")
        assert every_30_ms.watchdog_s == 0.03
        with every_30_ms.serving(lambda: WELL):
            it.heard()
            assert [it.heard() for _ in range(3)] == [["WATCHDOG=1", "STATUS=reconciling"]] * 3


def test_while_the_loop_is_stuck_it_says_so_and_not_that_it_lives() -> None:
    verdict = STUCK
    with systemd() as it, Notifier(it.address, watchdog_s=0.03).serving(lambda: verdict):
        assert it.heard() == ["READY=1", "STATUS=the reconciler is stuck"]
        assert [it.heard() for _ in range(5)] == [["STATUS=the reconciler is stuck"]] * 5
        verdict = WELL
        assert it.all_until("WATCHDOG=1")[-1] == ["WATCHDOG=1", "STATUS=reconciling"]


def test_without_a_watchdog_it_tells_how_it_stands_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "STATUS_S", 0.01)
    with systemd() as it, Notifier(it.address).serving(lambda: WELL):
        it.heard()
        assert it.heard() == ["STATUS=reconciling"]


@pytest.mark.parametrize(
    ("asked", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}, 1.0),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, None),  # another process's
        *(({"WATCHDOG_USEC": usec}, None) for usec in ("", "0", "-1", "x", "٣")),
    ],
    ids=["ours", "another process's", "empty", "zero", "negative", "a letter", "other digits"],
)
def test_a_watchdog_is_ours_and_a_number(asked: dict[str, str], watchdog_s: float | None) -> None:
    assert notifier(NOTIFY_SOCKET="@x", **asked).watchdog_s == watchdog_s


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}], ids=str)
def test_no_socket_that_is_known_means_no_message(environment: dict[str, str]) -> None:
    assert Notifier.of(environment) is None


def test_a_socket_that_is_gone_or_full_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    Notifier("/nowhere/notify").send("READY=1")
    assert "systemd was not told READY=1" in caplog.text
    with systemd() as it:
        unread = Notifier(it.address)
        for _ in range(2000):
            unread.send("STATUS=x")
        assert "Resource temporarily unavailable" in caplog.text


def test_a_line_break_begins_no_other_state() -> None:
    with systemd() as it:
        Notifier(it.address).send("STATUS=one\nMAINPID=1", "X=2")
        assert it.heard() == ["STATUS=one MAINPID=1", "X=2"]
