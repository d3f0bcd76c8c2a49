"""The deeds of the reconciler, one step at a time, and the source that it fetches from."""

import errno
import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import FileEntry, FileSource
from fsdm.model.errors import TransferError
from fsdm.model.limits import Limits
from fsdm.reconcile.reconciler import Reconciler
from fsdm.store.filesystem import FileSystem
from fsdm.transfer.resume_record import Part
from tests.support.world.clocks import Clocks
from tests.support.world.deeds import Cut, Deed, Killed
from tests.support.world.disk import Disk
from tests.support.world.expected import Expected
from tests.support.world.hooks import HookedFileSystem, QueuedWorkers
from tests.support.world.points import Points
from tests.support.world.readers import Readers

PASSES: Final = 40  # so many are more than enough to converge
ALL: Final = 1000  # the works that are dispatched


@dataclass
class Reconciling:
    """A reconciler that runs step by step; `faults` says how a source fails next."""

    _disk: Disk
    _clocks: Clocks
    _points: Points
    _expected: Expected
    _readers: Readers
    _faults: dict[int, str]
    reconciler: Reconciler | None = None
    works: deque[Callable[[], None]] = field(default_factory=deque)
    _looking = False

    def __post_init__(self) -> None:
        self._fs = HookedFileSystem(self._points, self._clocks)
        versions = [version for versions in self._disk.versions for version in versions]
        self._served = {file.url: one.files[name] for one in versions for name, file in one.chunk.files.items()}

    def start(self) -> None:
        if self.reconciler is not None:
            return
        reconciler = Reconciler(
            self._disk.layout,
            limits=Limits(jobs=1),
            fetcher=self,
            fs=self._fs,
            workers=QueuedWorkers(self.works),
            clock=lambda: self._clocks.now,
            jitter=lambda: 1.0,
        )
        with self._points.in_midst("loop"):
            reconciler.open()
        self.reconciler, self._readers.catalog = reconciler, reconciler.catalog

    def close(self) -> None:
        """End the reconciler as a kill would: nothing is finished, its locks are gone."""
        if self.reconciler is not None:
            self.reconciler._applier.close()
            self.reconciler = self._readers.catalog = None
        self.works.clear()

    def stop(self, deed: Deed) -> None:
        """The reconciler is killed; what it had seen is forgotten."""
        self.close()
        self._expected.restarted()

    def look(self, deed: Deed) -> None:
        """One round of the loop: what is found is decided and dispatched, but not yet carried out."""
        if self.reconciler is None:
            return
        self.reconciler.loop.next_scan = 0.0
        if self._looking:  # the loop is one thread: amid a round it can only be rung
            return
        armed = self._points.cut
        self._looking = True
        with self._points.in_midst("loop"):
            try:
                self.reconciler.loop.step(0.0)
            except OSError as e:
                assert e.errno == errno.ENOSPC  # noqa: PT017 any other is a defect
            finally:
                self._looking = False
        was_cut = armed is not None and self._points.cut is None
        self._expected.looked(in_order=self._points.busy is None and not was_cut)

    def work(self, how_many: int = ALL) -> None:
        """Carry out what was dispatched, in order."""
        while self.works and how_many:
            how_many -= 1
            work = self.works.popleft()
            subject = getattr(work, "args", (None,))[0]
            with self._points.in_midst("work", getattr(subject, "id", getattr(subject, "chunk_id", ""))):
                work()

    def run(self, passes: int = 1, cut: Cut | None = None, how_many: int = ALL) -> None:
        """Make passes, each with (some of) its work; a cut may end the one that it falls in."""
        with self._points.cut_by(cut):
            for _ in range(passes):
                self._clocks.now += 0.5
                try:
                    self.start()
                    self.look(Deed("look"))
                    self.work(how_many)
                except Killed:
                    self.stop(Deed("stop"))

    def settle(self, deed: Deed) -> None:
        """Pass after pass, until there is nothing more to be done now."""
        with self._points.undisturbed():
            for _ in range(PASSES):
                self.run()
                it = self.reconciler
                if it is not None and not self.works and not it.loop.executor and not it.loop.work_queue._soon:
                    break

    @property
    def rests(self) -> bool:
        """Whether nothing is left to be done, now or later."""
        it = self.reconciler
        if it is None or it.loop.executor or self.works or self._disk.left():
            return False
        return it.loop.states.keys() == self._disk.lost()

    def fetch(self, source: FileSource, part: Part, fs: FileSystem, stop: Cancellation) -> FileEntry:
        """The source: see `fsdm.transfer.chunk_download.FileFetcher`."""
        data, i, path = self._served[source.url], int(source.url.split("/")[3]), part.path
        self._points.reach("fetch", path)
        stop.check()
        fault = self._faults.pop(i, None)
        if fault == "permanent":
            raise TransferError("404", transient=False)
        fs.step("create", path)
        with open(path, "wb") as file:
            file.write(data[:10])
            file.flush()
            self._points.reach("receive", path)
            stop.check()
            if fault == "transient":
                raise TransferError("the connection broke", transient=True)
            file.write(data[10:])
        assert len(data) == source.size
        fs.step("fsync_file", path)
        return FileEntry(size=len(data), blake3=blake3(data).hexdigest(), sha256=hashlib.sha256(data).hexdigest())
