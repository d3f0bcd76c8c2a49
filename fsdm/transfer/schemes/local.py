"""`file://`: files of this machine, below directories that the owner has allowed.

They are read, never moved, linked or changed. Invariants: nothing outside an allowed directory is opened, whatever is
renamed meanwhile: each name is looked up in the directory that the last one has led to, no symbolic link is followed,
and no name leads up. Nor is anything of the data directory, where secrets are. Only regular files are opened. What was
written to while it was copied is not taken: a change shows in mtime or ctime, once a first one has rested for longer
than the coarsest clock of a file system.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from blake3 import blake3

from fsdm.model.errors import PolicyError, TransferError
from fsdm.store.filesystem import SAFE, opened
from fsdm.transfer.file_range import FileRange
from fsdm.transfer.schemes.opened import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.source_policy import Policy

REST_S: Final = 2.0  # FAT counts mtimes in so much
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class LocalFiles:
    """Opens the files below the directories of a policy, but for those of `data_dir`."""

    def __init__(self, policy: Policy, data_dir: str | None) -> None:
        self._policy = policy
        self._data_dir = data_dir

    @contextmanager
    def open(self, url: str, stop: Cancellation) -> Iterator[LocalFile]:
        """See `Opener.open`."""
        directory, names = self._policy.find_directory(read_path(url))
        with ExitStack() as stack:
            try:
                where = self._walk(stack, directory, names[:-1])
                found = os.stat(names[-1], dir_fd=where, follow_symlinks=False)
                if not stat.S_ISREG(found.st_mode):
                    raise TransferError("it is no regular file; symbolic links are not followed")
                fd = stack.enter_context(opened(names[-1], os.O_RDONLY | os.O_NOCTTY | SAFE, dir_fd=where))
            except OSError as e:
                raise _as_ours(e) from e
            yield _at_rest(fd, stop)

    def _walk(self, stack: ExitStack, directory: str, names: list[str]) -> int:
        """Return a descriptor of the directory that names lead to from an allowed one."""
        fd = stack.enter_context(opened(directory, _STEP & ~os.O_NOFOLLOW))  # the owner may have named a link
        real, own = os.path.realpath(directory), os.path.realpath(self._data_dir or os.devnull)
        is_own = os.path.commonpath((real, own)) == own or self._is_data_dir(fd)
        for name in names:
            fd = stack.enter_context(opened(name, _STEP, dir_fd=fd))
            is_own = is_own or self._is_data_dir(fd)
        if is_own:
            raise PolicyError("refused by the policy: it is in the data directory", hint="name what the file came from")
        return fd

    def _is_data_dir(self, directory: int) -> bool:
        return self._data_dir is not None and os.path.samestat(os.fstat(directory), os.stat(self._data_dir))


@dataclass(frozen=True, slots=True)
class LocalFile:
    """An open file, and what it was then; a version is known where it had come to rest."""

    fd: int
    was: tuple[int, ...]
    size: int
    version: str | None

    def read(self, start: int, end: int | None) -> Iterator[FileRange]:
        """See `Opened.read`."""
        end = self.size if end is None else end
        for at in range(start, end, BLOCK_BYTES):
            yield FileRange(self.fd, at, min(at + BLOCK_BYTES, end))

    def check(self) -> None:
        """See `Opened.check`."""
        if _identity(os.fstat(self.fd)) != self.was:
            raise TransferError("it changed while it was read", transient=True)


def read_path(url: str) -> str:
    """Return the absolute path in a file URL (RFC 8089); raises TransferError where it is none of this machine."""
    host, slash, path = url.partition("://")[2].partition("/")
    if not slash or host.lower() not in {"", "localhost"}:
        raise TransferError("it is no file of this machine", hint="as in file:///srv/in/a, with the whole path")
    return os.fsdecode(unquote_to_bytes(f"/{path}"))


def _at_rest(fd: int, stop: Cancellation) -> LocalFile:
    """Take in what a file is, once it has not been written to for REST_S.

    Raises:
        TransferError: transient; it is being written.
        StoppedError: `stop` was set meanwhile.
    """
    found = os.fstat(fd)
    was, age_s = _identity(found), time.time() - found.st_mtime
    is_old = age_s >= REST_S
    if 0 <= age_s < REST_S:
        stop.wait(REST_S - age_s)
        is_old = True
        if _identity(os.fstat(fd)) != was:
            raise TransferError("it is being written", transient=True)
    version = blake3(repr(was).encode()).hexdigest(16) if is_old else None  # else it is of another clock
    return LocalFile(fd, was, found.st_size, version)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _as_ours(error: OSError) -> TransferError:
    """Say what the system said of a path, without the path."""
    if error.errno in _MISSING:
        hint = "check the URL in the want, and that no symbolic link is in the way"
        return TransferError("there is no such file", hint=hint)
    is_refused = error.errno in {errno.EACCES, errno.EPERM}
    hint = "let the user that reconciles read it, and enter its directories" if is_refused else ""
    return TransferError(error.strerror or "it cannot be opened", transient=not is_refused, hint=hint)
