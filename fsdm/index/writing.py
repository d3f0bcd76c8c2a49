"""Writing index files: records in buckets, and what follows them.

Invariant: the header is written last, so that what a crash leaves is no index file.
"""

from __future__ import annotations

import array
import json
import sys
from bisect import bisect_left
from operator import itemgetter
from typing import TYPE_CHECKING

from blake3 import blake3

from fsdm.model.index_format import (
    CHUNK_MAGIC,
    COUNT_MAX,
    ENTRY,
    HEADER_BYTES,
    NUMBER,
    RUN_MAGIC,
    Header,
    IndexedChunk,
    bits_for,
    hash_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import BinaryIO

Entry = tuple[bytes, int, int, int, int]  # key, number of its file, row group, offset, length
BLOCK: int = 1 << 16  # so many entries are put together for one write


class TableWriter:
    """Writes the records of an index file, in ascending order, to a file that is empty."""

    def __init__(self, file: BinaryIO, magic: bytes, at_most: int) -> None:
        """Begin; there will be `at_most` so many records."""
        self._file = file
        self._magic = magic
        self._bits = bits_for(at_most)
        self._digest = blake3()
        self._bounds = array.array("Q")
        self.count = 0
        file.write(bytes(HEADER_BYTES))

    def add(self, records: Sequence[bytes]) -> None:
        """Write some records; none is below an earlier one."""
        if not records:
            return
        first, shift = len(self._bounds), 64 - self._bits
        last = int.from_bytes(records[-1][:8]) >> shift
        at = 0
        for bucket in range(first, last + 1):
            at = bisect_left(records, (bucket << shift).to_bytes(8), at)
            self._bounds.append(self.count + at)
        self.count += len(records)
        self._write(b"".join(records))

    def finish(
        self, rest: Iterable[bytes], *, extra: tuple[int, int], identity: bytes = bytes(32), definition: bytes
    ) -> Header:
        """Write the buckets, the rest, and the header."""
        if self.count > COUNT_MAX:
            raise OverflowError(f"an index has at most {COUNT_MAX} records, not {self.count}")
        self._bounds.extend([self.count] * ((1 << self._bits) + 1 - len(self._bounds)))
        if sys.byteorder == "big":
            self._bounds.byteswap()
        self._write(self._bounds.tobytes())
        for part in rest:
            self._write(part)
        body = self._digest.digest()
        header = Header(self._magic, self.count, self._bits, extra, identity, definition, body)
        self._file.seek(0)
        self._file.write(header.pack())
        self._file.flush()
        return header

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


def write_chunk_index(
    file: BinaryIO, entries: list[Entry], names: Sequence[str], *, identity: bytes, definition: bytes
) -> Header:
    """Write the index of a chunk; `entries` are sorted in place, and speak of files by their number in `names`."""
    entries.sort(key=itemgetter(0))
    entries.sort()  # of one key by their places: few, so that it takes a third of what this alone would
    table = TableWriter(file, CHUNK_MAGIC, len(entries))
    pack = NUMBER.pack
    table.add(sorted([hash_of(entry[0]) + pack(number) for number, entry in enumerate(entries)]))
    keys_bytes, texts = sum(len(entry[0]) for entry in entries), json.dumps(list(names)).encode()

    def rest() -> Iterable[bytes]:
        end = 0
        for at in range(0, len(entries), BLOCK):
            rows = bytearray()
            for key, number, group, offset, length in entries[at : at + BLOCK]:
                end += len(key)
                rows += ENTRY.pack(end, offset, length, number, group)
            yield bytes(rows)
        for at in range(0, len(entries), BLOCK):
            yield b"".join(entry[0] for entry in entries[at : at + BLOCK])
        yield texts

    return table.finish(rest(), extra=(keys_bytes, len(texts)), identity=identity, definition=definition)


def finish_run(table: TableWriter, chunks: Sequence[IndexedChunk], definition: bytes) -> Header:
    """Write what follows the records of a run: the chunks that their numbers mean."""
    return table.finish((chunk.pack() for chunk in chunks), extra=(len(chunks), 0), definition=definition)


def new_run(file: BinaryIO, at_most: int) -> TableWriter:
    """Begin a run over several chunks."""
    return TableWriter(file, RUN_MAGIC, at_most)
