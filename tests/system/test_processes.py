"""The main job from outside: real processes, a real server, flock(1), and kill -9."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest

from fsdm import DataManager
from fsdm.model.documents import FileSource
from fsdm.transfer.segments import joined
from tests.support import (
    PATIENCE_S,
    Fault,
    Source,
    eventually,
    expected,
    fsdm,
    kill_group,
    owner,
    reconciling,
    running,
    shell_holding,
)
from tests.support.chunks import an_id, bring, chunk_dir, entries, failure, files_of, put_want, touch_delete


def test_main_job_with_nothing_but_files(data_dir: Path, source: Source, tmp_path: Path) -> None:
    chunk = source.chunk()
    want = tmp_path / "want.json"
    want.write_bytes(chunk.to_json())
    there = chunk_dir(data_dir, chunk)
    with reconciling(data_dir):
        subprocess.run(["cp", want, data_dir / "want" / chunk.id], check=True)
        eventually(lambda: (there / "READY").exists() and not entries(data_dir / "want"))
        assert files_of(there / "data") == expected(chunk, source)
        with shell_holding(there) as holder:
            subprocess.run(["touch", data_dir / "delete" / chunk.id], check=True)
            eventually(lambda: fsdm("find", "-d", data_dir, chunk.dataset_id, 0).returncode == 3)
            assert files_of(there / "data") == expected(chunk, source)
            kill_group(holder)
            eventually(lambda: not there.exists() and not entries(data_dir / "delete"))


def test_killed_reconciler_loses_nothing_and_its_partial_is_not_shown(data_dir: Path, source: Source) -> None:
    done, begun = source.chunk(), source.chunk(start=10, end=20)
    stall = source.fault(f"/{begun.id}/logs.parquet", stall_at=10)
    with reconciling(data_dir) as process:
        put_want(data_dir, done)
        put_want(data_dir, begun)
        assert stall.stalled.wait(PATIENCE_S)
        eventually(lambda: not (data_dir / "want" / done.id).exists())
        process.kill()
        process.wait()
    assert entries(data_dir / "partial") == [begun.id]
    del source.faults[f"/{begun.id}/logs.parquet"]
    stall.gate.set()
    with DataManager(data_dir) as dm:
        assert done.id in dm.list_chunks()
        assert dm.wait(begun.id, PATIENCE_S)
        with dm.find_chunk(begun.dataset_id, 19) as ref:
            assert files_of(ref.path) == expected(begun, source)


def sizes(directory: Path) -> list[int]:
    return [entry.stat().st_size for entry in directory.iterdir()]


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_bytes_of_an_ended_process_are_not_fetched_again(data_dir: Path, source: Source, how: str) -> None:
    chunk = source.chunk(files=3, size=3_000_000)
    bare = {name: FileSource(url=file.url) for name, file in chunk.files.items()}  # no digest proves anything
    chunk = chunk.model_copy(update={"files": bare})
    here, cut, _ = (f"/{chunk.id}/{name}" for name in chunk.files)
    stall = source.fault(cut, stall_at=2_000_000)
    with reconciling(data_dir) as process:
        put_want(data_dir, chunk)
        assert stall.stalled.wait(PATIENCE_S)
        data = data_dir / "partial" / chunk.id / "data"
        eventually(lambda: [size > 1_000_000 for size in sizes(data)].count(True) == 3, "most of the third is here")
        eventually(lambda: sizes(data).count(3_000_000) == 2, "two are here")
        process.send_signal(getattr(signal, how))
        process.wait(PATIENCE_S)
    size = (data / "logs.parquet").stat().st_size
    del source.faults[cut]
    stall.gate.set()
    with DataManager(data_dir) as dm:
        assert dm.wait(chunk.id, PATIENCE_S)
        with dm.find_chunk(chunk.dataset_id, 0) as ref:
            assert files_of(ref.path) == expected(chunk, source)
            assert entries(ref.path.parent) == ["READY", "WANT", "data"]
    assert [head.get("Range") for head in source.heads[cut]] == [None, f"bytes={size}-"]
    assert source.asked[here] == 1


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_pieces_of_an_ended_process_are_not_fetched_again(data_dir: Path, source: Source, how: str) -> None:
    chunk = source.chunk(files=1, size=24_000_000)
    chunk = chunk.model_copy(update={"files": {name: FileSource(url=file.url) for name, file in chunk.files.items()}})
    (path,) = (f"/{chunk.id}/{name}" for name in chunk.files)
    stall, begun = Fault(stall_at=100_000), list[int]()

    def piece(start: int, end: int) -> Fault | None:
        begun.append(start)
        return stall if start == begun[0] else None

    def kept() -> list[tuple[int, int]]:
        record = json.loads((data_dir / "partial" / chunk.id / "PARTS").read_bytes())["files"][path.rsplit("/")[-1]]
        return [(0, record["size"]), *((extent["start"], extent["end"]) for extent in record["extents"])]

    def count(spans: list[tuple[int, int]]) -> int:
        return sum(end - start for start, end in spans)

    source.fault(path, drip_at=1_000_000, piece=piece)
    with reconciling(data_dir) as process:
        put_want(data_dir, chunk)
        assert stall.stalled.wait(PATIENCE_S)
        eventually(lambda: len(kept()) > 1 and count(kept()) > 12_000_000, "most of it is written down")
        process.send_signal(getattr(signal, how))
        process.wait(PATIENCE_S)
    here, before = kept(), source.asked[path]
    del source.faults[path]
    stall.gate.set()
    with DataManager(data_dir) as dm:
        assert dm.wait(chunk.id, PATIENCE_S)
        with dm.find_chunk(chunk.dataset_id, 0) as ref:
            assert files_of(ref.path) == expected(chunk, source)
    asked = [head["Range"].removeprefix("bytes=").split("-") for head in source.heads[path][before:]]
    again = joined((int(start), int(last or 23_999_999) + 1) for start, last in asked)
    assert count(again) == 24_000_000 - count(here), "the holes"
    assert joined([*again, *here]) == [(0, 24_000_000)]


def test_second_reconciler_is_refused_with_the_name_of_the_first(data_dir: Path) -> None:
    with reconciling(data_dir) as first:
        second = fsdm("run", "-d", data_dir)
        assert second.returncode == 5
        assert f": pid {first.pid} on " in second.stderr
        assert "--wait" in second.stderr
        with running("run", "-d", data_dir, "--wait") as waiting:
            first.terminate()
            assert first.wait(PATIENCE_S) == 0
            eventually(lambda: owner(data_dir) == waiting.pid)


def test_two_processes_that_start_at_once_agree_on_one(data_dir: Path) -> None:
    with running("run", "-d", data_dir, "--wait") as one, running("run", "-d", data_dir, "--wait") as two:
        first = eventually(lambda: owner(data_dir))
        assert first in {one.pid, two.pid}
        loser = two if first == one.pid else one
        os.kill(first, signal.SIGKILL)
        eventually(lambda: owner(data_dir) == loser.pid)


def test_sigterm_in_mid_download_ends_within_seconds_and_keeps_the_want(data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    stall = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=0)
    for number in (signal.SIGTERM, signal.SIGINT):
        stall.stalled.clear()
        with reconciling(data_dir) as process:
            put_want(data_dir, chunk)
            assert stall.stalled.wait(PATIENCE_S)
            process.send_signal(number)
            assert process.wait(PATIENCE_S) == 0
        assert entries(data_dir / "want") == [chunk.id]


def test_delete_stops_a_stalled_download_and_frees_its_slot(data_dir: Path, source: Source) -> None:
    stalled, other = source.chunk(), source.chunk(start=10, end=20)
    stall = source.fault(f"/{stalled.id}/blocks.parquet", stall_at=5)
    with DataManager(data_dir, jobs=1) as dm:
        dm.download_chunk(stalled)
        assert stall.stalled.wait(PATIENCE_S)
        dm.download_chunk(other)
        dm.delete_chunk(stalled.id)
        assert not dm.wait(stalled.id, PATIENCE_S)
        assert dm.wait(other.id, PATIENCE_S)
        eventually(lambda: not entries(data_dir / "partial") and not entries(data_dir / "trash"))
    assert not stall.gate.is_set()


def test_wanting_again_what_is_being_fetched_does_not_start_it_over(data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    path = f"/{chunk.id}/logs.parquet"
    stall = source.fault(path, stall_at=5)
    with DataManager(data_dir) as dm:
        dm.download_chunk(chunk)
        assert stall.stalled.wait(PATIENCE_S)
        dm.download_chunk(chunk)
        put_want(data_dir, chunk)
        other = source.chunk(start=10, end=20)  # by the time that it is here, both have been looked at
        bring(dm, other)
        stall.gate.set()
        assert dm.wait(chunk.id, PATIENCE_S)
    assert source.asked[path] == 1


def test_without_any_event_it_still_converges(data_dir: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Mock(side_effect=OSError(24, "inotify instance limit reached"))
    monkeypatch.setattr("fsdm.reconcile.watcher.Inotify", refused)
    chunk = source.chunk()
    with DataManager(data_dir) as dm:
        put_want(data_dir, chunk)
        assert dm.wait(chunk.id, PATIENCE_S)
        with shell_holding(chunk_dir(data_dir, chunk)) as holder:
            touch_delete(data_dir, chunk.id)
            eventually(dm.reconciler.loop.troubles)
            kill_group(holder)
            assert not dm.wait(chunk.id, PATIENCE_S)


def test_want_removed_and_made_again_is_watched_again(data_dir: Path, source: Source) -> None:
    with DataManager(data_dir) as dm:
        for round_ in range(3):
            chunk = source.chunk(start=round_, end=round_ + 1)
            shutil.rmtree(data_dir / "want")
            (data_dir / "want").mkdir(exist_ok=True)  # the reconciler may have been faster
            put_want(data_dir, chunk)
            assert dm.wait(chunk.id, PATIENCE_S)


def test_thousands_of_markers_at_once_lose_nothing(data_dir: Path, source: Source) -> None:
    wanted = [source.chunk(start=n, end=n + 1, files=1) for n in range(20)]
    gone = [hashlib.sha256(b"%d" % n).hexdigest() for n in range(5_000)]
    with DataManager(data_dir) as dm:
        touching = subprocess.Popen(["xargs", "touch"], stdin=subprocess.PIPE, cwd=data_dir / "delete", text=True)
        for chunk in wanted:
            put_want(data_dir, chunk)
        touching.communicate("\n".join(gone))
        dm.wait_converged(PATIENCE_S)
        assert sorted(dm.list_chunks()) == sorted(chunk.id for chunk in wanted)


def test_failing_source_holds_no_slot_and_is_tried_again_when_touched(data_dir: Path, source: Source) -> None:
    bad = [source.chunk(start=n, end=n + 1) for n in range(3)]
    good = source.chunk(start=50, end=51)
    for chunk in bad:
        source.fault(f"/{chunk.id}/blocks.parquet", status=404)
    with DataManager(data_dir, jobs=1) as dm:
        for chunk in [*bad, good]:
            dm.download_chunk(chunk)
        assert dm.wait(good.id, PATIENCE_S)
        for chunk in bad:
            assert "HTTP 404" in eventually(lambda chunk=chunk: failure(data_dir, chunk.id))["error"]
        source.faults.clear()
        os.utime(data_dir / "want" / bad[0].id)
        assert dm.wait(bad[0].id, PATIENCE_S)
        eventually(lambda: failure(data_dir, bad[0].id) is None)
        assert dm.status().chunks[bad[1].id].state == "failed"


def test_foreign_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "trash").mkdir(parents=True)
    (home / "trash" / "letter").write_text("dear")
    done = fsdm("run", "--once", "-d", home)
    assert done.returncode == 6
    assert "not a data directory" in done.stderr
    assert (home / "trash" / "letter").read_text() == "dear"
    assert an_id() not in entries(home)


def test_on_a_full_disk_deletes_go_on_and_all_resumes_when_there_is_room(small_disk: Path, source: Source) -> None:
    data_dir = small_disk / "data"
    small, big = source.chunk(size=300_000), source.chunk(start=10, end=20, size=3_000_000)
    with DataManager(data_dir) as dm:
        bring(dm, small)
        dm.download_chunk(big)
        told = eventually(lambda: failure(data_dir, big.id))
        assert told["kind"] == "disk"
        assert "No space left" in told["error"]
        dm.delete_chunk(small.id)
        assert not dm.wait(small.id, PATIENCE_S)
        subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
        assert dm.wait(big.id, 3 * PATIENCE_S)
        eventually(lambda: failure(data_dir, big.id) is None)
