"""The format of index files: of the keys of one chunk, and of the runs over all chunks (PROTOCOL.md, "Indexes"). Pure.

Invariant: a header whose check agrees says how long the file is; a file of another length is not one.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeGuard

from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import U64_MAX, Place, is_chunk_dir

CHUNK_MAGIC: Final = b"fsdmidx1"
RUN_MAGIC: Final = b"fsdmrun1"
HASH_BYTES: Final = 16
RECORD_BYTES: Final = 20  # a key's hash, and a number
KEY_MAX_BYTES: Final = 1 << 16
COUNT_MAX: Final = 2**32 - 1
NO_ROW_GROUP: Final = 2**32 - 1
PER_BUCKET: Final = 24  # records at most, on the average: half a kB, which is searched at once
BITS_MAX: Final = 32

NUMBER: Final = struct.Struct("<I")
RECORD: Final = struct.Struct(f"{RECORD_BYTES}s")
NUMBERED: Final = struct.Struct(f"<{HASH_BYTES}sI")  # a record in its parts
BOUNDS: Final = struct.Struct("<QQ")
ENTRY: Final = struct.Struct("<QQQII")  # end of the key, offset, length, number of the file, row group
ENTRY_BYTES: Final = RECORD_BYTES + ENTRY.size  # what a place takes in the file, without its key
CHUNK: Final = struct.Struct("<32s32sQQ32s")  # dataset, id, start, end, identity
_FIELDS: Final = struct.Struct("<8sQQQQQ32s32s32s")
HEADER_BYTES: Final = _FIELDS.size + HASH_BYTES

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")


def is_index_name(value: object) -> TypeGuard[str]:
    """Return whether an index may have this name."""
    return isinstance(value, str) and _NAME.match(value) is not None


def as_index_name(value: object, field: str = "name") -> str:
    """Return the name of an index: it is a name on disk; raise InvalidInputError for any other."""
    if is_index_name(value):
        return value
    hint = "1 to 64 of a-z, 0-9, - and _, beginning with a letter or a digit"
    raise InvalidInputError(f"{value!r:.80} cannot be the name of an index", field=field, hint=hint)


def as_key(value: object, field: str = "key") -> bytes:
    """Return a key, 1 to 65,536 bytes; raise InvalidInputError for anything else."""
    if type(value) is bytes and 0 < len(value) <= KEY_MAX_BYTES:
        return value
    if not isinstance(value, bytes | bytearray | memoryview):
        hint = "bytes.fromhex(…) makes some of a hash, str.encode() of text"
        raise InvalidInputError(f"must be bytes, not {type(value).__name__}", field=field, hint=hint)
    key = bytes(value)
    if not 0 < len(key) <= KEY_MAX_BYTES:
        raise InvalidInputError(f"has {len(key)} bytes, a key has 1 to {KEY_MAX_BYTES}", field=field)
    return key


def hash_of(key: bytes) -> bytes:
    """Return the 16 bytes under which a key stands: the first ones of its SHA-256."""
    return sha256(key).digest()[:HASH_BYTES]


def bits_for(count: int) -> int:
    """Return by how many leading bits of their hashes so many records are put into buckets."""
    return min((count // PER_BUCKET).bit_length(), BITS_MAX)


@dataclass(frozen=True, slots=True)
class Location:
    """The place of a key: in a file of a chunk, at a byte, or at a row of a row group.

    Without `row_group`, `offset` and `length` are bytes of the file. With it, `offset` is a row of that group.
    """

    file: str
    offset: int
    length: int = 0
    row_group: int | None = None

    def document(self) -> dict[str, str | int]:
        """Return it as `fsdm find --key --json` prints it."""
        if self.row_group is None:
            return {"file": self.file, "offset": self.offset, "length": self.length}
        return {"file": self.file, "row_group": self.row_group, "row": self.offset}


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A chunk of a run: its place, and the identity of the READY that its keys are of."""

    place: Place
    identity: bytes

    def pack(self) -> bytes:
        """Return the row of the chunk in a run."""
        blocks, ids = self.place.block_range, (self.place.dataset_id, self.place.chunk_id)
        return CHUNK.pack(*map(bytes.fromhex, ids), blocks.start, blocks.stop, self.identity)

    @classmethod
    def unpack(cls, row: bytes) -> IndexedChunk | None:
        """Read a row; None where it names no chunk."""
        dataset, chunk_id, start, end, identity = CHUNK.unpack(row)
        place = Place.of(dataset.hex(), range(start, end), chunk_id.hex())
        return cls(place, identity) if is_chunk_dir(place.name) else None


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an index file: how many records it has, and of what.

    `bits` of a hash say in which bucket its records are. `extra` are the bytes of the keys and of the files' names (of
    a chunk's index), or the number of chunks and 0 (of a run). `identity` is the SHA-256 of the READY that the keys
    are of, all zeros in a run; `definition` that of what the index was made by; `body` the BLAKE3 of all that follows.
    """

    magic: bytes
    count: int
    bits: int
    extra: tuple[int, int]
    identity: bytes
    definition: bytes
    body: bytes

    @property
    def buckets_at(self) -> int:
        """The offset of the bounds of the buckets, which follow the records."""
        return HEADER_BYTES + RECORD_BYTES * self.count

    @property
    def rest_at(self) -> int:
        """The offset of what follows the buckets: entries, keys and names, or the chunks."""
        return self.buckets_at + 8 * ((1 << self.bits) + 1)

    @property
    def keys_at(self) -> int:
        """The offset of the keys in a chunk's index."""
        return self.rest_at + ENTRY.size * self.count

    @property
    def size(self) -> int:
        """The size in bytes of the whole file."""
        if self.magic == RUN_MAGIC:
            return self.rest_at + CHUNK.size * self.extra[0]
        return self.keys_at + sum(self.extra)

    def pack(self) -> bytes:
        """Return the header as it stands in the file."""
        extra = (*self.extra, self.identity, self.definition, self.body)
        fields = _FIELDS.pack(self.magic, self.count, self.bits, self.size, *extra)
        return fields + hash_of(fields)

    @classmethod
    def unpack(cls, data: bytes, magic: bytes, size: int) -> Header | None:
        """Read the header of a file of so many bytes; None where it is none, or not whole."""
        fields, check = data[: _FIELDS.size], data[_FIELDS.size : HEADER_BYTES]
        if len(fields) < _FIELDS.size or hash_of(fields) != check or fields[: len(magic)] != magic:
            return None
        _, count, bits, _, first, second, identity, definition, body = _FIELDS.unpack(fields)
        if bits > BITS_MAX or count > COUNT_MAX or max(first, second) > U64_MAX >> 8:
            return None
        header = cls(magic, count, bits, (first, second), identity, definition, body)
        return header if header.size == size else None
