"""Deeds of those who hold refs, and what a ref must show as long as it is open."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from fsdm.client import Client
from fsdm.store.catalog import Catalog
from fsdm.store.refs import ChunkRef
from tests.support.chunks import files_of
from tests.support.world.deeds import Deed
from tests.support.world.disk import BLOCKS, DATASETS, Disk
from tests.support.world.points import Points
from tools.support.versions import Version


@dataclass
class Held:
    """A ref that was handed out, and what it is to show as long as it is open."""

    ref: ChunkRef
    version: Version
    path: Path
    files: dict[str, bytes]


class Readers:
    """A client that keeps its refs, one that does not, and one in the reconciler's process."""

    def __init__(self, disk: Disk, points: Points, client: Client) -> None:
        self.held: list[Held] = []
        self.catalog: Catalog | None = None  # the reconciler's, while there is one: the neighbour finds by it
        self._disk = disk
        self._points = points
        self._client = client
        self._passer_by = Client(disk.layout.root)
        self._neighbour = Client(disk.layout.root)

    def find(self, deed: Deed) -> None:
        """Ask for a block in or near a chunk, and keep the ref (or let go at once)."""
        chunk = (self._disk.version_here(deed.chunk) or self._disk.versions[deed.chunk][0]).chunk
        start, end = chunk.block_range.start, chunk.block_range.stop
        block = (start, end - 1, end, start + 1, max(start - 1, 0))[deed.version]
        client = self._passer_by if deed.how == "passer-by" else self._client
        if deed.how == "neighbour" and self.catalog is not None:
            client, client._catalog = self._neighbour, self.catalog
        before = set(client._refs._held)
        armed, busy = self._points.cut is not None, self._points.busy
        expected = self._disk.responsible(chunk.dataset_id, block, self._disk.available().values())
        with self._points.in_midst(busy or "reader"):
            ref = client.find_chunk(chunk.dataset_id, block)
        disturbed = busy is not None or (armed and self._points.cut is None)
        if ref is None:
            assert disturbed or expected is None, f"{expected} is not found at {block}"
            return
        directory = ref.path.parent
        was_held = any(place.name == directory.name for place in before)
        is_deleted = os.path.lexists(self._disk.layout.delete_marker(ref.id))
        assert block in ref.block_range
        assert (disturbed and was_held) or not is_deleted, "deleted, but found"
        assert (directory / "READY").exists() or (disturbed and directory.exists()), "found, but not there"
        files = files_of(ref.path)
        version = self._disk.version_of(directory, files)
        assert disturbed or version is expected, f"{version} is found at {block}, {expected} is responsible"
        self.held.append(Held(ref, version, ref.path, files))
        self.check_held()
        if deed.how == "passer-by":
            self.held.pop().ref.close()

    def clone(self, deed: Deed) -> None:
        """Take another ref to what is held (in the midst of a find of that client, another thread would wait)."""
        held = self.held[deed.version % len(self.held)] if self.held else None
        if held is not None and not held.ref._refs._mutex.locked():
            self.held.append(Held(held.ref.clone(), held.version, held.path, held.files))

    def close_ref(self, deed: Deed) -> None:
        if self.held:
            self.held.pop(deed.version % len(self.held)).ref.close()

    def see(self, directory: Path, files: dict[str, bytes]) -> None:
        """The files in a directory were changed under those who hold it."""
        for held in self.held:
            if held.path.parent == directory:
                held.files = files

    def close_all(self) -> None:
        while self.held:
            self.held.pop().ref.close()

    def close(self) -> None:
        self.close_all()
        self._passer_by.close()
        self._neighbour.close()

    def check_held(self) -> None:
        """See that what is held is where it was, shows what it showed, and cannot be claimed."""
        for held in self.held:
            assert not held.ref.closed, "a ref was closed by another's closing"
            assert held.ref.path == held.path
            assert held.path.exists(), f"{held.version} has left its place under a ref"
            assert files_of(held.path) == held.files
            fd = os.open(held.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            finally:
                os.close(fd)
            raise AssertionError(f"{held.version} may leave its place under a ref")

    def check_found(self, ready: dict[Path, Version], available: set[Version]) -> None:
        """See that what is available is listed, and found at each of its blocks by the order of the protocol."""
        assert sorted(self._client.list_chunks()) == sorted(version.chunk.id for version in available)
        for dataset_id in DATASETS:
            for block in BLOCKS:
                expected = self._disk.responsible(dataset_id, block, available)
                ref = self._passer_by.find_chunk(dataset_id, block)
                found = ref and ready.get(ref.path.parent)
                if ref is not None:
                    ref.close()
                assert found is expected, f"{found} is found at {block}, {expected} is responsible"
