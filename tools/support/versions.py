"""Versions of chunks and their bytes, for the crash harness, the soak and the state machines of the tests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fsdm.model.documents import DataChunk

if TYPE_CHECKING:
    from fsdm.client import Client
    from fsdm.store.refs import ChunkRef


@dataclass(frozen=True, eq=False)
class Version:
    """A version of a chunk; `files` are the bytes that its sources serve, by their names."""

    name: str
    chunk: DataChunk
    files: dict[str, bytes]

    @classmethod
    def of(
        cls,
        name: str,
        chunk_id: str,
        dataset_id: str,
        block_range: tuple[int, int],
        files: dict[str, bytes],
        url: str,
        *,
        digests: bool = True,
    ) -> Self:
        """Make a version whose files are served as URL/FILE.

        `digests`: the want says sizes and digests; else all that is known of the bytes is what the server says.
        """
        sources: dict[str, str | dict[str, object]] = {file: f"{url}/{file}" for file in files}
        if digests:
            sources = {
                file: {"url": f"{url}/{file}", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for file, data in files.items()
            }
        return cls(name, DataChunk(id=chunk_id, dataset_id=dataset_id, block_range=block_range, files=sources), files)

    def __repr__(self) -> str:
        return self.name

    def hold(self, client: Client) -> ChunkRef:
        """Take a ref to the chunk, which is available."""
        ref = client.find_chunk(self.chunk.dataset_id, self.chunk.block_range.start)
        assert ref is not None
        return ref


def id_of(text: str) -> str:
    """Return the id that belongs to a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def content(seed: str, size: int) -> bytes:
    """Return bytes that depend on the seed alone."""
    return hashlib.shake_128(seed.encode()).digest(size)


def files_in(directory: str | Path) -> dict[str, bytes]:
    """Read the files of a directory, by their names; nothing where there is no directory."""
    path = Path(directory)
    return {entry.name: entry.read_bytes() for entry in path.iterdir()} if path.is_dir() else {}
