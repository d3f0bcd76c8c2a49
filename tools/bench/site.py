"""The site of a bench: data directories of tiny chunks, written directly, and their removal."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from fsdm import DataChunk
from fsdm.model.documents import FileEntry, Manifest
from fsdm.model.layout import CACHED, DATA, READY, WANT, Layout, Place
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem
from tools.bench.processes import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Iterator

DATASET: Final = hashlib.sha256(b"bench").hexdigest()
BLOCKS: Final = 10  # a chunk covers so many
STRIDE: Final = 2000  # and the next on disk begins so much further on: there is room for other ranges between
CONTENT: Final = b"tiny\n"
FULL_SPEED: Final = 0
MEMORY: Final = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Site:
    """A directory to work in, and how much to do: `full` samples, or `quick` ones."""

    base: Path
    chunks: int
    quick: bool

    def samples(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def empty(self, name: str) -> str:
        """Make a data directory without chunks."""
        return make(str(self.base / name))

    def shared(self, chunks: int) -> str:
        """Return the data directory of so many chunks; a bench that changes it puts it back."""
        path = str(self.base / f"{chunks}-chunks")
        if not os.path.exists(path):
            put_chunks(make(path), range(chunks))
        return path

    def extra(self, count: int) -> range:
        """Return so many numbers of chunks beside the shared ones."""
        return range(self.chunks, self.chunks + count)


def place_of(number: int) -> Place:
    """Return where the chunk with this number stands."""
    start = number * STRIDE
    return Place.of(DATASET, range(start, start + BLOCKS), hashlib.sha256(b"%d" % number).hexdigest())


def a_chunk(
    number: int, url: str, *, files: int = 1, size: int = 1000, rate: int = FULL_SPEED, name: str = "untimed"
) -> DataChunk:
    """Return a chunk to want, whose files the source serves at this rate."""
    place = place_of(number)
    sources = {f"{n}.parquet": f"{url}/{size}/{rate}/{name}" for n in range(files)}
    return DataChunk(id=place.chunk_id, dataset_id=DATASET, block_range=place.block_range, files=sources)


def make(data_dir: str) -> str:
    """Make a data directory."""
    layout = Layout(data_dir)
    make_layout(layout, FileSystem())
    os.makedirs(layout.dataset(DATASET))
    return data_dir


def put_chunks(data_dir: str, numbers: range) -> None:
    """Put chunks of one tiny file each into a data directory that no process reconciles."""
    with ProcessPoolExecutor(2, CONTEXT) as pool:
        list(pool.map(_write_chunks, [data_dir] * 2, [numbers[::2], numbers[1::2]]))
    time.sleep(0.05)  # a listing taken within two clock ticks of the last change would not be kept


def cache_chunks(data_dir: str, numbers: range) -> None:
    """Put registered chunks there, which were not wanted: they may be evicted, those with low numbers first."""
    put_chunks(data_dir, numbers)
    with ProcessPoolExecutor(2, CONTEXT) as pool:
        list(pool.map(_cache, [data_dir] * 2, [numbers[::2], numbers[1::2]]))


def _cache(data_dir: str, numbers: range) -> None:
    layout, began = Layout(data_dir), time.time() - 1e6
    for number in numbers:
        chunk, path = a_chunk(number, "http://127.0.0.1"), layout.path(place_of(number))
        text = DataChunk(**dict(chunk) | {"files": {"blocks.parquet": "http://127.0.0.1/tiny"}}).to_json()
        write(layout.known_marker(chunk.id), text)
        for name, content, at in ((WANT, text, 0.0), (CACHED, b"", began + number)):
            write(f"{path}/{name}", content)
            os.utime(f"{path}/{name}", (at, at))


def _write_chunks(data_dir: str, numbers: range) -> None:
    layout = Layout(data_dir)
    files = {"blocks.parquet": FileEntry(size=len(CONTENT), blake3=blake3(CONTENT).hexdigest())}
    for at, number in enumerate(numbers):
        if at % 10_000 == 0:  # a file has 65,000 links at most (ext4)
            tiny = f"{data_dir}/tiny-{time.monotonic_ns()}-{number}"
            write(tiny, CONTENT)
        place = place_of(number)
        path = layout.path(place)
        manifest = Manifest(id=place.chunk_id, dataset_id=DATASET, block_range=place.block_range, files=files)
        os.mkdir(path)
        os.mkdir(f"{path}/{DATA}")
        os.link(tiny, f"{path}/{DATA}/blocks.parquet")
        write(f"{path}/{READY}", manifest.to_json())


def write(path: str, data: bytes) -> None:
    """Make a file, by as few calls as it takes."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, data)
    os.close(fd)


@contextmanager
def scratch(parent: Path | None) -> Iterator[Path]:
    """Make a directory to work in, and remove it afterwards."""
    path = Path(tempfile.mkdtemp(dir=parent, prefix="fsdm-bench-"))
    try:
        yield path
    finally:
        remove(path)


def remove(directory: Path) -> None:
    """Remove a directory, many entries at once: some disks take a millisecond for a freed block."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(os.unlink, (path for path in directory.rglob("*") if not path.is_dir())))
        list(pool.map(shutil.rmtree, directory.glob("*/chunks/*/*")))
    shutil.rmtree(directory)
