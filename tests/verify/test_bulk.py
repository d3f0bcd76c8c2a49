"""Verifying many chunks: in threads, under refs that disturb none; and `fsdm verify`, as it is run."""

import json
import os
import threading
from pathlib import Path

import pytest

from fsdm import DataManager
from fsdm.client import Client
from fsdm.concurrency.rate_limit import Rate
from fsdm.model.errors import DataDirectoryError
from fsdm.model.layout import READY, VERIFIED, Layout, Place
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem
from fsdm.store.refs import Refs
from fsdm.store.verdict import verified_at
from fsdm.verify import bulk as bulk_module
from fsdm.verify import rehash as rehash_module
from fsdm.verify.bulk import BulkVerify, Verified
from fsdm.verify.rehash import Wrong
from tests.support import PATIENCE_S, Source, can_lock, eventually, expected, fsdm, fsdm_json
from tests.support.chunks import an_id, bring, chunk_dir, files_of, flip, put_chunk, touch_delete


@pytest.fixture
def places(layout: Layout) -> list[Place]:
    return [put_chunk(layout, start=n, end=n + 1, files={"a": b"1" * 100, "b": b"2" * 50}) for n in range(8)]


def verified(layout: Layout, places: list[Place], jobs: int = 3) -> list[Verified]:
    return list(BulkVerify(layout, Refs(layout).take, rate=Rate(None), jobs=jobs).run(places))


@pytest.mark.parametrize("jobs", [1, 2, 50])
def test_what_is_wrong_is_told_of_each_in_their_order(layout: Layout, places: list[Place], jobs: int) -> None:
    flip(f"{layout.path(places[3])}/data/b", 7)
    os.unlink(f"{layout.path(places[5])}/data/a")
    found = verified(layout, places, jobs)
    assert [each.place for each in found] == places
    assert {each.place: [wrong.file for wrong in each.wrong] for each in found if each.wrong} == {
        places[3]: ["data/b"],
        places[5]: ["data/a"],
    }
    assert found[0].size_bytes == 150
    assert all(can_lock(layout.path(place)) for place in places)


def test_what_is_not_available_has_gone_and_is_not_wrong(layout: Layout, data_dir: Path, places: list[Place]) -> None:
    touch_delete(data_dir, places[0].chunk_id)
    os.unlink(f"{layout.path(places[1])}/{READY}")
    os.rename(layout.path(places[2]), f"{layout.trash}/x")
    assert [each.gone for each in verified(layout, places)] == [True] * 3 + [False] * 5


def test_a_chunk_deleted_while_it_is_read_is_released(layout: Layout, data_dir: Path, places: list[Place]) -> None:
    def progress(_count: int) -> None:
        if not os.path.exists(layout.delete_marker(places[0].chunk_id)):
            touch_delete(data_dir, places[0].chunk_id)

    one = BulkVerify(layout, Refs(layout).take, rate=Rate(1.0), jobs=1, progress=progress)
    assert list(one.run(places[:1])) == [Verified(places[0], gone=True)]
    assert can_lock(layout.path(places[0]))


def test_a_verdict_is_written_while_the_chunk_is_held(
    layout: Layout, places: list[Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = []
    monkeypatch.setattr(bulk_module, "write_verdict", lambda _fs, path: locked.append(not can_lock(path)))
    verified(layout, places)
    assert locked == [True] * 8


def test_who_stops_early_leaves_nothing_held_and_no_thread(layout: Layout, places: list[Place]) -> None:
    fds, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    run = BulkVerify(layout, Refs(layout).take, rate=Rate(60.0), jobs=2).run(places)  # it would take half a minute
    first = threading.Thread(target=lambda: next(run, None))
    first.start()
    first.join(PATIENCE_S)
    run.close()
    assert len(os.listdir("/proc/self/fd")) <= fds
    assert threading.active_count() <= threads  # others may have ended meanwhile
    assert all(can_lock(layout.path(place)) for place in places)


def test_an_unreadable_chunk_is_no_damage(layout: Layout, places: list[Place], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", f"{path}/{READY}")

    monkeypatch.setattr(rehash_module, "read_manifest", refuse)
    with pytest.raises(DataDirectoryError, match=f"{READY} cannot be read by this user"):
        verified(layout, places)
    assert all(can_lock(layout.path(place)) for place in places)


def test_what_the_disk_loses_is_damage(layout: Layout, places: list[Place], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise OSError(5, "Input/output error", f"{path}/{READY}")

    monkeypatch.setattr(rehash_module, "read_manifest", fail)
    assert verified(layout, places[:1])[0].wrong == (Wrong(READY, "cannot be read: Input/output error"),)


def test_a_flipped_bit_is_told_and_ends_with_7(layout: Layout, data_dir: Path, places: list[Place]) -> None:
    os.mkdir(f"{layout.path(places[5])}/{VERIFIED}")
    done = fsdm("verify", "-d", data_dir)
    assert (done.returncode, done.stdout) == (0, "")
    assert "8 chunks verified, 0 damaged" in done.stderr
    assert f"{layout.path(places[5])}/{VERIFIED} cannot be written, so `explain` does not show this: " in done.stderr
    told = {one: fsdm_json("explain", "-d", data_dir, places[one].chunk_id)[0]["here"] for one in (3, 4)}
    assert all("READY says" in here[-1] for here in told.values())
    os.utime(f"{layout.path(places[3])}/{VERIFIED}", (100, 100))
    flip(f"{layout.path(places[3])}/data/b", 7)
    os.unlink(f"{layout.path(places[3])}/data/a")
    done = fsdm("verify", "-d", data_dir)
    assert done.returncode == 7
    (line,) = done.stdout.splitlines()
    assert line.split("\t")[:2] == [places[3].chunk_id, "damaged"]
    assert "data/a is missing; data/b has the blake3 " in line
    assert "1 damaged" in done.stderr
    assert "--repair" in done.stderr
    assert verified_at(layout, places[3]) == 100, "it is not right now"
    assert os.listdir(layout.verify) == [], "nothing is asked for"
    assert fsdm("verify", "-d", data_dir, places[0].chunk_id).returncode == 0
    assert fsdm("verify", "-d", data_dir, places[3].chunk_id).returncode == 7


def test_as_json_all_is_in_one_document(layout: Layout, data_dir: Path, places: list[Place]) -> None:
    assert fsdm_json("verify", "-d", data_dir)["damaged"] == []
    flip(f"{layout.path(places[3])}/data/b", 7)
    done = fsdm("verify", "-d", data_dir, "--json", "--repair", "--jobs", 1, "--rate", "1G")
    document = json.loads(done.stdout)
    assert done.returncode == 7
    assert (document["verified"], document["bytes"], document["gone"], document["repair"]) == (8, 8 * 150, [], True)
    (damaged,) = document["damaged"]
    assert (damaged["id"], damaged["path"]) == (places[3].chunk_id, layout.path(places[3]))
    assert damaged["wrong"][0]["file"] == "data/b"
    assert os.listdir(layout.verify) == [places[3].chunk_id]


def test_a_sample_is_as_large_as_it_is_asked_for(data_dir: Path, places: list[Place]) -> None:
    assert fsdm_json("verify", "-d", data_dir, "--sample", 3)["verified"] == 3
    assert fsdm_json("verify", "-d", data_dir, "--sample", 30)["verified"] == 8


def test_what_is_not_here_ends_with_3_and_wrong_usage_with_2(data_dir: Path, places: list[Place]) -> None:
    done = fsdm("verify", "-d", data_dir, places[0].chunk_id, an_id())
    assert done.returncode == 3
    assert "not available" in done.stderr
    for arguments in (["no-id"], ["--sample", "0"], ["--rate", "fast"], ["--jobs", "-1"]):
        assert fsdm("verify", "-d", data_dir, *arguments).returncode == 2


def test_a_hostile_name_is_shown_without_control_characters(layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    with open(f"{layout.path(place)}/data/\x1b[2Jgone", "w"):
        pass
    done = fsdm("verify", "-d", data_dir)
    assert done.returncode == 7
    assert "\x1b" not in done.stdout
    assert "\\x1b[2Jgone is not in READY" in done.stdout


def test_it_says_where_the_data_directory_is_older_than_the_request(layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    flip(f"{layout.path(place)}/data/blocks.parquet")
    os.rmdir(layout.verify)
    done = fsdm("verify", "-d", data_dir, "--repair")
    assert done.returncode == 6
    assert "start the reconciler" in done.stderr
    make_layout(layout, FileSystem())
    assert fsdm("verify", "-d", data_dir, "--repair").returncode == 7


def test_repair_mends_it_while_a_reconciler_runs(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk()
    bring(dm, chunk)
    with Client(data_dir) as client:
        flip(str(chunk_dir(data_dir, chunk) / "data" / "logs.parquet"))
        assert fsdm("verify", "-d", data_dir, "--repair").returncode == 7
        assert client.wait(chunk.id, PATIENCE_S), "until it is here again"
    assert files_of(chunk_dir(data_dir, chunk) / "data") == expected(chunk, source)
    eventually(lambda: fsdm("verify", "-d", data_dir).returncode == 0)


def test_on_a_terminal_it_shows_how_far_it_is(data_dir: Path, places: list[Place]) -> None:
    import pty
    import subprocess

    from tests.support.processes import FSDM

    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*FSDM, "verify", "-d", str(data_dir)], stdout=subprocess.PIPE, stderr=theirs, timeout=120, check=False
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed, and all is read
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"verifying" in shown
    assert b"8 chunks verified" in shown
