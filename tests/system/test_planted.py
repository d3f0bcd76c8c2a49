"""Planted entries of a data directory: nothing outside is read, written or deleted."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsdm import DataChunk, DataManager, Limits
from fsdm.model.errors import DataDirectoryError, NoDataDirectoryError, UnknownFormatError
from fsdm.model.layout import CACHEDIR_TAG, DATA, PARTS, READY, VERIFIED, WANT, Layout
from fsdm.store.json_files import read_manifest
from tests.support import PATIENCE_S, Source, eventually, expected
from tests.support.chunks import bring, chunk_dir, entries, failure, files_of, put_want, touch_delete

LONG_AGO_S = 10**9


def picture(directory: Path) -> dict[str, tuple[object, ...]]:
    """All that can be told of what is below a directory, but for when it was read."""
    seen: dict[str, tuple[object, ...]] = {}
    for path in [directory, *sorted(directory.rglob("*"))]:
        found = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(found.st_mode) else None
        name = str(path.relative_to(directory))
        seen[name] = (found.st_ino, found.st_mode, found.st_uid, found.st_mtime_ns, found.st_ctime_ns, data)
    return seen


class Outside:
    """A directory that is none of ours, of which a picture can be taken."""

    def __init__(self, at: Path) -> None:
        self._at = at
        self.seen: dict[str, tuple[object, ...]] = {}

    def __fspath__(self) -> str:
        return str(self._at)

    def __truediv__(self, name: str) -> Path:
        return self._at / name

    def take_picture(self) -> None:
        """Take the picture that it must still give after the test."""
        self.seen = picture(self._at)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    at = tmp_path / "outside"
    (at / DATA).mkdir(parents=True)
    (at / "precious").write_text("precious")
    (at / DATA / "blocks.parquet").write_text("precious")
    outside = Outside(at)
    yield outside
    assert picture(at) == outside.seen


@pytest.fixture
def chunk(data_dir: Path, source: Source) -> DataChunk:
    """A chunk that is available, in a data directory that nobody reconciles any more."""
    chunk = source.chunk(files=1)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
    return chunk


def moved_out(path: Path, outside: Outside) -> None:
    """Move this outside, and have a symlink lead to it."""
    shutil.rmtree(outside)
    path.rename(outside)
    path.symlink_to(outside)


@pytest.mark.parametrize("name", Layout.directories())
def test_symlinked_directory_is_refused(data_dir: Path, outside: Outside, chunk: DataChunk, name: str) -> None:
    moved_out(data_dir / name, outside)
    outside.take_picture()
    with pytest.raises(DataDirectoryError, match=name):
        DataManager(data_dir)


def test_symlink_in_place_of_a_directory_stops_the_pass(
    data_dir: Path, outside: Outside, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    with DataManager(data_dir, limits=Limits(poll_s=0.05)) as dm:
        moved_out(data_dir / "trash", outside)
        (outside / "precious").write_text("precious")
        outside.take_picture()
        eventually(lambda: "a pass of the reconciler failed" in caplog.text)
        (data_dir / "trash").unlink()
        chunk = source.chunk()
        dm.download_chunk(chunk)
        assert dm.wait(chunk.id, PATIENCE_S), "it goes on once the symlink is gone"


@pytest.mark.parametrize("name", ["fsdm.json", "LOCK"])
def test_symlinked_file_is_refused_unread(data_dir: Path, outside: Outside, chunk: DataChunk, name: str) -> None:
    (data_dir / name).replace(outside / "precious")
    (data_dir / name).symlink_to(outside / "precious")
    outside.take_picture()
    with pytest.raises(DataDirectoryError, match=name):
        DataManager(data_dir)


def test_symlinked_cachedir_tag_is_not_written_through(data_dir: Path, outside: Outside) -> None:
    data_dir.mkdir()
    (data_dir / CACHEDIR_TAG).symlink_to(outside / "precious")
    outside.take_picture()
    with DataManager(data_dir):
        assert not (data_dir / CACHEDIR_TAG).is_symlink()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_fsdm_json_that_is_no_file_is_an_error_and_is_not_opened(data_dir: Path, make: Callable[[Path], None]) -> None:
    data_dir.mkdir()
    make(data_dir / "fsdm.json")
    with pytest.raises(NoDataDirectoryError, match="that is a file"):
        DataManager(data_dir)


@pytest.mark.parametrize(
    "text", ["[" * 4096, '{"format": true}', '{"format": 1.0}', '{"format": ' + "1" * 4000 + "}", '{"format": NaN}']
)
def test_format_that_is_not_the_number_one_is_unknown(data_dir: Path, text: str) -> None:
    data_dir.mkdir()
    (data_dir / "fsdm.json").write_text(text)
    with pytest.raises(UnknownFormatError) as e:
        DataManager(data_dir)
    assert len(str(e.value)) < 400 + len(str(data_dir))


def test_symlink_in_place_of_a_chunk_goes_unfollowed(data_dir: Path, outside: Outside, chunk: DataChunk) -> None:
    moved_out(chunk_dir(data_dir, chunk), outside)
    outside.take_picture()
    with DataManager(data_dir, reconcile=False) as client:
        assert client.list_chunks() == []
        assert client.find_chunk(chunk.dataset_id, 0) is None
        assert client.wait(chunk.id, PATIENCE_S) is False
        seen = client.status().chunks[chunk.id]
        assert (seen.state, seen.size_bytes) == ("unready", 0)
    with DataManager(data_dir, limits=Limits(max_bytes=10**6)) as dm:
        eventually(lambda: not os.path.lexists(chunk_dir(data_dir, chunk)))
        assert dm.list_chunks() == []
        assert dm.reconciler is not None
        assert dm.reconciler.loop.space.taken_bytes == 0


@pytest.mark.parametrize("where", ["", DATA])
def test_link_satisfies_no_want(data_dir: Path, outside: Outside, chunk: DataChunk, source: Source, where: str) -> None:
    place = chunk_dir(data_dir, chunk)
    moved_out(place / where, outside)
    outside.take_picture()
    put_want(data_dir, chunk)
    with DataManager(data_dir) as dm:
        eventually(lambda: not (data_dir / "want" / chunk.id).exists())
        with eventually(lambda: dm.find_chunk(chunk.dataset_id, 0)) as ref:
            assert not place.is_symlink()
            assert not ref.path.is_symlink()
            assert files_of(ref.path) == expected(chunk, source)


def test_symlinked_dataset_is_not_followed(data_dir: Path, outside: Outside, chunk: DataChunk, source: Source) -> None:
    dataset = chunk_dir(data_dir, chunk).parent
    moved_out(dataset, outside)
    outside.take_picture()
    other = source.chunk(files=1, start=20, end=30)
    touch_delete(data_dir, chunk.id)
    with DataManager(data_dir) as dm:
        assert dm.wait(chunk.id, PATIENCE_S) is False
        assert [oddity.path for oddity in dm.status().oddities] == [str(dataset)]
        dm.download_chunk(other)
        assert str(dataset) in eventually(lambda: failure(data_dir, other.id))["error"]
        dataset.unlink()
        put_want(data_dir, other.model_copy(update={"note": "a new want is tried at once"}))
        assert dm.wait(other.id, PATIENCE_S)


@pytest.mark.parametrize("name", [DATA, READY])
def test_chunk_with_symlinked_parts_is_taken_out(data_dir: Path, outside: Outside, chunk: DataChunk, name: str) -> None:
    (chunk_dir(data_dir, chunk) / WANT).unlink()  # so that it does not come again
    path = chunk_dir(data_dir, chunk) / name
    shutil.rmtree(outside / DATA)
    path.rename(outside / name)
    path.symlink_to(outside / name)
    outside.take_picture()
    with DataManager(data_dir, limits=Limits(max_bytes=10**6)) as dm:
        told = eventually(lambda: failure(data_dir, chunk.id))
        assert told["kind"] == "damaged"
        eventually(lambda: not chunk_dir(data_dir, chunk).exists())
        assert dm.find_chunk(chunk.dataset_id, 0) is None


def test_symlinked_kept_want_brings_no_chunk_back(data_dir: Path, outside: Outside, chunk: DataChunk) -> None:
    kept = chunk_dir(data_dir, chunk) / WANT
    kept.rename(outside / WANT)
    kept.symlink_to(outside / WANT)
    (chunk_dir(data_dir, chunk) / DATA / "blocks.parquet").write_text("damaged")
    outside.take_picture()
    with DataManager(data_dir) as dm:
        assert "want it again" in eventually(lambda: failure(data_dir, chunk.id))["hint"]
        eventually(lambda: not chunk_dir(data_dir, chunk).exists())
        dm.wait_converged(PATIENCE_S)
        assert dm.list_chunks() == []


def test_symlinked_verified_is_not_written_through(data_dir: Path, outside: Outside, chunk: DataChunk) -> None:
    (chunk_dir(data_dir, chunk) / VERIFIED).symlink_to(outside / "precious")
    outside.take_picture()
    with DataManager(data_dir) as dm:
        dm.verify_chunk(chunk.id)
        assert dm.wait(chunk.id, PATIENCE_S), "and its bytes are right all the same"


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
def test_verify_entry_that_is_no_file_is_no_intent(
    data_dir: Path, outside: Outside, chunk: DataChunk, source: Source, kind: str
) -> None:
    planted = data_dir / "verify" / chunk.id
    make = {"symlink": lambda path: path.symlink_to(outside / "precious"), "directory": os.mkdir, "fifo": os.mkfifo}
    make[kind](planted)
    outside.take_picture()
    other = source.chunk(start=20, end=30)
    with DataManager(data_dir) as dm:
        dm.download_chunk(other)
        eventually(lambda: sorted(dm.list_chunks()) == sorted([chunk.id, other.id]))
        assert [oddity.path for oddity in dm.status().oddities] == [str(planted)]
        assert not (chunk_dir(data_dir, chunk) / VERIFIED).exists()
        dm.delete_chunk(chunk.id)
        eventually(lambda: not chunk_dir(data_dir, chunk).exists())
    assert os.path.lexists(planted)


@pytest.mark.parametrize("where", ["", DATA, "data/blocks.parquet", READY, PARTS, WANT])
def test_symlink_in_a_partial_is_not_followed(data_dir: Path, outside: Outside, source: Source, where: str) -> None:
    with DataManager(data_dir):
        pass
    chunk = source.chunk(files=1)
    planted = data_dir / "partial" / chunk.id / where
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.symlink_to(outside if where in {"", DATA} else outside / "precious")
    put_want(data_dir, chunk)
    outside.take_picture()
    with DataManager(data_dir, limits=Limits(max_bytes=10**6)) as dm:
        assert dm.wait(chunk.id, PATIENCE_S)
        assert files_of(chunk_dir(data_dir, chunk) / DATA) == expected(chunk, source)


@pytest.mark.parametrize("linked", ["the partial", "its data"])
def test_complete_partial_outside_is_not_published(
    data_dir: Path, outside: Outside, chunk: DataChunk, source: Source, linked: str
) -> None:
    partial = data_dir / "partial" / chunk.id
    chunk_dir(data_dir, chunk).rename(partial)
    moved_out(partial if linked == "the partial" else partial / DATA, outside)
    outside.take_picture()
    put_want(data_dir, chunk)
    with DataManager(data_dir) as dm:
        assert dm.wait(chunk.id, PATIENCE_S)
        place = chunk_dir(data_dir, chunk)
        assert not place.is_symlink()
        assert not (place / DATA).is_symlink()
        assert files_of(place / DATA) == expected(chunk, source)


def test_symlink_without_a_want_goes_but_not_its_target(data_dir: Path, outside: Outside, chunk: DataChunk) -> None:
    (data_dir / "partial" / ("a" * 64)).symlink_to(outside)
    (data_dir / "trash" / "old").symlink_to(outside)
    (data_dir / "trash" / "older").mkdir()
    (data_dir / "trash" / "older" / "link").symlink_to(outside)
    (data_dir / "failed" / ("b" * 64)).symlink_to(outside / "precious")
    outside.take_picture()
    with DataManager(data_dir):
        for name in ("partial", "trash", "failed"):
            eventually(lambda name=name: not entries(data_dir / name), name)


def test_failure_is_not_written_through_a_symlink(data_dir: Path, outside: Outside, source: Source) -> None:
    with DataManager(data_dir):
        pass
    chunk = source.chunk(files=1)
    source.files.clear()
    (data_dir / "failed" / chunk.id).symlink_to(outside / "precious")
    outside.take_picture()
    put_want(data_dir, chunk)
    with DataManager(data_dir) as dm:
        eventually(lambda: dm.status().chunks[chunk.id].state == "failed")
        eventually(lambda: not (data_dir / "failed" / chunk.id).is_symlink())
        assert "404" in eventually(lambda: failure(data_dir, chunk.id))["error"]


@pytest.mark.parametrize("directory", ["want", "delete"])
def test_leftover_that_is_no_file_is_harmless(data_dir: Path, outside: Outside, source: Source, directory: str) -> None:
    with DataManager(data_dir):
        pass
    here = data_dir / directory
    temporary = here / f".{'a' * 64}.{'0' * 8}"
    temporary.mkdir()
    os.utime(temporary, (LONG_AGO_S, LONG_AGO_S))
    linked = here / f".{'b' * 64}.{'0' * 8}"
    linked.symlink_to(outside)
    os.utime(linked, (LONG_AGO_S, LONG_AGO_S), follow_symlinks=False)
    aside = here / "aside"
    aside.mkdir()
    found = aside.stat()
    aside.rename(here / f".judged-{found.st_ino}_{found.st_mtime_ns}_{found.st_size}_{'c' * 64}")
    (here / ("f" * 64)).touch()
    (here / f".judged-1_2_3_{'f' * 64}").mkdir()
    (here / ".judged-e").mkdir()
    (here / ".judged-").mkdir()
    for name in (".", "..", "_", "x", "_" * 9, "1_2_3_" + "d" * 64, "é" * 100):
        (here / f".judged-{name}").symlink_to(outside / "precious")
    outside.take_picture()
    chunk = source.chunk()
    with DataManager(data_dir) as dm:
        assert dm.reconciling
        assert os.path.islink(here / ".judged-x"), "what is not of ours is left alone"
        bring(dm, chunk)


def test_symlinks_to_markers_are_neither_read_nor_touched(data_dir: Path, outside: Outside, source: Source) -> None:
    chunk = source.chunk()
    (outside / "want").write_bytes(chunk.to_json())
    outside.take_picture()
    with DataManager(data_dir) as dm:
        (data_dir / "want" / chunk.id).symlink_to(outside / "want")
        assert "symbolic link" in eventually(lambda: failure(data_dir, chunk.id))["error"]
        (data_dir / "want" / chunk.id).unlink()
        (data_dir / "delete" / chunk.id).symlink_to(outside / "precious")
        with pytest.raises(DataDirectoryError, match="in the way"):
            dm.delete_chunk(chunk.id)
        dm.download_chunk(chunk)
        assert dm.wait(chunk.id, PATIENCE_S), "a want takes the place of a symlink"
    assert read_manifest(str(chunk_dir(data_dir, chunk))) is not None
