"""The files of a trace: lines are appended to one, which is rotated by size, and read and followed over rotations.

Invariants: one process appends (flock); all files together have at most the bytes that they may; a line counts once it
ends with a newline; a reader locks nothing, and nobody waits for it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from contextlib import suppress
from os.path import samestat
from typing import TYPE_CHECKING, Any, Final

from fsdm.model.errors import InvalidInputError
from fsdm.model.units import count
from fsdm.store.filesystem import Descriptor, FileSystem, open_regular, opened, write_all
from fsdm.store.flock import EXCLUSIVE, LockDescriptor, open_fd, try_flock

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES: Final = 4  # FILE, which is written, and FILE.1 to FILE.3, the older ones
MIN_BYTES: Final = 100_000  # of all of them: less would rotate with every few lines
TAIL_BYTES: Final = 1 << 16  # of the end of a file, where the last number is looked for
TAKE_OVER_S: Final = 2.0  # for another process that writes it, and is about to end
BLOCK: Final = 1 << 20
FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def rotated(path: str, number: int) -> str:
    """Name the file of a trace that was rotated so many times."""
    return f"{path}.{number}" if number else path


class TraceFile:
    """The file that a process appends to. It is locked, and numbered on, from `open`. Not thread-safe.

    Raises:
        InvalidInputError: it is no regular file, or cannot be written; or `max_bytes`, of all files, is too small.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int) -> None:
        if not max_bytes >= MIN_BYTES:
            raise InvalidInputError(f"a trace must have at least {MIN_BYTES} bytes for its files", hint="as 64M")
        self.path, self._max_bytes = os.path.realpath(path), max_bytes // FILES
        self._fs, self._file = FileSystem(durable=False), LockDescriptor()
        self._size_bytes = 0
        self._is_torn = False
        self._patient_until: float | None = None
        try:
            with opened(self.path, FLAGS) as fd:
                is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        except OSError as e:
            hint = "its directory must be there, and this user must be allowed to write in it"
            raise InvalidInputError(f"the trace {path} cannot be written: {e.strerror}", hint=hint) from e
        if not is_file:
            raise InvalidInputError(f"the trace {path} is no regular file", hint="name a file, or leave it out")

    def open(self) -> int:
        """Lock it; return the number of the last line that it has, or the older ones; 0 where there is none.

        Raises:
            BlockingIOError: another process writes it.
            OSError: it cannot be opened or read.
        """
        self._lock()
        return next(filter(None, (_last_number(rotated(self.path, number)) for number in range(FILES))), 0)

    def append(self, lines: str) -> None:
        """Write whole lines; rotate before it, where they do not fit. May raise OSError: then some may be there."""
        data = lines.encode()
        if not self._is_current():
            self._lock()
        if self._size_bytes and self._size_bytes + len(data) >= self._max_bytes:
            for number in range(FILES - 1, 0, -1):
                with suppress(FileNotFoundError):
                    self._fs.rename(rotated(self.path, number - 1), rotated(self.path, number))
            self._lock()
        fd = self._file.fd
        assert fd is not None
        if self._is_torn:
            data = b"\n" + data
        try:
            write_all(fd, data)
        except OSError:
            before, self._size_bytes = self._size_bytes, os.fstat(fd).st_size
            self._is_torn |= self._size_bytes > before
            raise
        self._is_torn = False
        self._size_bytes += len(data)

    def close(self) -> None:
        """Let it go."""
        self._file.close()

    def _is_current(self) -> bool:
        try:
            return self._file.fd is not None and samestat(os.fstat(self._file.fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _lock(self) -> None:
        self._file.close()
        if self._patient_until is None:
            self._patient_until = time.monotonic() + TAKE_OVER_S
        while not self._is_current():
            self._file.close()
            self._file.fd = open_fd(self.path, FLAGS)
            while not try_flock(self._file.fd, EXCLUSIVE):
                if time.monotonic() > self._patient_until:
                    self._file.close()
                    raise BlockingIOError(errno.EAGAIN, "another process writes it")
                time.sleep(0.05)
        assert self._file.fd is not None
        self._size_bytes = os.fstat(self._file.fd).st_size
        self._is_torn = self._size_bytes > 0 and os.pread(self._file.fd, 1, self._size_bytes - 1) != b"\n"


def parsed(line: bytes) -> dict[str, Any] | None:
    """Read a line of a trace; None for one that is torn, or none of a trace."""
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) and isinstance(document.get("seq"), int) else None


def _last_number(path: str) -> int:
    it = open_regular(path)
    if it is None:
        return 0
    with it as fd:
        tail = os.pread(fd, TAIL_BYTES, max(os.fstat(fd).st_size - TAIL_BYTES, 0))
    numbers = (document["seq"] for line in reversed(tail.splitlines()) if (document := parsed(line)) is not None)
    return int(next(numbers, 0))


def gap(first: int, last: int, why: str) -> dict[str, Any]:
    """Make the document that stands for the lines with these numbers."""
    text = f"{count(last - first + 1, 'event')} {why}"
    return {"seq": last, "event": "gap", "chunk_id": "", "text": text, "first": first, "last": last}


def documents(path: str | os.PathLike[str], *, follow: bool) -> Iterator[dict[str, Any] | None]:
    """Read the lines of a trace, the oldest first; `follow`: then what comes, and None where nothing has come yet.

    Numbers that are missing, because their file was rotated away meanwhile, are told by a document of event *gap*.

    Raises:
        InvalidInputError: there is no such trace, or it cannot be read.
    """
    path, last, line = os.path.realpath(path), None, None
    try:
        for line in _lines(path, follow=follow):
            document = None if line is None else parsed(line)
            if line is not None and document is None:
                continue
            if document is not None:
                first = document.get("first", document["seq"])
                if last is not None and isinstance(first, int) and first > last + 1:
                    yield gap(last + 1, first - 1, "gone with their file before they were read")
                last = document["seq"]
            yield document
    except OSError as e:
        hint = "`fsdm run --trace` writes one; name its file, or the data directory"
        raise InvalidInputError(f"no trace can be read at {path}: {e.strerror}", field="FILE", hint=hint) from e


def _lines(path: str, *, follow: bool) -> Iterator[bytes | None]:
    """Read lines through all files, the oldest first; None where there is no more of them for now."""
    current = _after(None, path)
    if current is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    offset, rest = 0, b""
    while True:
        later = _after(current, path)  # looked for first: nothing is appended to a file that has a later one
        fd = current.fd
        assert fd is not None
        while data := os.pread(fd, BLOCK, offset):
            offset += len(data)
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
        if later is not None:
            current.close()
            current, offset, rest = later, 0, b""
        elif follow:
            if os.fstat(fd).st_size < offset:  # it was emptied
                offset, rest = 0, b""
            else:
                yield None
        else:
            current.close()
            return


def _after(current: Descriptor | None, path: str) -> Descriptor | None:
    """Open the file that comes after this one, or the oldest; None where it is the last one."""
    here = None if current is None or current.fd is None else os.fstat(current.fd)
    with suppress(FileNotFoundError):
        if here is not None and samestat(os.stat(path), here):
            return None
    later = None
    for number in range(FILES):  # from the newest: so a rotation meanwhile shows a file twice, and hides none
        it = open_regular(rotated(path, number))
        if it is None or it.fd is None:
            continue
        if here is not None and samestat(os.fstat(it.fd), here):
            it.close()
            return later
        later = it
    return later
