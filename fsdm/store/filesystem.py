"""The only durable writes. Every step that a crash could fall between goes through a `FileSystem`.

The tests and the crash harness pass a subclass that stops, fails or records at a step; so nothing else in the package
renames, removes or fsyncs below the data directory, except the markers that a client places (see `intents`).
Invariant: after a method returns, what it did survives a crash of the process; it survives a power failure where the
method says so.
"""

from __future__ import annotations

import errno
import os
import pwd
import secrets
import shutil
import stat
from dataclasses import dataclass


def write_all(fd: int, data: bytes | memoryview) -> None:
    """write(2) until all is written: it may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_regular(path: str, limit: int) -> tuple[os.stat_result, bytes] | None:
    """A regular file: what fstat says of it, and at most `limit` of its bytes. None where there is none of that kind.

    Never follows a symlink and never waits for the other end of a FIFO. Raises OSError for anything but absence.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}:
            return None
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return None
        parts: list[bytes] = []
        while limit > 0 and (part := os.read(fd, limit)):
            parts.append(part)
            limit -= len(part)
        return found, b"".join(parts)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Space:
    """What a file system has, for an ordinary user: statvfs(3)."""

    free_bytes: int
    size_bytes: int
    free_inodes: int
    read_only: bool


def read_space(path: str) -> Space:
    """What the file system has that this path is on."""
    found = os.statvfs(path)
    return Space(
        free_bytes=found.f_bavail * found.f_frsize,
        size_bytes=found.f_blocks * found.f_frsize,
        free_inodes=found.f_favail,
        read_only=bool(found.f_flag & os.ST_RDONLY),
    )


def free_bytes(path: str) -> int:
    """What an ordinary user may still write to the file system."""
    return read_space(path).free_bytes


def is_directory(path: str) -> bool:
    """Whether that is a directory, and not a symlink to one. False also where one may not look."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


class FileSystem:
    """The steps that change a data directory. Paths are absolute strings; every method may raise OSError.

    `durable=False`: nothing is fsynced, and no method survives more than a crash of the process.
    """

    durable = True

    def __init__(self, *, durable: bool = True) -> None:
        self.durable = durable

    def step(self, name: str, path: str) -> None:
        """Called before each step; a harness overrides it. Here it does nothing."""

    def mkdir(self, path: str) -> None:
        """Make one directory; it may exist."""
        self.step("mkdir", path)
        try:
            os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path) or os.path.islink(path):
                raise

    def rename(self, source: str, target: str) -> None:
        """rename(2): atomic; durable after `fsync_dir` of both parents."""
        self.step("rename", source)
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        """Remove a file that may be gone already."""
        self.step("unlink", path)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def fsync_dir(self, path: str) -> None:
        """Make the entries of a directory survive a power failure."""
        if not self.durable:
            return
        self.step("fsync_dir", path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def fsync_path(self, path: str) -> None:
        """Make the data of a file that is here survive a power failure."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self.fsync_file(fd, path)
        finally:
            os.close(fd)

    def fsync_file(self, fd: int, path: str) -> None:
        """Make the data of an open file survive a power failure."""
        if not self.durable:
            return
        self.step("fsync_file", path)
        os.fsync(fd)

    def write(
        self, path: str, data: bytes, *, durable: bool, mode: int = 0o644, temporary_in: str | None = None
    ) -> None:
        """Put a small file in place at once, by a temporary file (beside it, or in `temporary_in`) and a rename.

        `durable`: its data is fsynced before the rename and its directory after it.
        """
        directory, name = os.path.split(path)
        temporary = os.path.join(temporary_in or directory, f".{name[:64]}.{secrets.token_hex(4)}")
        self.step("write", path)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            try:
                write_all(fd, data)
                if durable:
                    self.fsync_file(fd, temporary)
            finally:
                os.close(fd)
            self.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        if durable:
            self.fsync_dir(directory)
        if durable and temporary_in is not None:
            self.fsync_dir(temporary_in)

    def touch(self, path: str) -> None:
        """Make a file there is to have an mtime of now, and an empty one where there is none."""
        self.step("touch", path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        try:
            os.utime(fd)
        finally:
            os.close(fd)

    def discard(self, path: str, trash: str) -> str | None:
        """Rename a file or directory out of sight; the new path, or None where it was gone. `erase` does the rest."""
        target = os.path.join(trash, f"{os.path.basename(path)[:128]}.{secrets.token_hex(4)}")
        try:
            self.rename(path, target)
        except FileNotFoundError:
            if not os.path.isdir(trash):
                raise
            return None
        return target

    def erase(self, path: str) -> None:
        """Remove a file, or a directory and all below it, without following a symlink. It may be gone already."""
        self.step("erase", path)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as e:
            if e.errno not in {errno.EISDIR, errno.EPERM}:  # a directory: Linux says the one, POSIX the other
                raise
            shutil.rmtree(path)


def exists(path: str, dir_fd: int | None = None) -> bool:
    """Whether anything has that name, be it a symlink that leads nowhere. False also where one may not look."""
    return os.access(path, os.F_OK, dir_fd=dir_fd, follow_symlinks=False)


def user_name(uid: int) -> str:
    """The name of a user, or the number: not every uid has a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
