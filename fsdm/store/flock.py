"""flock(2): a claim on a chunk's directory, the lock of the markers, and a self-test.

Every lock is on a descriptor of its own; it is released by closing that, never by LOCK_UN, and never converted
(PROTOCOL.md, "Reading"). Invariant: a descriptor with a lock is in `_descriptors` from its open to its close, for each
fork and whatever exception a signal raises.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.fork_gate import gate
from fsdm.concurrency.turn import out_of_turn
from fsdm.model.errors import UnsafeFileSystemError
from fsdm.store.filesystem import DIRECTORY, Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.model.layout import Layout

SHARED: Final = fcntl.LOCK_SH | fcntl.LOCK_NB
EXCLUSIVE: Final = fcntl.LOCK_EX | fcntl.LOCK_NB

# flock(2) excludes between all processes of the machine on these; elsewhere (NFS, Lustre, FUSE …) it may not
SAFE_FILE_SYSTEMS: Final = frozenset(
    {"bcachefs", "btrfs", "ecryptfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}
)


def try_flock(fd: int, flags: int) -> bool:
    """Take a lock without waiting; False where it conflicts. May raise OSError: no flock here."""
    try:
        fcntl.flock(fd, flags)
    except BlockingIOError:
        return False
    return True


# Every descriptor that carries a lock. A forked child closes its copies at once, so that it prolongs no lock of its
# parent's; from then on `close_fd` knows none of them, and cannot close a number that the child has used again.
_descriptors: set[int] = set()


def open_fd(path: str, flags: int = DIRECTORY) -> int:
    """Open a file or a directory that is to carry a lock; close it with `close_fd`."""
    fd = None
    try:
        with gate:
            (fd,) = map(os.open, (path,), (flags,), (0o644,))  # as in `Descriptor`
            _descriptors.add(fd)
            return fd
    except BaseException:
        if fd is not None:
            _descriptors.add(fd)
            close_fd(fd)
        raise


def close_fd(fd: int, owner: object = None) -> None:
    """Close a descriptor of `open_fd` and its lock; do nothing in a fork, or a second time.

    An `owner` has None as its `fd` from then on.
    """
    forget = () if owner is None else (map(setattr, (owner,), ("fd",), (None,)),)
    with gate, suppress(KeyError):
        [*zip(map(_descriptors.remove, (fd,)), *forget, map(os.close, (fd,)), strict=True)]


class LockDescriptor(Descriptor):
    """The owner of a descriptor of `open_fd`."""

    __slots__ = ()

    def close(self) -> None:
        """Close it, and its lock; do nothing a second time, or in a fork."""
        if (fd := self.fd) is not None:
            close_fd(fd, self)


def _after_fork_in_child() -> None:
    while _descriptors:
        os.close(_descriptors.pop())


os.register_at_fork(after_in_child=_after_fork_in_child)


def same_file(fd: int, path: str) -> bool:
    """Return whether the file at `path` is the open one."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


class Claim(LockDescriptor):
    """The reconciler's descriptor of a chunk's directory, to be locked before that leaves.

    It stays open while refs keep the lock from it: its close would look like the close of a ref.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = open_fd(path)

    def is_at(self, path: str) -> bool:
        return self.fd is not None and same_file(self.fd, path)

    def take(self) -> bool:
        """Take the exclusive lock without waiting; return whether it is held now."""
        return self.fd is not None and try_flock(self.fd, EXCLUSIVE)


@contextmanager
def intents_lock(layout: Layout, wait_s: float) -> Iterator[bool]:
    """Hold the lock on `want/` while markers are changed; yield whether it came within `wait_s`.

    Another process may sit on it, so the change goes on without it: then it is as exact as that of `touch`.
    """
    lock = LockDescriptor()
    try:
        lock.fd = fd = open_fd(layout.want)
        taken = try_flock(fd, EXCLUSIVE)
        deadline = monotonic() + wait_s
        while not taken and (left := deadline - monotonic()) > 0:
            with out_of_turn():
                sleep(min(0.0005, left))
            taken = try_flock(fd, EXCLUSIVE)
        yield taken
    finally:
        lock.close()


def check_flock(layout: Layout, *, allow_unknown: bool = False) -> None:
    """Check that flock(2) excludes in this data directory; raise UnsafeFileSystemError if not.

    A file system that is not known to be safe is refused as well, but for `allow_unknown`.
    """
    hint = "put the data directory on a local file system (ext4, xfs, btrfs, tmpfs …)"
    one, two = LockDescriptor(), LockDescriptor()
    try:
        one.fd, two.fd = open_fd(layout.want), open_fd(layout.want)
        # shared first: a reader that locks `want/` at this moment must not fail the test
        if not try_flock(one.fd, SHARED):
            return
        if try_flock(two.fd, EXCLUSIVE):
            raise UnsafeFileSystemError(f"flock does not exclude on the file system of {layout.root}", hint=hint)
    except OSError as e:
        raise UnsafeFileSystemError(f"flock does not work on the file system of {layout.root}: {e}", hint=hint) from e
    finally:
        one.close()
        two.close()
    kind = file_system_type(layout.root)
    if kind is not None and kind not in SAFE_FILE_SYSTEMS and not allow_unknown:
        raise UnsafeFileSystemError(
            f"{layout.root} is on {kind!r}, where flock is not known to exclude",
            hint=f"{hint}; or, if you know that it does, pass allow_unknown_fs=True (--allow-unknown-fs)",
        )


def file_system_type(path: str) -> str | None:
    """Return the type of the file system under `path` (proc(5)); None where it is not known."""
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
