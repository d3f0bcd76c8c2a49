"""The downloaded bytes of a partial: neither holes nor allocated blocks count."""

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fsdm.store import disk_usage
from fsdm.store.disk_usage import bytes_in, downloaded_bytes

MIB = 1 << 20
KEEP_SIZE = 1


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path


def test_all_bytes_of_all_files_count(partial: Path) -> None:
    for name, size in (("a", 5000), ("b", 3), ("c", 0)):
        (partial / "data" / name).write_bytes(bytes(size))
    assert downloaded_bytes(str(partial)) == 5003


def test_holes_between_pieces_do_not_count(partial: Path) -> None:
    with (partial / "data" / "a").open("wb") as file:
        file.write(b"x" * MIB)
        file.seek(9 * MIB)
        file.write(b"x" * MIB)
    found = os.stat(partial / "data" / "a")
    assert found.st_size == 10 * MIB > found.st_blocks * 512
    assert downloaded_bytes(str(partial)) == 2 * MIB
    assert bytes_in(str(partial)) == (10 * MIB, found.st_blocks * 512)


def test_what_is_set_aside_does_not_count(partial: Path) -> None:
    with (partial / "data" / "a").open("wb") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.fallocate(file.fileno(), KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(10 * MIB)):
            pytest.skip("this file system sets nothing aside")
        os.pwrite(file.fileno(), b"x" * MIB, 0)
        os.pwrite(file.fileno(), b"x" * MIB, 9 * MIB)  # a later piece, as `ranges` writes it
        assert os.fstat(file.fileno()).st_blocks * 512 >= 10 * MIB
    assert downloaded_bytes(str(partial)) == 2 * MIB


@pytest.mark.parametrize(("size", "blocks", "at_most"), [(5000, 0, 5000), (5000, 8, 4096), (5000, 16, 5000)])
def test_file_has_no_more_than_its_size_and_its_blocks_where_these_are_counted(
    size: int, blocks: int, at_most: int
) -> None:
    found = SimpleNamespace(st_size=size, st_blocks=blocks)
    assert disk_usage._at_most(cast("os.stat_result", found)) == at_most


def test_a_file_in_very_many_pieces_is_bounded(partial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsdm.store.disk_usage.EXTENTS_MAX", 2)
    with (partial / "data" / "a").open("wb") as file:
        for number in range(5):
            os.pwrite(file.fileno(), b"x" * 4096, number * 64 * 1024)
    assert downloaded_bytes(str(partial)) == os.stat(partial / "data" / "a").st_blocks * 512


def test_partial_without_data_has_no_bytes_and_no_partial_has_none(tmp_path: Path) -> None:
    assert downloaded_bytes(str(tmp_path)) == 0
    assert downloaded_bytes(str(tmp_path / "gone")) is None


def test_no_symlink_is_followed(partial: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "data").mkdir()
    (outside / "data" / "big").write_bytes(b"x" * 999)
    (partial / "data" / "link").symlink_to(outside / "data" / "big")
    os.mkfifo(partial / "data" / "fifo")
    assert downloaded_bytes(str(partial)) == 0
    link = partial / "other"
    link.symlink_to(outside)
    assert downloaded_bytes(str(link)) is None
    (partial / "data" / "link").unlink()
    os.rename(partial / "data", partial / "moved")
    (partial / "data").symlink_to(outside / "data")
    assert downloaded_bytes(str(partial)) == 0


def test_what_may_not_be_opened_is_told_by_its_size(partial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (partial / "data" / "a").write_bytes(b"x" * 5000)
    really = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "a":
            raise PermissionError(13, "may not", path)
        return really(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    assert downloaded_bytes(str(partial)) == 5000
