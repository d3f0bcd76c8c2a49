"""Chunks for the tests of programs that use fsdm: without a network, and without another process.

`fsdm.testing.plugin` has a fixture of pytest; what is here needs no pytest.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from fsdm.client import Client
from fsdm.manager import DataManager
from fsdm.model.documents import DataChunk, FileEntry, Manifest
from fsdm.model.errors import InvalidInputError, NotAvailableError, ReconcilerRunsError, TransferError
from fsdm.model.layout import DATA, READY, as_id
from fsdm.store.catalog import Catalog
from fsdm.store.data_dir import open_data_dir
from fsdm.store.filesystem import FileSystem
from fsdm.store.leader_lock import find_reconciler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsdm.concurrency.cancellation import Cancellation
    from fsdm.model.documents import FileSource
    from fsdm.transfer.resume_record import Part

__all__ = ["ChunkDirectory", "StubFetcher"]


class ChunkDirectory:
    """A data directory for a test, made where it is missing; chunks are put there as if they had been downloaded.

    Raises:
        DataDirectoryError: it cannot be made there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._layout = open_data_dir(path, durable=False)
        self._fs = FileSystem(durable=False)

    @property
    def path(self) -> Path:
        """The directory; `DataManager(path)` and `Client(path)` open it, as the program under test does."""
        return Path(self._layout.root)

    def put(
        self,
        dataset_id: str | bytes,
        block_range: range | tuple[int, int],
        files: Mapping[str, bytes],
        *,
        chunk_id: str | bytes | None = None,
    ) -> str:
        """Put a chunk there that is available at once; return its id (64 hex digits).

        `block_range` is half-open; `files` has the bytes by name. Without `chunk_id` the id follows from dataset and
        range.

        Raises:
            InvalidInputError: the dataset, the range or a name cannot be taken, or that chunk is there already.
            ReconcilerRunsError: a process reconciles the directory, and would clear away what is half done.
        """
        self._see_that_nobody_reconciles()
        dataset, sources = as_id(dataset_id, "dataset_id"), dict.fromkeys(files, "test://put")
        start, end = (block_range.start, block_range.stop) if isinstance(block_range, range) else block_range
        default = hashlib.sha256(f"{dataset} {start} {end}".encode()).hexdigest()
        chunk = DataChunk(id=chunk_id or default, dataset_id=dataset, block_range=block_range, files=sources)
        directory = self._layout.path(chunk.place)
        try:
            os.makedirs(f"{directory}/{DATA}")
        except FileExistsError:
            raise InvalidInputError(f"{chunk.id} is there already", field="chunk_id") from None
        entries = {}
        for name, data in files.items():
            Path(directory, DATA, name).write_bytes(data)
            entries[name] = FileEntry(size=len(data), blake3=blake3(data).hexdigest())
        self._fs.write(f"{directory}/{READY}", Manifest.of(chunk, entries).to_json(), durable=False)
        return chunk.id

    def remove(self, chunk_id: str | bytes) -> None:
        """Take a chunk out at once, as a delete does once it has been carried out; refs to it keep nothing.

        Raises:
            NotAvailableError: it is not there.
            ReconcilerRunsError: a process reconciles the directory: ask that one, by `delete_chunk`.
        """
        self._see_that_nobody_reconciles()
        catalog = Catalog(self._layout)
        catalog.update()
        places = catalog.places(as_id(chunk_id, "chunk_id"))
        if not places:
            raise NotAvailableError(f"there is no chunk {chunk_id!r}")
        for place in places:
            trashed = self._fs.discard(self._layout.path(place), self._layout.trash)
            if trashed is not None:
                self._fs.erase(trashed)

    def client(self) -> Client:
        """Open a client of it, to be closed (or used in a `with`)."""
        return Client(self.path)

    def manager(self, files: Mapping[str, bytes | Exception]) -> DataManager:
        """Open a manager that reconciles it, and fetches from `files` by their URLs alone: see `StubFetcher`."""
        return DataManager(self.path, fetcher=StubFetcher(files))

    def _see_that_nobody_reconciles(self) -> None:
        holder = find_reconciler(self._layout)
        if holder is not None:
            hint = "put chunks there before a DataManager is opened, or have them come by `manager`"
            raise ReconcilerRunsError(f"{self.path} is reconciled by {holder}", owner=holder.says, hint=hint)


class StubFetcher:
    """A `Fetcher` of bytes in memory, by URLs of any scheme; an exception as a value is raised.

    A URL that it does not know fails as one does that a server does not know.
    """

    def __init__(self, files: Mapping[str, bytes | Exception]) -> None:
        self.files = dict(files)
        self.asked: list[str] = []

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> None:  # noqa: ARG002
        """See `Fetcher.fetch`; `asked` has the URLs in the order that they were asked for."""
        self.asked.append(source.url)
        found = self.files.get(source.url)
        if found is None:
            hint = f"it knows {', '.join(sorted(self.files)) or 'none'}"
            raise TransferError(f"the test has no file {source.url}", hint=hint, cause="http_404")
        if isinstance(found, Exception):
            raise found
        Path(part.path).write_bytes(found)
