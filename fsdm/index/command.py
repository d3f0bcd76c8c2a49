"""The output of a command that finds keys: records with their lengths, or JSON Lines.

Invariant: what is read of it at once is bounded, however it is written.
"""

from __future__ import annotations

import io
import json
import struct
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import IndexerError
from fsdm.model.index_format import KEY_MAX_BYTES, NO_ROW_GROUP
from fsdm.model.layout import NAME_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

RECORDS: Final = b"fsdmkeys"  # what a stream of records begins with; anything else is JSON Lines
LINE_MAX: Final = 6 * KEY_MAX_BYTES + 4096  # a key of text may be escapes alone
HEAD: Final = struct.Struct("<IIQQI")  # the key's length, the file name's, offset, length, row group
Emitted = tuple[object, object, object, object, object]  # key, file, offset, length, row group


def read_output(stream: IO[bytes], at_most: int) -> Iterator[Emitted]:
    """Read a command's output, of `at_most` bytes.

    Raises:
        IndexerError: it is neither of both, or more than that.
    """
    first = stream.read(len(RECORDS))
    return _records(stream, at_most) if first == RECORDS else _lines(first, stream, at_most)


def _records(stream: IO[bytes], left: int) -> Iterator[Emitted]:
    number = 0
    while head := stream.read(HEAD.size):
        number += 1
        if len(head) < HEAD.size:
            raise IndexerError(f"the command's output ends within record {number}")
        key_size, name_size, offset, length, group = HEAD.unpack(head)
        if key_size > KEY_MAX_BYTES or name_size > NAME_MAX_BYTES:
            said = f"a key of {key_size} and a file name of {name_size} bytes"
            raise IndexerError(
                f"record {number} of the command's output says {said}", hint="its numbers are little-endian"
            )
        body = stream.read(key_size + name_size)
        if len(body) < key_size + name_size:
            raise IndexerError(f"the command's output ends within record {number}")
        left = _less(left, HEAD.size + len(body))
        try:
            name = body[key_size:].decode()
        except UnicodeDecodeError as e:
            raise IndexerError(f"record {number} of the command's output: the file name is no UTF-8") from e
        yield body[:key_size], name, offset, length, None if group == NO_ROW_GROUP else group


def _lines(first: bytes, stream: IO[bytes], left: int) -> Iterator[Emitted]:
    for number, line in enumerate(_split(first, stream), 1):
        left = _less(left, len(line))
        if len(line) >= LINE_MAX:
            raise IndexerError(f"line {number} of the command's output has more than {LINE_MAX} bytes")
        if line.isspace():
            continue
        try:
            yield _parsed(json.loads(line))
        except (ValueError, RecursionError, KeyError) as e:
            why = f"there is no {e}" if isinstance(e, KeyError) else str(e)
            hint = 'as {"hex": "ab12…", "file": "a.bin", "offset": 0, "length": 9}; text is "key", not "hex"'
            raise IndexerError(f"line {number} of the command's output cannot be taken: {why}", hint=hint) from e


def _split(first: bytes, stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a stream of which the first bytes have been read."""
    yield from io.BytesIO(first if first.endswith(b"\n") else first + stream.readline(LINE_MAX))
    while line := stream.readline(LINE_MAX):
        yield line


def _parsed(document: object) -> Emitted:
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 what a line says, not what a caller passes
    key: object = bytes.fromhex(document["hex"]) if isinstance(document.get("hex"), str) else document["key"]
    if isinstance(key, str):
        key = key.encode()
    return key, document["file"], document["offset"], document.get("length", 0), document.get("row_group")


def _less(left: int, size: int) -> int:
    if size > left:
        raise IndexerError("the command's output is too much", hint="raise max-output, or have fewer keys")
    return left - size
