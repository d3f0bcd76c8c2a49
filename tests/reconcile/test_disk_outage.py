"""A disk that refuses: all downloads pause, deletes go on, and all resumes by itself."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdm import DataManager, Limits
from fsdm.model.errors import DiskError
from fsdm.model.events import Event
from fsdm.model.layout import Layout
from fsdm.reconcile.disk_outage import PROBE_FIRST_S, PROBE_LAST_S, DiskOutage, Outage
from fsdm.reconcile.recovery import TRIES
from fsdm.store.filesystem import FileSystem
from tests.support import Recorder, Source
from tests.support.chunks import bring, failure, put_chunk, put_want, touch_delete
from tests.support.loop import Inline, a_fetch
from tests.support.processes import fsdm, fsdm_json
from tests.support.waiting import PATIENCE_S, eventually
from tools.support.workers import InlineWorkers


class Refusing(FileSystem):
    """Refuses some steps, on some paths, with an errno; counts the fetches that came to it."""

    def __init__(self, code: int, *steps: str, where: str = "") -> None:
        self.code = code
        self.steps = steps
        self.where = where
        self.begun: list[str] = []

    def step(self, name: str, path: str) -> None:
        parent, chunk_id = os.path.split(path)
        if name == "mkdir" and os.path.basename(parent) == "partial":
            self.begun.append(chunk_id)
        if name in self.steps and self.where in path:
            raise OSError(self.code, os.strerror(self.code), path)


class Bench:
    """A `DiskOutage` whose probes are made at once."""

    def __init__(self, trash: Path, fs: FileSystem) -> None:
        self.events: list[Event] = []
        self.disk = DiskOutage(str(trash), fs=fs, workers=InlineWorkers(), tell=self.events.append, wake=lambda: None)

    def told(self) -> list[str]:
        return [event.kind for event in self.events]


def test_a_probe_is_a_write_that_is_made_durable_and_leaves_nothing(tmp_path: Path) -> None:
    fs = Recorder()
    bench = Bench(tmp_path, fs)
    bench.disk.refused(DiskError("no", code=errno.EROFS), 0.0)
    bench.disk.ask(0.5)
    assert fs.steps == []
    bench.disk.ask(1.0)
    assert fs.names == ["write", "fsync_file", "rename", "fsync_dir", "unlink"]
    assert list(tmp_path.iterdir()) == []
    assert bench.disk.refusal == "no"
    bench.disk.ask(1.0)
    assert bench.disk.refusal == ""
    assert bench.told() == ["paused", "resumed"]


def test_a_probe_that_is_refused_says_what_the_disk_says_now(tmp_path: Path) -> None:
    fs = Refusing(errno.EROFS, "fsync_file")
    bench = Bench(tmp_path, fs)
    bench.disk.refused(DiskError("full", code=errno.ENOSPC), 0.0)
    bench.disk.ask(1.0)
    bench.disk.ask(1.0)
    assert "Read-only" in bench.disk.refusal
    assert bench.told() == ["paused"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENAMETOOLONG, None])
def test_an_error_of_one_path_is_none_of_the_disk(tmp_path: Path, code: int | None) -> None:
    bench = Bench(tmp_path, FileSystem())
    assert not bench.disk.refused(DiskError("no", code=code), 0.0)
    assert bench.disk.refusal == ""


def test_one_probe_at_a_time_and_a_hanging_one_blocks_nothing(tmp_path: Path) -> None:
    class Stuck(InlineWorkers):
        works = 0

        def submit(self, work: object) -> None:
            self.works += 1

    workers = Stuck()
    disk = DiskOutage(str(tmp_path), fs=FileSystem(), workers=workers, tell=lambda _: None, wake=lambda: None)
    disk.refused(DiskError("no", code=errno.EIO), 0.0)
    assert disk.next_probe_at == 1.0
    for now in (1.0, 100.0, 200.0):
        disk.freed()
        disk.ask(now)
        assert disk.next_probe_at is None
        assert disk.hold_back("a", now) > now
    assert workers.works == 1


@pytest.mark.parametrize(
    ("code", "step"),
    [
        (errno.ENOSPC, "create"),
        (errno.EDQUOT, "fsync_file"),
        (errno.EROFS, "write"),
        (errno.EIO, "fsync_file"),
        (errno.EIO, "fsync_dir"),
    ],
)
def test_a_refusal_pauses_downloads_not_deletes_until_it_ends(layout: Layout, code: int, step: str) -> None:
    deleted = put_chunk(layout)
    wants = [a_fetch(layout, 100) for _ in range(20)]
    fs = Refusing(code, step, where=layout.partial)
    inline = Inline(layout, Limits(jobs=1), fs)
    inline.passes(3)
    assert len(set(fs.begun)) == 1  # one was tried, and no other in its turn
    assert inline.told("paused") == [""]
    told = failure(Path(layout.root), fs.begun[0])
    assert told is not None
    assert (told["kind"], os.strerror(code) in told["error"]) == ("disk", True)
    touch_delete(Path(layout.root), deleted.chunk_id)
    fs.where, fs.steps = layout.trash, ("write",)  # the probe's
    inline.passes()
    assert inline.told("deleted") == [deleted.chunk_id]
    for _ in range(5):
        inline.now += PROBE_LAST_S
        inline.passes()
    assert len(set(fs.begun)) == 1
    assert inline.told("resumed") == []
    fs.steps = ()
    inline.now += PROBE_LAST_S
    inline.passes(50)
    assert sorted(inline.told("available")) == sorted(fetch.id for fetch in wants)
    assert inline.told("resumed") == [""]
    assert os.listdir(layout.failed) == os.listdir(layout.partial) == []


def test_what_a_delete_frees_is_a_reason_to_try_at_once(layout: Layout) -> None:
    fetch, deleted = a_fetch(layout, 100), put_chunk(layout)
    fs = Refusing(errno.ENOSPC, "create")
    inline = Inline(layout, Limits(), fs)
    inline.passes(3)
    fs.steps = ()
    inline.passes(3)
    assert inline.told("available") == []
    touch_delete(Path(layout.root), deleted.chunk_id)
    inline.passes()  # the clock has not moved
    assert inline.told("available") == [fetch.id]


def test_after_a_full_disk_the_oldest_goes_first_and_alone(layout: Layout) -> None:
    ids = [a_fetch(layout, 100).id for _ in range(4)]
    ages = {chunk_id: os.stat(layout.want_marker(chunk_id)).st_ctime_ns for chunk_id in ids}
    ids.sort(key=lambda chunk_id: (ages[chunk_id], chunk_id))
    fs = Refusing(errno.ENOSPC, "create")
    inline = Inline(layout, Limits(jobs=4), fs)
    inline.passes(3)
    assert sorted(fs.begun) == sorted(ids)
    del fs.begun[:]
    fs.steps = ()
    inline.now += 1.0
    inline.it.loop.step()  # asks the disk
    inline.it.loop.step()  # hears the answer
    assert fs.begun == ids[:1]
    inline.passes()
    assert fs.begun == ids
    assert sorted(inline.told("available")) == sorted(ids)


def test_one_file_that_the_disk_cannot_take_holds_up_no_other(layout: Layout) -> None:
    bad, *good = [a_fetch(layout, 100) for _ in range(6)]
    fs = Refusing(errno.EIO, "fsync_file", where=f"{layout.partial}/{bad.id}")
    inline = Inline(layout, Limits(jobs=2), fs)
    for _ in range(6):
        inline.passes(6)
        inline.now += 1.0
    assert sorted(inline.told("available")) == sorted(fetch.id for fetch in good)
    for _ in range(20):  # it backs off by itself, however well the others do
        good.append(a_fetch(layout, 100))
        inline.passes(6)
        inline.now += 1.0
    assert sorted(inline.told("available")) == sorted(fetch.id for fetch in good)
    assert len(inline.told("failed")) <= 6


def test_an_error_of_one_directory_pauses_nothing(layout: Layout) -> None:
    bad, *good = [a_fetch(layout, 100) for _ in range(4)]
    inline = Inline(layout, Limits(jobs=1), Refusing(errno.EACCES, "mkdir", where=f"{layout.partial}/{bad.id}"))
    inline.passes(12)
    assert sorted(inline.told("available")) == sorted(fetch.id for fetch in good)
    assert inline.told("paused") == []
    told = failure(Path(layout.root), bad.id)
    assert told is not None
    assert told["next_attempt_at"] > inline.now


def test_a_complete_partial_waits_with_the_others_and_is_published_when_it_is_over(layout: Layout) -> None:
    class Publishing(Refusing):
        refused = 0

        def step(self, name: str, path: str) -> None:
            self.refused += name == "mkdir" and path == self.where
            super().step(name, path)

    fetches = [a_fetch(layout, 100) for _ in range(3)]
    fs = Publishing(errno.EROFS, "mkdir", where=layout.dataset("d" * 64))
    inline = Inline(layout, Limits(), fs)
    inline.passes(6)
    assert len(os.listdir(layout.partial)) == fs.refused == 3  # they were under way together
    inline.passes(6)
    assert fs.refused == 3
    fs.steps = ()
    inline.now += 1.0
    inline.passes()
    assert sorted(inline.told("available")) == sorted(fetch.id for fetch in fetches)
    assert len(inline.told("started")) == 3  # nothing was fetched again


def test_a_run_that_is_to_end_asks_the_disk_a_few_times_and_then_says_what_is_wrong(layout: Layout) -> None:
    fetches = [a_fetch(layout, 100) for _ in range(3)]
    inline = Inline(layout, Limits(jobs=1), Refusing(errno.EROFS, "create", "fsync_file"))
    asked = 0
    while not inline.it.loop.is_done():
        asked += 1
        inline.passes(3)
        inline.now += PROBE_LAST_S
        assert asked < 10
    assert asked >= TRIES
    troubles = inline.it.loop.troubles()
    assert troubles.keys() == {fetch.id for fetch in fetches}
    assert all("Read-only file system" in why for why in troubles.values())


def test_on_a_full_disk_what_does_not_fit_waits_and_what_fits_goes_on(small_disk: Path, source: Source) -> None:
    data_dir = small_disk / "data"
    here, big, small = source.chunk(size=600_000), source.chunk(size=1_200_000), source.chunk(size=100_000)
    with DataManager(data_dir) as dm:
        bring(dm, here)
        dm.download_chunk(big)
        eventually(lambda: failure(data_dir, big.id))
        bring(dm, small)
        assert eventually(lambda: dm.status().chunks[big.id].state == "waiting")
        assert dm.status().disk.free_bytes < 3 << 20
        dm.delete_chunk(here.id)
        assert dm.wait(big.id, PATIENCE_S)
        eventually(lambda: failure(data_dir, big.id) is None)


def test_once_on_a_full_disk_ends_with_code_4_and_says_why(small_disk: Path, source: Source) -> None:
    data_dir = small_disk / "data"
    with DataManager(data_dir):
        pass
    put_want(data_dir, source.chunk(size=3_000_000))
    done = fsdm("run", "-d", data_dir, "--once")
    assert done.returncode == 4, done.stderr
    assert "are free on the disk" in done.stderr


def test_any_process_sees_that_the_disk_is_read_only(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    with DataManager(data_dir):
        pass
    assert not fsdm_json("status", "-d", data_dir)["disk"]["read_only"]
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert fsdm_json("status", "-d", data_dir)["disk"]["read_only"]
    assert "WHICH IS READ-ONLY" in fsdm("status", "-d", data_dir).stderr


NOW = 1_000_000.0


@pytest.fixture
def outage() -> Outage:
    """An outage that began at NOW."""
    outage = Outage()
    outage.refused("full", NOW)
    return outage


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


def test_what_is_freed_is_a_reason_to_probe_at_once(outage: Outage) -> None:
    outage.freed(NOW + 0.1)
    assert outage.probe_is_due(NOW + 0.1)


def test_after_an_outage_one_fetch_tries_and_all_follow_once_it_is_done(outage: Outage) -> None:
    outage.is_over()
    assert outage.slots(8) == 1
    outage.came_through()
    assert outage.slots(8) == 8


def test_a_fetch_that_is_done_while_it_lasts_says_little(outage: Outage) -> None:
    outage.came_through()
    outage.is_over()
    assert outage.slots(8) == 1


def test_an_outage_that_comes_back_waits_longer_than_the_first(outage: Outage) -> None:
    outage.is_over()
    assert outage.refused("full", NOW)
    assert outage.next_probe_at == NOW + 2.0


def test_a_clock_that_was_set_back_holds_up_no_probe(outage: Outage) -> None:
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
