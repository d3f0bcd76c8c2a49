"""The chunks of the lives, and a source of their files without a network, always alike.

What a fetch writes is written by the package's own `Transfer`, `Sink` and `Parts`; only the conversation with a server
is played (so the bytes come in one thread). Files are small, so the bounds that make a file worth a record or a
checkpoint are small as well, while a life is lived (`small_bounds`).
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from unittest import mock

import fsdm.transfer.file_transfer
import fsdm.transfer.segments
from fsdm.model.errors import TransferError
from fsdm.transfer.file_transfer import Transfer
from fsdm.transfer.http.head import Head
from tools.support.versions import Version, content, id_of

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.documents import FileEntry, FileSource
    from fsdm.store.filesystem import FileSystem
    from fsdm.transfer.resume_record import Part
    from fsdm.transfer.segments import Pieces

BLOCK_BYTES: Final = 1000  # comes at once; a record, a checkpoint and a piece are as large


def _version(name: str, dataset: str, block_range: tuple[int, int], sizes: dict[str, int], *, digests: bool) -> Version:
    """Make a version; its name is a letter for the chunk and a number for the version."""
    files = {file: content(f"{name}/{file}", size) for file, size in sizes.items()}
    url = f"http://source/{name}"
    return Version.of(name, id_of(name[0]), dataset * 64, block_range, files, url, digests=digests)


VERSIONS: Final = {
    version.name: version
    for version in (
        _version("a1", "d", (0, 4), {"blocks": 24, "logs": 40}, digests=True),
        _version("a2", "d", (0, 4), {"blocks": 32}, digests=True),  # other files in the same place
        _version("a3", "d", (1, 5), {"blocks": 24}, digests=False),  # in another place
        _version("b1", "e", (0, 4), {"blocks": 16}, digests=True),
        _version("l1", "d", (8, 9), {"large": 4500, "logs": 16}, digests=False),
        _version("l2", "d", (8, 9), {"large": 3500}, digests=True),
        _version("s1", "e", (4, 8), {"blocks": 24, "logs": 16}, digests=True),
        _version("z1", "d", (4, 8), {"blocks": 20}, digests=True),
    )
}
SPOILT: Final = VERSIONS["s1"].chunk  # in some lives its bytes change, past the reconciler


@dataclass
class Source:
    """A `FileFetcher` that plays the servers.

    `breaks` says after how many blocks an answer for a version's large file ends early, one answer after the other;
    `missing` are the versions that are not there; those `in_pieces` come over several connections.
    """

    breaks: dict[str, deque[int]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    in_pieces: set[str] = field(default_factory=set)

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry:
        """See `fsdm.transfer.chunk_download.FileFetcher`."""
        transfer = Transfer(source, part, fs, durable=True)
        try:
            if not transfer.take_over(stop.check):
                self._bring(transfer, source.url)
                if transfer.joined and transfer.mismatch() is not None:
                    transfer.restart()
                    self._bring(transfer, source.url)
            wrong = transfer.mismatch()
            if wrong is not None:
                raise TransferError(wrong, transient=False)
            return transfer.finish()
        finally:
            transfer.close()

    def _bring(self, transfer: Transfer, url: str) -> None:
        name, file = url.split("/")[3:]
        if name in self.missing:
            raise TransferError("HTTP 404", transient=False)
        data = VERSIONS[name].files[file]
        headers = transfer.range_headers(url)
        first, _, last = headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(first), int(last or len(data) - 1) + 1
        head = Head.of(206 if headers else 200, _fields(data, start, end).items())
        sink = transfer.accept(url, head, ranged=bool(headers))
        if sink is None:
            self._bring(transfer, url)
            return
        many = len(data) > BLOCK_BYTES
        left = self.breaks[name].popleft() if many and self.breaks.get(name) else None
        for at in range(start, end, BLOCK_BYTES):
            if many and left == 0:
                raise TransferError("the connection broke", transient=True)
            left = None if left is None else left - 1
            sink.put(data[at : min(at + BLOCK_BYTES, end)])
            transfer.moved()
            if many and name in self.in_pieces:
                _bring_pieces(transfer, data, transfer.split(1))
                break
        transfer.absorb()
        if transfer.size < len(data):
            self._bring(transfer, url)
            return
        transfer.see_that_all_came(url)


def _bring_pieces(transfer: Transfer, data: bytes, pieces: Pieces) -> None:
    """Two at a time, the second of them first: so there are holes in between."""
    while (first := pieces.take()) is not None:
        second = pieces.take()
        for start, end in filter(None, (second, first)):
            with transfer.open_slice((start, end)) as place:
                place.put(data[start:end])
            pieces.came((start, end))
            transfer.advance(pieces)
    transfer.mend(pieces)


def _fields(data: bytes, start: int, end: int) -> dict[str, str]:
    tag = hashlib.sha256(data).hexdigest()[:16]
    head = {"ETag": f'"{tag}"', "Accept-Ranges": "bytes", "Content-Length": str(end - start)}
    return head | ({"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"} if start else {})


@contextmanager
def small_bounds() -> Iterator[None]:
    """Do for files of a few blocks what is done for large ones."""
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(fsdm.transfer.file_transfer, "RECORD_BYTES", BLOCK_BYTES))
        patches.enter_context(mock.patch.object(fsdm.transfer.file_transfer, "CHECKPOINT_BYTES", 2 * BLOCK_BYTES))
        patches.enter_context(mock.patch.object(fsdm.transfer.file_transfer, "HOLES_CHECKPOINT_BYTES", BLOCK_BYTES))
        patches.enter_context(mock.patch.object(fsdm.transfer.segments, "PIECE_MIN_BYTES", BLOCK_BYTES))
        yield
