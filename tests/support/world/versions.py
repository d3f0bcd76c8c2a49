"""The chunks of a world: three versions of each, which overlap with those of the others."""

from typing import Final

from tests.support.chunks import an_id, content
from tools.support.versions import Version

DATASETS: Final = ("d" * 64, "e" * 64)
BLOCKS: Final = range(10)
SHAPES: Final = (  # of each chunk, its versions: the start, the end, and the names of its files
    ((0, 4, "ab"), (0, 4, "a"), (2, 5, "b")),
    ((2, 6, "a"), (2, 5, "b"), (0, 3, "b")),
    ((0, 3, "a"), (0, 3, "ab"), (1, 4, "a")),
)


def versions_of(number: int) -> list[Version]:
    return [_version(number, version, *shape) for version, shape in enumerate(SHAPES[number])]


def _version(i: int, number: int, start: int, end: int, names: str) -> Version:
    files = {name: content(f"{i}/{number}/{name}", 24) for name in names}
    block_range, url = (start, end), f"http://source/{i}/{number}"
    return Version.of(f"chunk {i} version {number}", an_id(1000 + i), DATASETS[i // 2], block_range, files, url)
