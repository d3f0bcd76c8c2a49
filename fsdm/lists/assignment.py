"""An assignment: a list of all the chunks that are to be here, as JSON Lines, of any size.

A part of a list decides nothing: the chunks of the other part would be deleted. So it is had as a whole first, in a
temporary file; every line must be a want; a transfer that breaks, and a compressed list without its end, are errors.
A last line `{"end": N}` says that it has N wants, and so does who expects N: then it has them, or is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import sys
import tempfile
import zlib
from array import array
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, cast

from pydantic_core import from_json

from fsdm.model.documents import DataChunk, in_its_line
from fsdm.model.errors import FsdmError, InvalidInputError, TransferError
from fsdm.model.layout import WANT_MAX_BYTES, Place
from fsdm.model.plain_wants import plain
from fsdm.model.unknown_keys import doubts

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from fsdm.lists.fetching import Fetching
    from fsdm.model.plain_wants import PlainWant

    Each = Callable[[DataChunk], object]
    Glance = Callable[[PlainWant], bool]

FOOTER: Final = re.compile(rb'\{\s*"end"\s*:\s*([0-9]{1,18})\s*\}')
GZIP: Final = b"\x1f\x8b"  # RFC 1952 §2.3.1
GZIPS_MAX: Final = 2  # a server may compress what is compressed
BLOCK_BYTES: Final = 1 << 16
DOUBTS: Final = 5
UNCHANGED: Final = "nothing was changed: mend the list, and ask again"
TMPDIR: Final = "set TMPDIR to a directory with room for the list; nothing was changed"


def digest_of(document: bytes) -> bytes:
    """Return what tells a line, without the white space around it, from any other."""
    return hashlib.blake2b(document, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Known:
    """The lines of a list that was read before, by their digests: they are wants. `each` is called for their places.

    Where it returns False, the line is read as any other one.
    """

    lines: Container[bytes]
    each: Callable[[Place], bool]


NONE: Final = Known(frozenset(), lambda _: False)


class Assignment:
    """The chunks of a list, by id, in the order of the list; `documents` is a file of theirs."""

    def __init__(
        self,
        documents: IO[bytes],
        each: Each | None = None,
        glance: Glance | None = None,
        *,
        strict: bool = False,
        known: Known = NONE,
    ) -> None:
        self._documents, self._strict, self._known = documents, strict, known
        self._each, self._glance = each, glance
        self.doubts: list[str] = []  # what may be misspelt, the first few
        self._numbers: dict[bytes, int] = {}
        self._offsets = array("Q", [0])  # of each document, and the end of the last one
        self.sha256 = ""  # of the text of the list, once it has been read
        self.says_its_end = False  # by its last line

    def take(self, document: bytes, where: str) -> None:
        """Add a line, without the white space around it; `where` names it.

        Raises:
            InvalidInputError: it is no want, or the same id is listed before, with another document.
        """
        if digest_of(document) in self._known.lines and self._takes_known(document):
            return
        if len(document) >= WANT_MAX_BYTES:  # with its newline, as it will stand in `want/`
            raise InvalidInputError(f"the line has more than the {WANT_MAX_BYTES} bytes of a want")
        if self._takes_plain(document):
            return
        chunk = DataChunk.parse(document)
        self._doubt(where, chunk)
        self.add(chunk, document)

    def add(self, chunk: DataChunk, document: bytes) -> None:
        """Add a document, without its newline.

        Raises:
            InvalidInputError: the same id is listed before, with another document.
        """
        if chunk.id in self:
            if self.chunk(chunk.id) != chunk:
                raise InvalidInputError(f"{chunk.id} is listed before, with another document", field="id")
            return
        if self._each is not None:
            self._each(chunk)
        self._keep(chunk.id, document)

    def _takes_plain(self, document: bytes) -> bool:
        if self._glance is None or (found := plain(document)) is None or found.id in self or not self._glance(found):
            return False
        self._keep(found.id, document)
        return True

    def _takes_known(self, document: bytes) -> bool:
        place = place_of(document)
        if place.chunk_id in self or not self._known.each(place):
            return False
        self._keep(place.chunk_id, document)
        return True

    def _keep(self, chunk_id: str, document: bytes) -> None:
        self._numbers[bytes.fromhex(chunk_id)] = len(self._numbers)
        self._documents.write(document + b"\n")
        self._offsets.append(self._offsets[-1] + len(document) + 1)

    def _doubt(self, where: str, chunk: DataChunk) -> None:
        """Note the keys of a line that may be misspelt; where all are to be known, raise InvalidInputError."""
        for key in doubts(chunk, strict=self._strict):
            if len(self.doubts) <= DOUBTS:
                told = f"{where}: {key}" if len(self.doubts) < DOUBTS else "more lines have keys that are not known"
                self.doubts.append(told)

    def document(self, chunk_id: str) -> bytes:
        """Return the document of an id that is listed, as it stood there, with a newline."""
        return next(self.documents([chunk_id]))

    def documents(self, chunk_ids: Iterable[str]) -> Iterator[bytes]:
        """Yield the document of each id, all of which are listed, as it stood there, with a newline."""
        self._documents.flush()
        fd, numbers, offsets = self._documents.fileno(), self._numbers, self._offsets
        for chunk_id in chunk_ids:
            number = numbers[bytes.fromhex(chunk_id)]
            yield os.pread(fd, offsets[number + 1] - offsets[number], offsets[number])

    def chunk(self, chunk_id: str) -> DataChunk:
        """Return the chunk of an id that is listed."""
        return DataChunk.parse(self.document(chunk_id))

    def ids(self) -> Iterator[str]:
        """List the ids, in the order of the list."""
        return (key.hex() for key in self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, chunk_id: str) -> bool:
        return bytes.fromhex(chunk_id) in self._numbers

    def __iter__(self) -> Iterator[DataChunk]:
        for chunk_id in self.ids():
            yield self.chunk(chunk_id)


def place_of(document: bytes) -> Place:
    """Return the place of a want that is known to be one."""
    found = from_json(document, cache_strings="keys")
    match found["block_range"]:
        case [start, end] | {"start": start, "end": end}:
            return Place.of(found["dataset_id"], range(start, end), found["id"])
    raise ValueError("it is no want")


@dataclass(frozen=True, slots=True)
class ListText:
    """The text of a list, all of it, perhaps gzipped; `name` is for messages.

    `tells_its_end`: where it had come to an early end, that would have been an error.
    """

    file: IO[bytes]
    name: str
    tells_its_end: bool = True

    @contextmanager
    def read(
        self,
        expected: int | None = None,
        each: Each | None = None,
        glance: Glance | None = None,
        *,
        strict: bool = False,
        known: Known = NONE,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[Assignment]:
        """Read its assignment, of so many wants. `check` is called before each line, and may raise.

        `each` is called with each chunk, once, as it is read; an InvalidInputError of it is told with the line. Where
        `glance` is given, it is called first with those whose lines are plain, which costs a tenth; what it returns
        False for is read as any other line.
        `strict`: a key that is not known is an error.

        Raises:
            InvalidInputError: it cannot be read, or a line is no want; the message names the line.
            TransferError: it may not be all of the list.
        """
        with tempfile.TemporaryFile(prefix="fsdm-sync-") as documents:
            assignment = Assignment(documents, each, glance, strict=strict, known=known)
            count, end = self._read_lines(assignment, check)
            self._check_end(count, {end, expected} - {None})
            assignment.says_its_end = end is not None
            yield assignment

    def lines(self) -> Iterator[bytes]:
        """Read its lines, with their ends.

        Raises:
            OSError, zlib.error, EOFError: they cannot be read, or unpacked.
        """
        self.file.seek(0)
        stream = io.BufferedReader(cast("io.RawIOBase", _Unclosed(self.file)), BLOCK_BYTES)
        for _ in range(GZIPS_MAX):
            if stream.peek(len(GZIP))[: len(GZIP)] == GZIP:
                stream = io.BufferedReader(cast("io.RawIOBase", gzip.GzipFile(fileobj=stream, mode="rb")), BLOCK_BYTES)
        while line := stream.readline(WANT_MAX_BYTES + 2):
            yield line

    def _read_lines(self, assignment: Assignment, check: Callable[[], None]) -> tuple[int, int | None]:
        """Read all lines; how many wants there are, and how many the last line says that there are."""
        number, count, end = 0, 0, None
        digest = hashlib.sha256()
        try:
            for line in self.lines():
                check()
                digest.update(line)
                number += 1
                document = line.strip()
                if document and end is not None:
                    raise InvalidInputError(f"{self.name}:{number}: there is more behind the end", hint=UNCHANGED)
                if footer := FOOTER.fullmatch(document):
                    end = int(footer[1])
                elif document:
                    count += 1
                    self._take(document, number, assignment)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            what = f"{self.name}: after line {number} the compressed list breaks: {e}"
            raise InvalidInputError(what, hint=UNCHANGED) from e
        except OSError as e:
            raise InvalidInputError(f"{self.name}: after line {number}: {e.strerror or e}", hint=UNCHANGED) from e
        assignment.sha256 = digest.hexdigest()
        return count, end

    def _take(self, document: bytes, number: int, assignment: Assignment) -> None:
        where = f"{self.name}:{number}"
        try:
            assignment.take(document, where)
        except InvalidInputError as e:
            raise InvalidInputError(f"{where}: {in_its_line(e)}", hint=f"{in_lines(document)}{UNCHANGED}") from None
        except OSError as e:
            raise FsdmError(f"{where}: the temporary file cannot be written: {e.strerror}", hint=TMPDIR) from e

    def _check_end(self, count: int, promised: set[int | None]) -> None:
        """See that all of a list came: the end of a gzip member, and of a connection, may be anywhere in it."""
        for wants in promised - {count}:
            raise InvalidInputError(
                f"{self.name}: {count} wants came, and it has {wants}", hint="nothing was changed: ask again"
            )
        if not (promised or self.tells_its_end):
            raise TransferError(
                f"{self.name}: the answer does not say how long it is, so a transfer that breaks would not be noticed",
                hint='serve it with a Content-Length or a last line {"end": N}, or say how many there are: --expect N',
            )


def in_lines(document: bytes) -> str:
    """Say how to make lines of what begins as JSON that is not in lines; "" where it does not."""
    tool = "jq -c '.[]'" if document.startswith(b"[") else "jq -c ." if document == b"{" else ""
    return f"have one want in a line, as {tool} does; " if tool else ""


class _Unclosed(io.RawIOBase):
    """Reads a file, and leaves it open."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._file.readinto(buffer)  # type: ignore[attr-defined,no-any-return]


@contextmanager
def open_list(where: str, fetching: Fetching | None = None) -> Iterator[ListText]:
    """Have all of a list that is in a file, at a URL, or on standard input (`-`).

    Raises:
        InvalidInputError: it cannot be read.
        TransferError: it could not be fetched, or not to its end.
    """
    if where.lower().startswith("file://"):
        from fsdm.transfer.schemes.local import read_path

        where = read_path(where)
    if where == "-" or "://" in where:
        with tempfile.TemporaryFile(prefix="fsdm-sync-") as file:
            yield _piped(file) if where == "-" else _fetched(where, file, fetching)
        return
    try:
        opened = open(where, "rb")  # noqa: SIM115 closed below; here only its opening is guarded
    except OSError as e:
        raise InvalidInputError(f"{where} cannot be read: {e.strerror}", hint="check the path") from e
    with opened:
        if opened.seekable():
            yield ListText(opened, where)
            return
        with tempfile.TemporaryFile(prefix="fsdm-sync-") as file:
            shutil.copyfileobj(opened, file)
            yield ListText(file, where)


def _piped(file: IO[bytes]) -> ListText:
    try:
        shutil.copyfileobj(sys.stdin.buffer, file)
    except OSError as e:
        raise FsdmError(f"standard input cannot be kept: {e.strerror}", hint=TMPDIR) from e
    return ListText(file, "standard input")


def _fetched(url: str, file: IO[bytes], fetching: Fetching | None) -> ListText:
    from fsdm.lists.fetching import Fetching, checked_url
    from fsdm.transfer.http.target import shown

    answer = (fetching or Fetching()).fetch(checked_url(url), file)
    return ListText(file, shown(url), answer is not None and answer.tells_its_end)


@contextmanager
def read_assignment(
    where: str,
    expected: int | None = None,
    each: Each | None = None,
    glance: Glance | None = None,
    *,
    strict: bool = False,
    fetching: Fetching | None = None,
) -> Iterator[Assignment]:
    """Read the assignment that is in a file, at a URL, or on standard input: see `open_list` and `ListText.read`."""
    with open_list(where, fetching) as text, text.read(expected, each, glance, strict=strict) as assignment:
        yield assignment
