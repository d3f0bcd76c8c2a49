"""The files of a chunk that is held, opened or mapped.

Invariant: what was opened keeps a ref of its own, until it is closed: so its chunk stays where it is.
"""

from __future__ import annotations

import io
import mmap
import os
from typing import TYPE_CHECKING, Self

from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import file_name_fault
from fsdm.store.filesystem import open_regular

if TYPE_CHECKING:
    from fsdm.store.filesystem import Descriptor
    from fsdm.store.refs import ChunkRef


class ChunkFile(io.FileIO):
    """A file of a chunk, to be read; unbuffered: what is read goes where its reader says."""

    def __init__(self, ref: ChunkRef, fd: int) -> None:
        self._ref = ref  # first: a finalizer closes also what has not been opened
        super().__init__(fd, "rb")

    def close(self) -> None:
        """Close the file, and its ref."""
        super().close()
        self._ref.close()


class ChunkMap(mmap.mmap):
    """A mapped file of a chunk, to be read. What was made of it without a copy (a memoryview, an array) keeps it."""

    _ref: ChunkRef

    @classmethod
    def of(cls, ref: ChunkRef, fd: int) -> Self:
        """Map all of an open file."""
        mapped = cls(fd, 0, access=mmap.ACCESS_READ)
        mapped._ref = ref
        return mapped

    def close(self) -> None:
        """Unmap it, and close its ref.

        Raises:
            BufferError: a memoryview or an array of it is in use; then it stays, and so does its ref.
        """
        super().close()
        self._ref.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def open_file(ref: ChunkRef, file: str) -> ChunkFile:
    """See `ChunkRef.open`."""
    with _opened(ref, file) as fd:
        own = ref.clone()
        try:
            return ChunkFile(own, os.dup(fd))
        except BaseException:
            own.close()
            raise


def map_file(ref: ChunkRef, file: str) -> ChunkMap:
    """See `ChunkRef.mmap`."""
    with _opened(ref, file) as fd:
        if os.fstat(fd).st_size == 0:
            raise InvalidInputError(f"{file!r:.80} is empty, and cannot be mapped", field="file", hint="open it")
        own = ref.clone()
        try:
            return ChunkMap.of(own, fd)
        except BaseException:
            own.close()
            raise


def _opened(ref: ChunkRef, file: str) -> Descriptor:
    path, fault = str(ref.path), file_name_fault(file) if isinstance(file, str) else "is no string"
    if fault is None:
        if (it := open_regular(f"{path}/{file}")) is not None:
            return it
        fault = "is no file of this chunk"
    there = sorted(os.listdir(path))
    hint = f"there are {', '.join(there[:10])}{' …' * (len(there) > 10)}"
    raise InvalidInputError(f"{file!r:.80} {fault}", field="file", hint=hint)
