"""Making the index of one chunk: its process, then the rename that puts the index in place.

Invariant: the chunk is held by a ref meanwhile, which is let go of at once when it is to leave; and an index is put in
place only where it is whole, and of the READY that the ref was taken on.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fsdm.concurrency.log import Log
from fsdm.index.process import run
from fsdm.index.worker import BuildJob, matching
from fsdm.model.errors import IndexerError
from fsdm.model.index_format import CHUNK_MAGIC
from fsdm.model.layout import DATA, INDEX, index_path
from fsdm.store.disk_usage import bytes_in
from fsdm.store.filesystem import exists, free_bytes
from fsdm.store.index_failures import IndexFailure, read_index_failure, remove_index_failure, write_index_failure
from fsdm.store.index_file import ChunkIndex, identity_of, open_chunk_index
from fsdm.store.json_files import read_manifest
from fsdm.store.refs import Refs

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.model.indexes import Index
    from fsdm.model.layout import Layout, Place
    from fsdm.store.filesystem import FileSystem

logger = Log("fsdm")

FIRST_REST_S: Final = 30.0  # after the first failure; then twice as long each time
REST_MAX_S: Final = 3600.0


@dataclass(slots=True)
class Building:
    """The making of indexes in one data directory. Thread-safe. `keep_free_bytes` of the disk stay free."""

    layout: Layout
    fs: FileSystem
    clock: Callable[[], float]
    keep_free_bytes: int = 0
    _refs: Refs = field(init=False)
    _told: bool = False  # that indexers have the network

    def __post_init__(self) -> None:
        self._refs = Refs(self.layout)

    def due_at(self, place: Place, index: Index) -> float | None:
        """Tell when an index of a chunk is to be made, in seconds since the epoch; None where it is there."""
        directory = self.layout.path(place)
        found = open_chunk_index(directory, index.name)
        if found is not None:
            found.close()
            if found.header.definition == index.definition:
                return None
        failure = self._failure(directory, index)
        return 0.0 if failure is None else failure.next_attempt_at

    def build(self, place: Place, index: Index, go_on: Callable[[], None]) -> IndexFailure | None:
        """Make an index of a chunk, where that is available; return why it could not be made.

        `go_on` is called again and again, and may raise.

        Raises:
            OSError: the disk refuses.
        """
        ref = self._refs.take(place)
        if ref is None:
            return None
        with ref:
            directory = self.layout.path(place)
            self.fs.mkdir(self.layout.index)  # first: where it is not, no chunk is looked at for indexes
            self.fs.mkdir(f"{directory}/{INDEX}")
            try:
                self._build(directory, index, go_on)
            except IndexerError as e:
                return self._failed(directory, index, e)
            remove_index_failure(self.fs, directory, index.name)
            return None

    def _build(self, directory: str, index: Index, go_on: Callable[[], None]) -> None:
        manifest, identity = read_manifest(directory), identity_of(directory)
        if manifest is None or identity is None:
            raise IndexerError("READY cannot be read", hint="fsdm verify")
        free, needed = free_bytes(self.layout.root), bytes_in(directory)[0]
        if free < self.keep_free_bytes + min(needed, index.max_output_bytes):
            raise IndexerError(f"there is no room for it: {free} bytes are free", hint="make room on the disk")
        target = f"{self.layout.trash}/.index.{index.name}.{secrets.token_hex(8)}"
        job = BuildJob(
            parent=os.getpid(),
            root=self.layout.root,
            directory=f"{directory}/{DATA}",
            names=matching([*manifest.files], index.files),
            indexer=index.indexer,
            command=index.command,
            max_output_bytes=index.max_output_bytes,
            max_memory_bytes=index.max_memory_bytes,
            identity=identity.hex(),
            definition=index.definition.hex(),
            target=target,
        )
        try:
            report = run("fsdm.index.worker", job.to_json(), index.timeout_s, go_on)
            if report.get("cut") is False and not self._told:
                self._told = True
                logger.warning("indexers are not cut off the network: this system refuses them a network namespace")
            self._check(target, index, identity)
            go_on()
            self.fs.fsync_path(target)
            self.fs.rename(target, index_path(directory, index.name))
        finally:
            if exists(target):
                with suppress(OSError):  # the next start erases it
                    self.fs.erase(target)

    def _check(self, target: str, index: Index, identity: bytes) -> None:
        """Believe nothing that a process says which ran code of others."""
        made = ChunkIndex.open(target, CHUNK_MAGIC)
        if made is not None:
            with made:
                if (made.header.identity, made.header.definition) == (identity, index.definition):
                    return
        raise IndexerError("the indexer's process has left no whole index", hint="please report this")

    def _failure(self, directory: str, index: Index) -> IndexFailure | None:
        """Return the failure that the next attempt follows; a changed definition begins anew."""
        failure = read_index_failure(directory, index.name)
        return failure if failure is not None and failure.definition == index.definition.hex() else None

    def _failed(self, directory: str, index: Index, error: IndexerError) -> IndexFailure:
        earlier, now = self._failure(directory, index), self.clock()
        attempts = 1 + (0 if earlier is None else earlier.attempts)
        rest_s = min(FIRST_REST_S * 2.0 ** min(attempts - 1, 16), REST_MAX_S)
        said = (index.name, str(error), error.hint)
        failure = IndexFailure(*said, attempts, now, now + rest_s, index.definition.hex())
        write_index_failure(self.fs, directory, failure, self.layout.trash)
        return failure
