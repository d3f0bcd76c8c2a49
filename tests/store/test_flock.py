"""flock: claims, the lock of the markers, the self-test, and forks."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest

from fsdm.model.errors import UnsafeFileSystemError
from fsdm.model.layout import Layout
from fsdm.store import flock as locks
from fsdm.store.data_dir import open_data_dir
from fsdm.store.flock import (
    EXCLUSIVE,
    SHARED,
    Claim,
    check_flock,
    file_system_type,
    intents_lock,
)
from tests.support.locks import can_lock, forked, in_a_fork, process
from tests.support.waiting import descriptors, eventually

pytestmark = pytest.mark.usefixtures("no_lock_is_left")


def test_a_claim_is_kept_off_by_every_shared_lock_and_can_be_asked_again(tmp_path: Path) -> None:
    one, two = locks.open_fd(str(tmp_path)), locks.open_fd(str(tmp_path))
    assert locks.try_flock(one, SHARED)
    assert locks.try_flock(two, SHARED)
    claim = Claim(str(tmp_path))
    for fd in (one, two):
        assert not claim.take()
        locks.close_fd(fd)
    assert claim.take()
    assert not can_lock(str(tmp_path)), "it is ours"
    claim.close()
    claim.close()
    assert can_lock(str(tmp_path))


@pytest.mark.parametrize("killed", [False, True])
def test_claim_respects_flock_of_a_shell_until_it_ends(tmp_path: Path, killed: bool) -> None:
    with process("flock", "-s", str(tmp_path), "sh", "-c", "echo held; exec cat") as shell:
        assert not can_lock(str(tmp_path))
        if killed:
            shell.kill()  # flock(1) has handed the descriptor to its command, which ends at the end of its input
        assert shell.stdin is not None
        shell.stdin.close()
        eventually(lambda: can_lock(str(tmp_path)))


def test_a_claim_knows_when_another_directory_has_taken_the_place_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "chunk"
    path.mkdir()
    claim = Claim(str(path))
    assert claim.is_at(str(path))
    path.rename(tmp_path / "moved")
    path.mkdir()
    assert not claim.is_at(str(path))
    assert claim.is_at(str(tmp_path / "moved"))
    claim.close()


def test_a_claim_is_for_directories_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
            Claim(f"{tmp_path}/{name}")


def test_a_forked_child_prolongs_no_lock_of_its_parent(tmp_path: Path) -> None:
    claim = Claim(str(tmp_path))
    assert claim.take()
    with forked(lambda: len(locks._descriptors)) as told:
        assert told() == "0"
        claim.close()
        assert can_lock(str(tmp_path)), "the child lives, and holds nothing"


def test_a_forked_child_that_closes_a_lock_leaves_its_parents_alone(tmp_path: Path) -> None:
    claim = Claim(str(tmp_path))
    assert claim.take()
    assert in_a_fork(claim.close) == "None"
    assert not can_lock(str(tmp_path))
    claim.close()


def test_a_forked_child_cannot_close_a_number_that_it_has_used_again(tmp_path: Path) -> None:
    claim = Claim(str(tmp_path))

    def reuse_and_close() -> bool:
        mine = os.dup2(os.open("/dev/null", os.O_RDONLY), claim.fd)
        claim.close()
        return os.path.samestat(os.fstat(mine), os.stat("/dev/null"))

    assert in_a_fork(reuse_and_close) == "True"
    claim.close()


def test_no_descriptor_of_a_lock_is_passed_on_to_a_program(tmp_path: Path) -> None:
    claim = Claim(str(tmp_path))
    assert not os.get_inheritable(claim.fd)
    claim.close()


def test_the_lock_of_intents_excludes_and_is_given_back(layout: Layout) -> None:
    with intents_lock(layout, 0.0) as got:
        assert got
        with intents_lock(layout, 0.0) as again:
            assert not again
        assert subprocess.run(["flock", "-n", layout.want, "true"], check=False).returncode == 1
    with intents_lock(layout, 0.0) as got:
        assert got


def test_intents_lock_is_taken_when_it_comes_free(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    sitting = Claim(layout.want)
    assert sitting.take()
    monkeypatch.setattr(locks, "sleep", lambda _: sitting.close())
    with intents_lock(layout, 10.0) as got:
        assert got


def test_the_self_test_passes_alone_beside_a_reader_and_where_want_is_locked(layout: Layout) -> None:
    check_flock(layout, allow_unknown=True)
    for flags in (SHARED, EXCLUSIVE):
        fd = locks.open_fd(layout.want)
        assert locks.try_flock(fd, flags)
        check_flock(layout, allow_unknown=True)
        locks.close_fd(fd)


def test_flock_that_does_not_exclude_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "try_flock", lambda fd, flags: True)
    with pytest.raises(UnsafeFileSystemError, match="does not exclude"):
        check_flock(layout, allow_unknown=True)


def test_a_file_system_without_flock_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = Mock(side_effect=OSError(errno.ENOLCK, "Function not implemented"))
    monkeypatch.setattr(locks, "try_flock", refuse)
    with pytest.raises(UnsafeFileSystemError, match="not implemented"):
        check_flock(layout, allow_unknown=True)


def test_unknown_file_system_is_refused_unless_allowed(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, refused in (("nfs4", True), ("fuse.sshfs", True), ("ext4", False), (None, False)):
        monkeypatch.setattr(locks, "file_system_type", lambda path, kind=kind: kind)
        check_flock(layout, allow_unknown=True)
        if refused:
            with pytest.raises(UnsafeFileSystemError, match=kind):
                check_flock(layout)
        else:
            check_flock(layout)


def test_the_type_of_a_file_system_is_what_mountinfo_says(tmp_path: Path) -> None:
    assert file_system_type("/proc") == "proc"
    assert file_system_type(str(tmp_path / "gone")) is None


def test_data_directory_on_an_unknown_file_system_is_opened_only_where_allowed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "file_system_type", lambda path: "nfs4")
    with pytest.raises(UnsafeFileSystemError, match="nfs4"):
        open_data_dir(layout.root)
    assert open_data_dir(layout.root, allow_unknown_fs=True).root == layout.root


@pytest.mark.parametrize("comes", ["before the open", "after it"])
def test_exception_as_a_descriptor_is_opened_leaves_none(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, comes: str
) -> None:
    class Interrupted(set[int]):
        """Raises the first time that it is given one."""

        def add(self, one: int) -> None:
            first.append(one)
            if len(first) == 1:
                raise KeyboardInterrupt
            super().add(one)

    first: list[int] = []
    known, before = Interrupted(), descriptors()
    monkeypatch.setattr(locks, "_descriptors", known)
    with pytest.raises(KeyboardInterrupt if comes == "after it" else FileNotFoundError):
        locks.open_fd(layout.want if comes == "after it" else f"{layout.want}/none")
    assert not known
    assert descriptors() == before


def test_descriptor_is_opened_and_closed_where_no_fork_passes(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = MagicMock()
    seen: list[tuple[str, int]] = []

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def note(*arguments: Any) -> Any:
            seen.append((name, gate.__enter__.call_count - gate.__exit__.call_count))
            return call(*arguments)

        return note

    monkeypatch.setattr(locks, "gate", gate)
    monkeypatch.setattr(os, "open", noted("open", os.open))
    monkeypatch.setattr(os, "close", noted("close", os.close))
    locks.close_fd(locks.open_fd(layout.want))
    assert seen == [("open", 1), ("close", 1)]
