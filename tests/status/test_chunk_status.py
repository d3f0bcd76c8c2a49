"""How things stand, from the files alone: every state, every oddity, and documents that say nonsense."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fsdm.model.layout import Layout
from fsdm.status import chunk_status
from fsdm.status.chunk_status import ChunkStatus
from fsdm.status.explain import explain_chunks
from fsdm.status.reading import read_status
from fsdm.status.survey import Surveyor
from fsdm.store.filesystem import Space
from fsdm.store.leader_lock import ReconcilerLock
from tests.support import HOLD_LOCK, descriptors, process, python
from tests.support.chunks import FILES, a_want, an_id, put_chunk, put_failure, put_partial, put_want, touch_delete


def of(layout: Layout, chunk_id: str) -> ChunkStatus:
    return read_status(layout).chunks[chunk_id]


def test_a_want_that_has_not_begun_is_wanted(layout: Layout, data_dir: Path) -> None:
    chunk = put_want(data_dir, a_want(files=FILES, block_range=(5, 9)))
    assert of(layout, chunk.id) == ChunkStatus(
        chunk.id, "wanted", chunk.dataset_id, range(5, 9), total_bytes=123, least_bytes=123
    )


def test_what_a_want_weighs_is_unknown_unless_it_says_every_size(layout: Layout, data_dir: Path) -> None:
    chunk = put_want(data_dir, a_want(files={**FILES, "c.parquet": "http://example.org/c"}))
    assert of(layout, chunk.id).total_bytes is None


@pytest.mark.parametrize(("said", "total"), [({"total": 7}, 130), ({"total": "7"}, None), ({}, None)])
def test_size_that_a_want_leaves_out_is_the_one_that_its_server_has_said(
    layout: Layout, data_dir: Path, said: dict[str, object], total: int | None
) -> None:
    chunk = put_want(data_dir, a_want(files={**FILES, "c.parquet": "http://example.org/c"}))
    put_partial(data_dir, chunk.id)
    (data_dir / "partial" / chunk.id / "PARTS").write_text(json.dumps({"files": {"c.parquet": said}}))
    assert (of(layout, chunk.id).total_bytes, of(layout, chunk.id).least_bytes) == (total, total or 123)


def test_a_partial_of_a_want_is_downloading_and_tells_how_much_is_there(layout: Layout, data_dir: Path) -> None:
    chunk = put_want(data_dir, a_want(files=FILES))
    put_partial(data_dir, chunk.id, **{"a.parquet": 100, "b.parquet": 3})
    status = of(layout, chunk.id)
    assert (status.state, status.size_bytes, status.total_bytes) == ("downloading", 103, 123)


def test_a_published_chunk_is_available_with_its_size(layout: Layout) -> None:
    place = put_chunk(layout, start=3, end=7, files={"a": bytes(5), "b": bytes(6)})
    here = ChunkStatus(place.chunk_id, "available", place.dataset_id, range(3, 7), 11, 11, least_bytes=11)
    assert of(layout, place.chunk_id) == here


def test_a_chunk_that_is_wanted_again_is_still_available(layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    put_want(data_dir, a_want(id=place.chunk_id))
    assert of(layout, place.chunk_id).state == "available"


def test_a_deleted_chunk_is_retiring_while_it_stands_and_deleting_then(layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    touch_delete(data_dir, place.chunk_id)
    assert of(layout, place.chunk_id).state == "retiring"
    os.unlink(f"{layout.path(place)}/READY")
    assert of(layout, place.chunk_id).state == "retiring"
    shutil.rmtree(layout.path(place))
    assert of(layout, place.chunk_id).state == "deleting"


def test_a_partial_without_a_want_is_being_deleted(layout: Layout, data_dir: Path) -> None:
    put_partial(data_dir, chunk_id := an_id(), a=7)
    assert of(layout, chunk_id) == ChunkStatus(chunk_id, "deleting", size_bytes=7, least_bytes=7)


def test_a_directory_without_ready_is_unready(layout: Layout) -> None:
    place = put_chunk(layout)
    os.unlink(f"{layout.path(place)}/READY")
    status = of(layout, place.chunk_id)
    assert (status.state, status.size_bytes, status.block_range) == ("unready", 0, range(10))


@pytest.mark.parametrize("begun", [True, False])
def test_failure_tells_reason_and_next_attempt(layout: Layout, data_dir: Path, begun: bool) -> None:
    chunk = put_want(data_dir, a_want(files=FILES))
    if begun:
        put_partial(data_dir, chunk.id, **{"a.parquet": 4})
    put_failure(data_dir, chunk.id, error="HTTP 503", hint="wait", attempts=3, next_attempt_at=99.5)
    status = of(layout, chunk.id)
    assert (status.state, status.error, status.hint) == ("failed", "HTTP 503", "wait")
    assert (status.attempts, status.next_attempt_at) == (3, 99.5)
    assert status.size_bytes == 4 * begun


@pytest.mark.parametrize(("kind", "state"), [("room", "waiting"), ("transfer", "failed"), (5, "failed")])
def test_want_without_room_waits(layout: Layout, data_dir: Path, kind: object, state: str) -> None:
    chunk = put_want(data_dir, a_want(files=FILES))
    put_failure(data_dir, chunk.id, kind=kind, error="e", next_attempt_at="soon")
    assert (of(layout, chunk.id).state, of(layout, chunk.id).next_attempt_at) == (state, None)


def test_verify_marker_shows_on_its_chunk_alone_and_one_that_is_no_file_as_an_oddity(
    layout: Layout, data_dir: Path
) -> None:
    places = [put_chunk(layout, start=start, end=start + 1) for start in range(3)]
    (data_dir / "verify" / places[0].chunk_id).touch()
    (data_dir / "verify" / places[1].chunk_id).mkdir()
    (data_dir / "verify" / an_id()).touch()  # of nothing that is here
    status = read_status(layout)
    assert [status.chunks[place.chunk_id].verifying for place in places] == [True, False, False]
    assert len(status.chunks) == 3
    assert [os.path.relpath(oddity.path, layout.root) for oddity in status.oddities] == [f"verify/{places[1].chunk_id}"]


@pytest.mark.parametrize("read_only", [False, True])
def test_what_concerns_all_chunks_is_told_while_it_holds(
    layout: Layout, data_dir: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    monkeypatch.setattr(chunk_status, "read_space", lambda _: Space(7, 8, 9, read_only))
    status = read_status(layout)
    assert (status.paused, status.braked, status.reconciler, status.reconciler_trouble) == (None,) * 4
    assert status.disk == chunk_status.DiskStatus(7, read_only)
    (data_dir / "PAUSE").write_text('{"by": "ann"}')
    assert (read_status(layout).paused, read_status(layout).braked) == ({"by": "ann"}, None)
    (data_dir / "BRAKE").write_text('{"held_back": 5}')
    (data_dir / "PAUSE").unlink()
    assert (read_status(layout).paused, read_status(layout).braked) == (None, {"held_back": 5})
    with closing(ReconcilerLock(layout)) as lock:
        lock.beat()
        assert read_status(layout).reconciler_trouble is None
        os.utime(lock.fd, (1000, 1000))
        status = read_status(layout)
        assert str(os.getpid()) in (status.reconciler or "")
        assert (status.reconciler_trouble is None) is read_only, "no beat can be written on a disk that is read-only"


def test_a_chunk_that_is_available_keeps_its_state_beside_an_old_failure(layout: Layout, data_dir: Path) -> None:
    place = put_chunk(layout)
    put_failure(data_dir, place.chunk_id, error="old")
    status = of(layout, place.chunk_id)
    assert (status.state, status.error) == ("available", "old")


def test_states_are_counted_and_chunks_stand_by_dataset_and_block(layout: Layout, data_dir: Path) -> None:
    last = put_chunk(layout, dataset="e" * 64)
    second, first = put_chunk(layout, start=20, end=30), put_chunk(layout, start=3, end=30)
    wanted = put_want(data_dir, a_want())
    touch_delete(data_dir, second.chunk_id)
    status = read_status(layout)
    assert list(status.chunks) == [first.chunk_id, second.chunk_id, last.chunk_id, wanted.id]
    assert [status.count(state) for state in ("available", "retiring", "wanted", "failed")] == [2, 1, 1, 0]


def test_a_chunk_with_two_directories_is_told_once(layout: Layout, data_dir: Path) -> None:
    first = put_chunk(layout, start=3, end=5)
    again = put_chunk(layout, chunk_id=first.chunk_id, start=4, end=9)
    other = put_chunk(layout, start=7, end=9)
    status = read_status(layout)
    assert list(status.chunks) == [first.chunk_id, other.chunk_id]
    assert (status.count("available"), status.counts["available"]) == (2, 2)
    assert status.chunks[first.chunk_id].block_range in {first.block_range, again.block_range}


def test_what_is_not_read_is_told_with_its_path(layout: Layout, data_dir: Path) -> None:
    (data_dir / "want" / "README").touch()
    (data_dir / "delete" / "x.json").touch()
    (data_dir / "chunks" / "lost+found").mkdir()
    shutil.rmtree(data_dir / "partial")
    status = read_status(layout)
    told = {os.path.relpath(oddity.path, layout.root) for oddity in status.oddities}
    assert told == {"want/README", "delete/x.json", "chunks/lost+found", "partial"}
    assert status.chunks == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text(""),
        lambda path: path.write_text('{"dataset_id": 5, "block_range": [], "files": {"a": 3, "b": {"size": "x"}}}'),
        lambda path: path.write_text('{"block_range": {"start": "0", "end": 5}, "dataset_id": "../.."}'),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_bytes(b"\xff\xfe"),
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.mkdir(),
    ],
    ids=["empty", "wrong types", "wrong shapes", "too deep", "not UTF-8", "fifo", "symlink", "directory"],
)
def test_nonsense_in_a_want_spoils_nothing(layout: Layout, data_dir: Path, make: Callable[[Path], None]) -> None:
    chunk_id, place = an_id(), put_chunk(layout)
    make(data_dir / "want" / chunk_id)
    status = of(layout, chunk_id)
    assert (status.state, status.dataset_id, status.block_range, status.total_bytes) == ("wanted", None, None, None)
    assert of(layout, place.chunk_id).state == "available"


@pytest.mark.parametrize("text", ["", "[1]", '{"error": 5, "attempts": "many", "hint": null}', None])
def test_nonsense_in_a_failure_is_still_a_failure(
    layout: Layout, data_dir: Path, tmp_path: Path, text: str | None
) -> None:
    chunk_id = an_id()
    failed = data_dir / "failed" / chunk_id
    if text is None:  # no document is read through a symlink
        (tmp_path / "outside").write_text('{"error": "not ours"}')
        failed.symlink_to(tmp_path / "outside")
    else:
        failed.write_text(text)
    assert of(layout, chunk_id) == ChunkStatus(chunk_id, "failed")


def test_a_ready_that_says_nonsense_is_shown_without_a_size(layout: Layout) -> None:
    place = put_chunk(layout)
    with open(f"{layout.path(place)}/READY", "w") as file:
        file.write("{")
    status = of(layout, place.chunk_id)
    assert (status.state, status.size_bytes, status.total_bytes) == ("available", 0, None)


def test_who_reconciles_is_told_while_it_does(layout: Layout) -> None:
    with process(*python(HOLD_LOCK, layout.root)) as other:
        assert json.loads(read_status(layout).reconciler or "{}")["pid"] == other.pid
    assert read_status(layout).reconciler is None
    assert os.path.exists(layout.lock)


def test_asking_changes_nothing_on_disk(layout: Layout, data_dir: Path) -> None:
    touch_delete(data_dir, put_chunk(layout).chunk_id)
    begun = a_want(files=FILES)
    for chunk in (begun, a_want()):
        put_want(data_dir, chunk)
    put_partial(data_dir, begun.id, **{"a.parquet": 4})
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in data_dir.rglob("*"))
    for _ in range(3):
        explain_chunks(layout, read_status(layout).chunks)
        Surveyor(layout).look()
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in data_dir.rglob("*")) == before


def test_directory_in_the_place_of_a_document_costs_no_descriptor(layout: Layout, data_dir: Path) -> None:
    (data_dir / "failed" / an_id()).mkdir()
    before = descriptors()
    for _ in range(3):
        read_status(layout)
    assert descriptors() <= before
