"""flock(2), and what it guards: a claim on a chunk's directory, `LOCK`, the lock of intents. Refs stand in `refs`.

Every lock is on a descriptor of its own and is released by closing it, so also by SIGKILL; never by LOCK_UN, which
after a fork would drop the parent's lock as well, and never converted, for a failed conversion loses the lock that was
held. Invariant: a descriptor that carries a lock is in `_descriptors` from its open to its close.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from portalocker import LockFlags
from portalocker.exceptions import AlreadyLocked, LockException
from portalocker.portalocker import FlockLocker

from fsdm.errors import DataDirectoryError, ReconcilerRunsError, UnsafeFileSystemError
from fsdm.owner import Owner, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.layout import Layout

SHARED: Final = LockFlags.SHARED | LockFlags.NON_BLOCKING
EXCLUSIVE: Final = LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING
_OPEN_DIR: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FLOCK: Final = FlockLocker()  # flock(2) whatever portalocker's default: fcntl locks would protect nothing here

_PAUSE: Final = threading.Event()  # never set

# flock(2) excludes between all processes of the machine on these; elsewhere (NFS, Lustre, FUSE …) it may not
SAFE_FILE_SYSTEMS: Final = frozenset(
    {"bcachefs", "btrfs", "ecryptfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}
)


def try_flock(fd: int, flags: LockFlags) -> bool:
    """Take a flock without waiting; False where somebody holds a conflicting one.

    Raises:
        OSError: the file system refuses flock altogether.
    """
    try:
        _FLOCK.lock(fd, flags)
    except AlreadyLocked:
        return False
    except LockException as e:
        raise OSError(errno.ENOLCK, f"flock is refused: {e}") from e
    return True


def exists(path: str, dir_fd: int | None = None) -> bool:
    """Whether anything has that name, be it a symlink that leads nowhere. False also where one may not look."""
    return os.access(path, os.F_OK, dir_fd=dir_fd, follow_symlinks=False)


# Every descriptor that carries a lock. A forked child closes its copies at once, so that it prolongs no lock of its
# parent's; from then on `close_fd` knows none of them, and cannot close a number that the child has used again.
_descriptors: set[int] = set()


def open_fd(path: str, flags: int = _OPEN_DIR) -> int:
    """Open a file, or a directory, that is to carry a lock; close it with `close_fd`."""
    fd = os.open(path, flags, 0o644)
    _descriptors.add(fd)
    return fd


def close_fd(fd: int) -> None:
    """Close what `open_fd` gave, and drop its lock. Nothing happens in a forked child, or a second time."""
    if fd in _descriptors:
        _descriptors.discard(fd)
        os.close(fd)


def _after_fork_in_child() -> None:
    while _descriptors:
        os.close(_descriptors.pop())


os.register_at_fork(after_in_child=_after_fork_in_child)


def _same_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


class Claim:
    """The reconciler's own descriptor of a chunk's directory, to be locked exclusively before the directory leaves.

    It stays open while refs keep it from its lock: asking again is then one system call, and makes no event of a close
    that would look like a ref's.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = open_fd(path)

    def is_at(self, path: str) -> bool:
        """Whether the directory at `path` is the one that this claim is on."""
        return _same_file(self.fd, path)

    def take(self) -> bool:
        """Whether the exclusive lock is ours now; never waits."""
        return try_flock(self.fd, EXCLUSIVE)

    def close(self) -> None:
        close_fd(self.fd)


class ReconcilerLock:
    """`LOCK`, held: this process is the one that writes outside `want/` and `delete/`.

    LOCK may be removed by hand, and then it can be taken anew while its old holder is still in the middle of a step. So
    `trash/`, which is nobody else's, is locked with it, and for as long.
    """

    def __init__(self, layout: Layout) -> None:
        """Take it.

        Raises:
            ReconcilerRunsError: another process has it.
            DataDirectoryError: it cannot be opened for writing, or is not a file.
        """
        self._path = layout.lock
        deadline = time.monotonic() + 0.05
        while True:
            self.fd, self._trash_fd = _open_lock(layout, os.O_RDWR | os.O_CREAT), -1
            try:
                if try_flock(self.fd, EXCLUSIVE) and self.is_ours() and self._lock_trash(layout):
                    break
                # somebody asked who reconciles, or LOCK was removed and made again since we opened it: try once more
                if time.monotonic() > deadline:
                    raise _runs_already(layout, os.pread(self.fd, 4096, 0).decode(errors="replace").strip())
            except BaseException:
                self.close()
                raise
            self.close()
            _PAUSE.wait(0.005)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": round(time.time(), 3)}
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, json.dumps(owner).encode() + b"\n", 0)

    def is_ours(self) -> bool:
        """Whether the file called LOCK is still the one that we hold: somebody may have removed it."""
        return _same_file(self.fd, self._path)

    def close(self) -> None:
        """Let go. In a forked child it leaves the parent's lock alone."""
        close_fd(self.fd)
        close_fd(self._trash_fd)

    def _lock_trash(self, layout: Layout) -> bool:
        with suppress(FileExistsError):
            os.mkdir(layout.trash)
        self._trash_fd = open_fd(layout.trash)
        return try_flock(self._trash_fd, EXCLUSIVE)


def _open_lock(layout: Layout, flags: int) -> int:
    """LOCK, opened; FileNotFoundError passes. Whatever stands there, nothing is waited for and no symlink followed."""
    try:
        fd = open_fd(layout.lock, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as e:
        hint = "only who owns the data directory reconciles; to be a client: DataManager(…, reconcile=False)"
        raise DataDirectoryError(f"{layout.lock} cannot be opened: {e.strerror}", hint=hint) from e
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    close_fd(fd)
    raise DataDirectoryError(f"{layout.lock} is not a file", hint="remove it, and start again")


def _runs_already(layout: Layout, owner: str) -> ReconcilerRunsError:
    return ReconcilerRunsError(
        f"{layout.root} is reconciled by another process: {in_words(owner) or 'it has not said who it is yet'}",
        owner=owner,
        hint="use `fsdm run --wait` or DataManager(…) to take over when it ends; no file needs to be removed",
    )


def reconciler_owner(layout: Layout) -> str | None:
    """What the process that reconciles says of itself (a line of JSON), or None where nobody does.

    Raises:
        DataDirectoryError: this user may not read LOCK, or it is not a file.
    """
    try:
        fd = _open_lock(layout, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if try_flock(fd, SHARED):
            return None
        return os.pread(fd, 4096, 0).decode(errors="replace").strip() or "unknown"
    finally:
        close_fd(fd)


def who_reconciles(layout: Layout) -> Owner | None:
    """The process that reconciles, as far as this user may know; None where nobody does."""
    try:
        says = reconciler_owner(layout)
    except DataDirectoryError as e:
        return Owner(says=f"not known: {e}")
    return None if says is None else Owner.parse(says)


@contextmanager
def intents_lock(layout: Layout, wait_s: float) -> Iterator[bool]:
    """An exclusive flock on the directory `want/`, held while markers are changed; yields whether it was got.

    Somebody may sit on it, so after `wait_s` seconds it goes on without: then it is as exact as `touch` is.
    """
    fd = open_fd(layout.want)
    try:
        got = try_flock(fd, EXCLUSIVE)
        deadline = time.monotonic() + wait_s
        while not got and (left := deadline - time.monotonic()) > 0:
            _PAUSE.wait(min(0.0005, left))
            got = try_flock(fd, EXCLUSIVE)
        yield got
    finally:
        close_fd(fd)


def check_flock(layout: Layout, *, allow_unknown: bool = False) -> None:
    """See that flock(2) excludes in this data directory.

    Raises:
        UnsafeFileSystemError: a second descriptor was granted an exclusive lock, or flock is not supported, or the
            file system is not one that is known to be safe and `allow_unknown` is False.
    """
    hint = "put the data directory on a local file system (ext4, xfs, btrfs, tmpfs …)"
    one, two = open_fd(layout.want), open_fd(layout.want)
    try:
        # shared first: a reader that locks `want/` at this moment must not fail the test
        if not try_flock(one, SHARED):
            return
        if try_flock(two, EXCLUSIVE):
            raise UnsafeFileSystemError(f"flock does not exclude on the file system of {layout.root}", hint=hint)
    except OSError as e:
        raise UnsafeFileSystemError(f"flock does not work on the file system of {layout.root}: {e}", hint=hint) from e
    finally:
        close_fd(one)
        close_fd(two)
    kind = file_system_type(layout.root)
    if kind is not None and kind not in SAFE_FILE_SYSTEMS and not allow_unknown:
        raise UnsafeFileSystemError(
            f"{layout.root} is on {kind!r}, where flock is not known to exclude",
            hint=f"{hint}; or, if you know that it does, pass allow_unknown_fs=True (--allow-unknown-fs)",
        )


def file_system_type(path: str) -> str | None:
    """The type of the file system under `path` (proc(5), mountinfo), or None where the system does not tell."""
    try:
        device = os.stat(path).st_dev
        text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0]
    return None
