"""The steps that change a data directory, and the ways to read one.

Every step where a crash matters is a method of `FileSystem`, so that a harness can stop it; only a client's markers are
changed elsewhere. Invariant: a finished step survives a crash of the process, and a power failure where it says so.
"""

from __future__ import annotations

import errno
import os
import pwd
import secrets
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from fsdm.concurrency.turn import out_of_turn

SAFE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # follows no symlink, and waits for no FIFO's other end
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`: write(2) may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_regular(path: str, limit: int) -> tuple[os.stat_result, bytes] | None:
    """Read a regular file's fstat and first `limit` bytes; None for none. May raise OSError."""
    if (opened_as := _open_regular(path)) is None:
        return None
    it, found = opened_as
    with it as fd:
        parts: list[bytes] = []
        left = found.st_size
        # what is asked for is allocated: so no more than there is, at first, and one byte to see the end
        while (most := min(limit, found.st_size + 1)) > 0 and (part := os.read(fd, most)):
            parts.append(part)
            limit, left = limit - len(part), left - len(part)
            if left <= 0 and len(part) < most:  # all is here, and nothing behind it
                break
        return found, b"".join(parts)


class Descriptor:
    """The owner of an open descriptor: it is closed once, by `close` or with its last reference.

    A signal's exception (KeyboardInterrupt) comes between two bytecodes, mostly after a call. So a call and what notes
    its result are joined: an unpacked `map` stores at once, and a `zip` of maps makes both calls in one bytecode.
    """

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd: int | None = None

    def close(self) -> None:
        """Close it; do nothing a second time."""
        if (fd := self.fd) is not None:
            [*zip(map(setattr, (self,), ("fd",), (None,)), map(os.close, (fd,)), strict=True)]

    def __enter__(self) -> int:
        assert self.fd is not None
        return self.fd

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            self.close()


def opened(path: str, flags: int, *, dir_fd: int | None = None, mode: int = 0o644) -> Descriptor:
    """Open a file or a directory for a `with` block."""
    it = Descriptor()
    (it.fd,) = map(partial(os.open, mode=mode, dir_fd=dir_fd), (path,), (flags,))
    return it


def open_regular(path: str) -> Descriptor | None:
    """Open a regular file to read it; None where there is none, or something else. May raise OSError."""
    return None if (opened_as := _open_regular(path)) is None else opened_as[0]


def _open_regular(path: str) -> tuple[Descriptor, os.stat_result] | None:
    try:
        it = opened(path, os.O_RDONLY | SAFE)
    except OSError as e:
        if e.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}:
            return None
        raise
    if it.fd is not None and stat.S_ISREG((found := os.fstat(it.fd)).st_mode):
        return it, found
    it.close()
    return None


def exists(path: str, dir_fd: int | None = None) -> bool:
    """Return whether anything has that name, as far as this user may look; symlinks count."""
    return os.access(path, os.F_OK, dir_fd=dir_fd, follow_symlinks=False)


def is_directory(path: str) -> bool:
    """Return whether that is a directory, as far as this user may look; symlinks do not count."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def can_rename(source: str, target: str) -> bool:
    """Return whether entries of one directory can be renamed into another: they are on one mount.

    rename(2) looks at that before it looks for the entry, and nothing has this name.
    """
    try:
        os.rename(f"{source}/.on-this-mount", f"{target}/.on-this-mount")
    except OSError as e:
        return e.errno != errno.EXDEV
    return True


@dataclass(frozen=True, slots=True)
class Space:
    """The space of a file system, for an ordinary user: statvfs(3)."""

    free_bytes: int
    size_bytes: int
    free_inodes: int
    read_only: bool


def read_space(path: str) -> Space:
    """Read the space of the file system that `path` is on."""
    found = os.statvfs(path)
    return Space(
        free_bytes=found.f_bavail * found.f_frsize,
        size_bytes=found.f_blocks * found.f_frsize,
        free_inodes=found.f_favail,
        read_only=bool(found.f_flag & os.ST_RDONLY),
    )


def free_bytes(path: str) -> int:
    """Return the bytes that an ordinary user may still write to the file system of `path`."""
    return read_space(path).free_bytes


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where it has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _fsync(fd: int) -> None:
    with out_of_turn():
        os.fsync(fd)


@dataclass(kw_only=True, eq=False)
class FileSystem:
    """The steps that change a data directory, by absolute paths; each may raise OSError."""

    durable: bool = True  # False: nothing is fsynced, so no step survives a power failure

    def step(self, name: str, path: str) -> None:
        """Do nothing; a harness overrides this, and is called before each step."""

    def mkdir(self, path: str) -> bool:
        """Make a directory that may be there; tell whether it is new."""
        self.step("mkdir", path)
        try:
            os.mkdir(path)
        except FileExistsError:
            if not is_directory(path):
                raise
            return False
        return True

    def rmdir(self, path: str) -> None:
        """Remove an empty directory. One that is not empty, or that the disk keeps, stays: nothing depends on it."""
        self.step("rmdir", path)
        with suppress(OSError):
            os.rmdir(path)

    def rename(self, source: str, target: str) -> None:
        """Rename at once (rename(2)); it is durable after `fsync_dir` of both parents."""
        self.step("rename", source)
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        """Remove a file that may be gone already."""
        self.step("unlink", path)
        with suppress(FileNotFoundError):
            os.unlink(path)

    def fsync_dir(self, path: str) -> None:
        """Make the entries of a directory survive a power failure."""
        if self.durable:
            self.step("fsync_dir", path)
            with opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as fd:  # the data directory may be a symlink
                _fsync(fd)

    def fsync_path(self, path: str) -> None:
        """Make the data of a file survive a power failure."""
        with opened(path, os.O_RDONLY | SAFE) as fd:
            self.fsync_file(fd, path)

    def fsync_file(self, fd: int, path: str) -> None:
        """Make the data of an open file survive a power failure."""
        if self.durable:
            self.step("fsync_file", path)
            _fsync(fd)

    def write(
        self,
        path: str,
        data: bytes,
        *,
        durable: bool,
        mode: int = 0o644,
        temporary_in: str | None = None,
        mtime_ns: int | None = None,
    ) -> None:
        """Put a small file in place by the rename of one beside it, or in `temporary_in`.

        `durable`: its data is fsynced before the rename, and its directory after it. `mtime_ns` is given to it.
        """
        directory, name = os.path.split(path)
        temporary = os.path.join(temporary_in or directory, f".{name[:64]}.{secrets.token_hex(4)}")
        self.step("write", path)
        try:
            with opened(temporary, CREATE, mode=mode) as fd:
                write_all(fd, data)
                if mtime_ns is not None:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
                if durable:
                    self.fsync_file(fd, temporary)
            self.rename(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        if durable:
            self.fsync_dir(directory)
        if durable and temporary_in is not None:
            self.fsync_dir(temporary_in)

    def touch(self, path: str, *, owner: tuple[int, int] | None = None) -> None:
        """Set the mtime of a file to now; make an empty file where there is none, for `owner` (uid, gid)."""
        self.step("touch", path)
        if owner is not None:  # never what is there already: it may be a link to anything
            with suppress(FileExistsError), opened(path, CREATE) as fd:
                os.fchown(fd, *owner)
        with opened(path, os.O_WRONLY | os.O_CREAT | SAFE) as fd:
            os.utime(fd)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """Set the mtime of a file that may be gone already."""
        self.step("set_mtime", path)
        with suppress(FileNotFoundError):
            os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def discard(self, path: str, trash: str) -> str | None:
        """Rename an entry into the trash, for `erase`; return its new path, or None if it was gone."""
        target = os.path.join(trash, f"{os.path.basename(path)[:128]}.{secrets.token_hex(4)}")
        try:
            self.rename(path, target)
        except FileNotFoundError:
            if not os.path.isdir(trash):
                raise
            return None
        return target

    def erase(self, path: str) -> None:
        """Remove a file, or a whole directory, that may be gone already. No symlink is followed."""
        self.step("erase", path)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as e:
            if e.errno not in {errno.EISDIR, errno.EPERM}:  # a directory: Linux says the one, POSIX the other
                raise
            shutil.rmtree(path)
