"""The bytes that the files of a chunk or a partial have. No symlink is followed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.log import Log
from fsdm.model.layout import DATA
from fsdm.store.filesystem import DIRECTORY, SAFE, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = Log("fsdm")

BLOCK_BYTES: Final = 512  # of st_blocks: stat(2)
EXTENTS_MAX: Final = 1000  # of one file; one with more is counted by its blocks


def downloaded_bytes(partial: str) -> int | None:
    """Return the bytes that have come of a partial; None where there is no such directory.

    Sizes would count holes between pieces, and blocks are allocated early: so extents with data count (lseek(2)). A
    file system without extents says that all is data; then it is the lesser of size and blocks.
    """
    try:
        with opened(partial, DIRECTORY) as parent:
            try:
                return sum(_came(entry, data) for entry, data in _files(parent))
            except OSError:
                return 0  # nothing has come yet
    except OSError:
        return None


def bytes_in(directory: str) -> tuple[int, int]:
    """Return the bytes of the files of a chunk or a partial, by their sizes and by their blocks."""
    size = allocated = 0
    try:
        with opened(directory, DIRECTORY) as parent:
            for entry, _ in _files(parent):
                found = entry.stat(follow_symlinks=False)
                size += found.st_size
                allocated += found.st_blocks * BLOCK_BYTES
    except (FileNotFoundError, NotADirectoryError):  # it has just gone; or it is none, and its bytes do not count
        pass
    except OSError as e:
        logger.warning("cannot measure %s: %s", directory, e)
    return size, allocated


def _files(directory: int) -> Iterator[tuple[os.DirEntry[str], int]]:
    """Yield the regular files in an open directory's `data/`, each with the descriptor of that."""
    with opened(DATA, DIRECTORY, dir_fd=directory) as data, os.scandir(data) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield entry, data


def _came(entry: os.DirEntry[str], data: int) -> int:
    try:
        with opened(entry.name, os.O_RDONLY | SAFE, dir_fd=data) as fd:
            found = os.fstat(fd)
            return min(_extents(fd, found.st_size), _at_most(found))
    except FileNotFoundError:
        return 0
    except OSError:  # of another user: its size and blocks have to do
        return _at_most(entry.stat(follow_symlinks=False))


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
        except OSError:  # ENXIO: no data behind this
            return came
        came += min(at, size) - start
    return size
