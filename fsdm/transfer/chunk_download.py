"""Fetch a chunk's files into `partial/ID/data/`, beside each other, and make its manifest.

Files are what runs in parallel, over all chunks, on a bounded number of connections; small ones do not wait behind
large ones. Retrying is left to the reconciler, which backs off per chunk. Invariant: what `fetch_chunk` returns is the
manifest of bytes that are on the disk.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from fsdm.concurrency.turn import in_turn, out_of_turn
from fsdm.model.documents import DataChunk, FileEntry, FileSource, Manifest
from fsdm.model.errors import StoppedError, TransferError
from fsdm.model.layout import DATA, PARTS, WANT
from fsdm.transfer.resume_record import Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.store.filesystem import FileSystem
    from fsdm.transfer.resume_record import Part
    from fsdm.transfer.scheduler import Scheduler

SMALL_BYTES: Final = 4 << 20  # a want that declares no size counts as large


class FileFetcher(Protocol):
    """The source of files."""

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry:
        """Write the file to `part.path`, fsynced; the bytes there may be taken over.

        Raises:
            TransferError: it could not be had, or is not what was asked for.
            StoppedError: `stop` was set.
            OSError: the disk refused.
        """


def fetch_chunk(
    chunk: DataChunk,
    directory: str,
    *,
    fs: FileSystem,
    fetcher: FileFetcher,
    scheduler: Scheduler | None,
    stop: Cancellation,
    on_file: Callable[[str, FileEntry], None],
    meanwhile: Callable[[], None] = lambda: None,
) -> Manifest:
    """Fetch what is missing of a chunk's files into `directory/data`, by `scheduler` or in turn.

    `meanwhile` is done in this thread while the others are at work, as one more piece of it, and then the last file,
    where there is a slot for it. What has come by the time of an error or a stop is written down, for the next attempt.

    Raises:
        TransferError, StoppedError, OSError: the first that any of the files met; none is running any more then.
    """
    data = f"{directory}/{DATA}"
    if not fs.mkdir(directory):
        _clear(directory, (DATA, PARTS, WANT), fs)
    if not fs.mkdir(data):
        _clear(data, chunk.files, fs)
    batch, parts = _Batch(len(chunk.files) + 1, stop), Parts(directory, chunk.files, fs)

    def fetch_one(name: str, source: FileSource) -> None:
        entry = fetcher.fetch(source, parts.of(name), fs, stop)
        on_file(name, entry)
        batch.entries[name] = entry

    last = next(reversed(chunk.files))
    for name, source in chunk.files.items():
        work = partial(batch.run, partial(fetch_one, name, source))
        if name == last:
            batch.run(meanwhile)
        if scheduler is None:
            work()
        else:
            small = source.size is not None and source.size <= SMALL_BYTES
            host, most = scheduler.group(source.url)
            scheduler.submit(chunk.id, work, small=small, host=host, most=most, here=name == last)
    try:
        batch.wait()
    except (TransferError, StoppedError):
        parts.save()
        raise
    fs.fsync_dir(data)
    fs.fsync_dir(directory)  # READY must not be there before `data` is
    return Manifest.of(chunk, {name: batch.entries[name] for name in chunk.files})


def _clear(directory: str, names: Container[str], fs: FileSystem) -> None:
    """Remove what an earlier attempt left under other names: it would be published."""
    for name in os.listdir(directory):
        if name not in names:
            fs.erase(f"{directory}/{name}")


class _Batch:
    """Pieces of work and their results; after the first error no further one is begun."""

    def __init__(self, count: int, stop: Cancellation) -> None:
        self.entries: dict[str, FileEntry] = {}
        self._left = count
        self._stop = stop
        self._error: BaseException | None = None
        self._mutex = threading.Lock()
        self._done = threading.Event()

    @in_turn()
    def run(self, work: Callable[[], None]) -> None:
        try:
            self._stop.check()
            if self._error is None:
                work()
        except BaseException as e:
            with self._mutex:
                self._error = self._error or e
        with self._mutex:
            self._left -= 1
            if self._left == 0:
                self._done.set()

    def wait(self) -> None:
        """Wait for all of them; raise the first error."""
        with out_of_turn():
            self._done.wait()
        if self._error is not None:
            raise self._error
