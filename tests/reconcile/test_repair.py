"""A damaged chunk: it goes out of service without breaking its holders, comes back, and nothing else ever does."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdm import DataChunk, DataManager
from fsdm.client import Client
from fsdm.model.layout import READY, WANT, Layout
from fsdm.model.state import Found
from fsdm.reconcile.actions import Quarantine, Renew
from fsdm.reconcile.repair import quarantine, renew
from fsdm.store.filesystem import FileSystem
from fsdm.store.marker_removal import restore_want, withdraw_restored_want
from fsdm.store.stored_want import is_saved
from tests.support import PATIENCE_S, Source, crash_at_each_step, eventually, expected, fsdm
from tests.support.chunks import bring, chunk_dir, failure, files_of, flip, judged, put_want, touch_delete


@pytest.fixture
def chunk(data_dir: Path, source: Source) -> DataChunk:
    """A chunk that is available, in a data directory without a reconciler."""
    chunk = source.chunk(files=2)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
    return chunk


def damage(data_dir: Path, chunk: DataChunk) -> None:
    flip(str(chunk_dir(data_dir, chunk) / "data" / "logs.parquet"))


def asked(source: Source, chunk: DataChunk) -> int:
    return source.asked[f"/{chunk.id}/logs.parquet"]


def test_a_flipped_bit_is_repaired_beside_a_held_ref(data_dir: Path, source: Source, chunk: DataChunk) -> None:
    damage(data_dir, chunk)
    path = chunk_dir(data_dir, chunk)
    with DataManager(data_dir) as dm, Client(data_dir) as reader:
        ref = reader.find_chunk(chunk.dataset_id, 0)
        assert ref is not None
        before, inode = files_of(ref.path), os.stat(ref.path).st_ino
        dm.verify_chunk(chunk.id)
        eventually((data_dir / "partial" / chunk.id / READY).exists, "it is fetched while the old one is held")
        told = failure(data_dir, chunk.id)
        assert told is not None
        assert told["kind"] == "damaged"
        assert "data/logs.parquet" in told["error"]
        assert "by itself" in told["hint"]
        assert dm.find_chunk(chunk.dataset_id, 0) is None, "a damaged chunk gets no new refs"
        assert dm.status().chunks[chunk.id].state == "downloading"
        assert (files_of(ref.path), os.stat(ref.path).st_ino) == (before, inode)
        ref.close()
        assert dm.wait(chunk.id, PATIENCE_S)
        assert files_of(path / "data") == expected(chunk, source)
        eventually(lambda: failure(data_dir, chunk.id) is None)
    assert asked(source, chunk) == 2


def test_a_chunk_that_is_right_stays_as_it_is_whoever_asks(data_dir: Path, source: Source, chunk: DataChunk) -> None:
    before = judged(str(chunk_dir(data_dir, chunk) / READY))
    with DataManager(data_dir) as dm:
        (data_dir / "verify" / chunk.id).touch()
        assert dm.wait(chunk.id, PATIENCE_S)
    assert judged(str(chunk_dir(data_dir, chunk) / READY)) == before
    assert os.listdir(data_dir / "verify") == []
    assert asked(source, chunk) == 1


def test_a_request_to_verify_what_is_not_here_goes_and_asks_for_nothing(data_dir: Path, chunk: DataChunk) -> None:
    with DataManager(data_dir) as dm:
        dm.delete_chunk(chunk.id)
        assert not dm.wait(chunk.id, PATIENCE_S)
        dm.verify_chunk(chunk.id)
        assert not dm.wait(chunk.id, PATIENCE_S)
        assert dm.status().chunks == {}


def test_a_damaged_chunk_without_want_is_to_be_wanted_again(data_dir: Path, source: Source, chunk: DataChunk) -> None:
    damage(data_dir, chunk)
    os.unlink(chunk_dir(data_dir, chunk) / WANT)
    with DataManager(data_dir) as dm:
        dm.verify_chunk(chunk.id)
        assert not dm.wait(chunk.id, PATIENCE_S)
        told = failure(data_dir, chunk.id)
        assert told is not None
        assert "want it again" in told["hint"]
        bring(dm, chunk)
        eventually(lambda: failure(data_dir, chunk.id) is None)


def test_what_the_manifest_check_finds_is_fetched_again(data_dir: Path, source: Source, chunk: DataChunk) -> None:
    os.unlink(chunk_dir(data_dir, chunk) / "data" / "blocks.parquet")
    with DataManager(data_dir) as dm:
        eventually(lambda: asked(source, chunk) == 2)
        dm.wait(chunk.id, PATIENCE_S)
        eventually(lambda: dm.list_chunks() == [chunk.id])
        assert files_of(chunk_dir(data_dir, chunk) / "data") == expected(chunk, source)


def test_a_delete_of_a_held_damaged_chunk_wins(data_dir: Path, source: Source, chunk: DataChunk) -> None:
    damage(data_dir, chunk)
    with DataManager(data_dir) as dm, Client(data_dir) as reader:
        ref = reader.find_chunk(chunk.dataset_id, 0)
        assert ref is not None
        dm.verify_chunk(chunk.id)
        eventually((data_dir / "partial" / chunk.id / READY).exists)
        dm.delete_chunk(chunk.id)
        eventually(lambda: not (data_dir / "partial" / chunk.id).exists())
        ref.close()
        assert not dm.wait(chunk.id, PATIENCE_S)
        assert dm.list_chunks() == []
        eventually(lambda: failure(data_dir, chunk.id) is None)


def test_what_was_wanted_again_can_be_withdrawn(data_dir: Path, source: Source, chunk: DataChunk) -> None:
    damage(data_dir, chunk)
    fault = source.fault(f"/{chunk.id}/logs.parquet", stall_at=10)
    with DataManager(data_dir) as dm:
        dm.verify_chunk(chunk.id)
        assert fault.stalled.wait(PATIENCE_S)
        (data_dir / "want" / chunk.id).unlink()
        eventually(lambda: not (data_dir / "partial" / chunk.id).exists())
        fault.gate.set()
        assert not dm.wait(chunk.id, PATIENCE_S)


def test_it_is_done_without_a_manager_by_fsdm_run_once(data_dir: Path, source: Source, chunk: DataChunk) -> None:
    damage(data_dir, chunk)
    done = fsdm("verify", "-d", data_dir, "--repair")
    assert done.returncode == 7
    assert os.listdir(data_dir / "verify") == [chunk.id]
    assert fsdm("run", "-d", data_dir, "--once").returncode == 0
    assert files_of(chunk_dir(data_dir, chunk) / "data") == expected(chunk, source)
    assert fsdm("verify", "-d", data_dir).returncode == 0


@pytest.fixture
def quarantined(layout: Layout, data_dir: Path, chunk: DataChunk) -> DataChunk:
    (chunk_dir(data_dir, chunk) / READY).unlink()
    return chunk


def test_damage_counts_only_for_the_ready_it_was_found_of(layout: Layout, data_dir: Path, chunk: DataChunk) -> None:
    path = chunk_dir(data_dir, chunk)
    ready = judged(str(path / READY))
    os.utime(path / READY)
    assert quarantine(layout, FileSystem(), Quarantine(chunk.id, chunk.place, Found("other bytes", ready))) is None
    assert (path / READY).exists()
    ready = judged(str(path / READY))
    told = quarantine(layout, FileSystem(), Quarantine(chunk.id, chunk.place, Found("other bytes", ready)))
    assert told is not None
    assert "other bytes" in told.error
    assert not (path / READY).exists()
    assert is_saved(str(path), chunk.id)


def test_the_same_want_comes_back_and_only_once(layout: Layout, data_dir: Path, quarantined: DataChunk) -> None:
    action = Renew(quarantined.id, quarantined.place)
    assert renew(layout, FileSystem(), action)
    assert (data_dir / "want" / quarantined.id).read_bytes() == quarantined.to_json()
    (data_dir / "want" / quarantined.id).unlink()
    renew(layout, FileSystem(), action)
    assert os.listdir(data_dir / "want") == [], "what was withdrawn does not come back"


def test_a_chunk_that_is_ready_or_gone_is_not_asked_for(layout: Layout, data_dir: Path, chunk: DataChunk) -> None:
    assert not renew(layout, FileSystem(), Renew(chunk.id, chunk.place))
    assert os.listdir(data_dir / "want") == []
    assert is_saved(layout.path(chunk.place), chunk.id)
    chunk_dir(data_dir, chunk).rename(data_dir / "elsewhere")
    assert not renew(layout, FileSystem(), Renew(chunk.id, chunk.place))


def test_a_want_that_stands_stays_alone(layout: Layout, data_dir: Path, quarantined: DataChunk) -> None:
    other = quarantined.model_copy(update={"note": "newer"})
    put_want(data_dir, other)
    renew(layout, FileSystem(), Renew(quarantined.id, quarantined.place))
    assert (data_dir / "want" / quarantined.id).read_bytes() == other.to_json()
    assert not is_saved(layout.path(quarantined.place), quarantined.id)


class Amid(FileSystem):
    """Something happens before a step of this kind."""

    def __init__(self, kind: str, deed: Callable[[], object]) -> None:
        super().__init__()
        self._kind, self._deed = kind, deed

    def step(self, name: str, path: str) -> None:
        if name == self._kind:
            self._kind = ""
            self._deed()


@pytest.mark.parametrize("step", ["link", "fsync_file", "unlink"])
@pytest.mark.parametrize("careful", [True, False])
def test_a_delete_that_comes_at_any_moment_is_the_later_intent(
    layout: Layout, data_dir: Path, quarantined: DataChunk, step: str, careful: bool
) -> None:
    def delete() -> None:
        if careful:
            with Client(data_dir) as client:
                client.delete_chunk(quarantined.id)
        else:
            touch_delete(data_dir, quarantined.id)

    renew(layout, Amid(step, delete), Renew(quarantined.id, quarantined.place))
    with DataManager(data_dir) as dm:
        assert not dm.wait(quarantined.id, PATIENCE_S)
        assert dm.list_chunks() == []


@pytest.mark.parametrize("step", ["link", "unlink"])
def test_a_want_that_comes_at_any_moment_is_never_lost(
    layout: Layout, data_dir: Path, source: Source, quarantined: DataChunk, step: str
) -> None:
    other = source.chunk(id=quarantined.id, files=3)
    renew(layout, Amid(step, lambda: put_want(data_dir, other)), Renew(quarantined.id, quarantined.place))
    with DataManager(data_dir) as dm:
        assert dm.wait(quarantined.id, PATIENCE_S)
        assert files_of(chunk_dir(data_dir, other) / "data") == expected(other, source)


@pytest.mark.parametrize("step", ["rename", "unlink"])
def test_a_want_amid_the_withdrawal_of_a_restored_one_is_kept(
    layout: Layout, data_dir: Path, source: Source, quarantined: DataChunk, step: str
) -> None:
    other, kept = source.chunk(id=quarantined.id, files=3), str(chunk_dir(data_dir, quarantined) / WANT)
    restore_want(layout, FileSystem(), kept, quarantined.id)
    touch_delete(data_dir, quarantined.id)
    withdraw_restored_want(layout, Amid(step, lambda: put_want(data_dir, other)), kept, quarantined.id)
    assert (data_dir / "want" / quarantined.id).read_bytes() == other.to_json()
    assert len(os.listdir(data_dir / "want")) == 1, "nothing is left aside"


@pytest.mark.parametrize("deleted", [False, True])
def test_after_any_crash_it_is_wanted_or_deleted(
    layout: Layout, data_dir: Path, quarantined: DataChunk, deleted: bool
) -> None:
    action, want = Renew(quarantined.id, quarantined.place), data_dir / "want" / quarantined.id
    kept = chunk_dir(data_dir, quarantined) / WANT
    text = kept.read_bytes()

    def work(fs: FileSystem) -> None:
        for path in (want, data_dir / "delete" / quarantined.id):
            path.unlink(missing_ok=True)
        kept.unlink(missing_ok=True)
        kept.write_bytes(text)
        try:
            renew(layout, fs, action)
        finally:
            unfinished = kept.exists()
            if deleted:
                touch_delete(data_dir, quarantined.id)
            renew(layout, FileSystem(), action)
            assert not kept.exists()
            if deleted:  # where it had finished, two markers stand, and the delete is the later one
                assert want.exists() != unfinished
            else:
                assert want.read_bytes() == text

    assert crash_at_each_step(work) > 5
