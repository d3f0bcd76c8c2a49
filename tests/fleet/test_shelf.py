"""The shelf: of two that replace the same text one fails, and what a pointer names is there before it."""

import os
import threading
from pathlib import Path

import pytest

from fsdm.fleet.shelf import Directory
from fsdm.model.errors import DataDirectoryError, PublishedMeanwhileError
from fsdm.store.filesystem import FileSystem
from tests.support import PATIENCE_S


@pytest.fixture
def shelf(tmp_path: Path) -> Directory:
    return Directory(str(tmp_path / "fleet"))


def test_file_is_read_as_it_was_put_and_one_that_is_missing_is_none(shelf: Directory) -> None:
    assert shelf.read("lists/a") is None
    assert not shelf.renew("lists/a")
    shelf.put("lists/a", b"one")
    assert shelf.read("lists/a") == b"one"
    assert shelf.renew("lists/a")
    assert os.listdir(shelf.path) == ["lists"]
    assert os.listdir(f"{shelf.path}/lists") == ["a"]


def test_only_what_was_read_is_replaced(shelf: Directory) -> None:
    shelf.replace("pointer", b"1", instead_of=None)
    with pytest.raises(PublishedMeanwhileError, match="has published meanwhile"):
        shelf.replace("pointer", b"2", instead_of=None)
    shelf.replace("pointer", b"2", instead_of=b"1")
    with pytest.raises(PublishedMeanwhileError, match="has published meanwhile"):
        shelf.replace("pointer", b"3", instead_of=b"1")
    assert shelf.read("pointer") == b"2"


class Pausing(FileSystem):
    """Stands still before its first rename, until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def step(self, name: str, path: str) -> None:
        if name == "rename" and not self.begun.is_set():
            self.begun.set()
            assert self.go_on.wait(PATIENCE_S)


def test_second_writer_is_refused_while_the_first_one_stands_before_its_rename(tmp_path: Path) -> None:
    slow = Pausing()
    first, second = Directory(str(tmp_path), slow), Directory(str(tmp_path))
    failed: list[BaseException] = []

    def write() -> None:
        try:
            first.replace("pointer", b"first", instead_of=None)
        except BaseException as e:
            failed.append(e)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert slow.begun.wait(PATIENCE_S)
        with pytest.raises(PublishedMeanwhileError, match="publishes just now"):
            second.replace("pointer", b"second", instead_of=None)
        with pytest.raises(PublishedMeanwhileError, match="publishes just now"):
            second.prune("lists", (), 1e12)
    finally:
        slow.go_on.set()
        thread.join(PATIENCE_S)
    assert failed == []
    assert second.read("pointer") == b"first"
    with pytest.raises(PublishedMeanwhileError, match="has published meanwhile"):
        second.replace("pointer", b"second", instead_of=None)
    second.replace("pointer", b"second", instead_of=b"first")


def test_what_is_put_and_its_directories_are_fsynced_before_the_call_returns(tmp_path: Path) -> None:
    steps: list[str] = []

    class Noting(FileSystem):
        def step(self, name: str, path: str) -> None:
            steps.append(f"{name} {os.path.relpath(path, tmp_path)}".replace(os.path.basename(path), "x", 1))

    Directory(str(tmp_path / "fleet"), Noting()).put("lists/a", b"one")
    names = [step.split()[0] for step in steps]
    assert names == ["mkdir", "mkdir", "fsync_dir", "fsync_dir", "write", "fsync_file", "rename", "fsync_dir"]


def test_old_files_that_nothing_names_are_pruned(shelf: Directory) -> None:
    for name in ("kept", "old", "new"):
        shelf.put(f"lists/{name}", b"")
    for name in ("kept", "old"):
        os.utime(f"{shelf.path}/lists/{name}", (1000, 1000))
    assert shelf.prune("lists", {"kept"}, 2000) == 1
    assert sorted(os.listdir(f"{shelf.path}/lists")) == ["kept", "new"]
    assert shelf.prune("nothing", (), 2000) == 0
    assert shelf.renew("lists/kept")
    assert shelf.prune("lists", (), 2000) == 0  # it is as young as a new one


def test_path_that_is_no_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shelf = Directory(str(tmp_path / "file"))
    for call in (lambda: shelf.put("a/b", b""), lambda: shelf.replace("a", b"", instead_of=None)):
        with pytest.raises(DataDirectoryError, match="file"):
            call()
