"""A reconciler whose passes a test makes itself."""

from collections.abc import Callable
from pathlib import Path

from fsdm import DataChunk, Limits
from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import FileEntry, FileSource
from fsdm.model.events import Event
from fsdm.model.layout import Layout
from fsdm.reconcile.actions import Fetch
from fsdm.reconcile.reconciler import Reconciler
from fsdm.store.filesystem import FileSystem
from fsdm.transfer.resume_record import Part
from tests.support.chunks import an_id, judged, put_want
from tools.support.workers import InlineWorkers


def a_fetch(layout: Layout, *sizes: int | None, chunk_id: str | None = None) -> Fetch:
    """A fetch of a want whose files declare these sizes."""
    files = {str(n): {"url": "http://h/x", **({} if size is None else {"size": size})} for n, size in enumerate(sizes)}
    chunk = DataChunk(id=chunk_id or an_id(), dataset_id="d" * 64, block_range=(0, 1), files=files)
    put_want(Path(layout.root), chunk)
    return Fetch(chunk.id, judged(layout.want_marker(chunk.id)))


def comes(layout: Layout, fetch: Fetch, size: int) -> None:
    """So many bytes of a fetch are on disk now."""
    data = Path(layout.partial_of(fetch.id)) / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "0").write_bytes(bytes(size))


class Inline:
    """A reconciler that does everything in this thread, and whose source has what it is asked for."""

    def __init__(self, layout: Layout, limits: Limits, fs: FileSystem | None = None) -> None:
        self.now = 1_000_000.0
        self.events: list[Event] = []
        self.instead: Callable[[FileSource], object] = lambda _: None
        self.it = Reconciler(
            layout,
            limits=limits,
            fetcher=self,
            fs=fs,
            workers=InlineWorkers(),
            on_event=self.events.append,
            clock=lambda: self.now,
            jitter=lambda: 1.0,
        )
        self.it.open()

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry:
        path = part.path
        self.instead(source)
        fs.step("create", path)
        Path(path).write_bytes(bytes(source.size or 0))
        with open(path, "rb") as file:
            fs.fsync_file(file.fileno(), path)
        return FileEntry(size=source.size or 0, blake3="0" * 64)

    def passes(self, count: int = 8, *, scan: bool = True) -> None:
        for _ in range(count):
            if scan:
                self.it.loop.next_scan = 0.0
            self.it.loop.step()

    def told(self, kind: str) -> list[str]:
        return [event.chunk_id for event in self.events if event.kind == kind]
