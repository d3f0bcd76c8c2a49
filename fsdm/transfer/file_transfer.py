"""One file: what is here of it, of which version, and what may be joined to it.

Invariant: bytes are joined only where the server says that they are of one version (a strong validator, at one URL), or
where the want has a digest, which then proves the whole. Bytes that were taken over from an earlier attempt are under
the digests like any other. What has come behind a hole counts while its own digest does; only the holes are asked for.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import TransferError
from fsdm.model.parts import Extent, PartRecord
from fsdm.store.filesystem import free_bytes
from fsdm.transfer.http.head import Head, Span
from fsdm.transfer.http.target import shown
from fsdm.transfer.resume_record import url_mark
from fsdm.transfer.segments import Pieces, Slice, joined
from fsdm.transfer.sink import Sink, open_sink

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.documents import FileEntry, FileSource
    from fsdm.store.filesystem import FileSystem
    from fsdm.transfer.resume_record import Part
    from fsdm.transfer.segments import Piece

RECORD_BYTES: Final = 1 << 20  # a file below this is fetched again rather than written down about, until it has ended …
RECORD_S: Final = 0.5  # … or has taken so long: then people look how far it is
CHECKPOINT_BYTES: Final = 32 << 20
HOLES_CHECKPOINT_BYTES: Final = 8 << 20  # with holes, nothing but what is written down outlives the process
EXTENTS_MAX: Final = 100  # in a record: what is behind more holes than that is fetched again by another process


class Transfer:
    """One file on its way; used by one thread, but for the pieces."""

    def __init__(
        self, source: FileSource, part: Part, fs: FileSystem, *, durable: bool, require_length: bool = False
    ) -> None:
        self.source = source
        self.joined = False  # bytes of more than one answer
        self._part = part
        self._fs = fs
        self._durable = durable
        self._sink: Sink | None = None
        self._noted = 0
        self._holes = False
        self._extents: list[Piece] = []  # what is here, behind the first hole
        self._advancing = threading.Lock()
        self._complete = False
        self._digest_tells = False  # ranges are asked for without a validator
        self._require_length = require_length
        self._etag: str | None = None  # of the last answer
        self._unwritten_since: float | None = None  # that this version has begun; None once it is in the record

    @property
    def size(self) -> int:
        """The bytes that are here in line."""
        return 0 if self._sink is None else self._sink.size

    @property
    def here(self) -> int:
        """The bytes that are here, with those behind a hole."""
        return self.size + sum(end - start for start, end in self._extents)

    @property
    def total(self) -> int | None:
        """The bytes that are to be here in the end, where the want or the server says so."""
        record = self._part.record
        return self.source.size if self.source.size is not None or record is None else record.total

    @property
    def _is_open_ended(self) -> bool:
        """Tell whether the end of the connection is all that tells the end of the file."""
        record = self._part.record
        return record is not None and record.open_ended and self.source.size is None

    def close(self) -> None:
        """Close the file; how far it is is left to the next attempt."""
        if self._sink is not None:
            try:
                self._note(save=False)
            finally:
                os.close(self._sink.fd)
                self._sink = None

    def take_over(self, check: Callable[[], None]) -> bool:
        """Take what an earlier attempt left, as far as it can be relied on; whether it is all."""
        if not self._is_there():
            return False
        sink, record = self._open(), self._part.record
        there = os.fstat(sink.fd).st_size
        if self._can_be_relied_on(sink, there, check):
            sink.take_over(there, check)
        self._holes = True  # for all that is known of what is behind
        self.absorb(check)
        self._noted = self.here
        self.joined = sink.size > 0
        complete = record is not None and record.complete and record.size == sink.size
        if (complete or sink.size == self.total) and self._is_of_a_source() and self.mismatch() is None:
            return True
        if sink.size == 0 or complete or (self.total is not None and sink.size >= self.total):
            self.restart()
        return False

    def _can_be_relied_on(self, sink: Sink, there: int, check: Callable[[], None]) -> bool:
        """Take over what the record's digest proves; whether the rest may be taken over as well."""
        record, provable = self._part.record, self.source.has_digest
        if record is None or record.size > there:
            return provable
        sink.take_over(record.size, check)
        if record.size and sink.blake3() != record.blake3:
            sink.restart()
            return False
        for extent in record.extents:
            span = extent.start, extent.end
            if extent.start < extent.end <= there and sink.blake3_between(*span, check) == extent.blake3:
                self._extents.append(span)
        return (self._part.same_boot or provable) and not record.holes

    def _is_of_a_source(self) -> bool:
        record = self._part.record
        ours = record is not None and record.url in {url_mark(url) for url in self.source.urls}
        return ours or self.source.has_digest

    def restart(self) -> None:
        """None of the bytes counts any more."""
        self._holes = False
        self._extents = []
        if self._sink is not None:
            self._sink.restart()
        self.joined = False
        self._noted = 0

    def range_headers(self, url: str, piece: Piece | None = None) -> dict[str, str]:
        """Return the headers that ask for what is missing, or a piece; none if it may not be joined."""
        if self.size == 0 and piece is None:
            return {}
        validator = self._validator(url)
        start, end = piece or (self.size, self._extents[0][0] if self._extents else None)
        asked = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        if validator is not None and not self._digest_tells:
            return asked | {"If-Range": validator}
        return asked if self.source.has_digest else {}

    def _validator(self, url: str) -> str | None:
        """The validator of what is here, if it is of this URL."""
        record = self._part.record
        return record.validator if record is not None and record.url == url_mark(url) else None

    def accept(self, url: str, head: Head, *, ranged: bool) -> Sink | None:
        """Give the sink for the body of an answer; None where another answer is to be asked for.

        Raises:
            TransferError: it is no answer that brings the file.
        """
        if ranged and (head.is_part or head.status == 416):
            return self._join(url, head)
        if ranged and self.source.has_digest and self._validator(url) is not None and not self._digest_tells:
            self._digest_tells = True  # its validators may differ from node to node
            return None
        span, total = head.span, head.total
        record, validator = self._part.record, self._validator(url)
        if total is None and record is not None and validator is not None and head.validator == validator:
            total = record.total  # the end of the connection proves no other length of the same version
        if head.length_is_malformed:
            raise TransferError(f"a Content-Length that is none: {head.get('content-length')!r:.80}")
        if head.is_part and (span is None or span.start != 0 or total is None):
            raise TransferError(f"HTTP {head.status}, a part that nobody asked for")
        if self._contradicts(url, head):
            if ranged:
                self.restart()
                return None
            self._part.doubt()  # and then, the next attempt believes what it is told
            raise TransferError(f"{total} bytes are offered, of a version that had another length", transient=True)
        self._see_that_it_fits_here(total)
        self.restart()
        sink = self._sink or self._open()
        self._begin(url, head, total)
        sink.expect(total)
        return sink

    def _join(self, url: str, head: Head) -> Sink | None:
        """Take a part that goes on where the bytes here end; for any other, begin afresh."""
        span, record, validator = head.span, self._part.record, self._validator(url)
        same = head.is_of(validator)
        fits = span is not None and span.start == self.size and span.total is not None
        if span is None or not fits or self.total not in {None, span.total} or not (same or self.source.has_digest):
            self.restart()
            return None
        if record is not None:  # what was begun without a length has one now
            self._part.record = replace(record, total=span.total, open_ended=False)
        if validator is None or self._digest_tells or not same:  # the want's digest is all that will tell
            self._part.doubt()
        self.joined = True
        self._etag = head.etag
        return self._sink

    def _contradicts(self, url: str, head: Head) -> bool:
        """Tell whether an answer gives another length to the very version of which bytes are known."""
        record, validator = self._part.record, self._validator(url)
        if record is None or validator is None or head.validator != validator or self.source.size is not None:
            return False
        return None not in {record.total, head.total} and record.total != head.total

    def _see_that_it_fits_here(self, total: int | None) -> None:
        wanted = self.source.size
        if total is None:
            return
        if wanted is not None and total != wanted:
            raise TransferError(f"{total} bytes are offered, {wanted} are wanted", cause="size")
        if wanted is None and total > free_bytes(os.path.dirname(self._part.path)):
            # anybody's server may say so: that is no reason to hold up all other downloads
            what = f"{total} bytes are offered, more than are free here"
            hint = "make room on the disk, and it goes on by itself; or see whether the server is right"
            raise TransferError(what, transient=True, hint=hint, cause="disk_full")

    def _begin(self, url: str, head: Head, total: int | None) -> None:
        self._etag = head.etag
        open_ended = self.source.size is None and total is None and not head.is_chunked
        if open_ended and self._require_length and not self.source.has_digest:
            hint = "give the size or a digest of the file in the want, or reconcile without require-length"
            raise TransferError("the answer has no length: nothing would tell whether all of it came", hint=hint)
        mark = url_mark(url)
        record = PartRecord(url=mark, validator=head.validator, etag=self._etag, total=total, open_ended=open_ended)
        lasting = total is None or total >= RECORD_BYTES
        self._part.begin(record, lasting=lasting)
        self._unwritten_since = None if lasting else time.monotonic()

    def moved(self) -> None:
        """See that the bytes are not too many, and write down now and then how far it is."""
        total = self.total
        if total is not None and self.size > total:
            self.restart()
            raise TransferError(f"more than the {total} bytes that are wanted", cause="size")
        if self._unwritten_since is not None and time.monotonic() - self._unwritten_since >= RECORD_S:
            self._part.save()
            self._unwritten_since = None
        if self.here - self._noted >= (HOLES_CHECKPOINT_BYTES if self._holes else CHECKPOINT_BYTES):
            self._note(save=True)

    def absorb(self, check: Callable[[], None] = lambda: None) -> None:
        """Count what is behind holes that have been filled; what is taken next goes into the first one left."""
        if not self._holes:
            return
        (_, in_line), *extents = joined([(0, self.size), *self._extents])
        self._opened.take_over(in_line, check)
        self._opened.cut(extents[-1][1] if extents else in_line)
        self._extents, self._holes = extents, bool(extents)

    def can_split(self, url: str) -> bool:
        """Tell whether the pieces of what is missing are known to be of one version."""
        return self.total is not None and (self._validator(url) is not None or self.source.has_digest)

    def split(self, workers: int) -> Pieces:
        """Divide what is missing into pieces; from now on there may be holes in the file."""
        self._holes = True
        self._note(save=True)
        return Pieces(self.size, self.total or self.size, workers, self._extents)

    def open_slice(self, piece: Piece) -> Slice:
        """Open the place of this piece in the file."""
        return Slice(self._part.path, piece)

    def fits(self, url: str, head: Head, piece: Piece) -> bool:
        """Tell whether an answer brings just this piece, of the version that is here."""
        same = self.source.has_digest or head.is_of(self._validator(url))
        return same and head.span == Span(*piece, self.total)

    def advance(self, pieces: Pieces) -> None:
        """Count what has come of the pieces; of several threads that call this at once, one does so for all."""
        counted: list[Piece] | None = None
        while (here := pieces.here()) is not counted and self._advancing.acquire(blocking=False):
            try:
                counted = here
                (_, in_line), *self._extents = here
                self._opened.took(in_line - self.size)
                self.joined = True
                self.moved()
            finally:
                self._advancing.release()

    def mend(self, pieces: Pieces) -> None:
        """Count what has come of the pieces: the threads have ended."""
        self.advance(pieces)
        self.absorb()

    def see_that_all_came(self, url: str) -> None:
        """Raise TransferError where less came than there is to be."""
        if self.total is not None and self.size != self.total:
            what = f"{self.size} bytes came, {self.total} are wanted"
            raise TransferError(f"{shown(url)}: {what}", transient=True, cause="size")
        if self.size == 0 and self._is_open_ended:  # a head that was cut off looks like this
            raise TransferError(f"{shown(url)}: nothing came, and no word of how much there is", transient=True)

    def mismatch(self) -> str | None:
        """Say what of the want the bytes here contradict."""
        source = self.source
        if source.size not in {None, self.size}:
            return f"{self.size} bytes came, {source.size} are wanted"
        if source.sha256 is not None and source.sha256 != (came := self._opened.sha256()):
            return f"the sha256 is {came}, wanted is {source.sha256}"
        if source.blake3 is not None and source.blake3 != (came := self._opened.blake3()):
            return f"the blake3 is {came}, wanted is {source.blake3}"
        return None

    def finish(self) -> FileEntry:
        """Return what is here now, on the disk."""
        sink, record = self._opened, self._part.record
        unproven = self._is_open_ended and not self.source.has_digest
        entry = sink.entry(self._etag or (record.etag if record is not None else None), unproven=unproven)
        if self._durable:
            self._fs.fsync_file(sink.fd, self._part.path)
        self._complete = True
        return entry

    def _is_there(self) -> bool:
        """Tell whether there is a file of an earlier attempt; what is there and is none goes."""
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
        spans = self._extents[:EXTENTS_MAX]
        extents = tuple(Extent(start, end, sink.blake3_between(start, end)) for start, end in spans)
        self._part.reach(sink.size, sink.blake3(), extents, complete=self._complete, holes=self._holes, save=save)
        self._noted = self.here
