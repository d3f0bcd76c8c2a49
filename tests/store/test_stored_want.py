"""WANT: its mode, when it is there, and that a chunk is fetched again by it."""

import os
import stat
from pathlib import Path

import pytest

from fsdm import DataChunk, DataManager
from fsdm.model.layout import WANT, WANT_MAX_BYTES, Layout
from fsdm.store.filesystem import FileSystem
from fsdm.store.stored_want import is_saved, remove, save, save_in_partial
from tests.support.chunks import an_id, bring, chunk_dir, put_want
from tests.support.filesystems import Recorder
from tests.support.source import Source
from tests.support.waiting import PATIENCE_S, eventually

WANTED_NS = 1_600_000_000_123_456_789  # within some granule of every file system


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """Where a chunk may be."""
    (tmp_path / "chunk").mkdir()
    return str(tmp_path / "chunk")


def kept(directory: Path | str) -> bytes:
    return Path(directory, WANT).read_bytes()


def test_want_is_saved_byte_for_byte_for_its_owner_alone(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk(note="whatever the want said beyond the protocol")
    text = chunk.to_json().replace(b'"note"', b'  "note"')
    (data_dir / "want" / chunk.id).write_bytes(text)
    assert dm.wait(chunk.id, PATIENCE_S)
    assert kept(chunk_dir(data_dir, chunk)) == text
    assert stat.S_IMODE((chunk_dir(data_dir, chunk) / WANT).stat().st_mode) == 0o600


def test_to_want_what_is_here_with_other_urls_keeps_these(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk(files=1)
    bring(dm, chunk)
    inode = (chunk_dir(data_dir, chunk) / "READY").stat().st_ino
    renewed = _with_query(chunk)
    put_want(data_dir, renewed)
    dm.wait(chunk.id, PATIENCE_S)
    assert kept(chunk_dir(data_dir, chunk)) == renewed.to_json()
    assert (chunk_dir(data_dir, chunk) / "READY").stat().st_ino == inode
    assert os.listdir(data_dir / "trash") == []


def _with_query(chunk: DataChunk) -> DataChunk:
    files = {
        name: file.model_copy(update={"url": f"{file.url}?signature=new"}).model_dump(exclude_none=True)
        for name, file in chunk.files.items()
    }
    return type(chunk)(id=chunk.id, dataset_id=chunk.dataset_id, block_range=chunk.block_range, files=files)


def test_chunk_without_want_gets_it_when_wanted_again(data_dir: Path, dm: DataManager, source: Source) -> None:
    chunk = source.chunk(files=1)
    bring(dm, chunk)
    path = str(chunk_dir(data_dir, chunk))
    os.unlink(f"{path}/{WANT}")
    assert not is_saved(path, chunk.id)
    bring(dm, chunk)
    assert is_saved(path, chunk.id)


def test_a_complete_partial_is_published_with_the_want_that_asks_for_it_now(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
    path, renewed = chunk_dir(data_dir, chunk), _with_query(chunk)
    path.rename(data_dir / "partial" / chunk.id)
    put_want(data_dir, renewed)
    with DataManager(data_dir) as dm:
        assert dm.wait(chunk.id, PATIENCE_S)
    assert kept(path) == renewed.to_json()
    assert source.asked[f"/{chunk.id}/blocks.parquet"] == 1, "it was not fetched again"


def test_in_a_partial_it_is_fsynced_and_the_directory_is_left_to_the_caller(directory: str) -> None:
    fs = Recorder()
    for _ in range(2):  # the second time, what is there is what is wanted
        save_in_partial(fs, directory, b"{}", WANTED_NS)
    assert [name for name, _ in fs.steps] == ["write", "rename", "fsync_file", "fsync_file"]
    assert kept(directory) == b"{}"
    assert os.stat(f"{directory}/{WANT}").st_mtime_ns == WANTED_NS


def test_later_want_of_the_same_text_is_the_time_of_want(layout: Layout, directory: str) -> None:
    for wanted_ns in (WANTED_NS, WANTED_NS + 10**9):
        save(FileSystem(), directory, b"{}", wanted_ns, layout.trash)
        assert os.stat(f"{directory}/{WANT}").st_mtime_ns == wanted_ns


def test_beside_ready_nothing_is_left_of_it_by_a_crash_and_it_is_durable(layout: Layout, directory: str) -> None:
    fs = Recorder()
    for _ in range(2):
        save(fs, directory, b"{}", WANTED_NS, layout.trash)
    assert [name for name, _ in fs.steps] == ["write", "fsync_file", "rename", "fsync_dir", "fsync_dir"]
    assert os.path.dirname(fs.steps[2][1]) == layout.trash
    assert os.listdir(directory) == [WANT]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"files": {}}', b"\0" * 100, b"{" + b" " * WANT_MAX_BYTES], ids=range(6)
)
def test_what_is_no_want_is_not_kept(directory: str, text: bytes) -> None:
    Path(directory, WANT).write_bytes(text)
    assert not is_saved(directory, an_id())


def test_the_want_of_another_chunk_is_not_kept(directory: str, source: Source) -> None:
    chunk = source.chunk()
    Path(directory, WANT).write_bytes(chunk.to_json())
    assert is_saved(directory, chunk.id)
    assert not is_saved(directory, an_id())


def test_it_is_let_go_of_whatever_stands_there(directory: str) -> None:
    remove(FileSystem(), directory)
    os.mkdir(f"{directory}/{WANT}")
    remove(FileSystem(), directory)
    os.symlink(directory, f"{directory}/{WANT}")
    remove(FileSystem(), directory)
    assert os.listdir(directory) == []


def test_delete_cut_off_after_ready_went_is_finished(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
    (data_dir / "delete" / chunk.id).touch()
    os.unlink(chunk_dir(data_dir, chunk) / "READY")
    with DataManager(data_dir) as dm:
        assert not dm.wait(chunk.id, PATIENCE_S)
        eventually(lambda: not chunk_dir(data_dir, chunk).exists())
        assert os.listdir(data_dir / "want") == []
