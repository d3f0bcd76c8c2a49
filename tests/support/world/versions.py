"""What each chunk of a world may be wanted as: three versions of each, which overlap with those of the others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from fsdm.model.documents import DataChunk
from tests.support.chunks import an_id, content

DATASETS: Final = ("d" * 64, "e" * 64)
BLOCKS: Final = range(10)
SHAPES: Final = (  # of each chunk, its versions: the start, the end, and the names of its files
    ((0, 4, "ab"), (0, 4, "a"), (2, 5, "b")),
    ((2, 6, "a"), (2, 5, "b"), (0, 3, "b")),
    ((0, 3, "a"), (0, 3, "ab"), (1, 4, "a")),
)


@dataclass(frozen=True, eq=False)
class Version:
    """What a chunk may be wanted as."""

    chunk: DataChunk
    files: dict[str, bytes]
    name: str

    def __repr__(self) -> str:
        return self.name


def versions_of(number: int) -> list[Version]:
    """The versions of the chunk of this number."""
    return [_version(number, version, *shape) for version, shape in enumerate(SHAPES[number])]


def _version(i: int, number: int, start: int, end: int, names: str) -> Version:
    files = {name: content(f"{i}/{number}/{name}", 24) for name in names}
    sources = {
        name: {
            "url": f"http://source/{i}/{number}/{name}",
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        for name, data in files.items()
    }
    chunk = DataChunk(id=an_id(1000 + i), dataset_id=DATASETS[i // 2], block_range=(start, end), files=sources)
    return Version(chunk, files, f"chunk {i} version {number}")
