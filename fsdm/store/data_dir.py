"""The data directory as a whole: made, opened, and checked to have a known format.

Invariant: a root is made only while a data directory is opened, never by a process that has it open already.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fsdm.model.errors import DataDirectoryError, NoDataDirectoryError, UnknownFormatError
from fsdm.model.layout import CACHEDIR_TAG, CACHEDIR_TAG_TEXT, FORMAT, Layout
from fsdm.store.filesystem import FileSystem, can_rename, exists, read_regular
from fsdm.store.flock import check_flock

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORMAT_TEXT = json.dumps({"format": FORMAT})


def check_format(layout: Layout) -> None:
    """Check that this is a data directory, of the format that this version knows.

    Raises:
        NoDataDirectoryError: there is no `fsdm.json`.
        UnknownFormatError: it has another format number, or is malformed.
        DataDirectoryError: this user may not read it, or the disk refuses.
    """
    try:
        read = read_regular(layout.format_file, 4096)
    except PermissionError as e:
        raise DataDirectoryError(
            f"{layout.format_file} may not be read by this user", hint='see "Threats" in `fsdm protocol`'
        ) from e
    except OSError as e:
        raise DataDirectoryError(f"{layout.format_file} cannot be read: {e.strerror}", hint="check the path") from e
    if read is None:
        raise NoDataDirectoryError(
            f"{layout.root} is not a data directory: {_lack(layout.root)}",
            hint="check the path; `fsdm run -d DIR` or DataManager(DIR) makes a new one",
        )
    try:
        number = json.loads(read[1])["format"]
    except (ValueError, TypeError, KeyError, RecursionError):
        number = read[1][:80]
    if type(number) is not int or number != FORMAT:  # in Python, True and 1.0 are 1 as well
        raise UnknownFormatError(
            f"{layout.format_file} has format {number!r:.100}, this version knows {FORMAT}",
            hint="use the version of fsdm that made the directory, or a newer one; nothing was changed",
        )


def _lack(root: str) -> str:
    if not exists(root):
        return "it does not exist"
    return "it has no fsdm.json that is a file" if os.path.isdir(root) else "it is not a directory"


def unreadable(layout: Layout, error: OSError) -> DataDirectoryError:
    """Make the error for a data directory that the system refuses to read; one that has gone is told as such."""
    try:
        check_format(layout)
    except NoDataDirectoryError as e:
        return e
    except DataDirectoryError:
        pass  # `error` came first, and says as much
    hint = "check the path, and who may look there"
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        hint = "let this process have more open files (ulimit -n), or close refs"
    return DataDirectoryError(f"{error.filename or layout.root} cannot be read: {error.strerror}", hint=hint)


def make_layout(layout: Layout, fs: FileSystem) -> None:
    """Make the missing parts of a data directory; existing ones are left alone.

    Raises:
        NoDataDirectoryError: the directory is in use for something else.
        UnknownFormatError: it has a format that this version does not know.
    """
    _make_root(layout.root, fs)
    if not exists(layout.format_file):
        _check_not_foreign(layout)
        fs.write(os.path.join(layout.root, CACHEDIR_TAG), CACHEDIR_TAG_TEXT.encode(), durable=True)
        fs.write(layout.format_file, f"{_FORMAT_TEXT}\n".encode(), durable=True)
    check_format(layout)
    make_directories(layout, fs)
    fs.fsync_dir(layout.root)


def make_directories(layout: Layout, fs: FileSystem) -> None:
    """Make the missing directories of a layout, in a root that is there."""
    for name in layout.directories():
        fs.mkdir(os.path.join(layout.root, name))


class Root:
    """The directory that a path named when this was made. A mount that goes leaves another one under the same path."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._found = os.stat(layout.root)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Raise NoDataDirectoryError for an OSError of the block that comes of a directory that has gone."""
        try:
            yield
        except OSError:
            self.check()
            raise

    def check(self) -> None:
        """Check that the path still names that directory, with its `fsdm.json`. May raise OSError.

        Raises:
            NoDataDirectoryError: it does not: it was moved, removed, unmounted or replaced.
        """
        root = self._layout.root
        try:
            found = os.stat(root)
            os.lstat(self._layout.format_file)
        except (FileNotFoundError, NotADirectoryError):
            lack = _lack(root)
        else:
            if os.path.samestat(found, self._found):
                return
            lack = "another directory is in its place"
        raise NoDataDirectoryError(
            f"{root} is no longer the data directory that this process began with: {lack}",
            hint="see whether it was moved, removed or unmounted; once it is back at its place, start again",
        )


def _make_root(path: str, fs: FileSystem) -> None:
    """Make a directory and its parents durably: a lost name loses all that was fsynced below it."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make_root(parent, fs)
    fs.mkdir(path)
    fs.fsync_dir(parent)


def _check_not_foreign(layout: Layout) -> None:
    """Check that nothing stands where it would be erased or served; wants may come first."""
    for path in (layout.chunks, layout.partial, layout.trash):
        if os.path.isdir(path) and os.listdir(path):
            raise NoDataDirectoryError(
                f"{path} is not empty, but {layout.root} has no fsdm.json: it is not a data directory of fsdm",
                hint=f"choose another directory; or, if it is one, restore fsdm.json as: {_FORMAT_TEXT}",
            )


def _check_mounts(layout: Layout) -> None:
    for path in (layout.chunks, layout.trash):
        if not can_rename(layout.partial, path):
            raise DataDirectoryError(
                f"{layout.partial} and {path} are on different mounts, and chunks are renamed from one into the other",
                hint=f"mount {layout.root} as a whole, and nothing in it",
            )


def open_data_dir(data_dir: str | os.PathLike[str], *, durable: bool = True, allow_unknown_fs: bool = False) -> Layout:
    """Make the missing parts of a data directory, and check that this process may reconcile it.

    Raises:
        NoDataDirectoryError, UnknownFormatError, UnsafeFileSystemError: it may not.
        DataDirectoryError: the disk refuses, or parts of it are on other mounts.
    """
    layout = Layout(data_dir)
    try:
        make_layout(layout, FileSystem(durable=durable))
        check_flock(layout, allow_unknown=allow_unknown_fs)
        _check_mounts(layout)
    except OSError as e:
        raise DataDirectoryError(f"{layout.root} cannot be made or opened: {e}", hint="check its path and mode") from e
    return layout
