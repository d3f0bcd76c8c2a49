"""The durable writes, after an error and after a crash before any step."""

import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from fsdm.store.filesystem import FileSystem, Space, exists, read_regular, read_space
from tests.support.filesystems import Recorder, crash_at_each_step


def test_a_durable_write_syncs_data_before_and_directory_after_the_rename(tmp_path: Path) -> None:
    fs = Recorder()
    fs.write(f"{tmp_path}/READY", b"new", durable=True)
    assert fs.names == ["write", "fsync_file", "rename", "fsync_dir"]
    assert fs.steps[1][1] == fs.steps[2][1] != f"{tmp_path}/READY", "the temporary file is synced, then renamed"
    assert (tmp_path / "READY").read_bytes() == b"new"
    fs.steps.clear()
    fs.write(f"{tmp_path}/note", b"x", durable=False)
    assert fs.names == ["write", "rename"]


@pytest.mark.parametrize("step", ["write", "fsync_file", "rename"])
def test_a_write_that_the_disk_refuses_leaves_the_old_file_and_no_temporary_one(tmp_path: Path, step: str) -> None:
    (tmp_path / "READY").write_bytes(b"old")
    refuse = Mock(side_effect=OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        Recorder(**{step: refuse}).write(f"{tmp_path}/READY", b"new", durable=True)
    assert os.listdir(tmp_path) == ["READY"]
    assert (tmp_path / "READY").read_bytes() == b"old"


def test_a_write_that_a_crash_cuts_leaves_the_old_file_or_the_whole_new_one(tmp_path: Path) -> None:
    path, seen = tmp_path / "READY", []

    def work(fs: FileSystem) -> None:
        path.write_bytes(b"old")
        try:
            fs.write(str(path), b"new", durable=True)
        finally:
            seen.append(path.read_bytes())

    assert crash_at_each_step(work) == 4
    assert seen == [b"old", b"old", b"old", b"new", b"new"]


def test_a_write_goes_on_where_the_kernel_takes_only_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    FileSystem().write(f"{tmp_path}/READY", b"0123456789", durable=False)
    assert (tmp_path / "READY").read_bytes() == b"0123456789"


def test_a_write_replaces_a_symlink_and_does_not_write_through_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"untouched")
    (tmp_path / "READY").symlink_to("elsewhere")
    FileSystem().write(f"{tmp_path}/READY", b"new", durable=True)
    assert (tmp_path / "elsewhere").read_bytes() == b"untouched"
    assert not (tmp_path / "READY").is_symlink()


def test_a_directory_may_be_there_already_but_not_a_file_or_a_symlink(tmp_path: Path) -> None:
    fs = FileSystem()
    fs.mkdir(f"{tmp_path}/a")
    fs.mkdir(f"{tmp_path}/a")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("a")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            fs.mkdir(f"{tmp_path}/{name}")


def test_what_is_to_be_unlinked_may_be_gone_already(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for _ in range(2):
        FileSystem().unlink(f"{tmp_path}/file")
        assert not os.listdir(tmp_path)


def test_discarding_the_same_name_twice_keeps_both_apart(tmp_path: Path) -> None:
    (tmp_path / "trash").mkdir()
    targets = set()
    for _ in range(2):
        (tmp_path / "chunk").mkdir()
        (tmp_path / "chunk" / "file").touch()
        targets.add(FileSystem().discard(f"{tmp_path}/chunk", f"{tmp_path}/trash"))
    assert {os.path.basename(str(target)) for target in targets} == set(os.listdir(tmp_path / "trash"))
    assert len(targets) == 2


def test_discarding_what_is_gone_is_no_error_but_a_missing_trash_is(tmp_path: Path) -> None:
    (tmp_path / "trash").mkdir()
    assert FileSystem().discard(f"{tmp_path}/gone", f"{tmp_path}/trash") is None
    (tmp_path / "chunk").mkdir()
    with pytest.raises(FileNotFoundError):
        FileSystem().discard(f"{tmp_path}/chunk", f"{tmp_path}/no-trash")
    assert (tmp_path / "chunk").is_dir()


def test_erasing_takes_files_trees_and_links_but_not_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "file").touch()
    for name in ("tree", "link", "file", "gone"):
        FileSystem().erase(f"{tmp_path}/{name}")
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(tmp_path / "kept") == ["file"]


def test_a_sync_that_fails_is_told(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with pytest.raises(OSError, match="Invalid argument"):
        FileSystem().fsync_file(writing, "a pipe")
    os.close(reading)
    os.close(writing)
    with pytest.raises(FileNotFoundError):
        FileSystem().fsync_dir(f"{tmp_path}/gone")


@pytest.mark.parametrize("flags", [0, os.ST_RDONLY | os.ST_NOSUID])
def test_space_is_that_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch, flags: int) -> None:
    # bsize, frsize, blocks, bfree, bavail, files, ffree, favail, flag, namemax
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 512, 100, 60, 50, 9, 8, 7, flags, 255)))
    assert read_space("anywhere") == Space(25_600, 51_200, 7, read_only=flags != 0)


def test_a_symlink_that_leads_nowhere_exists_and_what_is_below_a_file_does_not(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()
    assert exists(f"{tmp_path}/link")
    assert not exists(f"{tmp_path}/file/READY")
    assert not exists(f"{tmp_path}/gone")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    assert exists("link", fd)
    assert not exists("gone", fd)
    os.close(fd)


def test_where_nothing_is_to_be_durable_nothing_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for durable in (True, False):
        fs = FileSystem(durable=durable)
        fs.write(str(tmp_path / "file"), b"x", durable=True)
        with open(tmp_path / "file", "rb") as file:
            fs.fsync_file(file.fileno(), "file")
        fs.fsync_dir(str(tmp_path))
        assert len(synced) == 4  # a write syncs its file and its directory
    assert (tmp_path / "file").read_bytes() == b"x"


def test_small_file_is_read_by_one_read_and_one_that_grows_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read, asked = tmp_path / "file", os.read, list[int]()
    path.write_bytes(b"0123456789")

    def counted(fd: int, count: int) -> bytes:
        asked.append(count)
        return read(fd, count)

    monkeypatch.setattr(os, "read", counted)
    assert (read_regular(str(path), 100) or (None, b""))[1] == b"0123456789"
    assert asked == [11]

    def grown(fd: int, count: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"more" * (not asked))
        return counted(fd, count)

    asked.clear()
    monkeypatch.setattr(os, "read", grown)
    assert (read_regular(str(path), 100) or (None, b""))[1] == b"0123456789more"


@pytest.mark.parametrize("limit", [0, 1, 2, 9, 10, 11])
def test_no_more_of_a_file_is_read_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    read, asked = os.read, []

    def three_at_most(fd: int, count: int) -> bytes:
        asked.append(count)
        return read(fd, min(count, 3))

    monkeypatch.setattr(os, "read", three_at_most)
    found = read_regular(str(tmp_path / "file"), limit)
    assert found is not None
    assert found[1] == b"0123456789"[:limit]
    assert max(asked, default=0) <= min(limit, 11)
