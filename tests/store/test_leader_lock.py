"""LOCK: taken by one process at a time, and read by those that ask which one it is."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import fsdm.store.leader_lock
from fsdm.model.errors import DataDirectoryError, ReconcilerRunsError
from fsdm.model.layout import Layout
from fsdm.store import flock as locks
from fsdm.store import leader_lock
from fsdm.store.flock import SHARED, close_fd, open_fd, try_flock
from fsdm.store.leader_lock import SILENT_S, LockHolder, ReconcilerLock, describe_holder, find_reconciler, read_lock
from tests.support.locks import HOLD_LOCK, process, python

pytestmark = pytest.mark.usefixtures("no_lock_is_left")


def test_lock_is_refused_to_a_second_process_and_sigkill_frees_it(layout: Layout) -> None:
    with process(*python(HOLD_LOCK, layout.root)) as other:
        with pytest.raises(ReconcilerRunsError) as caught:
            ReconcilerLock(layout)
        assert json.loads(caught.value.owner)["pid"] == other.pid
        assert str(other.pid) in str(caught.value)
        assert json.loads(read_lock(layout) or "")["pid"] == other.pid
        owner = find_reconciler(layout)
        assert owner is not None
        assert (owner.pid, owner.says) == (other.pid, read_lock(layout))
        other.kill()
        other.wait()
        lock = ReconcilerLock(layout)
        assert json.loads(read_lock(layout) or "")["pid"] == os.getpid()
        lock.close()


def test_lock_is_refused_to_a_second_taker_in_one_process(layout: Layout) -> None:
    lock = ReconcilerLock(layout)
    with pytest.raises(ReconcilerRunsError):
        ReconcilerLock(layout)
    lock.close()
    ReconcilerLock(layout).close()


def test_nobody_owns_a_lock_that_is_missing_or_only_lies_there(layout: Layout) -> None:
    assert read_lock(layout) is None
    ReconcilerLock(layout).close()
    assert os.path.exists(layout.lock)
    assert read_lock(layout) is None
    assert find_reconciler(layout) is None


def test_an_owner_that_has_not_said_who_it_is_is_unknown(layout: Layout) -> None:
    lock = ReconcilerLock(layout)
    os.truncate(layout.lock, 0)
    assert read_lock(layout) == "unknown"
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
    for ask in (ReconcilerLock, read_lock):
        with pytest.raises(DataDirectoryError, match="symbolic links"):
            ask(layout)
    assert (tmp_path / "elsewhere").read_text() == "untouched"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_lock_that_is_no_file_is_an_error_at_once(layout: Layout, make: Callable[[str], None]) -> None:
    make(layout.lock)
    fds = len(os.listdir("/proc/self/fd"))
    for ask in (ReconcilerLock, read_lock):
        with pytest.raises(DataDirectoryError, match="LOCK"):
            ask(layout)
    owner = find_reconciler(layout)  # for who only looks it is no error
    assert owner == LockHolder()
    assert owner.says.startswith(f"not known: {layout.lock}")
    assert len(os.listdir("/proc/self/fd")) <= fds


def test_what_lock_says_is_understood_and_told_in_words() -> None:
    says = '{"pid": 4711, "host": "worker-7", "since": 12.5, "later": true}'
    assert LockHolder.parse(says) == LockHolder(4711, "worker-7", 12.5)
    assert LockHolder.parse(says).says == says
    assert describe_holder(says) == "pid 4711 on worker-7"
    assert describe_holder('{"pid": 4711}') == "pid 4711"
    assert describe_holder(None) == "none"
    assert describe_holder("not known: it may not be read") == "not known: it may not be read"


@pytest.mark.parametrize("says", ["", "null", "[1]", '{"pid": "4711", "since": "now"}', "[" * 100_000, "{"])
def test_what_says_nothing_that_is_known_is_no_error(says: str) -> None:
    assert LockHolder.parse(says) == LockHolder()
    assert LockHolder.parse(says).says == says


def test_holder_that_beats_is_told_to_be_stuck_once_it_is_silent(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trouble(now: float) -> str | None:
        holder = find_reconciler(layout)
        assert holder is not None
        return holder.trouble(now)

    lock = ReconcilerLock(layout)
    os.utime(lock.fd, (1000, 1000))
    assert trouble(2000) is None, "one that never beats may be of an older version"
    lock.beat()
    beat_at = os.fstat(lock.fd).st_mtime
    assert trouble(beat_at + SILENT_S) is None
    assert "does not go on (its last sign of life was 42 s ago)" in str(trouble(beat_at + SILENT_S + 12))
    os.utime(lock.fd, (1000, 1000))
    lock.beat()
    assert os.fstat(lock.fd).st_mtime == 1000, "not at every call"
    monkeypatch.setattr(fsdm.store.leader_lock, "monotonic", lambda: lock._next_beat)
    lock.beat()
    assert os.fstat(lock.fd).st_mtime >= beat_at
    lock.close()
