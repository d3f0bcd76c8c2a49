"""Bytes of an open file on their way to another one, copied by the kernel where it can.

copy_file_range(2) shares the blocks where the file system can do so (xfs, btrfs; for whole blocks), leaves the copy to
an NFS server, and copies through the page cache elsewhere. Invariant: what is wrong with the source is a TransferError,
and an OSError is of the file that is written, however the bytes go: the disk of a source that fails is not ours.
"""

from __future__ import annotations

import os
from typing import Final

from fsdm.concurrency.turn import out_of_turn
from fsdm.model.errors import TransferError
from fsdm.store.filesystem import write_all

READ_BYTES: Final = 1 << 20


class FileRange:
    """The bytes of a file from `start` to before `end`; like a memoryview, it has a length and is sliced."""

    __slots__ = ("_end", "_fd", "_start")

    def __init__(self, fd: int, start: int, end: int) -> None:
        self._fd = fd
        self._start = start
        self._end = end

    def __len__(self) -> int:
        return self._end - self._start

    def __getitem__(self, part: slice) -> FileRange:
        start, end, _ = part.indices(len(self))
        return FileRange(self._fd, self._start + start, self._start + max(start, end))

    def append_to(self, fd: int) -> None:
        """Write all of them where the offset of another open file is.

        Raises:
            TransferError: transient; the source cannot be read, or has become shorter.
            OSError: the other file cannot be written.
        """
        at = self._start
        with out_of_turn():
            while at < self._end:
                at += self._copy(fd, at) or self._read(fd, at)

    def _copy(self, fd: int, at: int) -> int:
        """Let the kernel copy; 0 where it does not: between some file systems, or because of an error of either one."""
        try:
            return os.copy_file_range(self._fd, fd, self._end - at, at)
        except OSError:
            return 0

    def _read(self, fd: int, at: int) -> int:
        try:
            data = os.pread(self._fd, min(READ_BYTES, self._end - at), at)
        except OSError as e:
            raise TransferError(f"it cannot be read: {e.strerror}", transient=True) from e
        if not data:
            raise TransferError("it became shorter while it was read", transient=True)
        write_all(fd, data)
        return len(data)


Data = bytes | memoryview | FileRange


def append(fd: int, data: Data) -> None:
    """Write bytes where the offset of an open file is; raises as `FileRange.append_to`."""
    if isinstance(data, FileRange):
        data.append_to(fd)
    else:
        write_all(fd, data)
