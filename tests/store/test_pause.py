"""A pause: nothing is downloaded until it ends; then each download goes on."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdm import Client, DataManager, Limits
from fsdm.model.errors import DataDirectoryError
from fsdm.model.events import Event
from fsdm.model.layout import Layout
from fsdm.store.pause import PAUSE_MAX_BYTES, Pause, place_pause, remove_pause
from tests.support.chunks import failure, put_chunk, put_want, touch_delete
from tests.support.processes import fsdm, fsdm_json, reconciling
from tests.support.source import Source
from tests.support.waiting import PATIENCE_S, eventually


def test_a_running_download_is_stopped_and_goes_on_from_there(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1, size=1 << 20)
    path = f"/{chunk.id}/blocks.parquet"
    fault = source.fault(path, stall_at=1 << 19)
    events: list[Event] = []
    with DataManager(data_dir, on_event=events.append) as dm:
        dm.download_chunk(chunk)
        assert fault.stalled.wait(PATIENCE_S)
        partial = data_dir / "partial" / chunk.id / "data" / "blocks.parquet"
        eventually(lambda: partial.exists() and partial.stat().st_size == 1 << 19)
        dm.pause("maintenance")
        eventually(lambda: [event for event in events if event.kind == "stopped"])
        eventually(lambda: not dm.reconciler or not dm.reconciler.loop.executor)
        assert partial.stat().st_size == 1 << 19
        assert source.asked[path] == 1
        del source.faults[path]
        assert dm.resume()
        assert dm.wait(chunk.id, PATIENCE_S)
    assert [head["Range"] for head in source.heads[path] if "Range" in head] == [f"bytes={1 << 19}-"]
    told = [event for event in events if event.kind in {"paused", "resumed"}]
    assert [event.kind for event in told] == ["paused", "resumed"]
    assert told[0].text.endswith(": maintenance); fsdm resume ends it")


def test_what_is_stopped_keeps_what_has_come_also_while_others_wait_for_room(data_dir: Path, source: Source) -> None:
    chunk, large = source.chunk(files=1, size=1 << 20), source.chunk(files=1, size=1 << 20)
    path = f"/{chunk.id}/blocks.parquet"
    fault = source.fault(path, stall_at=1 << 19)
    with DataManager(data_dir, limits=Limits(max_bytes=(1 << 21) - 1)) as dm:
        dm.download_chunk(chunk)
        assert fault.stalled.wait(PATIENCE_S)
        dm.download_chunk(large)
        eventually(lambda: failure(data_dir, large.id))
        partial = data_dir / "partial" / chunk.id / "data" / "blocks.parquet"
        eventually(lambda: partial.exists() and partial.stat().st_size == 1 << 19)
        dm.pause()
        eventually(lambda: dm.reconciler and not dm.reconciler.loop.executor)
        del source.faults[path]
        dm.resume()
        assert dm.wait(chunk.id, PATIENCE_S)
    assert f"bytes={1 << 19}-" in [head.get("Range") for head in source.heads[path]]


def test_nothing_begins_while_it_stands_and_deletes_go_on(data_dir: Path, layout: Layout, source: Source) -> None:
    gone, chunk = put_chunk(layout), source.chunk()
    Path(layout.pause).touch()
    with DataManager(data_dir) as dm:
        dm.download_chunk(chunk)
        dm.delete_chunk(gone.chunk_id)
        assert not dm.wait(gone.chunk_id, PATIENCE_S)
        assert not source.asked
        os.unlink(layout.pause)
        assert dm.wait(chunk.id, PATIENCE_S)


def text(text: str) -> Callable[[str], object]:
    return lambda path: Path(path).write_text(text)


NOT_JSON = [text("x"), text("[1]"), text(" " * PAUSE_MAX_BYTES + "{}"), text('{"by": 1}')]


@pytest.mark.parametrize("make", [os.mkdir, lambda path: os.symlink("nowhere", path), os.mkfifo, *NOT_JSON])
def test_whatever_stands_there_pauses(layout: Layout, make: Callable[[str], object]) -> None:
    make(layout.pause)
    events: list[Event] = []
    pause = Pause(layout, events.append)
    assert pause.look()
    assert pause.why == "downloads are paused"
    assert not pause.look()
    assert Client(layout.root).status().paused is not None
    assert [event.kind for event in events] == ["paused"]


def test_it_says_who_has_paused_and_why(layout: Layout) -> None:
    place_pause(layout, "backup")
    said = json.loads(Path(layout.pause).read_bytes())
    assert said["reason"] == "backup"
    assert said["since"] > 0
    pause = Pause(layout, lambda _: None)
    pause.look()
    assert pause.why == f"downloads are paused ({said['by']}: backup)"
    assert Client(layout.root).status().paused == said
    assert [remove_pause(layout), remove_pause(layout)] == [True, False]
    assert not pause.look()
    assert pause.why == ""


@pytest.mark.parametrize(("name", "uid"), [("", 0), ("", 2**31 - 7), ("me", 0)])
def test_pause_names_its_user_or_uid(layout: Layout, monkeypatch: pytest.MonkeyPatch, name: str, uid: int) -> None:
    monkeypatch.setenv("USER", name)  # services and containers often have none
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    place_pause(layout, "")
    by = json.loads(Path(layout.pause).read_bytes())["by"]
    assert by == f"{name or {0: 'root'}.get(uid, uid)}@{socket.gethostname()}"


def test_what_stands_in_the_way_of_a_resume_is_named(layout: Layout) -> None:
    os.mkdir(layout.pause)
    with pytest.raises(DataDirectoryError, match="PAUSE: "):
        remove_pause(layout)


def test_a_pause_of_another_process_is_seen_at_once_and_outlasts_the_reconciler(data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    with reconciling(data_dir):
        assert fsdm("pause", "-d", data_dir, "--reason", "\x1b[2J link").returncode == 0
        put_want(data_dir, chunk)
        shown = fsdm("status", "-d", data_dir).stderr
        by = json.loads((data_dir / "PAUSE").read_bytes())["by"]
        assert f"PAUSED: nothing is downloaded, by {by}: \\x1b[2J link; fsdm resume ends it" in shown
    with reconciling(data_dir) as process:
        touch_delete(data_dir, "0" * 64)
        eventually(lambda: not (data_dir / "delete" / ("0" * 64)).exists(), "it has looked")
        assert not source.asked
        assert fsdm_json("resume", "-d", data_dir) == {"was_paused": True}
        assert fsdm("wait", "-d", data_dir, chunk.id, "--timeout", PATIENCE_S).returncode == 0
        process.terminate()
        assert "downloads pause: downloads are paused" in (process.stderr.read() if process.stderr else "")
    assert fsdm("resume", "-d", data_dir).stderr == "fsdm: downloads were not paused\n"


def test_a_run_that_is_to_end_says_that_it_is_paused(data_dir: Path, source: Source) -> None:
    fsdm("run", "-d", data_dir, "--once")
    fsdm("pause", "-d", data_dir)
    assert fsdm("run", "-d", data_dir, "--once").returncode == 0
    put_want(data_dir, source.chunk())
    done = fsdm("run", "-d", data_dir, "--once")
    assert done.returncode == 4
    assert ": downloads are paused (" in done.stderr
    assert not source.asked
    (data_dir / "PAUSE").unlink()
    assert fsdm("run", "-d", data_dir, "--once").returncode == 0


def test_pause_that_the_disk_refuses_is_an_error(layout: Layout) -> None:
    shutil.rmtree(layout.root)
    with pytest.raises(DataDirectoryError, match="PAUSE: No such file or directory") as refused:
        place_pause(layout, "")
    assert "may write in the data directory" in refused.value.hint
