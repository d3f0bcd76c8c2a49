"""A trace is written by nobody who waits for it, and says what it lacks."""

import errno
import fcntl
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

import fsdm
import fsdm.store.trace_file
from fsdm import DataManager
from fsdm.model.events import Event
from fsdm.monitoring.trace import MAX_TEXT, Trace
from tests.support import PATIENCE_S, Source, eventually

ID = "ab" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def told(path: Path) -> list[tuple[int, str]]:
    return [(one["seq"], one["event"]) for one in lines(path)]


def test_lines_say_what_events_do_between_a_begin_and_an_end(path: Path) -> None:
    for _ in range(2):
        with Trace(path) as trace:
            trace.tell(Event("available", ID, "2 files", "d" * 64, 20, 0.5, 0.25))
            trace.tell(Event("paused", "", "x" * (MAX_TEXT + 1) + "\udc80"))
    assert told(path) == [
        *((1, "began"), (2, "available"), (3, "paused"), (4, "ended")),
        *((5, "began"), (6, "available"), (7, "paused"), (8, "ended")),
    ]
    began, available, paused, _ = lines(path)[:4]
    assert began["version"] == fsdm.__version__
    assert available.pop("time").endswith("Z")
    assert available == {"seq": 2, **Event("available", ID, "2 files", "d" * 64, 20, 0.5, 0.25).fields()}
    assert paused["text"] == "x" * MAX_TEXT


def test_a_name_that_is_no_unicode_can_be_written(path: Path) -> None:
    with Trace(path) as trace:
        trace.tell(Event("failed", ID, "caf\udce9"))
    assert lines(path)[1]["text"] == "caf\udce9"


def test_nothing_happened_and_nothing_is_written(path: Path) -> None:
    with Trace(path):
        pass
    assert path.read_bytes() == b""


def test_a_disk_that_takes_nothing_holds_no_reconciler_up_and_what_was_dropped_has_its_numbers(
    data_dir: Path, source: Source, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, began = threading.Event(), threading.Event()
    write_all = fsdm.store.trace_file.write_all

    def slow(fd: int, data: bytes) -> None:
        began.set()
        assert gate.wait(PATIENCE_S)
        write_all(fd, data)

    monkeypatch.setattr(fsdm.store.trace_file, "write_all", slow)
    chunks = [source.chunk(start=start, end=start + 1) for start in range(3)]
    with Trace(path) as trace, DataManager(data_dir, on_event=trace.tell) as dm:
        for chunk in chunks:
            dm.download_chunk(chunk)
            assert dm.wait(chunk.id, PATIENCE_S)
            dm.delete_chunk(chunk.id)
            assert not dm.wait(chunk.id, PATIENCE_S)
        assert began.wait(PATIENCE_S)
        assert path.read_bytes() == b""
        monkeypatch.setattr("fsdm.concurrency.channel.BOUND", 10)
        for _ in range(100):
            trace.tell(Event("file", ID))
        gate.set()
    missing = [one for one in lines(path) if one["event"] == "gap"]
    covered = {number for one in missing for number in range(one["first"], one["last"] + 1)}
    assert covered
    there = {number for number, event in told(path) if event != "gap"}
    assert covered | there == set(range(1, max(there) + 1))
    assert not covered & there


def test_a_full_disk_and_another_writer_are_told_once_and_what_they_cost_is_in_a_gap(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fsdm.store.trace_file, "TAKE_OVER_S", 0.0)
    write_all, refused = fsdm.store.trace_file.write_all, threading.Event()

    def full(fd: int, data: bytes) -> None:
        if refused.is_set():
            raise OSError(errno.ENOSPC, "full")
        write_all(fd, data)

    monkeypatch.setattr(fsdm.store.trace_file, "write_all", full)
    with Trace(path) as trace:
        with path.open() as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            trace.tell(Event("started", ID))
            trace.tell(Event("file", ID))
            eventually(lambda: trace._channel._done == 2)
        trace.tell(Event("available", ID))
        eventually(lambda: trace._channel._done == 3)
        refused.set()
        trace.tell(Event("deleted", ID))
        eventually(lambda: trace._channel._done == 4)
        refused.clear()
    assert told(path) == [(1, "began"), (3, "gap"), (4, "available"), (5, "gap"), (6, "ended")]
    assert [(one["first"], one["last"]) for one in lines(path) if one["event"] == "gap"] == [(2, 3), (5, 5)]
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.rpartition(": ")[2] for text in warned] == ["[Errno 11] another process writes it", "[Errno 28] full"]
