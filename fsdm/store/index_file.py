"""Index files, mapped: the keys of one chunk, and what is common to them and to the runs over all chunks.

Invariant: a file that is shorter or longer than its header says, or whose header is not whole, is not opened. A mapping
needs no lock: the file stays as it was when its name goes.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import operator
import os
from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

from blake3 import blake3

from fsdm.model.errors import DamagedError
from fsdm.model.index_format import (
    BOUNDS,
    CHUNK_MAGIC,
    ENTRY,
    HASH_BYTES,
    HEADER_BYTES,
    NO_ROW_GROUP,
    NUMBER,
    RECORD,
    RECORD_BYTES,
    Header,
    Location,
    as_index_name,
    as_key,
    hash_of,
)
from fsdm.model.layout import MANIFEST_MAX_BYTES, READY, index_path
from fsdm.store.digests import BUFFER_BYTES, thread_buffer
from fsdm.store.filesystem import SAFE, open_regular, opened, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator


IN_ORDER_TOGETHER: Final = 1 << 16  # records that are compared at once

_as_number = int.from_bytes


def identity_of(directory: str) -> bytes | None:
    """Return the identity of a chunk's READY, its SHA-256; None where there is none. May raise OSError."""
    read = read_regular(f"{directory}/{READY}", MANIFEST_MAX_BYTES)
    return None if read is None else hashlib.sha256(read[1]).digest()


class IndexFile:
    """The records of a mapped index file: numbers by the hashes of keys. Thread-safe. A context manager."""

    __slots__ = ("__dict__", "_buckets_at", "_count", "_map", "_shift", "header", "path")

    def __init__(self, path: str, header: Header, mapped: mmap.mmap) -> None:
        self.path = path
        self.header = header
        self._map = mapped
        self._buckets_at = header.buckets_at
        self._count = header.count
        self._shift = 8 * HASH_BYTES - header.bits

    @classmethod
    def open(cls, path: str, magic: bytes) -> Self | None:
        """Map a file; None where there is none, or it is not whole. May raise OSError."""
        if (it := open_regular(path)) is None:
            return None
        with it as fd:
            size = os.fstat(fd).st_size
            header = Header.unpack(os.pread(fd, HEADER_BYTES, 0), magic, size)
            if header is None:
                return None
            mapped = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        mapped.madvise(mmap.MADV_RANDOM)  # a look-up needs two pages, and not the megabytes around them
        return cls(path, header, mapped)

    def numbers(self, hashed: bytes) -> tuple[int, ...]:
        """Return the numbers of the records with this hash, of 16 bytes."""
        begin, end = BOUNDS.unpack_from(self._map, self._buckets_at + 8 * (_as_number(hashed) >> self._shift))
        if end > self._count:
            return ()
        bucket = self._map[HEADER_BYTES + RECORD_BYTES * begin : HEADER_BYTES + RECORD_BYTES * end]
        at = bucket.find(hashed)
        while at >= 0 and at % RECORD_BYTES:  # across the bounds of records
            at = bucket.find(hashed, at + 1)
        found: tuple[int, ...] = ()
        while at >= 0:
            found += NUMBER.unpack_from(bucket, at + HASH_BYTES)
            at = bucket.find(hashed, at + RECORD_BYTES, at + RECORD_BYTES + HASH_BYTES)
        return found

    def records_from(self, begin: int, end_hash: bytes | None) -> tuple[bytes, int]:
        """Return the records from number `begin` up to a hash (None: all), and the number of the next one."""
        numbers = range(self.header.count)
        end = len(numbers) if end_hash is None else bisect_left(numbers, end_hash, begin, key=self._record)
        return self._map[self._record_at(begin) : self._record_at(end)], end

    def _record(self, number: int) -> bytes:
        return self._map[self._record_at(number) : self._record_at(number + 1)]

    @staticmethod
    def _record_at(number: int) -> int:
        return HEADER_BYTES + RECORD_BYTES * number

    def release_pages(self) -> None:
        """Let go of the memory that what was read of it takes up; it is read again where it is needed."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def is_whole(self) -> bool:
        """Read all of it, and tell whether it is what was written."""
        digest, buffer = blake3(), thread_buffer(BUFFER_BYTES)
        with opened(self.path, os.O_RDONLY | SAFE) as fd:
            at = HEADER_BYTES
            while count := os.preadv(fd, [buffer], at):
                digest.update(buffer[:count])
                at += count
        return at == self.header.size and digest.digest() == self.header.body

    def close(self) -> None:
        """Unmap it; a second time it does nothing."""
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ChunkIndex(IndexFile):
    """The index of one chunk: where its keys stand, by key. Thread-safe. A context manager.

    Keys are bytes, in the order of their bytes; a key may stand in several places. They are of the chunk whose ref
    has opened this: hold that while they are read.
    """

    def __len__(self) -> int:
        """Return how many places are in it."""
        return self.header.count

    def __contains__(self, key: object) -> bool:
        """Return whether a key stands anywhere in the chunk."""
        return bool(self.find(as_key(key)))

    def find(self, key: bytes) -> list[Location]:
        """Return where a key stands, by file, row group and offset; nowhere: an empty list.

        Raises:
            InvalidInputError: it is no key.
            DamagedError: what stands in the index cannot be, as where a disk has lost bytes.
        """
        key = as_key(key)
        found = (number for number in self.numbers(hash_of(key)) if number < len(self))
        return [self._location(number) for number in sorted(found) if self._key(number) == key]

    def __iter__(self) -> Iterator[bytes]:
        """Yield the keys in their order, each once."""
        last = None
        for number in range(len(self)):
            key = self._key(number)
            if key != last:
                yield key
            last = key

    def items(self, start: bytes | None = None, stop: bytes | None = None) -> Iterator[tuple[bytes, Location]]:
        """Yield keys and their places, from the key `start` on, up to `stop`, which is not among them.

        Raises:
            InvalidInputError: one of them is no key.
        """
        numbers = range(len(self))
        ends = (
            (0 if start is None else bisect_left(numbers, as_key(start, "start"), key=self._key)),
            (len(self) if stop is None else bisect_left(numbers, as_key(stop, "stop"), key=self._key)),
        )
        return ((self._key(number), self._location(number)) for number in range(*ends))

    def _key(self, number: int) -> bytes:
        at, keys_at = self.header.rest_at + ENTRY.size * number, self.header.keys_at
        begin = 0 if number == 0 else ENTRY.unpack_from(self._map, at - ENTRY.size)[0]
        end = ENTRY.unpack_from(self._map, at)[0]
        if not begin < end <= self.header.extra[0]:
            raise self._damaged(f"entry {number} has a key from {begin} to {end}")
        return self._map[keys_at + begin : keys_at + end]

    def _location(self, number: int) -> Location:
        _, offset, length, file, group = ENTRY.unpack_from(self._map, self.header.rest_at + ENTRY.size * number)
        if file >= len(self.files):
            raise self._damaged(f"entry {number} speaks of file {file}")
        return Location(self.files[file], offset, length, None if group == NO_ROW_GROUP else group)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The names of the files that keys may stand in."""
        at = self.header.keys_at + self.header.extra[0]
        try:
            names = json.loads(self._map[at : at + self.header.extra[1]])
        except (ValueError, RecursionError):
            names = None
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names)
        raise self._damaged("the names of its files cannot be read")

    def _damaged(self, how: str) -> DamagedError:
        name = os.path.basename(self.path)
        hint = f"have it made again: fsdm index rebuild {name} --chunks"
        return DamagedError(f"the index {self.path} is damaged: {how}", hint=hint)

    def is_sound(self) -> bool:
        """Read all of it, and tell whether it is what was written, with its records in order: so it can be merged."""
        last = b""
        for begin in range(0, self.header.count, IN_ORDER_TOGETHER):
            at = HEADER_BYTES + RECORD_BYTES * begin
            data = self._map[at : min(at + RECORD_BYTES * IN_ORDER_TOGETHER, self._buckets_at)]
            records = [last, *(record for (record,) in RECORD.iter_unpack(data))]
            if any(map(operator.gt, records, records[1:])):
                return False
            last = records[-1]
        return self.is_whole()


def open_chunk_index(directory: str, name: str) -> ChunkIndex | None:
    """Map an index of the chunk in a directory; None where there is none of this READY. May raise OSError.

    Raises:
        InvalidInputError: an index cannot have this name.
    """
    index = ChunkIndex.open(index_path(directory, as_index_name(name)), CHUNK_MAGIC)
    if index is not None and index.header.identity != identity_of(directory):
        index.close()
        return None
    return index
