"""A fetcher that a program gives, in place of fsdm's own: what it does and returns is looked at.

Invariant: READY says what is at `part.path`, which is what the want asks for, whatever a fetcher says of it.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Final, Protocol

from fsdm.concurrency.log import Log
from fsdm.concurrency.turn import out_of_turn
from fsdm.model.documents import FileEntry
from fsdm.model.errors import FsdmError, InvalidInputError, TransferError
from fsdm.store.digests import BUFFER_BYTES, Digests, thread_buffer
from fsdm.store.filesystem import open_regular
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.http.engine import about

if TYPE_CHECKING:
    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.documents import FileSource
    from fsdm.store.filesystem import FileSystem
    from fsdm.transfer.chunk_download import FileFetcher
    from fsdm.transfer.resume_record import Part

logger = Log("fsdm")

OF_THE_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class Fetcher(Protocol):
    """A source of files of one's own: `DataManager(…, fetcher=…)` takes an object with this method.

    Several threads call it, each with another file. A URL of any scheme comes to it as the want has it; no policy,
    no `Source` and no limit on rates is in between.
    """

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry | None:
        """Write the whole file to `part.path`, where the bytes of an earlier attempt may stand; then return None.

        It is fsynced, measured and compared with the want then. An entry may be returned for its `etag`; what else it
        says has to be so. `stop.check()` between two blocks lets a delete cut the transfer.

        Raises:
            TransferError: it could not be had; `transient=True` where it is worth another try.
            StoppedError: `stop` was set.
            OSError: the disk refused; of any other kind (as those of requests) it is a broken connection.
        """


class OwnFetcher:
    """Asks a program's fetcher, and says in plain words what is wrong with it.

    Raises:
        InvalidInputError: it is an object that has no `fetch`.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        if isinstance(fetcher, type) or not callable(getattr(fetcher, "fetch", None)):
            what = f"must have a method fetch(source, part, fs, stop); {fetcher!r:.80} has none to call"
            raise InvalidInputError(what, field="fetcher", hint="give an object of a class that has it (fsdm.Fetcher)")
        self._fetcher = fetcher
        self._name = type(fetcher).__name__

    @property
    def received_bytes(self) -> int | None:
        """The bytes that have come so far; None where the fetcher does not count them."""
        return getattr(self._fetcher, "received_bytes", None)

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry:
        """See `FileFetcher.fetch`."""
        with about(source.url):
            said = self._ask(source, part, fs, stop)
            if said is not None and not isinstance(said, FileEntry):
                what = f"the fetcher {self._name} returned {type(said).__name__}, neither None nor a FileEntry"
                raise TransferError(what, hint="return None once all of the file is at part.path", cause="defect")
            here = self._measure(source, said, part, fs, stop)
            _compare(here, source.size, source.sha256, source.blake3, "are wanted", "is wanted")
            if said is not None:
                it = f"the fetcher {self._name} says"
                _compare(here, said.size, said.sha256, said.blake3, it, it)
            return here

    def _ask(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> object:
        try:
            return self._fetcher.fetch(source, part, fs, stop)
        except (FsdmError, MemoryError):
            raise
        except OSError as e:
            if e.errno in OF_THE_DISK:
                raise
            # its own text may have a URL with its secrets
            why = f"{type(e).__name__}{f' ({os.strerror(e.errno)})' if e.errno else ''}"
            what = f"the fetcher {self._name} met a {why}"
            raise TransferError(what, transient=True, cause="connection") from e
        except Exception as e:
            logger.log(logging.ERROR, "the fetcher %s has failed", self._name, exc_info=e)
            hint = "its traceback is in the log; it raises TransferError for what it cannot have"
            raise TransferError(f"the fetcher {self._name} raised {type(e).__name__}", hint=hint, cause="defect") from e

    def _measure(
        self, source: FileSource, said: FileEntry | None, part: Part, fs: FileSystem, stop: Cancellation
    ) -> FileEntry:
        """Make the file durable, and read what it is."""
        digests = Digests(sha256=source.sha256 is not None or (said is not None and said.sha256 is not None))
        there = open_regular(part.path)
        if there is None:
            hint = "it is to write the file there, or to raise TransferError"
            raise TransferError(f"the fetcher {self._name} put no file at part.path", hint=hint, cause="defect")
        with there as fd, out_of_turn():
            buffer, size = thread_buffer(BUFFER_BYTES), 0
            while count := os.readv(fd, [buffer]):
                stop.check()
                digests.update(buffer[:count])
                size += count
            fs.fsync_file(fd, part.path)
        etag = None if said is None else said.etag
        return FileEntry(size=size, blake3=digests.blake3, sha256=digests.sha256, etag=etag)


def _compare(here: FileEntry, size: int | None, sha256: str | None, blake3: str | None, many: str, one: str) -> None:
    """Raise TransferError where something else is here than somebody has said."""
    if size not in {None, here.size}:
        raise TransferError(f"{here.size} bytes came, {size} {many}", cause="size")
    for kind, said, is_here in (("sha256", sha256, here.sha256), ("blake3", blake3, here.blake3)):
        if said not in {None, is_here}:
            raise TransferError(f"the {kind} is {is_here}, {said} {one}", cause="digest")


def looked_at(fetcher: Fetcher | HttpFetcher) -> FileFetcher:
    """Return fsdm's own fetcher as it is, and any other one so that it is looked at."""
    return fetcher if isinstance(fetcher, HttpFetcher) else OwnFetcher(fetcher)
