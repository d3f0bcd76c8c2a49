"""Health that tells the truth: of a loop that rests, is stuck, fails, has ended; of a disk that is gone or hangs."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fsdm.reconcile.loop
from fsdm import DataManager
from fsdm.model.layout import Layout
from fsdm.monitoring.health import Health, health, look_at_disk, readiness
from fsdm.reconcile.heartbeat import GRACE_S
from fsdm.store.filesystem import Space
from tests.support import eventually, in_a_fork
from tests.support.chunks import an_id
from tests.support.monitoring import Stuck

NOBODY = 65_534
SPACE = Space(free_bytes=1, size_bytes=2, free_inodes=3, read_only=False)


@pytest.fixture
def stuck(dm: DataManager, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    """A manager whose loop is kept at a look."""
    stuck = Stuck(dm, monkeypatch)
    yield stuck
    stuck.gate.set()


def test_a_loop_that_rests_is_well(dm: DataManager) -> None:
    assert (health(dm).is_well, health(dm).why) == (True, "reconciling")


def test_stuck_loop_is_unwell_after_the_grace_until_it_goes_on(dm: DataManager, stuck: Stuck) -> None:
    assert health(dm).is_well
    stuck.ahead_s = GRACE_S + 1
    verdict = health(dm)
    assert not verdict.is_well
    assert verdict.why.startswith("the reconciler is stuck: it should have gone on 3")
    stuck.gate.set()
    eventually(lambda: health(dm).is_well)


def test_loop_whose_passes_fail_is_not_well_until_one_succeeds(
    dm: DataManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reconciler, ahead_s, looks = dm.reconciler, 0.0, fsdm.reconcile.loop.look
    assert reconciler is not None
    monkeypatch.setattr(reconciler.heartbeat, "_clock", lambda: time.monotonic() + ahead_s)

    def look(*args: Any) -> Any:
        raise OSError("injected")

    monkeypatch.setattr(fsdm.reconcile.loop, "look", look)
    dm.delete_chunk(an_id())
    eventually(lambda: dm.counters.counts().failed_passes > 0)
    assert health(dm).is_well  # one is none
    eventually(lambda: "a pass of the reconciler failed: injected" in caplog.text)
    assert "Traceback" not in caplog.text, "what the disk says is no defect of ours"
    ahead_s = GRACE_S + 5
    eventually(lambda: "has failed for" in health(dm).why)
    assert not health(dm).is_well
    monkeypatch.setattr(fsdm.reconcile.loop, "look", looks)
    eventually(lambda: health(dm).is_well)


@pytest.mark.parametrize("where", [lambda dm: (fsdm.reconcile.loop, "look"), lambda dm: (dm._lock, "is_ours")])
def test_process_whose_reconciler_has_ended_lets_lock_go_and_is_neither_well_nor_ready(
    dm: DataManager, monkeypatch: pytest.MonkeyPatch, where: Any
) -> None:
    def end(*args: Any) -> Any:
        raise SystemExit  # no `Exception`: it ends the thread

    monkeypatch.setattr(*where(dm), end)
    dm.delete_chunk(an_id())
    eventually(lambda: dm.error)
    assert health(dm) == readiness(dm, SPACE) == Health(False, "the reconciler has ended: see the log")
    monkeypatch.undo()
    eventually(lambda: dm.status().reconciler is None)
    assert not dm.reconciling
    with DataManager(dm.layout.root) as standby:
        assert standby.reconciling


def test_a_process_that_stands_by_a_client_and_one_that_is_closed_are_well(dm: DataManager, data_dir: Path) -> None:
    with DataManager(data_dir) as standby, DataManager(data_dir, reconcile=False) as client:
        assert health(standby).is_well
        assert "standing by" in health(standby).why
        assert health(client).is_well
    assert health(standby).why == "stopping"
    assert health(None).is_well  # the directory is being opened, which takes as long as it takes


def test_ready_means_that_what_is_asked_for_can_be_done(dm: DataManager, data_dir: Path) -> None:
    assert readiness(dm, look_at_disk(dm.layout)).is_well
    with DataManager(data_dir) as standby:
        assert readiness(standby, SPACE).is_well
    assert not readiness(standby, SPACE).is_well
    assert not readiness(None, SPACE).is_well
    assert readiness(dm, None).why == "the disk has not answered within 1 s"
    assert not readiness(dm, None).is_well
    read_only = readiness(dm, replace(SPACE, read_only=True))
    assert (read_only.is_well, "read-only" in read_only.why) == (False, True)


def test_a_directory_that_is_gone_is_not_ready(layout: Layout) -> None:
    shutil.rmtree(layout.root)
    assert look_at_disk(layout) == "the data directory is gone, or is none any more"


def test_markers_that_cannot_be_seen_are_not_ready(layout: Layout, data_dir: Path) -> None:
    def look() -> object:
        if os.geteuid() == 0:  # who may search any directory
            os.setuid(NOBODY)
        return look_at_disk(layout)

    for directory in (data_dir, *data_dir.parents[:-2]):
        directory.chmod(0o755)
    os.chmod(layout.delete, 0)
    try:
        assert in_a_fork(look) == "delete/ cannot be searched"
    finally:
        os.chmod(layout.delete, 0o755)


def test_the_disk_says_how_large_it_is(layout: Layout) -> None:
    space = look_at_disk(layout)
    assert isinstance(space, Space)
    assert not space.read_only
    assert 0 < space.free_bytes <= space.size_bytes


def test_no_verdict_names_a_path(data_dir: Path) -> None:
    with DataManager(data_dir) as dm:
        data_dir.rename(data_dir.with_name("aside"))
        assert str(data_dir) not in readiness(dm, look_at_disk(dm.layout)).why
        assert str(data_dir) not in health(dm).why
