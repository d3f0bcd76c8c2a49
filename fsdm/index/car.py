"""The indexer `car`: the CIDs of CAR files (versions 1 and 2), by the bytes of their blocks.

https://ipld.io/specs/transport/car/: a file is a header and sections, each of a length, a CID and a block. libipld is
imported where a header is decoded. Invariant: what is emitted was read of one section, which lies within its file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from fsdm.model.cid import VARINT_MAX, cid_at, varint_at
from fsdm.model.errors import IndexerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

PRAGMA: Final = b"\x0a\xa1gversion\x02"  # of version 2: a header of 10 bytes, and nothing but the version in it
HEADER_2_BYTES: Final = 40  # characteristics of 16 bytes, then data offset, data size, index offset
HEADER_MAX: Final = 32 << 20  # as go-car has it
CID_MAX: Final = 4096  # of a section, enough for what is before its block
BLOCK: Final = 1 << 20


def car_keys(directory: str, names: Sequence[str]) -> Iterator[tuple[bytes, str, int, int]]:
    """Yield CID, file, offset and length of each block.

    Raises:
        IndexerError: libipld is not there, or a file is no CAR.
    """
    for name in names:
        with open(os.path.join(directory, name), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            try:
                begin, end = _find_data(file, size)
                for cid, offset, length in _Sections(file, begin, end):
                    yield cid, name, offset, length
            except ValueError as e:
                raise IndexerError(f"{name} is no CAR: {e}", hint="check the indexer's `files`") from e


def _find_data(file: BinaryIO, size: int) -> tuple[int, int]:
    """Return where the sections begin and end: in a file of version 2, those of the CAR within it."""
    if file.read(len(PRAGMA)) != PRAGMA:
        file.seek(0)
        return _read_header(file, size), size
    header = file.read(HEADER_2_BYTES)
    begin, length = (int.from_bytes(header[at : at + 8], "little") for at in (16, 24))
    if len(header) < HEADER_2_BYTES or begin < len(PRAGMA) + HEADER_2_BYTES or begin + length > size:
        raise ValueError(f"its data of {length} bytes at {begin} is not within its {size} bytes")
    file.seek(begin)
    return _read_header(file, begin + length), begin + length


def _read_header(file: BinaryIO, end: int) -> int:
    """Check the header of version 1; return where it ends."""
    length = _read_varint(file)
    at = file.tell()
    if length is None or not 0 < length <= min(HEADER_MAX, end - at):
        raise ValueError(f"its header has {length} bytes")
    try:
        import libipld
    except ImportError as e:
        raise IndexerError(f"libipld cannot be imported: {e}", hint="pip install libipld") from e
    header = libipld.decode_dag_cbor(file.read(length))
    match header:
        case {"version": 1, "roots": [*roots]} if all(isinstance(root, bytes) for root in roots):
            return at + length
    raise ValueError(f"its header is {header!r:.80}")


class _Sections:
    """The sections of a CAR between two offsets; nothing but zeros may follow a length of zero."""

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        self._file = file
        self._at = begin
        self._end = end

    def __iter__(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield CID, offset and length of each block."""
        file = self._file
        while self._at < self._end:
            file.seek(self._at)
            length = _read_varint(file)
            begin = file.tell()
            if length is None or begin + length > self._end:
                raise ValueError(f"the section at {self._at} does not end within it")
            if length == 0:
                self._check_padding()
                return
            cid = cid_at(file.read(min(length, CID_MAX)))
            yield cid, begin + len(cid), length - len(cid)
            self._at = begin + length

    def _check_padding(self) -> None:
        self._file.seek(self._at)
        left = self._end - self._at
        while left > 0:
            block = self._file.read(min(left, BLOCK))
            if not block or block.count(0) < len(block):
                raise ValueError(f"the section at {self._at} is empty, and more than zeros follow it")
            left -= len(block)


def _read_varint(file: BinaryIO) -> int | None:
    """Read an unsigned varint; None where it does not end."""
    data = file.read(VARINT_MAX)
    try:
        value, size = varint_at(data, 0)
    except ValueError:
        return None
    file.seek(size - len(data), os.SEEK_CUR)
    return value
