"""How many bytes of a partial have come: not a file's size, which counts holes between pieces that come side by side,
nor its blocks, which are set aside before anything comes, but the extents in it that hold data (lseek(2), SEEK_DATA).

A file system that cannot tell says that all is data; then it is the lesser of size and blocks.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from fsdm.model.layout import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator


logger = logging.getLogger("fsdm")

BLOCK_BYTES: Final = 512  # of st_blocks: stat(2)
EXTENTS_MAX: Final = 1000  # of one file: what is scattered more is counted by its blocks
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def came_in(partial: str) -> int | None:
    """The bytes that are there of all files of a partial; None where there is no such directory (any more).

    No symlink is followed, be it in the place of the directory, of its `data/`, or of a file.
    """
    try:
        parent = os.open(partial, _DIRECTORY)
    except OSError:
        return None
    try:
        data = os.open(DATA, _DIRECTORY, dir_fd=parent)
    except OSError:
        return 0  # nothing has come yet
    finally:
        os.close(parent)
    try:
        with os.scandir(data) as entries:
            return sum(_came(entry, data) for entry in entries if entry.is_file(follow_symlinks=False))
    except OSError:
        return 0
    finally:
        os.close(data)


def _came(entry: os.DirEntry[str], data: int) -> int:
    try:
        fd = os.open(entry.name, _FILE, dir_fd=data)
    except FileNotFoundError:
        return 0
    except OSError:  # of another user: as good as can be told from outside
        return _at_most(entry.stat(follow_symlinks=False))
    try:
        found = os.fstat(fd)
        return min(_extents(fd, found.st_size), _at_most(found))
    finally:
        os.close(fd)


def _at_most(found: os.stat_result) -> int:
    return min(found.st_size, found.st_blocks * BLOCK_BYTES) if found.st_blocks else found.st_size


def _extents(fd: int, size: int) -> int:
    came = at = 0
    for _ in range(EXTENTS_MAX):
        if at >= size:
            return came
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError:  # ENXIO: there is no data behind this
            return came
        came += min(at, size) - start
    return size


def bytes_in(directory: str) -> tuple[int, int]:
    """The bytes of the files of a chunk or a partial: as long as they are, and as the disk has set aside.

    No symlink is followed, be it in the place of the directory, of its `data/`, or of a file.
    """
    size = allocated = 0
    try:
        with _opened(directory) as parent, _opened(DATA, parent) as data, os.scandir(data) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    size += found.st_size
                    allocated += found.st_blocks * BLOCK_BYTES
    except (FileNotFoundError, NotADirectoryError):  # it has just gone; or is none, whose bytes do not count
        pass
    except OSError as e:
        logger.warning("cannot look how much is in %s: %s", directory, e)
    return size, allocated


@contextmanager
def _opened(path: str, parent: int | None = None) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)
