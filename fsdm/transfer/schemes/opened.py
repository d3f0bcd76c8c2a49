"""Files of sources that are opened rather than asked: in the words of HTTP, so that all else is the same for them.

A file has a size and a version where its source knows them; a part of it is taken where the version is still the one
that is asked for. So resume, mirrors, caps, digests and stop are those of any other source (see `SourceFetch`).
Invariant: what `get` ends without an error is all that was asked for, of one version: the version is looked at again
behind the last byte.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Protocol

from fsdm.concurrency.turn import out_of_turn
from fsdm.transfer.http.engine import about
from fsdm.transfer.http.head import Head

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.transfer.file_range import FileRange
    from fsdm.transfer.http.exchange import Begin
    from fsdm.transfer.http.source_settings import Sources

BLOCK_BYTES: Final = 4 << 20  # whole blocks of any file system, so that they can be shared
_RANGE: Final = re.compile(r"bytes=([0-9]+)-([0-9]*)")


class Opened(Protocol):
    """An open file of a source."""

    @property
    def size(self) -> int | None:
        """The size in bytes; None where only reading tells."""

    @property
    def version(self) -> str | None:
        """A text that differs where the bytes do, in printable ASCII without quotes; None where nothing proves that."""

    def read(self, start: int, end: int | None) -> Iterator[memoryview | FileRange]:
        """Give the bytes from `start` to before `end`, or to the last one, each block at most BLOCK_BYTES.

        Raises:
            TransferError: they cannot be read.
        """

    def check(self) -> None:
        """See that it is still what it was when it was opened; raises TransferError."""


class Opener(Protocol):
    """A source whose files are opened; used by all threads."""

    def open(self, url: str, stop: Cancellation) -> AbstractContextManager[Opened]:
        """Open the file of a URL.

        Raises:
            TransferError: it cannot be had, or (`PolicyError`) may not.
            StoppedError: `stop` was set.
        """


class OpenerEngine:
    """Asks an opener as a server is asked; used by all threads."""

    def __init__(self, opener: Opener, sources: Sources) -> None:
        self._opener = opener
        self._sources = sources

    def get(self, url: str, headers: Mapping[str, str], stop: Cancellation, begin: Begin) -> None:
        """See `Engine.get`."""
        with about(url):
            stop.check()
            with self._sources.bounds_of(url).request(stop), self._opener.open(url, stop) as opened:
                head, start, end = _answer(opened, headers)
                body = begin(head)
                if body is None:
                    return
                is_large = end is None or end - start > BLOCK_BYTES
                with out_of_turn() if is_large else nullcontext():
                    for data in opened.read(start, end):
                        stop.check()
                        body(data)
                opened.check()


def _answer(opened: Opened, headers: Mapping[str, str]) -> tuple[Head, int, int | None]:
    """Make the head for a request, and say which bytes are its body: from, and to before (None: the last one)."""
    size, tag = opened.size, None if opened.version is None else f'"{opened.version}"'
    fields = {} if tag is None else {"etag": tag}
    asked = _RANGE.fullmatch(headers.get("Range", ""))
    if size is None:
        return Head(200, fields | {"transfer-encoding": "chunked"}), 0, None  # its end is seen by reading
    if asked is None or headers.get("If-Range", tag) != tag:
        return Head(200, fields | {"content-length": str(size)}), 0, size
    start, end = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else size, size)
    if start >= end:
        return Head(416, fields | {"content-range": f"bytes */{size}", "content-length": "0"}), 0, 0
    span = {"content-range": f"bytes {start}-{end - 1}/{size}", "content-length": str(end - start)}
    return Head(206, fields | span), start, end
