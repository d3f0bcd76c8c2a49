"""The runs of an index over all chunks, `index/NAME/RUN`: which chunks hold a key.

A run is never written again; a merge puts a new one beside those that it replaces, and then removes these. So a reader
takes no lock: it lists the directory again where that has changed, and where a run has gone before it was opened.
Invariant: what a listing names was all opened, so a look-up misses no run of that moment.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import DataDirectoryError
from fsdm.model.index_format import CHUNK, RUN_MAGIC, IndexedChunk, as_index_name, as_key, hash_of
from fsdm.model.state import granule_ns
from fsdm.store.filesystem import exists
from fsdm.store.index_file import IndexFile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsdm.model.layout import Layout

NO_MTIME: Final = -1
TRIES: Final = 1000  # of a listing: each that fails is one merge that went on
_RUN: Final = re.compile(r"run-[0-9a-f]{16}\Z")


def run_name(body: bytes) -> str:
    """Return the name of a run, by the digest of what follows its header."""
    return f"run-{body[:8].hex()}"


def run_names(directory: str) -> list[str]:
    """List the names of the runs in a directory, none where there is no such. May raise OSError."""
    if mtime_of(directory) == NO_MTIME:
        return []
    try:
        return sorted(name for name in os.listdir(directory) if _RUN.match(name))
    except FileNotFoundError:
        return []


def mtime_of(directory: str) -> int:
    """Return the mtime of a directory in ns; NO_MTIME where it is missing, or a symlink. May raise OSError."""
    return _state_of(directory)[1]


def _state_of(directory: str) -> tuple[int, int]:
    """Return the inode and the mtime of a directory, 0 and NO_MTIME where it is none."""
    try:
        found = os.lstat(directory)
    except (FileNotFoundError, NotADirectoryError):
        return 0, NO_MTIME
    return (found.st_ino, found.st_mtime_ns) if stat.S_ISDIR(found.st_mode) else (0, NO_MTIME)


class Run(IndexFile):
    """One run: the numbers of its records are those of chunks in its table."""

    def chunk(self, number: int) -> IndexedChunk | None:
        """Return the chunk of this number; None where there is none, for a disk may lose bytes."""
        try:
            return self._chunks[number]
        except KeyError:
            return self._chunks.setdefault(number, self._read_chunk(number))

    @cached_property
    def _chunks(self) -> dict[int, IndexedChunk | None]:
        return {}  # those that were found: as many as have hits

    def _read_chunk(self, number: int) -> IndexedChunk | None:
        if number >= self.header.extra[0]:
            return None
        at = self.header.rest_at + CHUNK.size * number
        return IndexedChunk.unpack(self._map[at : at + CHUNK.size])

    def chunks(self) -> list[IndexedChunk | None]:
        """Return the chunks in the order of their numbers."""
        return [self.chunk(number) for number in range(self.header.extra[0])]


def open_run(path: str) -> Run | None:
    """Map a run; None where it is not there, or not whole. May raise OSError."""
    return Run.open(path, RUN_MAGIC)


@dataclass(frozen=True, slots=True)
class _Listed:
    directory: str
    inode: int  # 0: it is listed again
    mtime_ns: int
    runs: dict[str, Run]


class IndexRuns:
    """The runs of the indexes of one data directory, for look-ups. Thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._listed: dict[str, _Listed] = {}
        self._listing = threading.Lock()

    def find(self, name: str, key: bytes) -> list[IndexedChunk]:
        """Return the chunks whose indexes had this key when they were merged, by place; some may be gone.

        Raises:
            InvalidInputError: there is no such index over all chunks, or the key is none.
            OSError: the disk refuses.
        """
        hashed = hash_of(as_key(key))
        found: list[IndexedChunk] = []
        for run in self._current(name):
            for number in run.numbers(hashed):
                chunk = run.chunk(number)
                if chunk is not None:
                    found.append(chunk)
        return found if len(found) < 2 else sorted(set(found), key=lambda chunk: chunk.place)

    def _current(self, name: str) -> Iterable[Run]:
        known = self._listed.get(name) if isinstance(name, str) else None
        if known is not None:
            try:
                now = os.lstat(known.directory)
            except (FileNotFoundError, NotADirectoryError):
                known = None
            else:
                if now.st_mtime_ns == known.mtime_ns and now.st_ino == known.inode:
                    return known.runs.values()
        directory = self._layout.runs_of(as_index_name(name))
        with self._listing:
            for _ in range(TRIES):
                before_ns, (inode, mtime_ns) = time.time_ns(), _state_of(directory)
                runs = self._opened(directory, {} if known is None else known.runs)
                if runs is not None:
                    # a change after this listing may still get the same mtime
                    is_sure = before_ns - mtime_ns > granule_ns(mtime_ns)
                    self._listed[name] = _Listed(directory, inode if is_sure else 0, mtime_ns, runs)
                    return runs.values()
        raise DataDirectoryError(f"{directory} changes all the time", hint="try again")

    @staticmethod
    def _opened(directory: str, known: dict[str, Run]) -> dict[str, Run] | None:
        """Map all runs of a directory; None where one has gone since it was listed."""
        runs: dict[str, Run] = {}
        for name in run_names(directory):
            path = f"{directory}/{name}"
            run = known.get(name) or open_run(path)
            if run is not None:
                runs[name] = run
            elif not exists(path):
                return None
        return runs
