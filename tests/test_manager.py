"""The whole main job through the Python API, in one process, over a real HTTP server."""

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

import fsdm.manager
from fsdm import DataManager, Event, Limits
from fsdm.manager import run_once
from fsdm.model.layout import Layout
from fsdm.reconcile.reconciler import Reconciler
from fsdm.store.data_dir import make_layout
from tests.support import PATIENCE_S, Recorder, Source, descriptors, eventually, expected
from tests.support.chunks import bring, chunk_dir, entries, files_of


def test_manager_shows_its_directory_and_its_part(data_dir: Path) -> None:
    with DataManager(data_dir) as dm:
        assert repr(dm) == f"<DataManager {data_dir}, reconciles>"
        with DataManager(data_dir, reconcile=False) as client:
            assert repr(client) == f"<DataManager {data_dir}, a client>"
    assert repr(dm) == f"<DataManager {data_dir}, closed>"


def test_a_data_directory_that_is_made_is_there_for_good_with_all_that_is_above_it(tmp_path: Path) -> None:
    fs = Recorder()
    make_layout(Layout(tmp_path / "above" / "data"), fs)
    assert [(name, os.path.relpath(path, tmp_path)) for name, path in fs.steps[:4]] == [
        ("mkdir", "above"),
        ("fsync_dir", "."),
        ("mkdir", "above/data"),
        ("fsync_dir", "above"),
    ]


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_callback_that_raises_is_logged(
    data_dir: Path, source: Source, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    told: list[str] = []

    def hear(event: Event) -> None:
        told.append(event.kind)
        raise error(f"not {event.kind}")

    chunk, late = source.chunk(), source.chunk(start=10, end=20)
    with DataManager(data_dir, on_event=hear) as dm:
        dm.download_chunk(chunk)
        assert dm.wait(chunk.id, PATIENCE_S)
        with dm.find_chunk(chunk.dataset_id, 0):
            dm.delete_chunk(chunk.id)
            eventually(lambda: "retiring" in told, "it was told that the chunk waits")
            dm.download_chunk(late)
            assert dm.wait(late.id, PATIENCE_S)
        assert not dm.wait(chunk.id, PATIENCE_S)
    assert {"started", "file", "available", "retiring", "deleted"} <= set(told)
    assert {record.getMessage().split(":")[0] for record in caplog.records if record.exc_info} == {"on_event failed at"}


def test_a_callback_that_rests_holds_nothing_up_and_is_told_that_it_missed_something(
    data_dir: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsdm.concurrency.channel.BOUND", 2)
    gate, began, told = threading.Event(), threading.Event(), list[Event]()

    def hear(event: Event) -> None:
        began.set()
        assert gate.wait(PATIENCE_S)
        told.append(event)

    first, second = source.chunk(), source.chunk(start=10, end=20)
    with DataManager(data_dir, on_event=hear) as dm:
        for chunk in (first, second):
            dm.download_chunk(chunk)
            assert dm.wait(chunk.id, PATIENCE_S)
            dm.delete_chunk(chunk.id)
            assert not dm.wait(chunk.id, PATIENCE_S)
        assert began.wait(PATIENCE_S)
        counts, channel = dm.counters.counts, dm._observer._channel
        eventually(lambda: counts().events["deleted"] == 2)
        happened = sum(counts().events.values())
        eventually(lambda: channel._number == happened)
        assert not told
        gate.set()
        gap = eventually(lambda: next((event for event in told if event.kind == "gap"), None))
    assert (len(told), gap.text) == (4, f"{happened - 3} events were not told, for on_event took too long")
    assert counts().events["gap"] == 1


@pytest.mark.parametrize("durability", ["none", "chunk"])
def test_durability_is_a_choice_and_without_it_nothing_below_the_directory_is_synced(
    data_dir: Path, source: Source, durability: Literal["none", "chunk"], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    chunk = source.chunk()
    with DataManager(data_dir, limits=Limits(durability=durability)) as dm:
        dm.download_chunk(chunk)
        assert dm.wait(chunk.id, PATIENCE_S)
        dm.delete_chunk(chunk.id)
        assert not dm.wait(chunk.id, PATIENCE_S)
    below = [path for path in synced if path.startswith(str(data_dir))]
    assert bool(below) == (durability == "chunk")
    assert durability == "none" or any(path.endswith("/data/blocks.parquet") for path in below)


def test_a_takeover_restores_the_layout(data_dir: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = source.chunk()
    with DataManager(data_dir) as first, DataManager(data_dir) as second:
        going = threading.Event()
        take_over = second._take_over
        monkeypatch.setattr(second, "_take_over", lambda: going.is_set() and take_over())
        first.close()
        for name in Layout(data_dir).directories():
            (data_dir / name).rmdir()
        going.set()
        eventually(lambda: second.reconciling)
        second.download_chunk(chunk)
        assert second.wait(chunk.id, 10)


def once(data_dir: Path) -> None:
    run_once(
        str(data_dir), threading.Event(), Limits(), lambda event: None, wait=False, allow_unknown_fs=False
    )  # fmt: skip


@pytest.mark.parametrize("step", ["__init__", "open", "start"])
@pytest.mark.parametrize("make", [DataManager, once])
def test_reconciler_that_cannot_be_made_leaves_no_descriptor_and_no_thread(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], step: str
) -> None:
    if make is once and step == "start":
        pytest.skip("a single run starts no thread")
    with DataManager(data_dir):
        pass
    before, threads = descriptors(), threading.active_count()
    good = getattr(Reconciler, step)

    def refuse(self: Reconciler, *given: Any, **named: Any) -> None:
        if step == "start":
            good(self, *given, **named)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as put:
        put.setattr(Reconciler, step, refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            make(data_dir)
    eventually(lambda: descriptors() <= before and threading.active_count() <= threads)
    with DataManager(data_dir) as dm:
        assert dm.reconciling


def test_a_standby_that_cannot_take_over_says_so_once_until_it_is_another_reason(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries, reasons = itertools.count(1), {1: "one", 2: "one", 3: "two", 4: "two", 6: "two"}
    done = threading.Event()

    def take_over() -> bool:
        number = next(tries)
        if number > max(reasons):
            done.set()
        elif number in reasons:
            raise OSError(reasons[number])
        return False

    monkeypatch.setattr(fsdm.manager, "STANDBY_S", 0.001)
    with DataManager(data_dir), DataManager(data_dir) as second:
        monkeypatch.setattr(second, "_take_over", take_over)
        assert done.wait(PATIENCE_S)
    assert [record.args[1].args[0] for record in caplog.records if "cannot take over" in record.msg] == [
        "one",
        "two",
        "two",  # by then, it was another one that reconciled
    ]


def test_directory_of_a_dataset_goes_after_its_last_chunk(dm: DataManager, source: Source, data_dir: Path) -> None:
    first, second = source.chunk(), source.chunk(start=10, end=20)
    stays = source.chunk(dataset="e" * 64)
    bring(dm, first, second, stays)
    for chunk in (first, second):
        assert entries(data_dir / "chunks") == ["d" * 64, "e" * 64]
        dm.delete_chunk(chunk.id)
        assert not dm.wait(chunk.id, PATIENCE_S)
    eventually(lambda: entries(data_dir / "chunks") == ["e" * 64])
    bring(dm, first)
    assert files_of(chunk_dir(data_dir, first) / "data") == expected(first, source)


def test_directory_of_a_dataset_stays_while_an_action_runs(dm: DataManager, source: Source, data_dir: Path) -> None:
    chunk, coming = source.chunk(), source.chunk(start=10, end=20)
    bring(dm, chunk)
    fault = source.fault(f"/{coming.id}/blocks.parquet", stall_at=10)
    dm.download_chunk(coming)
    assert fault.stalled.wait(PATIENCE_S)
    dm.delete_chunk(chunk.id)
    assert not dm.wait(chunk.id, PATIENCE_S)
    assert dm.reconciler is not None
    scanned_at = dm.reconciler.loop.next_scan
    eventually(lambda: dm.reconciler.loop.next_scan > scanned_at)
    assert entries(data_dir / "chunks") == ["d" * 64]
    fault.gate.set()
    assert dm.wait(coming.id, PATIENCE_S)
