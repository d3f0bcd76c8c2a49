"""The blocks of a chunk's CAR files, by their CIDs: what an index of these says, read of the mapped files.

Invariant: no block is returned whose bytes do not have the hash in its CID, unless its reader does not want that.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Self

from blake3 import blake3

from fsdm.model.cid import multihash_of
from fsdm.model.errors import DamagedError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsdm.model.index_format import Location
    from fsdm.store.chunk_file import ChunkMap
    from fsdm.store.index_file import ChunkIndex
    from fsdm.store.refs import ChunkRef

HASHES: Final[dict[int, Callable[[bytes], bytes]]] = {  # by their codes in multicodec
    0x00: bytes,  # identity
    0x12: lambda data: hashlib.sha256(data).digest(),
    0x13: lambda data: hashlib.sha512(data).digest(),
    0x16: lambda data: hashlib.sha3_256(data).digest(),
    0x1E: lambda data: blake3(data).digest(),
    0xB220: lambda data: hashlib.blake2b(data, digest_size=32).digest(),
}


class Blockstore:
    """The blocks of one chunk. Thread-safe; it keeps a ref of its own until it is closed. A context manager."""

    def __init__(self, ref: ChunkRef, index: ChunkIndex) -> None:
        """Take over a ref and an index."""
        self._ref = ref
        self._index = index
        self._maps: dict[str, ChunkMap] = {}

    def has(self, cid: bytes) -> bool:
        """Tell whether there is a block of this CID."""
        return cid in self._index

    def size(self, cid: bytes) -> int | None:
        """Return how many bytes a block has; None where there is none."""
        place = self._place(cid)
        return None if place is None else place.length

    def get(self, cid: bytes, *, check: bool = True) -> bytes | None:
        """Return a block, once it has been seen to have the hash in its CID; None where there is none.

        Raises:
            InvalidInputError: it is no CID, or of a hash that is not known here (`check=False` asks for no hash).
            DamagedError: the bytes have another hash.
        """
        place = self._place(cid)
        if place is None:
            return None
        data = self._map(place.file)[place.offset : place.offset + place.length]
        if check:
            self._check(cid, data, place)
        return data

    def keys(self) -> Iterator[bytes]:
        """Yield the CIDs in the order of their bytes."""
        return iter(self._index)

    def close(self) -> None:
        """Release the chunk; a second time it does nothing."""
        while self._maps:
            self._maps.popitem()[1].close()
        self._index.close()
        self._ref.close()

    def __len__(self) -> int:
        """Return how many blocks there are."""
        return len(self._index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _place(self, cid: bytes) -> Location | None:
        return next(iter(self._index.find(cid)), None)

    def _map(self, file: str) -> ChunkMap:
        mapped = self._maps.get(file)
        if mapped is None:
            mapped = self._maps.setdefault(file, self._ref.mmap(file))
        return mapped

    def _check(self, cid: bytes, data: bytes, place: Location) -> None:
        try:
            code, digest = multihash_of(cid)
        except ValueError as e:
            raise InvalidInputError(f"is no CID: {e}", field="cid") from None
        if code not in HASHES:
            hint = "get(cid, check=False) reads it without"
            raise InvalidInputError(f"has the hash {code:#x}, which is not known here", field="cid", hint=hint)
        if not digest or not HASHES[code](data).startswith(digest):  # a digest may be cut
            hint = f"fsdm verify --repair {self._ref.id}"
            raise DamagedError(f"{place.file} does not have the block {cid.hex()} at {place.offset}", hint=hint)
