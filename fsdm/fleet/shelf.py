"""The place that lists and routes are published to: a directory, an object store, or whatever has these calls.

Invariant: `replace` succeeds only while there is what its caller has read, so of two that replace the same text one
fails. What is put is there before what names it: a reader of the pointer finds all that it names.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from fsdm.model.errors import DataDirectoryError, PublishedMeanwhileError
from fsdm.store.filesystem import FileSystem, read_regular
from fsdm.store.flock import EXCLUSIVE, close_fd, open_fd, try_flock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MAX_BYTES: Final = 1 << 32
KEPT_S: Final = 86_400.0  # a list that is no longer named may still be being fetched, or be applied somewhere
BEGIN_AGAIN: Final = "nothing was replaced: run it again, and have one process do it"


def meanwhile(path: str) -> PublishedMeanwhileError:
    """Return the error of who would have replaced what another process has put there."""
    return PublishedMeanwhileError(f"{path}: another process has published meanwhile", hint=BEGIN_AGAIN)


class Shelf(Protocol):
    """A place for published files, by names with slashes; `path` names it."""

    @property
    def path(self) -> str: ...

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, or None."""

    def renew(self, name: str) -> bool:
        """Let a file that is there be as young as a new one; tell whether it is."""

    def put(self, name: str, data: bytes) -> None:
        """Put a file there whose name says what is in it."""

    def replace(self, name: str, data: bytes, *, instead_of: bytes | None) -> None:
        """Put a file in the place of what was read, or of none.

        Raises:
            PublishedMeanwhileError: something else is there now.
        """

    def prune(self, directory: str, keep: Collection[str], before: float) -> int:
        """Remove the files of a directory whose names are not kept and that were put there before a time.

        `before` is in seconds since the epoch, KEPT_S ago. Returns how many have gone.
        """


class Directory:
    """A shelf that is a directory of this machine, for a web server to serve.

    Replacing holds an exclusive flock on the directory, as do the looks before it and `prune`.
    """

    def __init__(self, path: str, fs: FileSystem | None = None) -> None:
        self.path = os.path.abspath(path)
        self._fs = fs or FileSystem()

    def read(self, name: str) -> bytes | None:
        try:
            found = read_regular(self._path(name), MAX_BYTES)
        except OSError as e:
            raise self._refused(name, e) from e
        return None if found is None else found[1]

    def renew(self, name: str) -> bool:
        try:
            os.utime(self._path(name), follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as e:
            raise self._refused(name, e) from e
        return True

    def put(self, name: str, data: bytes) -> None:
        try:
            self._make_directory(name)
            self._fs.write(self._path(name), data, durable=True)
        except OSError as e:
            raise self._refused(name, e) from e

    def replace(self, name: str, data: bytes, *, instead_of: bytes | None) -> None:
        with self._locked():
            if self.read(name) != instead_of:
                raise meanwhile(self.path)
            self.put(name, data)

    def prune(self, directory: str, keep: Collection[str], before: float) -> int:
        """See `Shelf`."""
        removed = 0
        with self._locked():
            try:
                with os.scandir(self._path(directory)) as entries:
                    found = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
                for entry in found:
                    if entry.name not in keep and entry.stat(follow_symlinks=False).st_mtime < before:
                        self._fs.unlink(entry.path)
                        removed += 1
            except FileNotFoundError:
                return removed
            except OSError as e:
                raise self._refused(directory, e) from e
        return removed

    def _path(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _make_directory(self, name: str) -> None:
        directory = self.path
        made = [self._fs.mkdir(directory)]
        for part in name.split("/")[:-1]:
            directory = os.path.join(directory, part)
            made.append(self._fs.mkdir(directory))
            if made[-1]:
                self._fs.fsync_dir(os.path.dirname(directory))
        if made[0]:
            self._fs.fsync_dir(os.path.dirname(self.path))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._make_directory("")
            fd = open_fd(self.path)
        except OSError as e:
            raise self._refused("", e) from e
        try:
            if not try_flock(fd, EXCLUSIVE):
                raise PublishedMeanwhileError(f"{self.path}: another process publishes just now", hint=BEGIN_AGAIN)
            yield
        except OSError as e:
            raise self._refused("", e) from e
        finally:
            close_fd(fd)

    def _refused(self, name: str, error: OSError) -> DataDirectoryError:
        hint = "check the path, who may write there, and that the disk takes it"
        return DataDirectoryError(f"{self._path(name).rstrip('/')}: {error.strerror or error}", hint=hint)
