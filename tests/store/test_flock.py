"""flock: LOCK between processes, claims, the lock of intents, the self-test, and what a fork does to all of them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from fsdm.model.errors import DataDirectoryError, ReconcilerRunsError, UnsafeFileSystemError
from fsdm.store import flock as locks
from fsdm.store import leader_lock
from fsdm.store.filesystem import exists
from fsdm.store.flock import (
    EXCLUSIVE,
    SHARED,
    Claim,
    check_flock,
    close_fd,
    file_system_type,
    intents_lock,
    open_fd,
    try_flock,
)
from fsdm.store.leader_lock import Owner, ReconcilerLock, reconciler_owner, who_reconciles
from tests.support.locks import HOLD_LOCK, can_lock, forked, in_a_fork, process, python
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fsdm.model.layout import Layout


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = set(locks._descriptors)
    yield
    assert locks._descriptors == before


# ----------------------------------------------------------------------------------------------------------------- LOCK


def test_lock_is_refused_to_a_second_process_and_sigkill_frees_it(layout: Layout) -> None:
    with process(*python(HOLD_LOCK, layout.root)) as other:
        with pytest.raises(ReconcilerRunsError) as caught:
            ReconcilerLock(layout)
        assert json.loads(caught.value.owner)["pid"] == other.pid
        assert str(other.pid) in str(caught.value)
        assert json.loads(reconciler_owner(layout) or "")["pid"] == other.pid
        owner = who_reconciles(layout)
        assert owner is not None
        assert (owner.pid, owner.says) == (other.pid, reconciler_owner(layout))
        other.kill()
        other.wait()
        lock = ReconcilerLock(layout)
        assert json.loads(reconciler_owner(layout) or "")["pid"] == os.getpid()
        lock.close()


def test_lock_is_refused_to_a_second_taker_in_one_process(layout: Layout) -> None:
    lock = ReconcilerLock(layout)
    with pytest.raises(ReconcilerRunsError):
        ReconcilerLock(layout)
    lock.close()
    ReconcilerLock(layout).close()


def test_nobody_owns_a_lock_that_is_missing_or_only_lies_there(layout: Layout) -> None:
    assert reconciler_owner(layout) is None
    ReconcilerLock(layout).close()
    assert os.path.exists(layout.lock)
    assert reconciler_owner(layout) is None
    assert who_reconciles(layout) is None


def test_an_owner_that_has_not_said_who_it_is_is_unknown(layout: Layout) -> None:
    lock = ReconcilerLock(layout)
    os.truncate(layout.lock, 0)
    assert reconciler_owner(layout) == "unknown"
    with pytest.raises(ReconcilerRunsError, match="has not said who it is"):
        ReconcilerLock(layout)
    lock.close()


def test_the_owner_text_leaves_nothing_of_a_longer_one_before_it(layout: Layout) -> None:
    with open(layout.lock, "w") as file:
        file.write("x" * 4000)
    lock = ReconcilerLock(layout)
    with open(layout.lock) as file:
        assert json.load(file).keys() == {"pid", "host", "since"}
    lock.close()


def test_lock_is_taken_once_an_asking_process_is_done(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = open_fd(layout.lock, os.O_RDWR | os.O_CREAT)
    assert try_flock(asking, SHARED)
    monkeypatch.setattr(leader_lock, "sleep", lambda _: close_fd(asking))
    ReconcilerLock(layout).close()


def test_removed_lock_is_not_ours_and_is_free_after_its_release(layout: Layout) -> None:
    lock = ReconcilerLock(layout)
    assert lock.is_ours()
    os.unlink(layout.lock)
    assert not lock.is_ours()
    before = set(locks._descriptors)
    with pytest.raises(ReconcilerRunsError):
        ReconcilerLock(layout)
    assert not lock.is_ours()
    assert locks._descriptors == before
    lock.close()
    anew = ReconcilerLock(layout)
    assert anew.is_ours()
    with pytest.raises(ReconcilerRunsError):
        ReconcilerLock(layout)
    anew.close()


def test_lock_replaced_between_open_and_flock_is_opened_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = []

    def replace_first(fd: int, flags: object) -> bool:
        if not replaced:
            replaced.append(fd)
            os.unlink(layout.lock)
            os.close(os.open(layout.lock, os.O_CREAT | os.O_WRONLY))
        return try_flock(fd, flags)  # type: ignore[arg-type]

    monkeypatch.setattr(leader_lock, "try_flock", replace_first)
    lock = ReconcilerLock(layout)
    assert lock.is_ours()
    lock.close()


def test_lock_is_not_taken_through_a_symlink(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("untouched")
    os.symlink(tmp_path / "elsewhere", layout.lock)
    with pytest.raises(DataDirectoryError, match="symbolic links"):
        ReconcilerLock(layout)
    with pytest.raises(DataDirectoryError, match="symbolic links"):
        reconciler_owner(layout)
    assert (tmp_path / "elsewhere").read_text() == "untouched"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_lock_that_is_no_file_is_an_error_at_once(layout: Layout, make: Callable[[str], None]) -> None:
    make(layout.lock)
    fds = len(os.listdir("/proc/self/fd"))
    for ask in (ReconcilerLock, reconciler_owner):
        with pytest.raises(DataDirectoryError, match="LOCK"):
            ask(layout)
    owner = who_reconciles(layout)  # for who only looks it is no error
    assert owner == Owner()
    assert owner.says.startswith(f"not known: {layout.lock}")
    assert len(os.listdir("/proc/self/fd")) <= fds


# --------------------------------------------------------------------------------------------------------------- claims


def test_a_claim_is_kept_off_by_every_shared_lock_and_can_be_asked_again(tmp_path: Path) -> None:
    one, two = open_fd(str(tmp_path)), open_fd(str(tmp_path))
    assert try_flock(one, SHARED)
    assert try_flock(two, SHARED)
    claim = Claim(str(tmp_path))
    assert not claim.take()
    close_fd(one)
    assert not claim.take()
    close_fd(two)
    assert claim.take()
    assert not can_lock(str(tmp_path)), "it is ours"
    claim.close()
    claim.close()
    assert can_lock(str(tmp_path))


def test_a_claim_respects_flock_of_a_shell(tmp_path: Path) -> None:
    with process("flock", "-s", str(tmp_path), "sh", "-c", "echo held; read end") as shell:
        assert not can_lock(str(tmp_path))
        assert shell.stdin is not None
        shell.stdin.close()
        shell.wait()
        assert can_lock(str(tmp_path))


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


# ---------------------------------------------------------------------------------------------------------------- forks


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


# -------------------------------------------------------------------------------------------------- the lock of intents


def test_the_lock_of_intents_excludes_and_is_given_back(layout: Layout) -> None:
    with intents_lock(layout, 0.0) as got:
        assert got
        with intents_lock(layout, 0.0) as again:
            assert not again
        assert subprocess.run(["flock", "-n", layout.want, "true"], check=False).returncode == 1
    with intents_lock(layout, 0.0) as got:
        assert got


def test_intents_lock_is_taken_when_it_comes_free(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    sitting = open_fd(layout.want)
    assert try_flock(sitting, EXCLUSIVE)
    monkeypatch.setattr(locks, "sleep", lambda _: close_fd(sitting))
    with intents_lock(layout, 10.0) as got:
        assert got


# -------------------------------------------------------------------------------------------------------- the self-test


def test_a_local_file_system_passes_the_self_test(layout: Layout) -> None:
    check_flock(layout, allow_unknown=True)


def test_the_self_test_passes_beside_a_reader_and_says_nothing_where_want_is_locked(layout: Layout) -> None:
    for flags in (SHARED, EXCLUSIVE):
        fd = open_fd(layout.want)
        assert try_flock(fd, flags)
        check_flock(layout, allow_unknown=True)
        close_fd(fd)


def test_flock_that_does_not_exclude_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "try_flock", lambda fd, flags: True)
    with pytest.raises(UnsafeFileSystemError, match="does not exclude"):
        check_flock(layout, allow_unknown=True)


def test_a_file_system_without_flock_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, flags: object) -> bool:
        raise OSError(errno.ENOLCK, "Function not implemented")

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


def test_the_lock_of_a_killed_process_comes_free(tmp_path: Path) -> None:
    with process("flock", "-s", str(tmp_path), "sh", "-c", "echo held; exec cat") as shell:
        assert not can_lock(str(tmp_path))
        shell.kill()  # flock(1) has handed the descriptor to its command, which ends at the end of its input
        assert shell.stdin is not None
        shell.stdin.close()
        eventually(lambda: can_lock(str(tmp_path)))
