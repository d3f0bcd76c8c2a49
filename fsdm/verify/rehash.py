"""One chunk's files against its READY: every byte is read, and whatever READY does not say is told.

Reads only. The caller holds the chunk (a ref), so its directory stays what it is meanwhile. Files are opened below a
descriptor of their directory, and no symlink is followed. A file that READY does not name counts as wrong: a query
engine that is pointed at `data/` would read it. What the disk cannot read is damage, what this user may not read is
not.

The page cache is left as it was: what was in it stays, what was read from the disk leaves it again. There is no
readahead for that, since it would make the two look alike; several files at once make up for it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from blake3 import blake3

from fsdm.model.layout import DATA, READY
from fsdm.store.filesystem import exists
from fsdm.store.json_files import read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fsdm.concurrency.rate_limit import Rate
    from fsdm.model.documents import FileEntry
    from fsdm.model.layout import Layout, Place

BLOCK_BYTES: Final = 1 << 20
WAIT_S: Final = 0.05  # so often it is asked whether to go on
UNREADABLE: Final = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})  # what a disk says of bytes that it lost

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_threads = threading.local()


class _Digest(Protocol):
    def update(self, data: Any, /) -> object: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is not as READY says: which file (READY and `data` are such as well), and how."""

    file: str
    why: str

    def __str__(self) -> str:
        return f"{self.file} {self.why}"


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast bytes are read, and for how long. Several threads may share one.

    `check` is called before each block, and may raise; `progress` is told of the bytes of each; `wait` passes seconds.
    """

    rate: Rate
    check: Callable[[], None] = lambda: None
    progress: Callable[[int], None] = lambda _count: None
    wait: Callable[[float], object] = threading.Event().wait

    def took(self, count: int) -> None:
        """So many bytes have been read: wait until they are paid for."""
        self.progress(count)
        self.rate.took(count, self._wait)

    def _wait(self, seconds: float) -> None:
        self.check()
        self.wait(min(seconds, WAIT_S))


class Rehash:
    """The files of one chunk's directory. `wrong` is what is seen without reading any; `names` are to be read.

    A context manager. `file` may be called in any thread, for several files at once.
    """

    def __init__(self, path: str, place: Place, pace: Pace) -> None:
        """Look at what is there.

        Raises:
            OSError: this user, or this process, may not look.
        """
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
            if e.errno not in UNREADABLE:
                raise
            self.wrong.append(Wrong(READY if not self._entries else DATA, _cannot_be_read(e)))

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
        self.wrong += [Wrong(_in_data(name), "is missing") for name in self._entries if name not in here]
        self.wrong += [Wrong(_in_data(name), "is not in READY") for name in sorted(here - self._entries.keys())]

    @property
    def size_bytes(self) -> int:
        """What is to be read, where all is well."""
        return sum(self._entries[name].size for name in self.names)

    def file(self, name: str) -> Wrong | None:
        """Read one file; what is wrong with it.

        Raises:
            OSError: this user, or this process, may not read it.
            Exception: what `Pace.check` raises.
        """
        try:
            why = self._read(name, self._entries[name])
        except OSError as e:
            if e.errno not in UNREADABLE:
                raise
            why = _cannot_be_read(e)
        return None if why is None else Wrong(_in_data(name), why)

    def close(self) -> None:
        data, self._data = self._data, -1
        if data >= 0:
            os.close(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        digests: list[tuple[str, str, _Digest]] = [("blake3", entry.blake3, blake3())]
        if entry.sha256 is not None:
            digests.append(("sha256", entry.sha256, hashlib.sha256()))
        buffer, offset, pace = _buffer(), 0, self._pace
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        while offset < entry.size:
            pace.check()
            most = min(pace.rate.block(BLOCK_BYTES), entry.size - offset)
            count = _read_block(fd, buffer[:most], offset)
            if count == 0:
                return f"ends after {offset} bytes of {entry.size}"
            for _, _, digest in digests:
                digest.update(buffer[:count])
            offset += count
            pace.took(count)
        for kind, said, digest in digests:
            if (here := digest.hexdigest()) != said:
                return f"has the {kind} {here}, READY says {said}"
        return None


def rehash(path: str, place: Place, pace: Pace) -> list[Wrong]:
    """Read all files of a chunk that is held, in this thread; what is wrong with them.

    Raises:
        OSError: this user, or this process, may not read them.
        Exception: what `Pace.check` raises.
    """
    with Rehash(path, place, pace) as files:
        return files.wrong + [wrong for name in files.names if (wrong := files.file(name)) is not None]


def is_leaving(layout: Layout, place: Place) -> bool:
    """Whether a chunk that is held is to be let go of: it is deleted, or was taken out of service."""
    return exists(layout.delete_marker(place.chunk_id)) or not exists(f"{layout.path(place)}/{READY}")


def _read_block(fd: int, buffer: memoryview, offset: int) -> int:
    """Read some bytes; what was not in the page cache before is not in it afterwards (preadv2(2), posix_fadvise(2))."""
    try:
        count = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        count = 0
    except OSError as e:  # tmpfs has nothing but its page cache, others do not tell
        if e.errno != errno.EOPNOTSUPP:
            raise
        count = 0
    if count == 0:
        count = os.preadv(fd, [buffer], offset)
        os.posix_fadvise(fd, offset, count, os.POSIX_FADV_DONTNEED)
    return count


def _buffer() -> memoryview:
    buffer: memoryview | None = getattr(_threads, "buffer", None)
    if buffer is None:
        buffer = _threads.buffer = memoryview(bytearray(BLOCK_BYTES))
    return buffer


def _in_data(name: str) -> str:
    return f"{DATA}/{name}"


def _cannot_be_read(error: OSError) -> str:
    return f"cannot be read: {error.strerror or os.strerror(error.errno or errno.EIO)}"
