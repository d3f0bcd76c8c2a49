"""Comparing many chunks with their READYs, in any process: files run in parallel.

A chunk that is being read is released at once when it is to leave: so no delete waits for a verification. Where all is
right, the verdict is written before the chunk is released, if this user may.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import DataDirectoryError, StoppedError
from fsdm.store.filesystem import FileSystem
from fsdm.store.verdict import write_verdict
from fsdm.verify.rehash import Pace, Rehash, Wrong, check_may_go_on

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from fsdm.concurrency.rate_limit import Rate
    from fsdm.model.layout import Layout, Place
    from fsdm.store.refs import ChunkRef

READERS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})  # they leave no verdict, which is no error
AHEAD: Final = 2  # so many files for each thread wait to be read: the next chunk begins before the last one has ended


@dataclass(frozen=True, slots=True)
class Verified:
    """A chunk that was compared: `wrong` is empty where all is well, or it has `gone`.

    `unnoted`: why the verdict could not be written by a user who may.
    """

    place: Place
    wrong: tuple[Wrong, ...] = ()
    gone: bool = False
    size_bytes: int = 0
    unnoted: str | None = None


@dataclass(slots=True)
class BulkVerify:
    """The comparison of many chunks.

    `take` gives a ref to the chunk at a place, or None; `progress` is told of bytes, in several threads.
    """

    layout: Layout
    take: Callable[[Place], ChunkRef | None]
    rate: Rate
    jobs: int
    progress: Callable[[int], None] = lambda _count: None
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, places: Iterable[Place]) -> Generator[Verified]:
        """Yield what was found of each, in their order. To be closed early, or read to its end.

        Raises:
            DataDirectoryError: this user may not read a chunk.
        """
        pool = ThreadPoolExecutor(self.jobs, thread_name_prefix="fsdm-verify")
        reading: deque[_Reading] = deque()
        try:
            for place in places:
                reading.append(self._begin(place, pool))
                while sum(len(each.left) for each in reading) > self.jobs * AHEAD:
                    yield reading.popleft().result()
            while reading:
                yield reading.popleft().result()
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)
            for each in reading:
                each.close()

    def _begin(self, place: Place, pool: ThreadPoolExecutor) -> _Reading:
        reading = _Reading(self.layout.path(place), place)
        ref = self.take(place)
        if ref is None:
            return reading
        reading.opened.enter_context(ref)
        try:
            go_on = partial(check_may_go_on, self.layout, place, self._stop)
            pace = Pace(self.rate, go_on, self.progress, self._stop.wait)
            reading.files = reading.opened.enter_context(closing(Rehash(reading.path, place, pace)))
            reading.left = [pool.submit(reading.files.file, name) for name in reading.files.names]
        except OSError as e:
            reading.close()
            raise _unreadable(reading.path, e) from e
        return reading


@dataclass(slots=True)
class _Reading:
    path: str
    place: Place
    opened: ExitStack = field(default_factory=ExitStack)
    files: Rehash | None = None
    left: list[Future[Wrong | None]] = field(default_factory=list)

    def result(self) -> Verified:
        try:
            if self.files is None:
                return Verified(self.place, gone=True)
            found = [future.result() for future in self.left]
            wrong = (*self.files.wrong, *(each for each in found if each is not None))
            unnoted = None if wrong else _note(self.path)
            return Verified(self.place, wrong, size_bytes=self.files.size_bytes, unnoted=unnoted)
        except StoppedError:
            return Verified(self.place, gone=True)
        except OSError as e:
            raise _unreadable(self.path, e) from e
        finally:
            self.close()

    def close(self) -> None:
        for future in self.left:
            future.cancel()
        for future in self.left:
            if not future.cancelled():
                future.exception()  # it reads below the descriptor that is closed now
        self.opened.close()


def _note(path: str) -> str | None:
    """Write the verdict on a held chunk that is right; return why that failed, but not for a mere reader of it."""
    try:
        write_verdict(FileSystem(), path)
    except OSError as e:
        return None if e.errno in READERS else f"{e.strerror}"
    return None


def _unreadable(path: str, error: OSError) -> DataDirectoryError:
    where = error.filename if isinstance(error.filename, str) and os.path.isabs(error.filename) else path
    return DataDirectoryError(f"{where} cannot be read by this user: {error.strerror}", hint="check who may read it")
