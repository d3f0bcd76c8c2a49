"""Comparing every byte of one chunk with its READY. The caller holds the chunk by a ref.

A file that READY does not name is wrong: a query engine that is pointed at `data/` would read it. What the disk cannot
read is damage, what this user may not read is not. The page cache is left as it was.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import StoppedError
from fsdm.model.layout import DATA, READY
from fsdm.store.digests import BUFFER_BYTES, Digests, thread_buffer
from fsdm.store.filesystem import exists
from fsdm.store.json_files import read_manifest
from fsdm.verify.page_cache import PAGE, cached_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.rate_limit import Rate
    from fsdm.model.documents import FileEntry
    from fsdm.model.layout import Layout, Place

WAIT_S: Final = 0.05  # so often it is asked whether to go on
UNREADABLE: Final = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})  # what a disk says of bytes that it lost

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Wrong:
    """A file that is not as READY says (READY and `data` are such as well), and why."""

    file: str
    why: str

    def __str__(self) -> str:
        return f"{self.file} {self.why}"


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of reading bytes, and its end. Several threads may share one.

    `check` is called before each block, and may raise; `progress` is told of the bytes of each; `wait` passes seconds.
    """

    rate: Rate
    check: Callable[[], None] = lambda: None
    progress: Callable[[int], None] = lambda _count: None
    wait: Callable[[float], object] = threading.Event().wait

    def took(self, count: int) -> None:
        """Wait until so many bytes that have been read are paid for."""
        self.progress(count)
        self.rate.took(count, self._wait)

    def _wait(self, seconds: float) -> None:
        self.check()
        self.wait(min(seconds, WAIT_S))


class Rehash:
    """The files of one chunk. `wrong` is seen without reading any; `names` are to be read.

    `file` may be called in any thread, for several files at once, until `close`.

    Raises:
        OSError: this user, or this process, may not look, or read.
        Exception: what `Pace.check` raises, from `file`.
    """

    def __init__(self, path: str, place: Place, pace: Pace) -> None:
        self.wrong: list[Wrong] = []
        self.names: list[str] = []
        self._pace = pace
        self._entries: dict[str, FileEntry] = {}
        self._data = -1
        try:
            manifest = read_manifest(path)
            if manifest is None:
                self.wrong.append(Wrong(READY, "is not a manifest"))
            elif manifest.place != place:
                self.wrong.append(Wrong(READY, f"speaks of {manifest.place.dataset_id}/{manifest.place.name}"))
            else:
                self._entries = dict(manifest.files)
                self._list(path)
        except OSError as e:
            self.close()
            self.wrong.append(Wrong(READY if not self._entries else DATA, _unreadable(e)))

    def _list(self, path: str) -> None:
        try:
            self._data = os.open(f"{path}/{DATA}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as e:
            if e.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise
            self.wrong.append(Wrong(DATA, "is missing, or is no directory"))
            return
        here = set(os.listdir(self._data))
        self.names = [name for name in self._entries if name in here]
        self.wrong += [Wrong(f"{DATA}/{name}", "is missing") for name in self._entries if name not in here]
        self.wrong += [Wrong(f"{DATA}/{name}", "is not in READY") for name in sorted(here - self._entries.keys())]

    @property
    def size_bytes(self) -> int:
        """The bytes that are to be read, where all is well."""
        return sum(self._entries[name].size for name in self.names)

    def file(self, name: str) -> Wrong | None:
        """Read one file; return what is wrong with it."""
        try:
            why = self._read(name, self._entries[name])
        except OSError as e:
            why = _unreadable(e)
        return None if why is None else Wrong(f"{DATA}/{name}", why)

    def close(self) -> None:
        data, self._data = self._data, -1
        if data >= 0:
            os.close(data)

    def _read(self, name: str, entry: FileEntry) -> str | None:
        try:
            fd = os.open(name, _OPEN, dir_fd=self._data)
        except OSError as e:
            if e.errno == errno.ENOENT:
                return "is missing"
            if e.errno in {errno.ELOOP, errno.ENXIO}:
                return "is not a file"
            raise
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return "is not a file"
            if found.st_size != entry.size:
                return f"has {found.st_size} bytes, READY says {entry.size}"
            return self._compare(fd, entry)
        finally:
            os.close(fd)

    def _compare(self, fd: int, entry: FileEntry) -> str | None:
        digests, buffer = Digests(sha256=entry.sha256 is not None), thread_buffer(BUFFER_BYTES)
        offset, pace = 0, self._pace
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # readahead would make all look as if it had been cached
        while offset < entry.size:
            pace.check()
            block = -(-pace.rate.block(BUFFER_BYTES) // PAGE) * PAGE  # of a part of a page the kernel drops nothing
            most = min(block, entry.size - offset)
            count = _read_block(fd, buffer[:most], offset)
            if count == 0:
                return f"ends after {offset} bytes of {entry.size}"
            digests.update(buffer[:count])
            offset += count
            pace.took(count)
        return digests.difference(entry)


def rehash(path: str, place: Place, pace: Pace) -> list[Wrong]:
    """Read all files of a held chunk, in this thread; return what is wrong. Raises as `Rehash`."""
    with closing(Rehash(path, place, pace)) as files:
        return files.wrong + [wrong for name in files.names if (wrong := files.file(name)) is not None]


def is_leaving(layout: Layout, place: Place) -> bool:
    """Tell whether a held chunk is to be released: it is deleted, or out of service."""
    return exists(layout.delete_marker(place.chunk_id)) or not exists(f"{layout.path(place)}/{READY}")


def check_may_go_on(layout: Layout, place: Place, stop: threading.Event) -> None:
    """Raise StoppedError where `stop` is set, or a held chunk is to be released."""
    if stop.is_set() or is_leaving(layout, place):
        raise StoppedError(f"the check of {place.chunk_id} was stopped")


def _read_block(fd: int, buffer: memoryview, offset: int) -> int:
    """Read some bytes, and leave the page cache as it was (posix_fadvise(2))."""
    try:
        cached, most = cached_run(fd, offset, len(buffer))
    except (OSError, ValueError):  # it cannot be mapped, or has become shorter: the read will tell
        cached, most = True, len(buffer)
    count = os.preadv(fd, [buffer[:most]], offset)
    if not cached:
        os.posix_fadvise(fd, offset, count, os.POSIX_FADV_DONTNEED)
    return count


def _unreadable(error: OSError) -> str:
    """Describe bytes that the disk has lost; raise any other error."""
    if error.errno not in UNREADABLE:
        raise error
    return f"cannot be read: {error.strerror or os.strerror(error.errno)}"
