"""Chunks, wants and failures as they stand on disk, put there with nothing but files."""

import hashlib
import itertools
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from fsdm import DataChunk, DataManager
from fsdm.model.documents import Manifest
from fsdm.model.layout import Layout, Place
from fsdm.model.state import Marker
from fsdm.store.markers import look_at
from tests.support.waiting import PATIENCE_S

_numbers = itertools.count(1)


def an_id(number: int | None = None) -> str:
    """An id that has not been used before, or the one with this number."""
    number = next(_numbers) if number is None else number
    return hashlib.sha256(f"chunk {number}".encode()).hexdigest()


def content(seed: str, size: int = 1000) -> bytes:
    """Bytes that depend on the seed alone."""
    return hashlib.shake_128(seed.encode()).digest(size)


def files_of(directory: Path) -> dict[str, bytes]:
    """Read the files of a directory: name → bytes."""
    return {entry.name: entry.read_bytes() for entry in directory.iterdir()}


def bring(dm: DataManager, *chunks: DataChunk) -> None:
    """Have chunks downloaded, and wait until they are available."""
    for chunk in chunks:
        dm.download_chunk(chunk)
    for chunk in chunks:
        assert dm.wait(chunk.id, PATIENCE_S)


def put_want(data_dir: Path, chunk: DataChunk) -> DataChunk:
    """Place a want as `cp` does it: not by a rename, without a lock."""
    (data_dir / "want" / chunk.id).write_bytes(chunk.to_json())
    return chunk


def put_known(data_dir: Path, chunk: DataChunk) -> None:
    """Register a chunk as `mv` does it: by a rename, without a lock."""
    new = data_dir / "known" / ".new"
    new.write_bytes(chunk.to_json())
    new.rename(data_dir / "known" / chunk.id)


def touch_delete(data_dir: Path, chunk_id: str) -> None:
    """Place a delete as `touch` does it."""
    (data_dir / "delete" / chunk_id).touch()


def chunk_dir(data_dir: Path, chunk: DataChunk) -> Path:
    """Return the directory of a published chunk."""
    return data_dir / "chunks" / chunk.place.dataset_id / chunk.place.name


def failure(data_dir: Path, chunk_id: str) -> dict[str, Any] | None:
    """Read `failed/ID`, or None."""
    try:
        return json.loads((data_dir / "failed" / chunk_id).read_bytes())  # type: ignore[no-any-return]
    except FileNotFoundError:
        return None


def entries(directory: Path) -> list[str]:
    """List a directory without its dotfiles."""
    return sorted(name for name in os.listdir(directory) if not name.startswith("."))


TAKE_REF = """
import sys
from fsdm.model.layout import Layout, Place
from fsdm.store.refs import Refs
ref = Refs(Layout(sys.argv[1])).take(Place(sys.argv[2], sys.argv[3]))
print("none" if ref is None else "held", flush=True)
sys.stdin.read()
"""


def put_chunk(
    layout: Layout,
    *,
    chunk_id: str | None = None,
    start: int = 0,
    end: int = 10,
    dataset: str = "d" * 64,
    files: dict[str, bytes] | None = None,
) -> Place:
    """A published chunk, made by hand, without a reconciler."""
    place = Place.of(dataset, range(start, end), chunk_id or an_id())
    path = layout.path(place)
    os.makedirs(f"{path}/data")
    entries: dict[str, Any] = {}
    for name, data in (files or {"blocks.parquet": content(place.chunk_id, 100)}).items():
        with open(f"{path}/data/{name}", "wb") as file:
            file.write(data)
        entries[name] = {"size": len(data), "blake3": blake3(data).hexdigest()}
    manifest = Manifest(id=place.chunk_id, dataset_id=dataset, block_range={"start": start, "end": end}, files=entries)
    with open(f"{path}/READY", "wb") as ready:
        ready.write(manifest.to_json())
    return place


def a_want(**kw: object) -> DataChunk:
    files = {"blocks.parquet": "https://example.org/blocks.parquet"}
    return DataChunk(**{"id": an_id(), "dataset_id": "d" * 64, "block_range": (0, 10), "files": files, **kw})


def judged(path: str) -> Marker:
    """Return the marker at `path` as it is now."""
    marker = look_at(path)
    assert marker is not None
    return marker


def markers(layout: Layout) -> tuple[list[str], list[str]]:
    """List want/ and delete/ with their dotfiles."""
    return sorted(os.listdir(layout.want)), sorted(os.listdir(layout.delete))


def put(path: str, text: str = "") -> None:
    """Put a newer file in place by a rename."""
    with open(f"{path}.new~", "w") as file:
        file.write(text)
    os.rename(f"{path}.new~", path)


def _socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.getcwd()
        os.chdir(os.path.dirname(path))  # the path of a socket must be short
        try:
            sock.bind(os.path.basename(path))
        finally:
            os.chdir(here)


def _symlink(path: str) -> None:
    outside = os.path.join(os.path.dirname(path), "..", "outside")
    with open(outside, "w") as file:
        file.write("{}")
    os.utime(outside, (1, 1))
    os.symlink(outside, path)


KINDS_OF_NO_FILE = [
    pytest.param(os.mkdir, "a directory", id="directory"),
    pytest.param(_symlink, "a symbolic link", id="symlink"),
    pytest.param(os.mkfifo, "a FIFO", id="fifo"),
    pytest.param(_socket, "a socket", id="socket"),
]


def flip(path: str, at: int = 0) -> None:
    """Change one bit of a file, and nothing that `ls -l` would show."""
    found = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


FILES = {
    "a.parquet": {"url": "http://example.org/a", "size": 100},
    "b.parquet": {"url": "http://example.org/b", "size": 23},
}


def put_partial(data_dir: Path, chunk_id: str, **files: int) -> None:
    data = data_dir / "partial" / chunk_id / "data"
    data.mkdir(parents=True)
    for name, size in files.items():
        (data / name).write_bytes(bytes(size))


def put_failure(data_dir: Path, chunk_id: str, **says: Any) -> None:
    (data_dir / "failed" / chunk_id).write_text(json.dumps(says))


def of_place(there: Place, **file: object) -> DataChunk:
    """Make a want that a chunk of `put_chunk` satisfies, unless `file` differs from it."""
    data = content(there.chunk_id, 100)
    known = {"url": "http://h/a", "size": 100, "blake3": blake3(data).hexdigest()}
    return DataChunk(
        id=there.chunk_id,
        dataset_id=there.dataset_id,
        block_range=there.block_range,
        files={"blocks.parquet": {**known, **file}},
    )
