"""What there is of one file, of which version it is, and what may be joined to it. Knows answers, not connections.

Invariant: bytes are joined only where the server says that they are of one version (a strong validator, at one URL), or
where the want has a digest, which then proves the whole. Bytes that were taken over from an earlier attempt are under
the digests like any other.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fsdm.model.documents import PartRecord
from fsdm.model.errors import TransferError
from fsdm.store.filesystem import free_bytes
from fsdm.transfer.http import answer as head
from fsdm.transfer.http.session import shown
from fsdm.transfer.resume_record import url_mark
from fsdm.transfer.segments import Pieces, Slice
from fsdm.transfer.sink import Sink, open_sink

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import HTTPResponse

    from fsdm.model.documents import FileEntry, FileSource
    from fsdm.store.filesystem import FileSystem
    from fsdm.transfer.resume_record import Part
    from fsdm.transfer.segments import Piece

RECORD_BYTES: Final = 1 << 20  # a file below this is fetched again rather than written down about, until it has ended
CHECKPOINT_BYTES: Final = 32 << 20


class Transfer:
    """One file on its way; used by one thread."""

    def __init__(self, source: FileSource, part: Part, fs: FileSystem, *, durable: bool) -> None:
        self.source = source
        self.joined = False  # bytes of more than one answer
        self._part = part
        self._fs = fs
        self._durable = durable
        self._sink: Sink | None = None
        self._noted = 0
        self._holes = False
        self._complete = False
        self._open_ended = False  # the end of the connection is all that tells the end of the file
        self._etag: str | None = None  # of the last answer

    @property
    def size(self) -> int:
        """The bytes that are here."""
        return 0 if self._sink is None else self._sink.size

    @property
    def total(self) -> int | None:
        """The bytes that are to be here in the end, where the want or the server says so."""
        record = self._part.record
        return self.source.size if self.source.size is not None or record is None else record.total

    def close(self) -> None:
        """Close the file; how far it is is left to the next attempt."""
        if self._sink is not None:
            try:
                self._note(save=False)
            finally:
                os.close(self._sink.fd)
                self._sink = None

    # ------------------------------------------------------------------------------------------ what is there already

    def take_over(self, check: Callable[[], None]) -> bool:
        """Take what an earlier attempt has left, as far as it can be relied on; whether it is all that is wanted."""
        if not self._is_there():
            return False
        sink, record = self._open(), self._part.record
        there = os.fstat(sink.fd).st_size
        if self._can_be_relied_on(sink, there, check):
            sink.take_over(there, check)
        sink.cut()
        self._noted = sink.size
        self.joined = sink.size > 0
        complete = record is not None and record.complete and record.size == sink.size
        if (complete or sink.size == self.total) and self._is_of_a_source() and self.mismatch() is None:
            return True
        if sink.size == 0 or complete or (self.total is not None and sink.size >= self.total):
            self.restart()
        return False

    def _can_be_relied_on(self, sink: Sink, there: int, check: Callable[[], None]) -> bool:
        """Take over what the record's digest proves; whether what is beyond that may be taken over as well."""
        record, provable = self._part.record, self.source.has_digest
        if record is None or record.size > there:
            return provable
        sink.take_over(record.size, check)
        if record.size and sink.blake3() != record.blake3:
            sink.restart()
            return False
        return (self._part.same_boot or provable) and not record.holes

    def _is_of_a_source(self) -> bool:
        record = self._part.record
        ours = record is not None and record.url in {url_mark(url) for url in self.source.urls}
        return ours or self.source.has_digest

    def restart(self) -> None:
        """None of the bytes counts any more."""
        self._holes = False
        if self._sink is not None:
            self._sink.restart()
        self.joined = False
        self._noted = 0

    # --------------------------------------------------------------------------------------------- what a server says

    def range_headers(self, url: str, piece: Piece | None = None) -> dict[str, str]:
        """How to ask for what is missing alone, or a piece of it; empty where it may not be joined to what is here."""
        if self.size == 0 and piece is None:
            return {}
        record = self._part.record
        asked = {"Range": f"bytes={piece[0]}-{piece[1] - 1}" if piece else f"bytes={self.size}-"}
        if record is not None and record.validator is not None and record.url == url_mark(url):
            return asked | {"If-Range": record.validator}
        return asked if self.source.has_digest else {}

    def accept(self, url: str, answer: HTTPResponse, *, ranged: bool) -> Sink | None:
        """The sink that the body of an answer belongs into; None where the file is to be asked for afresh.

        Raises:
            TransferError: it is no answer that brings the file.
        """
        if ranged and answer.status in {206, 416}:
            if answer.status == 206 and self._goes_on(url, answer):
                self._learn_total(answer)
                if "If-Range" not in self.range_headers(url):  # the want's digest is all that will tell
                    self._part.doubt()
                self.joined = True
                self._etag = head.etag(answer.headers)
                return self._sink
            self.restart()
            return None
        if answer.status != 200:
            raise TransferError(f"{shown(url)}: HTTP 206, a part that nobody asked for", transient=False)
        length = head.length(answer.headers)
        if None not in {self.source.size, length} and length != self.source.size:
            raise TransferError(
                f"{shown(url)}: {length} bytes are offered, {self.source.size} are wanted",
                transient=False,
                cause="size",
            )
        if self.source.size is None and length is not None and length > free_bytes(os.path.dirname(self._part.path)):
            # anybody's server may say so: that is no reason to hold up all other downloads
            what = f"{length} bytes are offered, more than are free here"
            hint = "make room on the disk, and it goes on by itself; or see whether the server is right"
            raise TransferError(f"{shown(url)}: {what}", transient=True, hint=hint, cause="disk_full")
        self.restart()
        sink = self._sink or self._open()
        self._begin(url, answer, length)
        sink.expect(length)
        return sink

    def _begin(self, url: str, answer: HTTPResponse, length: int | None) -> None:
        self._etag = head.etag(answer.headers)
        self._open_ended = self.source.size is None and length is None and not head.is_chunked(answer.headers)
        record = PartRecord(url=url_mark(url), validator=head.validator(answer.headers), etag=self._etag, total=length)
        self._part.begin(record, lasting=length is None or length >= RECORD_BYTES)

    def _goes_on(self, url: str, answer: HTTPResponse) -> bool:
        """Whether a 206 goes on where the bytes here end, in the same version."""
        record, span = self._part.record, head.content_range(answer.headers)
        if span is None or span.start != self.size or self.total not in {None, span.total} or span.total is None:
            return False
        if head.length(answer.headers) not in {None, span.end - span.start}:
            return False
        known = record is not None and record.url == url_mark(url)
        return not (known and record is not None and head.changed(record.validator, answer.headers))

    def _learn_total(self, answer: HTTPResponse) -> None:
        """What was begun without a length has one now: this answer may bring less than all that is missing."""
        record, span = self._part.record, head.content_range(answer.headers)
        if record is not None and span is not None:
            self._part.record = replace(record, total=span.total)

    # ------------------------------------------------------------------------------------------------ what has arrived

    def moved(self, url: str) -> None:
        """Some bytes have come: see that they are not too many, and write down now and then how far it is."""
        total = self.total
        if total is not None and self.size > total:
            self.restart()
            what = f"more than the {total} bytes that are wanted"
            raise TransferError(f"{shown(url)}: {what}", transient=False, cause="size")
        if self.size - self._noted >= CHECKPOINT_BYTES:
            self._note(save=True)

    # -------------------------------------------------------------------------------------- over several connections

    def can_split(self, url: str) -> bool:
        """Whether what is missing may be fetched in pieces: whether the joined bytes are known to be of one version."""
        record = self._part.record
        known = record is not None and record.validator is not None and record.url == url_mark(url)
        return self.total is not None and (known or self.source.has_digest)

    def split(self, workers: int) -> Pieces:
        """What is missing, in pieces; from now on there may be holes in the file."""
        self._holes = True
        self._note(save=True)
        return Pieces(self.size, self.total or self.size, workers)

    def open_slice(self, piece: Piece) -> Slice:
        """Where this piece of the file goes."""
        return Slice(self._part.path, piece[0])

    def fits(self, url: str, answer: HTTPResponse, piece: Piece) -> bool:
        """Whether an answer brings just this piece, of the version that is here."""
        record, (start, end) = self._part.record, piece
        if head.content_range(answer.headers) != head.Span(start, end, self.total):
            return False
        known = record is not None and record.url == url_mark(url)
        changed = known and record is not None and head.changed(record.validator, answer.headers)
        return not changed and head.length(answer.headers) == end - start

    def advance(self, url: str, pieces: Pieces) -> None:
        """Count the pieces that are in line."""
        self._opened.took(pieces.in_line() - self.size)
        self.joined = True
        self.moved(url)

    def mend(self, url: str, pieces: Pieces) -> None:
        """Count the pieces that are in line, and throw away what is behind a hole."""
        self.advance(url, pieces)
        self._opened.cut()
        self._holes = False

    # ------------------------------------------------------------------------------------------------- what it is like

    def see_that_all_came(self, url: str) -> None:
        """Raise TransferError where less came than there is to be."""
        if self.total is not None and self.size != self.total:
            what = f"{self.size} bytes came, {self.total} are wanted"
            raise TransferError(f"{shown(url)}: {what}", transient=True, cause="size")
        if self.size == 0 and self._open_ended:  # a head that was cut off looks like this
            raise TransferError(f"{shown(url)}: nothing came, and no word of how much there is", transient=True)

    def mismatch(self) -> str | None:
        """What of the want the bytes here contradict."""
        source = self.source
        if source.size not in {None, self.size}:
            return f"{self.size} bytes came, {source.size} are wanted"
        if source.sha256 is not None and source.sha256 != (came := self._opened.sha256()):
            return f"the sha256 is {came}, wanted is {source.sha256}"
        if source.blake3 is not None and source.blake3 != (came := self._opened.blake3()):
            return f"the blake3 is {came}, wanted is {source.blake3}"
        return None

    def finish(self) -> FileEntry:
        """What is here now, on the disk."""
        sink, record = self._opened, self._part.record
        entry = sink.entry(self._etag or (record.etag if record is not None else None))
        if self._durable:
            self._fs.fsync_file(sink.fd, self._part.path)
        self._complete = True
        return entry

    # ---------------------------------------------------------------------------------------------------------- shared

    def _is_there(self) -> bool:
        """Whether there is a file of an earlier attempt; what is there and is none goes."""
        try:
            regular = stat.S_ISREG(os.lstat(self._part.path).st_mode)
        except FileNotFoundError:
            return False
        if not regular:
            self._fs.erase(self._part.path)
        return regular

    def _open(self) -> Sink:
        self._fs.step("create", self._part.path)
        self._sink = open_sink(self._part.path, sha256=self.source.sha256 is not None, writeback=self._durable)
        return self._sink

    @property
    def _opened(self) -> Sink:
        if self._sink is None:
            raise AssertionError("nothing has come yet")
        return self._sink

    def _note(self, *, save: bool) -> None:
        sink = self._opened
        self._part.reach(sink.size, sink.blake3(), complete=self._complete, holes=self._holes, save=save)
        self._noted = sink.size
