"""One action, applied."""

import os
from collections.abc import Callable
from typing import Any, cast

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import DataChunk, FileEntry, FileSource
from fsdm.model.events import Event
from fsdm.model.layout import Layout
from fsdm.model.state import ChunkState, Marker
from fsdm.reconcile.actions import Action, Done, Wait
from fsdm.reconcile.apply import Applier
from fsdm.reconcile.memo import NO_MEMO
from fsdm.reconcile.plan import decide
from fsdm.store.catalog import Catalog
from fsdm.store.filesystem import FileSystem
from fsdm.store.scan import look
from fsdm.transfer.resume_record import Part
from tests.support.chunks import a_want, an_id, content, judged

NAMES = ("blocks.parquet", "logs.parquet")


class MadeUp:
    """A fetcher that makes the bytes up; `instead` is called before each file."""

    def __init__(self) -> None:
        self.count = 0
        self.instead: Callable[[], object] = lambda: None

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry:
        self.count += 1
        self.instead()
        stop.check()
        data = content(source.url, 100)
        fs.step("create", part.path)
        fd = os.open(part.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(fd, data)
            fs.fsync_file(fd, part.path)
        finally:
            os.close(fd)
        return FileEntry(size=len(data), blake3="0" * 64)


class Bench:
    """An applier on a data directory, and what it tells."""

    def __init__(self, layout: Layout, fs: FileSystem | None = None, fetcher: Any = None) -> None:
        self.layout = layout
        self.fs = fs or FileSystem()
        self.fetcher = fetcher or MadeUp()
        self.catalog = Catalog(layout, own=True)
        self.catalog.refresh()
        self.events: list[Event] = []
        self.erased: list[str] = []
        self.applier = Applier(layout, self.fs, self.catalog, self.fetcher, None, self.events.append, cast("Any", self))

    def erase(self, path: str, _parent: str | None) -> None:
        self.erased.append(path)
        self.fs.erase(path)

    def apply(self, action: Action, stop: Cancellation | None = None) -> Any:
        return self.applier.apply(action, stop or Cancellation())

    def want(self, chunk_id: str) -> Marker:
        return judged(self.layout.want_marker(chunk_id))

    def delete(self, chunk_id: str) -> Marker:
        return judged(self.layout.delete_marker(chunk_id))

    def told(self) -> list[str]:
        return [event.kind for event in self.events]

    def converge(self, chunk_id: str) -> ChunkState:
        """Decide and apply until there is nothing to do; the last look."""
        for _ in range(20):
            self.catalog.refresh()
            state = look(self.layout, self.catalog, chunk_id)
            action = decide(state, NO_MEMO, 0.0)
            if action is None or isinstance(action, Wait):
                return state
            assert isinstance(self.apply(action), Done), action
        raise AssertionError(f"it does not come to rest: {state}")


def a_chunk(**changes: Any) -> DataChunk:
    chunk_id = an_id()
    files = {name: f"http://example.org/{chunk_id}/{name}" for name in NAMES}
    return a_want(**{"id": chunk_id, "files": files, **changes})
