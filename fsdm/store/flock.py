"""flock(2), and what it guards: a claim on a chunk's directory, `LOCK`, the lock of intents. Refs stand in `refs`.

Every lock is on a descriptor of its own and is released by closing it, so also by SIGKILL; never by LOCK_UN, which
after a fork would drop the parent's lock as well, and never converted, for a failed conversion loses the lock that was
held. Invariant: a descriptor that carries a lock is in `_descriptors` from its open to its close.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from portalocker import LockFlags
from portalocker.exceptions import AlreadyLocked, LockException
from portalocker.portalocker import FlockLocker

from fsdm.model.errors import UnsafeFileSystemError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.model.layout import Layout

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


def same_file(fd: int, path: str) -> bool:
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
        return same_file(self.fd, path)

    def take(self) -> bool:
        """Whether the exclusive lock is ours now; never waits."""
        return try_flock(self.fd, EXCLUSIVE)

    def close(self) -> None:
        close_fd(self.fd)


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
