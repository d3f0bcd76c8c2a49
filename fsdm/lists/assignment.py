"""An assignment: a list of all the chunks that are to be here, as JSON Lines, of any size.

A part of a list decides nothing: the chunks of the other part would be deleted. So it is read to its end first, into a
temporary file; every line must be a want; a transfer that breaks, and a compressed list without its end, are errors.
A last line `{"end": N}` says that it has N wants, and so does who expects N: then it has them, or is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import sys
import tempfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final, cast
from urllib.parse import urljoin

from fsdm.model.documents import DataChunk, in_its_line
from fsdm.model.errors import FsdmError, InvalidInputError, TransferError
from fsdm.model.layout import WANT_MAX_BYTES
from fsdm.model.unknown_keys import doubts
from fsdm.transfer.http.target import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

FOOTER: Final = re.compile(rb'\{\s*"end"\s*:\s*([0-9]{1,18})\s*\}')
GZIP: Final = b"\x1f\x8b"  # RFC 1952 §2.3.1
BLOCK_BYTES: Final = 1 << 16
CONNECT_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 30.0
DOUBTS: Final = 5
UNCHANGED: Final = "nothing was changed: mend the list, and ask again"


class Assignment:
    """The chunks of a list, by id, in the order of the list."""

    def __init__(
        self, documents: IO[bytes], each: Callable[[DataChunk], object] | None = None, *, strict: bool = False
    ) -> None:
        self._documents, self._strict = documents, strict
        self._each = each
        self.doubts: list[str] = []  # what may be misspelt, the first few
        self._offsets: dict[bytes, int] = {}
        self.sha256 = ""  # of the text of the list, once it has been read

    def add(self, chunk: DataChunk, document: bytes) -> None:
        """Add a document, without its newline.

        Raises:
            InvalidInputError: the same id is listed before, with another document.
        """
        key = bytes.fromhex(chunk.id)
        if key in self._offsets:
            if self.chunk(chunk.id) != chunk:
                raise InvalidInputError(f"{chunk.id} is listed before, with another document", field="id")
            return
        if self._each is not None:
            self._each(chunk)
        self._offsets[key] = self._documents.seek(0, io.SEEK_END)
        self._documents.write(document + b"\n")

    def doubt(self, where: str, chunk: DataChunk) -> None:
        """Note the keys of a line that may be misspelt; where all are to be known, raise InvalidInputError."""
        for key in doubts(chunk, strict=self._strict):
            if len(self.doubts) <= DOUBTS:
                told = f"{where}: {key}" if len(self.doubts) < DOUBTS else "more lines have keys that are not known"
                self.doubts.append(told)

    def document(self, chunk_id: str) -> bytes:
        """Return the document of an id that is listed, as it stood there, with a newline."""
        self._documents.seek(self._offsets[bytes.fromhex(chunk_id)])
        return self._documents.readline()

    def chunk(self, chunk_id: str) -> DataChunk:
        """Return the chunk of an id that is listed."""
        return DataChunk.parse(self.document(chunk_id))

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, chunk_id: str) -> bool:
        return bytes.fromhex(chunk_id) in self._offsets

    def __iter__(self) -> Iterator[DataChunk]:
        for key in self._offsets:
            yield self.chunk(key.hex())


@contextmanager
def read_assignment(
    where: str, expected: int | None = None, each: Callable[[DataChunk], object] | None = None, *, strict: bool = False
) -> Iterator[Assignment]:
    """Read the assignment in a file, at a URL, or on standard input (`-`), perhaps gzipped, of so many wants.

    `each` is called with each chunk, once, as it is read; an InvalidInputError of it is told with the line. `strict`: a
    key that is not known is an error.

    Raises:
        InvalidInputError: it cannot be read, or a line is no want; the message names the line.
        TransferError: it could not be fetched, or not to its end.
    """
    with tempfile.TemporaryFile(prefix="fsdm-sync-") as documents:
        assignment = Assignment(documents, each, strict=strict)
        try:
            with _opened(where) as (stream, name, tells_its_end):
                count, end = _read(stream, name, assignment)
                _check_end(name, count, {end, expected} - {None}, tells_its_end=tells_its_end)
        except TransferError as e:
            e.hint = e.hint or "nothing was changed: ask again when it answers"
            raise
        yield assignment


def _read(stream: io.BufferedReader, name: str, assignment: Assignment) -> tuple[int, int | None]:
    """Read all lines; how many wants there are, and how many the last line says that there are."""
    is_compressed = stream.peek(len(GZIP))[: len(GZIP)] == GZIP
    lines = cast("IO[bytes]", gzip.GzipFile(fileobj=stream)) if is_compressed else stream
    number, count, end = 0, 0, None
    digest = hashlib.sha256()
    try:
        while line := lines.readline(WANT_MAX_BYTES + 2):
            digest.update(line)
            number += 1
            document = line.strip()
            if document and end is not None:
                raise InvalidInputError(f"{name}:{number}: there is more behind the end", hint=UNCHANGED)
            if footer := FOOTER.fullmatch(document):
                end = int(footer[1])
            elif document:
                count += 1
                _take(document, f"{name}:{number}", assignment)
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise InvalidInputError(f"{name}: after line {number} the compressed list breaks: {e}", hint=UNCHANGED) from e
    except OSError as e:
        raise InvalidInputError(f"{name}: after line {number}: {e.strerror or e}", hint=UNCHANGED) from e
    assignment.sha256 = digest.hexdigest()
    return count, end


def _check_end(name: str, count: int, promised: set[int | None], *, tells_its_end: bool) -> None:
    """See that all of a list came: the end of a gzip member, and of a connection, may be anywhere in it."""
    for wants in promised - {count}:
        raise InvalidInputError(
            f"{name}: {count} wants came, and it has {wants}", hint="nothing was changed: ask again"
        )
    if not (promised or tells_its_end):
        raise TransferError(
            f"{name}: the answer does not say how long it is, so a transfer that breaks would not be noticed",
            hint='serve it with a Content-Length or a last line {"end": N}, or say how many there are: --expect N',
        )


def _take(document: bytes, where: str, assignment: Assignment) -> None:
    try:
        if len(document) > WANT_MAX_BYTES:
            raise InvalidInputError(f"the line has more than the {WANT_MAX_BYTES} bytes of a want")
        chunk = DataChunk.parse(document)
        assignment.doubt(where, chunk)
        if len(chunk.to_json()) > WANT_MAX_BYTES:  # as it would be written
            raise InvalidInputError(f"the want has more than {WANT_MAX_BYTES} bytes")
        assignment.add(chunk, document)
    except InvalidInputError as e:
        raise InvalidInputError(f"{where}: {in_its_line(e)}", hint=UNCHANGED) from None
    except OSError as e:
        hint = "set TMPDIR to a directory with room for the list; nothing was changed"
        raise FsdmError(f"{where}: the temporary file cannot be written: {e.strerror}", hint=hint) from e


@contextmanager
def _opened(where: str) -> Iterator[tuple[io.BufferedReader, str, bool]]:
    """Open a list: its bytes, its name for messages, and whether an early end is an error."""
    if where == "-":
        yield cast("io.BufferedReader", sys.stdin.buffer), "standard input", True
    elif where.startswith(("http://", "https://")):
        with _fetched(where) as fetched:
            yield fetched
    elif "://" in where:
        hint = "fetch it to a file first"
        raise InvalidInputError(f"{where}: a list is fetched by http:// or https:// alone", hint=hint)
    else:
        try:
            file = open(where, "rb")  # noqa: SIM115 closed below; here only its opening is guarded
        except OSError as e:
            raise InvalidInputError(f"{where} cannot be read: {e.strerror}", hint="check the path") from e
        with file:
            yield file, where, True


@contextmanager
def _fetched(url: str) -> Iterator[tuple[io.BufferedReader, str, bool]]:
    import requests
    import urllib3

    headers = {"Accept-Encoding": "identity", "User-Agent": "fsdm"}
    hooks, timeouts = {"response": _refuse_to_leave_tls}, (CONNECT_TIMEOUT_S, IDLE_TIMEOUT_S)
    try:
        with requests.get(url, stream=True, timeout=timeouts, headers=headers, hooks=hooks) as response:
            is_part = "Content-Range" in response.headers
            if response.status_code != 200 or is_part:
                what = f"HTTP {response.status_code}{', a part' * is_part}"
                raise TransferError(f"{shown(url)}: {what}", hint="nothing was changed: check the URL")
            framing = response.headers.get("Transfer-Encoding", "").strip().lower()
            tells_its_end = framing == "chunked" or response.headers.get("Content-Length", "").isdecimal()
            response.raw.decode_content = True
            response.raw.auto_close = False  # at its end it may still be asked for more
            yield io.BufferedReader(response.raw, BLOCK_BYTES), shown(url), tells_its_end
    except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
        # named by what the system said: their own words may show a URL's secrets
        said, cause = "", e.__context__
        while cause is not None:
            said, cause = getattr(cause, "strerror", None) or said, cause.__context__
        what = said or f"the connection broke ({type(e).__name__})"
        raise TransferError(f"{shown(url)}: {what}", transient=True, cause="connection") from e


def _refuse_to_leave_tls(response: requests.Response, **_: object) -> None:
    """Refuse a redirect from https to http."""
    to = urljoin(response.url, response.headers.get("Location", ""))
    if response.is_redirect and response.url.startswith("https:") and not to.startswith("https:"):
        what = f"redirected from https to {shown(to)}, which is refused"
        raise TransferError(f"{shown(response.url)}: {what}", cause="redirect")
