"""The sink of a body: a file, its digests, and its way to the disk.

BLAKE3 is computed over every byte and recorded in READY: it costs about 0.3 CPU seconds a GB (sha256 2.6 and more
without SHA extensions, xxh3 0.1) and, unlike xxh3, protects against more than accidents. sha256 is computed where a
want gives one. Bytes are hashed as they are written; those of pieces that came beside each other from the page cache,
once they are in line; what is behind a hole has a digest of its own until then.

Early writeback starts the disk while bytes are still arriving, so that the fsync at the end finds little to do.
Invariant: `size` bytes are in the file, and all of them are under the digests.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.turn import out_of_turn
from fsdm.model.documents import FileEntry
from fsdm.model.errors import TransferError
from fsdm.store.digests import Digests
from fsdm.store.filesystem import write_all
from fsdm.transfer.file_range import FileRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.transfer.file_range import Data

PIECE_BYTES: Final = 4 << 20  # hashed at once from the page cache
WRITEBACK_BYTES: Final = 8 << 20
READ_BYTES: Final = 256 << 10  # it stays in the processor's cache
_FALLOC_FL_KEEP_SIZE: Final = 1  # fallocate(2)
_SYNC_FILE_RANGE_WRITE: Final = 2  # sync_file_range(2)


def _of_libc(name: str, *types: type) -> Callable[..., int]:
    """Find a call of the C library; where it is not there, one that does nothing will do."""
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return lambda *_: 0
    function.argtypes = types  # type: ignore[attr-defined]
    return function


_fallocate: Final = _of_libc("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_sync_file_range: Final = _of_libc("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Sink:
    """An open file that is filled from its beginning, or from where it was left."""

    def __init__(self, fd: int, *, sha256: bool, writeback: bool) -> None:
        self.fd = fd
        self._sha256 = sha256
        self._writeback = writeback
        self._begin()

    def _begin(self) -> None:
        self.size = 0
        self._digests = Digests(sha256=self._sha256)
        self._written_back = 0
        self._hashed = 0
        self._behind: dict[int, tuple[int, Digests]] = {}  # by where they begin: hashed to before, and how

    def restart(self) -> None:
        """Throw away what is in the file."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        self._begin()

    def take_over(self, size: int, check: Callable[[], None]) -> None:
        """Count the bytes that are in the file, up to `size`; `check` is called in between."""
        with out_of_turn():
            while self.size < size:
                check()
                self.size = min(self.size + PIECE_BYTES, size)
                self._catch_up()

    def cut(self, end: int) -> None:
        """Throw away what is at `end` and behind it; what is taken next goes behind the bytes that count."""
        os.ftruncate(self.fd, end)
        os.lseek(self.fd, self.size, os.SEEK_SET)

    def expect(self, size: int | None) -> None:
        """Reserve room for what is announced: a full disk is met before the transfer.

        The file's size stays what has been written: so anybody can see how far it is.
        """
        if size is not None and size >= PIECE_BYTES and _fallocate(self.fd, _FALLOC_FL_KEEP_SIZE, 0, size):
            code = ctypes.get_errno()
            if code in {errno.ENOSPC, errno.EDQUOT}:  # any other: the file system has no such call, and needs none
                os.ftruncate(self.fd, self.size)  # ext4 and xfs have reserved all that there was, and keep it
                raise OSError(code, os.strerror(code))

    def put(self, data: Data) -> None:
        """Append bytes; raises OSError, and TransferError where those of a source cannot be read."""
        if isinstance(data, FileRange):
            try:
                data.append_to(self.fd)
            except TransferError:
                os.lseek(self.fd, self.size, os.SEEK_SET)  # what came of it does not count
                raise
            self.took(len(data))
            return
        self._catch_up()
        write_all(self.fd, data)
        self._digests.update(data)
        self.size += len(data)
        self._hashed = self.size
        self._push_out()

    def took(self, count: int) -> None:
        """So many bytes have been appended in the file by others."""
        self.size += count
        if self.size - self._hashed >= PIECE_BYTES:
            self._catch_up()
            self._behind = {start: known for start, known in self._behind.items() if start > self.size}
        self._push_out()

    def blake3(self) -> str:
        """The BLAKE3 of the bytes that are here, in hex."""
        self._catch_up()
        return self._digests.blake3

    def blake3_between(self, start: int, end: int, check: Callable[[], None] = lambda: None) -> str:
        """Return the BLAKE3 of bytes that others have written behind those that count, in hex.

        What was hashed from `start` on for a lesser `end` is not read again. `check` is called in between.
        """
        at, digests = self._behind.get(start, (end + 1, None))
        if digests is None or at > end:
            at, digests = start, Digests(sha256=False)
        with out_of_turn():
            while at < end:
                check()
                data = self._read(at, end)
                digests.update(data)
                at += len(data)
                self._behind[start] = at, digests
        return digests.blake3

    def sha256(self) -> str | None:
        """Return their sha256, in hex, where it is computed."""
        self._catch_up()
        return self._digests.sha256

    def entry(self, etag: str | None = None, *, unproven: bool = False) -> FileEntry:
        """Return what came, as READY records it."""
        return FileEntry(
            size=self.size, blake3=self.blake3(), sha256=self.sha256(), etag=etag, unproven=unproven or None
        )

    def _catch_up(self) -> None:
        while self._hashed < self.size:
            data = self._read(self._hashed, self.size)
            self._digests.update(data)
            self._hashed += len(data)

    def _read(self, start: int, end: int) -> bytes:
        data = os.pread(self.fd, min(READ_BYTES, end - start), start)
        if not data:
            raise OSError(errno.EIO, "the file became shorter while it was written")
        return data

    def _push_out(self) -> None:
        count = self.size - self._written_back
        if self._writeback and count >= WRITEBACK_BYTES:
            _sync_file_range(self.fd, self._written_back, count, _SYNC_FILE_RANGE_WRITE)  # a hint, which may fail
            self._written_back = self.size


def open_sink(path: str, *, sha256: bool, writeback: bool) -> Sink:
    """A sink into a file, which may be there; the caller closes its descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return Sink(os.open(path, flags, 0o644), sha256=sha256, writeback=writeback)
