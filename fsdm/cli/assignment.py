"""A whole assignment: a list of all the chunks that are to be here, as JSON Lines, of any size.

Nothing can be decided from a part of a list: what is missing of it would be deleted. So it is read to its end first,
and every line is seen to be a want; a transfer that breaks, and a compressed list without its end, are errors. The
documents go into a temporary file; what stays in memory is an offset for each id.
"""

from __future__ import annotations

import gzip
import io
import sys
import tempfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final, Self, cast

from fsdm.model.documents import DataChunk, in_its_line
from fsdm.model.errors import FsdmError, InvalidInputError, TransferError
from fsdm.model.layout import WANT_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

STDIN: Final = "-"
GZIP: Final = b"\x1f\x8b"  # RFC 1952 §2.3.1
BLOCK_BYTES: Final = 1 << 16
CONNECT_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 30.0
UNCHANGED: Final = "nothing was changed: mend the list, and ask again"


class Assignment:
    """The chunks of a list, by id, in the order of the list. A context manager."""

    def __init__(self) -> None:
        self._documents: IO[bytes] = tempfile.TemporaryFile(prefix="fsdm-sync-")  # noqa: SIM115 until close()
        self._offsets: dict[bytes, int] = {}
        self._end = 0

    def add(self, chunk: DataChunk, document: bytes) -> None:
        """Take one more document, without a line's end.

        Raises:
            InvalidInputError: the same id has come before, with another document.
        """
        key = bytes.fromhex(chunk.id)
        if key in self._offsets:
            if self.chunk(chunk.id) != chunk:
                raise InvalidInputError(f"{chunk.id} is listed before, with another document", field="id")
            return
        self._documents.seek(self._end)
        self._documents.write(document + b"\n")
        self._offsets[key] = self._end
        self._end += len(document) + 1

    def chunk(self, chunk_id: str) -> DataChunk:
        """The document of one id that is in it."""
        self._documents.seek(self._offsets[bytes.fromhex(chunk_id)])
        return DataChunk.parse(self._documents.readline())

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, chunk_id: str) -> bool:
        return bytes.fromhex(chunk_id) in self._offsets

    def __iter__(self) -> Iterator[DataChunk]:
        for key in self._offsets:
            yield self.chunk(key.hex())

    def close(self) -> None:
        self._documents.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_assignment(where: str) -> Assignment:
    """The assignment in a file, at a URL, or on standard input (`-`); it may be compressed by gzip.

    Raises:
        InvalidInputError: it cannot be read, or a line of it is no want; it names the line.
        TransferError: it could not be fetched, or not to its end.
    """
    assignment = Assignment()
    try:
        with _opened(where) as (stream, name, tells_its_end):
            _read(stream, name, assignment, tells_its_end=tells_its_end)
    except TransferError as e:
        assignment.close()
        e.hint = e.hint or "nothing was changed: ask again when it answers"
        raise
    except BaseException:
        assignment.close()
        raise
    return assignment


def _read(stream: io.BufferedReader, name: str, assignment: Assignment, *, tells_its_end: bool) -> None:
    is_compressed = stream.peek(len(GZIP))[: len(GZIP)] == GZIP
    if not (is_compressed or tells_its_end):
        raise TransferError(
            f"{name}: the answer does not say how long it is, so nobody could tell that it broke",
            hint="serve it with a Content-Length, or compressed by gzip; or fetch it to a file first",
        )
    lines = cast("IO[bytes]", gzip.GzipFile(fileobj=stream)) if is_compressed else stream
    number = 0
    try:
        while line := lines.readline(WANT_MAX_BYTES + 2):
            number += 1
            if document := line.strip():
                _take(document, f"{name}:{number}", assignment)
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise InvalidInputError(f"{name}: after line {number} the compressed list breaks: {e}", hint=UNCHANGED) from e
    except OSError as e:
        raise InvalidInputError(f"{name}: after line {number}: {e.strerror or e}", hint=UNCHANGED) from e


def _take(document: bytes, where: str, assignment: Assignment) -> None:
    try:
        if len(document) > WANT_MAX_BYTES:
            raise InvalidInputError(f"the line has more than the {WANT_MAX_BYTES} bytes of a want")
        chunk = DataChunk.parse(document)
        if len(chunk.to_json()) > WANT_MAX_BYTES:  # as it would be written
            raise InvalidInputError(f"the want has more than {WANT_MAX_BYTES} bytes")
        assignment.add(chunk, document)
    except InvalidInputError as e:
        raise InvalidInputError(f"{where}: {in_its_line(e)}", hint=UNCHANGED) from None
    except OSError as e:
        hint = "set TMPDIR to a directory with room for the list; nothing was changed"
        raise FsdmError(f"{where}: the temporary file refuses: {e.strerror}", hint=hint) from e


@contextmanager
def _opened(where: str) -> Iterator[tuple[io.BufferedReader, str, bool]]:
    """The bytes of a list, what to call it, and whether an end that comes too soon would be an error."""
    if where == STDIN:
        yield cast("io.BufferedReader", sys.stdin.buffer), "standard input", True
    elif where.startswith(("http://", "https://")):
        with _fetched(where) as fetched:
            yield fetched
    elif "://" in where:
        raise InvalidInputError(
            f"{where}: a list is fetched by http:// or https:// alone", hint="fetch it to a file first"
        )
    else:
        try:
            file = open(where, "rb")  # noqa: SIM115 closed below; here only its opening is guarded
        except OSError as e:
            raise InvalidInputError(f"{where} cannot be read: {e.strerror}", hint="check the path") from e
        with file:
            yield file, where, True


@contextmanager
def _fetched(url: str) -> Iterator[tuple[io.BufferedReader, str, bool]]:
    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.transfer.http.session import Sessions, shown

    sessions = Sessions(connect_timeout_s=CONNECT_TIMEOUT_S, idle_timeout_s=IDLE_TIMEOUT_S)
    with sessions.get(url, {}, Cancellation()) as answer:
        if answer.status != 200:
            raise TransferError(f"{shown(url)}: HTTP {answer.status}", hint="nothing was changed: check the URL")
        answer.auto_close = False  # a reader that has come to its end is not closed
        tells_its_end = answer.length_remaining is not None or bool(answer.chunked)
        yield io.BufferedReader(cast("io.RawIOBase", answer), BLOCK_BYTES), shown(url), tells_its_end
