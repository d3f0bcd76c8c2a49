"""A data directory: made, opened, and checked to be one of a format that this version knows."""

from __future__ import annotations

import json
import os

from fsdm.model.errors import DataDirectoryError, NoDataDirectoryError, UnknownFormatError
from fsdm.model.layout import CACHEDIR_TAG, CACHEDIR_TAG_TEXT, FORMAT, Layout
from fsdm.store.filesystem import FileSystem, exists, read_regular
from fsdm.store.flock import check_flock


def _lack(root: str) -> str:
    if not exists(root):
        return "there is nothing"
    return "it has no fsdm.json that is a file" if os.path.isdir(root) else "it is no directory"


def check_format(layout: Layout) -> None:
    """See that this is a data directory, of a format that this version knows.

    Raises:
        NoDataDirectoryError: there is no `fsdm.json`.
        UnknownFormatError: it has another format number, or is not what it should be.
        DataDirectoryError: this user may not look, or the disk refuses.
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


def make_layout(layout: Layout, fs: FileSystem) -> None:
    """Make what is missing of a data directory; what is there is left alone.

    Raises:
        NoDataDirectoryError: it is in use for something else.
        UnknownFormatError: it is of a format that this version does not know.
    """
    _make_root(layout.root, fs)
    if not os.path.lexists(layout.format_file):
        _check_not_foreign(layout)
        fs.write(os.path.join(layout.root, CACHEDIR_TAG), CACHEDIR_TAG_TEXT.encode(), durable=True)
        fs.write(layout.format_file, json.dumps({"format": FORMAT}).encode() + b"\n", durable=True)
    check_format(layout)
    for name in layout.directories():
        fs.mkdir(os.path.join(layout.root, name))
    fs.fsync_dir(layout.root)


def _make_root(path: str, fs: FileSystem) -> None:
    """Make a directory, and what is missing above it, for good: what is fsynced below it is lost with its name."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make_root(parent, fs)
    fs.mkdir(path)
    fs.fsync_dir(parent)


def _check_not_foreign(layout: Layout) -> None:
    """What stands in these would be erased or served; a want may well be there before the first start."""
    for path in (layout.chunks, layout.partial, layout.trash):
        if os.path.isdir(path) and os.listdir(path):
            raise NoDataDirectoryError(
                f"{path} is not empty, but {layout.root} has no fsdm.json: it is not a data directory of fsdm",
                hint="choose another directory; or, if it is one, restore fsdm.json as: " + json.dumps({"format": 1}),
            )


def open_data_dir(data_dir: str | os.PathLike[str], *, durable: bool = True, allow_unknown_fs: bool = False) -> Layout:
    """Make what is missing of a data directory that this process may reconcile, and see that it can be.

    Raises:
        NoDataDirectoryError, UnknownFormatError, UnsafeFileSystemError: it cannot.
        DataDirectoryError: the disk refuses.
    """
    layout = Layout(data_dir)
    try:
        make_layout(layout, FileSystem(durable=durable))
        check_flock(layout, allow_unknown=allow_unknown_fs)
    except OSError as e:
        raise DataDirectoryError(f"{layout.root} cannot be made or opened: {e}", hint="check its path and mode") from e
    return layout
