"""Surveys from the files alone: every state, what has come since, and at what cost."""

import itertools
import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from fsdm import DataManager
from fsdm.model.documents import DataChunk
from fsdm.model.layout import READY, Layout, Place
from fsdm.status.reading import read_status
from fsdm.status.survey import Surveyor
from fsdm.store import json_files
from fsdm.store.leader_lock import ReconcilerLock
from tests.support import shell_holding
from tests.support.chunks import (
    FILES,
    a_want,
    an_id,
    bring,
    put_chunk,
    put_failure,
    put_partial,
    put_want,
    touch_delete,
)
from tests.support.source import Source
from tests.support.waiting import PATIENCE_S, eventually, next_tick

HOUR = 3600.0


@pytest.fixture
def surveyor(layout: Layout) -> Surveyor:
    return Surveyor(layout)


def begin(data_dir: Path, **files: int) -> DataChunk:
    """A want (of 123 bytes in two files) that is being fetched."""
    chunk = put_want(data_dir, a_want(files=FILES))
    put_partial(data_dir, chunk.id, **{f"{name}.parquet": size for name, size in files.items()})
    return chunk


def fails(data_dir: Path, chunk_id: str, **says: Any) -> None:
    put_failure(data_dir, chunk_id, **{"kind": "transfer", "error": "HTTP 503", "attempts": 2, **says})


def grow(data_dir: Path, chunk: DataChunk, name: str, size: int) -> None:
    (data_dir / "partial" / chunk.id / "data" / f"{name}.parquet").write_bytes(b"x" * size)


def publish(layout: Layout, chunk: DataChunk, size: int) -> Place:
    """As the reconciler does: into its place, then the want goes."""
    shutil.rmtree(layout.partial_of(chunk.id), ignore_errors=True)
    place = put_chunk(layout, chunk_id=chunk.id, files={"a": bytes(size)})
    os.unlink(layout.want_marker(chunk.id))
    return place


def test_an_empty_directory_is_converged_and_nobody_reconciles(surveyor: Surveyor) -> None:
    survey = surveyor.look()
    assert survey.is_converged
    assert (survey.reconciler, survey.here, survey.here_bytes, survey.read_only) == (None, 0, 0, False)
    assert survey.free_bytes > 0


def test_who_reconciles_is_told_and_what_stands_in_the_way(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    lock = ReconcilerLock(layout)
    (data_dir / "PAUSE").touch()
    (data_dir / "BRAKE").touch()
    survey = surveyor.look()
    reconciler = f"pid {os.getpid()} on {socket.gethostname()}"
    assert (survey.reconciler, survey.paused, survey.braked) == (reconciler, True, True)
    (data_dir / "LOCK").write_text("nonsense")
    assert surveyor.look().reconciler == "not known"
    lock.close()


def test_each_state_is_counted_once(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    put_want(data_dir, a_want(files=FILES))
    running = begin(data_dir, a=40)
    failed, room = begin(data_dir, a=1), begin(data_dir)
    fails(data_dir, failed.id, next_attempt_at=time.time() + HOUR)
    fails(data_dir, room.id, kind="room", error="needs 5 bytes")
    put_chunk(layout, files={"a": bytes(7)})
    retiring = put_chunk(layout, start=20, end=30, files={"a": bytes(5)})
    touch_delete(data_dir, retiring.chunk_id)
    touch_delete(data_dir, an_id())
    put_partial(data_dir, an_id(), a=3)
    broken = put_chunk(layout, start=40, end=50)
    os.unlink(f"{layout.path(broken)}/{READY}")
    fails(data_dir, broken.chunk_id, kind="damaged", error="a is missing")
    survey = surveyor.look()
    assert (survey.wanted, survey.deleting, survey.here, survey.unready) == (1, 2, 1, 1)
    assert [(one.id, one.size_bytes, one.total_bytes) for one in survey.running] == [(running.id, 40, 123)]
    assert {one.id: one.error for one in survey.failing} == {failed.id: "HTTP 503", broken.chunk_id: "a is missing"}
    assert [(one.id, one.error) for one in survey.waiting] == [(room.id, "needs 5 bytes")]
    assert [(one.id, one.size_bytes) for one in survey.retiring] == [(retiring.chunk_id, 5)]
    assert (survey.left_bytes, survey.unknown) == (123 + 83, 0)
    assert survey.here_bytes == 12
    assert not survey.is_converged


def test_a_survey_counts_what_status_names(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    """For every combination of what there may be of a chunk."""
    again = 0
    for number, (want, delete, partial, directory, failed) in enumerate(
        itertools.product(*[[True, False]] * 3, ["none", "ready", "unready"], ["", "transfer", "room", "damaged"])
    ):
        chunk = a_want(files=FILES)
        if want:
            put_want(data_dir, chunk)
        if delete:
            touch_delete(data_dir, chunk.id)
        if partial:
            put_partial(data_dir, chunk.id, **{"a.parquet": 4})
        if directory != "none":
            place = put_chunk(layout, chunk_id=chunk.id, start=number, end=number + 1)
        if directory == "unready":
            os.unlink(f"{layout.path(place)}/{READY}")
        if failed:
            fails(data_dir, chunk.id, kind=failed, next_attempt_at=time.time() + HOUR)
        again += want and directory == "ready" and not delete and not failed
    status, survey = read_status(layout), surveyor.look()
    assert survey.wanted == status.count("wanted") + again, "a want of what is here is still to be compared with it"
    downloading = {chunk.id for chunk in status.chunks.values() if chunk.state == "downloading"}
    assert {one.id for one in survey.running} == downloading
    counts = tuple(map(status.count, ("available", "retiring", "deleting", "waiting")))
    assert (survey.here, len(survey.retiring), survey.deleting, len(survey.waiting)) == counts


def test_a_directory_without_ready_that_nobody_asks_for_is_not_here(layout: Layout, surveyor: Surveyor) -> None:
    place = put_chunk(layout)
    os.rename(f"{layout.path(place)}/{READY}", f"{layout.path(place)}/aside")
    survey = surveyor.look()
    assert (survey.here, survey.unready, survey.is_converged) == (0, 1, False)
    os.rename(f"{layout.path(place)}/aside", f"{layout.path(place)}/{READY}")
    survey = surveyor.look()
    assert (survey.here, survey.unready, survey.uncounted, survey.here_bytes) == (1, 0, 0, 100)


def test_paused_downloads_do_not_run_but_keep_bytes(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    begin(data_dir, a=40)
    surveyor.look()
    (data_dir / "PAUSE").touch()
    survey = surveyor.look()
    assert (survey.running, survey.wanted, survey.left_bytes) == ((), 1, 83)


def test_what_failed_before_and_is_here_now_is_not_failing(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    place = put_chunk(layout)
    fails(data_dir, place.chunk_id)
    assert surveyor.look().is_converged


@pytest.mark.parametrize("asked", ["", "acquire", "want"])
def test_what_is_given_up_is_pending_only_where_somebody_asks_for_it(
    layout: Layout, data_dir: Path, surveyor: Surveyor, asked: str
) -> None:
    chunk = a_want()
    for directory in ("known", *filter(None, [asked])):
        (data_dir / directory / chunk.id).write_bytes(chunk.to_json() if directory != "acquire" else b"held")
    fails(data_dir, chunk.id, given_up=True, next_attempt_at=None)
    survey = surveyor.look()
    assert (len(survey.failing), survey.given_up, survey.is_converged) == (1, 1, asked == "")


def test_failed_chunk_runs_when_due_or_want_touched(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    due, touched, refused = begin(data_dir), begin(data_dir), begin(data_dir)
    fails(data_dir, due.id, next_attempt_at=time.time() - 1)
    found = os.stat(layout.want_marker(touched.id))
    stamp = {"ino": found.st_ino, "mtime_ns": found.st_mtime_ns, "size": found.st_size}
    fails(data_dir, touched.id, next_attempt_at=time.time() + HOUR, marker=stamp)
    fails(data_dir, refused.id, kind="disk")
    survey = surveyor.look()
    assert {one.id for one in survey.running} == {due.id, refused.id}
    assert [one.id for one in survey.failing] == [touched.id]
    os.utime(layout.want_marker(touched.id), ns=(1, 1))
    assert {one.id for one in surveyor.look().running} == {due.id, touched.id, refused.id}


def test_size_missing_in_the_want_comes_from_servers(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    files = {"a": "http://example.org/a", "b": {"url": "http://example.org/b", "size": 20}}
    waits, running = a_want(files=files), a_want(files=files)
    for chunk in (waits, running):
        put_want(data_dir, chunk)
    put_partial(data_dir, running.id, a=4)
    survey = surveyor.look()
    assert (survey.running[0].total_bytes, survey.running[0].least_bytes) == (None, 20)
    assert (survey.left_bytes, survey.unknown) == (16, 2)
    parts = {"files": {"a": {"url": "0" * 64, "total": 100, "size": 0}}}
    (data_dir / "partial" / running.id / "PARTS").write_text(json.dumps(parts))
    survey = surveyor.look()
    assert (survey.running[0].total_bytes, survey.left_bytes, survey.unknown) == (120, 116, 1)


def test_length_of_a_paused_download_is_known(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    chunk = put_want(data_dir, a_want(files={"a": "http://example.org/a", "b": "http://example.org/b"}))
    put_partial(data_dir, chunk.id, a=4)
    parts = {"files": {"a": {"url": "0" * 64, "total": 100, "size": 0}}}
    (data_dir / "partial" / chunk.id / "PARTS").write_text(json.dumps(parts))
    Path(layout.pause).write_text("{}")
    survey = surveyor.look()
    assert (survey.wanted, survey.running, survey.left_bytes, survey.unknown) == (1, (), 96, 1)


def test_retiring_chunks_name_holders_oldest_first(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    one, other = put_chunk(layout), put_chunk(layout, start=20, end=30)
    for place in (other, one):
        touch_delete(data_dir, place.chunk_id)
    os.utime(layout.delete_marker(one.chunk_id), (5, 5))
    with shell_holding(layout.path(other)) as shell:  # type: ignore[arg-type]
        first, second = surveyor.look().retiring
    assert (first.id, first.since, second.id) == (one.chunk_id, 5.0, other.chunk_id)
    assert first.holders is not None
    assert second.holders is not None
    assert first.holders.found == ()
    assert shell.pid in {holder.pid for holder in second.holders.found}


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"error": 5, "attempts": "x", "next_attempt_at": [], "marker": {"ino": 1}}']
)
def test_nonsense_spoils_nothing(layout: Layout, data_dir: Path, surveyor: Surveyor, text: str) -> None:
    chunk, place = begin(data_dir), put_chunk(layout)
    (data_dir / "failed" / chunk.id).write_text(text)
    (data_dir / "want" / an_id()).write_text(text)
    (data_dir / "want" / an_id()).mkdir()
    (data_dir / "want" / "README").touch()
    with open(f"{layout.path(place)}/{READY}", "w") as file:
        file.write(text)
    survey = surveyor.look()
    assert (survey.here, survey.uncounted, survey.wanted, survey.unknown) == (1, 1, 2, 2)
    assert [one.id for one in survey.failing] == [chunk.id]


def test_incomplete_layout_is_surveyed_and_gone_one_not(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    for name in ("want", "failed", "chunks"):
        shutil.rmtree(data_dir / name)
    assert surveyor.look().is_converged
    shutil.rmtree(data_dir)
    with pytest.raises(FileNotFoundError):
        surveyor.look()


def test_directory_that_may_not_be_listed_is_told(
    layout: Layout, data_dir: Path, surveyor: Surveyor, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_want(data_dir, a_want(files=FILES))
    really = os.listdir

    def listdir(path: str) -> list[str]:
        if path == layout.want:
            raise PermissionError(13, "may not", path)
        return really(path)

    monkeypatch.setattr(os, "listdir", listdir)
    survey = surveyor.look()
    assert (survey.unlisted, survey.wanted, survey.is_converged) == (("want",), 0, False)


@pytest.mark.parametrize(
    "looks",
    [
        [(40, 0), (90, 50), (90, 50)],  # what was there at the first look has not come since
        [(10, 0), (90, 80), (5, 80), (25, 100)],  # a partial that is begun anew takes nothing back
    ],
)
def test_bytes_count_from_the_first_look_on(data_dir: Path, surveyor: Surveyor, looks: list[tuple[int, int]]) -> None:
    chunk = begin(data_dir)
    for size, came_bytes in looks:
        grow(data_dir, chunk, "a", size)
        assert surveyor.look().came_bytes == came_bytes


def test_a_chunk_counts_to_its_end_and_once(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    chunk = begin(data_dir, a=40)
    surveyor.look()
    grow(data_dir, chunk, "a", 90)
    surveyor.look()
    publish(layout, chunk, 123)
    survey = surveyor.look()
    assert (survey.came_bytes, survey.here, survey.here_bytes, survey.running) == (83, 1, 123, ())
    assert surveyor.look().came_bytes == 83


def test_chunk_that_comes_between_two_looks_counts_whole(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    put_chunk(layout, files={"a": bytes(1000)})
    surveyor.look()
    publish(layout, begin(data_dir), 77)
    assert surveyor.look().came_bytes == 77


def test_what_waited_in_a_partial_does_not_come_a_second_time(data_dir: Path, surveyor: Surveyor) -> None:
    chunk = begin(data_dir, a=90)
    fails(data_dir, chunk.id, next_attempt_at=time.time() + HOUR)
    assert surveyor.look().running == ()
    fails(data_dir, chunk.id, next_attempt_at=time.time() - 1)
    assert surveyor.look().came_bytes == 0
    grow(data_dir, chunk, "a", 95)
    assert surveyor.look().came_bytes == 5


def test_what_leaves_is_no_longer_counted_as_here(layout: Layout, surveyor: Surveyor) -> None:
    place = put_chunk(layout, files={"a": bytes(10)})
    assert surveyor.look().here_bytes == 10
    shutil.rmtree(layout.path(place))
    survey = surveyor.look()
    assert (survey.here, survey.here_bytes, survey.came_bytes) == (0, 0, 0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the documents that are read."""
    read: list[str] = []
    really = json_files.read_object

    def counted(path: str, limit: int) -> dict[str, Any] | None:
        read.append(path)
        return really(path, limit)

    monkeypatch.setattr(json_files, "read_object", counted)
    return read


def test_each_document_is_read_once(layout: Layout, data_dir: Path, surveyor: Surveyor, reads: list[str]) -> None:
    for number in range(10):
        put_chunk(layout, start=number, end=number + 1)
        put_want(data_dir, a_want(files=FILES))
    failed = begin(data_dir, a=4)
    fails(data_dir, failed.id, next_attempt_at=time.time() + HOUR)
    surveyor.look()
    assert len(reads) == 22
    reads.clear()
    surveyor.look()
    assert reads == []
    fails(data_dir, failed.id, error="another", next_attempt_at=time.time() + HOUR)
    assert surveyor.look().failing[0].error == "another"
    assert reads == [layout.failed_of(failed.id)]


def test_many_documents_are_read_by_and_by(layout: Layout, data_dir: Path, reads: list[str]) -> None:
    surveyor = Surveyor(layout, read_s=-1.0)
    put_chunk(layout, files={"a": bytes(10)})
    put_want(data_dir, a_want(files=FILES))
    failed = put_want(data_dir, a_want(files=FILES))
    fails(data_dir, failed.id)
    survey = surveyor.look()
    assert reads == []
    assert (survey.here, survey.here_bytes, survey.uncounted, survey.wanted, survey.unknown) == (1, 0, 1, 1, 1)
    assert [(one.id, one.error) for one in survey.failing] == [(failed.id, "")]
    surveyor._read_s = 1.0
    survey = surveyor.look()
    assert (survey.here_bytes, survey.uncounted, survey.left_bytes, survey.unknown) == (10, 0, 123, 0)
    assert survey.failing[0].error == "HTTP 503"


def test_what_was_read_of_what_is_gone_is_forgotten(layout: Layout, data_dir: Path, surveyor: Surveyor) -> None:
    chunk = begin(data_dir, a=4)
    fails(data_dir, chunk.id)
    place = put_chunk(layout)
    surveyor.look()
    for path in (layout.want_marker(chunk.id), layout.failed_of(chunk.id)):
        os.unlink(path)
    shutil.rmtree(layout.partial_of(chunk.id))
    shutil.rmtree(layout.path(place))
    surveyor.look()
    kept = (surveyor._sizes, surveyor._uncounted, surveyor._totals, surveyor._failures, surveyor._partials)
    assert not any(kept)


def test_it_tells_which_chunks_came_or_went_and_what_is_known_of_their_sizes(layout: Layout) -> None:
    surveyor = Surveyor(layout, read_s=-1)
    first, second = put_chunk(layout), put_chunk(layout, start=10, end=20)
    os.unlink(f"{layout.path(second)}/{READY}")
    surveyor.look()
    assert surveyor.changed == {first.chunk_id, second.chunk_id}
    assert surveyor.is_counting
    assert surveyor.size_of(first.chunk_id) is None
    surveyor._read_s = 60
    surveyor.look()
    assert surveyor.changed == set()
    assert not surveyor.is_counting
    assert (surveyor.size_of(first.chunk_id), surveyor.is_unready(first.chunk_id)) == (100, False)
    assert (surveyor.size_of(second.chunk_id), surveyor.is_unready(second.chunk_id)) == (None, True)
    shutil.rmtree(layout.path(first))
    surveyor.look()
    assert surveyor.changed == {first.chunk_id}
    assert surveyor.catalog.places(first.chunk_id) == ()


def test_what_is_registered_and_what_may_be_evicted_is_counted_as_it_changes(
    data_dir: Path, dm: DataManager, source: Source
) -> None:
    surveyor = Surveyor(dm.layout)

    def counts() -> tuple[int, int, int]:
        survey = surveyor.look()
        return survey.here, survey.known, survey.cached

    one, two, three = (source.chunk(start=n, end=n + 1, files=1) for n in range(3))
    assert counts() == (0, 0, 0)
    bring(dm, one)
    assert counts() == (1, 0, 0)
    for chunk in (one, two):
        next_tick(data_dir)
        dm.register(chunk)
    assert counts() == (1, 2, 1), "one that is here may go from now on"
    dm.acquire(two.id, PATIENCE_S).close()
    eventually(lambda: counts() == (2, 2, 2))
    next_tick(data_dir)
    bring(dm, two)
    eventually(lambda: counts() == (2, 2, 1), "a want pins it")
    next_tick(data_dir)
    dm.register(two)
    eventually(lambda: counts() == (2, 2, 2), "registered once more, it may go again")
    dm.register(three)
    dm.delete_chunk(one.id)
    eventually(lambda: counts() == (1, 2, 1))
    (data_dir / "known" / two.id).unlink()
    eventually(lambda: counts() == (1, 1, 0))
