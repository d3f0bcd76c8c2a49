"""A life of a data directory in one thread: clients, shells, readers, source, reconciler.

It is lived the same way each time, so that it can be cut off at each call. What was asked goes into a `Journal`,
from which `judge` knows what must come of it. The lives themselves stand in `lives`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from unittest import mock

import fsdm.transfer.resume_record
from fsdm.client import Client
from fsdm.model.layout import Layout
from fsdm.model.limits import Limits
from fsdm.reconcile.reconciler import Reconciler
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem, write_all
from fsdm.store.leader_lock import ReconcilerLock
from fsdm.store.markers import place_acquire, place_evict
from tools.crash.indexing import INDEX, indexers_inline
from tools.crash.source import SPOILT, VERSIONS, Source, small_bounds
from tools.support.workers import InlineWorkers

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from fsdm.store.refs import ChunkRef
    from tools.crash.tap import Call

PASSES: Final = 60  # so many are more than enough to converge
PASS_S: Final = 0.01
INDEX_STEPS: Final = 6  # to find them missing, to take in that they are made, to merge, and to see that no more is due
LATER_S: Final = 7200.0  # after a crash: so that whatever waits, waits no more


class DiedError(BaseException):
    """The end of a life's reconciler, between two of its calls."""


@dataclass
class Intent:
    """An intent for a chunk: a version of it, or None where it is to go.

    `at`, and `ended`: so many calls had been made when the asking began, and when it was done (None: never).
    """

    letter: str
    result: str | None
    at: int = 0
    ended: int | None = None


@dataclass
class Journal:
    """The intents, in order; `calls` is how many the tap has seen by now."""

    intents: list[Intent] = field(default_factory=list)
    calls: int = 0
    _open: list[Intent] = field(default_factory=list)

    def begin(self, letter: str, result: str | None) -> None:
        """Note that the asking for a chunk begins."""
        self.intents.append(Intent(letter, result, self.calls))
        self._open.append(self.intents[-1])

    def end(self) -> None:
        """Note that the intent that began last stands."""
        self._open.pop().ended = self.calls

    def of(self, letter: str) -> list[Intent]:
        """Return the intents for one chunk."""
        return [intent for intent in self.intents if intent.letter == letter]


@dataclass
class Cut:
    """A deed instead of (or before) the first call of this kind to a path with this in it."""

    kind: str
    path: str
    deed: Callable[[], None]


class Life:
    """One data directory and all that works on it. A context manager.

    `durable`: whether anything is fsynced; `boot`: what tells this run of the machine from others; `began`: so many
    seconds from now; `is_indexed`: chunks have an index.
    """

    def __init__(
        self,
        root: str,
        *,
        journal: Journal | None = None,
        durable: bool = True,
        boot: str = "first",
        began: float = 0.0,
        is_indexed: bool = False,
    ) -> None:
        self.layout = Layout(root)
        self.journal = journal or Journal()
        self.source = Source()
        self.clock = time.time() + began
        self.written_back: Callable[[], None] = lambda: None
        self.reconciler: Reconciler | None = None
        self.limits = Limits()
        self._lock: ReconcilerLock | None = None
        self._durable = durable
        self._bounds = small_bounds()
        self.indexes = (INDEX,) if is_indexed else ()
        self._inline = indexers_inline()
        self._booted = mock.patch.object(fsdm.transfer.resume_record, "boot_id", return_value=boot)
        self._client: Client | None = None
        self._refs: list[ChunkRef] = []
        self._cut: Cut | None = None
        self._dead = False

    def __enter__(self) -> Self:
        self._bounds.__enter__()
        self._inline.__enter__()
        self._booted.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.drop()
        self.release()
        if self._client is not None:
            self._client.close()
        self._booted.__exit__(None, None, None)
        self._inline.__exit__(None, None, None)
        self._bounds.__exit__(None, None, None)

    # ------------------------------------------------------------------------------------------------- the reconciler

    def start(self) -> None:
        """Start to reconcile, as a new process does."""
        fs = FileSystem(durable=self._durable)
        make_layout(self.layout, fs)
        self._lock = ReconcilerLock(self.layout)
        workers = InlineWorkers()
        self.reconciler = Reconciler(
            self.layout,
            limits=self.limits,
            fetcher=self.source,
            fs=fs,
            indexes=self.indexes,
            workers=workers,
            clock=lambda: self.clock,
            jitter=lambda: 1.0,
        )
        self.reconciler.open()

    def gives_up(self) -> None:
        """End the process that reconciles; from now on what fails is given up until it is asked for anew."""
        self.drop()
        self.limits = Limits(recover="acquire")

    def drop(self) -> None:
        """End the process that reconciles, and its locks with it."""
        if self.reconciler is not None:
            self.reconciler.stop(0.0)
            self.reconciler = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def run(self, loop: int = PASSES, *, after_s: float = 0.0) -> bool:
        """Reconcile until there is nothing to be done now; return whether that came to be."""
        if after_s:
            self.wait(after_s)
        if self.reconciler is None:
            self.start()
        assert self.reconciler is not None
        for _ in range(loop):
            self.clock += PASS_S
            self.reconciler.loop.wakeup.notify(None)
            if not self.reconciler.loop.step(0.0):
                return True
        return False

    def index(self) -> None:
        """Make the indexes that are missing, and merge them."""
        assert self.reconciler is not None
        for _ in range(INDEX_STEPS):
            self.reconciler.indexing.step()

    def wait(self, seconds: float) -> None:
        """Let time pass; meanwhile the kernel writes back what it has."""
        self.clock += seconds
        self.written_back()

    def dies_at(self, kind: str, path: str) -> None:
        """Reconcile, and die before this call; another process takes over."""

        def die() -> None:
            self._dead = True

        self._cut = Cut(kind, path, die)
        try:
            self.run()
        except DiedError:
            self.drop()
            self._dead = False
        else:
            raise AssertionError(f"there was no {kind} of {path}")

    def meanwhile(self, kind: str, path: str, deed: Callable[[], None]) -> None:
        """Reconcile; the deed is done just before this call."""
        self._cut = Cut(kind, path, deed)
        self.run()
        assert self._cut is None, f"there was no {kind} of {path}"

    def before(self, call: Call) -> None:
        """Do what is to come before a call; the tap calls this."""
        cut = self._cut
        if cut is not None and cut.kind == call.kind and cut.path in f"{call.path} {call.target}":
            self._cut = None
            cut.deed()
        if self._dead:
            raise DiedError

    # ------------------------------------------------------------------------------- clients, shells, readers, the disk

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client(self.layout.root)
        return self._client

    def want(self, name: str) -> None:
        """Want a chunk, as a careful client does."""
        self.journal.begin(name[0], name)
        self.client.download_chunk(VERSIONS[name].chunk)
        self.journal.end()

    def delete(self, letter: str) -> None:
        """Delete a chunk, as a careful client does."""
        self.journal.begin(letter, None)
        self.client.delete_chunk(VERSIONS[f"{letter}1"].chunk.id)
        self.journal.end()

    def register(self, name: str, *, here: bool) -> None:
        """Register a chunk, as a careful client does: one that is `here` stays, another does not come."""
        self.journal.begin(name[0], name if here else None)
        self.client.register(VERSIONS[name].chunk)
        self.journal.end()

    def acquire(self, name: str) -> None:
        """Ask for a registered chunk, as a shell does, and wait for it elsewhere."""
        self.journal.begin(name[0], name)
        place_acquire(self.layout, VERSIONS[name].chunk.id)
        self.journal.end()

    def retry(self, name: str) -> None:
        """Have a chunk tried again that was given up."""
        self.journal.begin(name[0], name)
        assert self.client.recover(VERSIONS[name].chunk.id)
        self.journal.end()

    def evict(self, letter: str) -> None:
        """Have the bytes of a registered chunk go."""
        self.journal.begin(letter, None)
        place_evict(self.layout, VERSIONS[f"{letter}1"].chunk.id)
        self.journal.end()

    def move_want(self, name: str) -> None:
        """Want a chunk, as a shell does: by a file beside, and its rename."""
        self._next_tick()
        chunk = VERSIONS[name].chunk
        self.journal.begin(name[0], name)
        beside = f"{self.layout.want}/.{name}"
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            write_all(fd, chunk.to_json())
        finally:
            os.close(fd)
        os.rename(beside, self.layout.want_marker(chunk.id))
        self.journal.end()
        self._next_tick()

    def touch_delete(self, letter: str) -> None:
        """Delete a chunk, as a shell does."""
        self._next_tick()
        self.journal.begin(letter, None)
        path = self.layout.delete_marker(VERSIONS[f"{letter}1"].chunk.id)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
        self.journal.end()
        self._next_tick()

    def spoil(self) -> None:
        """Change bytes of a chunk that is here, past the reconciler."""
        path = f"{self.layout.path(SPOILT.place)}/data/blocks"
        fd = os.open(path, os.O_RDWR)
        try:
            flipped = bytes(byte ^ 255 for byte in os.pread(fd, 2, 0))
            os.pwrite(fd, flipped, 0)
            os.fsync(fd)
        finally:
            os.close(fd)

    def verify(self) -> None:
        """Ask for that chunk's bytes to be verified."""
        self.client.verify_chunk(SPOILT.id)

    def withdraw(self, letter: str) -> None:
        """Remove the want of a chunk that is not available yet."""
        self.journal.begin(letter, None)
        os.unlink(self.layout.want_marker(VERSIONS[f"{letter}1"].chunk.id))
        self.journal.end()

    def _next_tick(self) -> None:
        """Wait until the clock of the ctimes has gone on: careless intents are ordered by it."""
        beside = os.path.dirname(os.path.dirname(self.layout.root))  # it is no part of the life
        os.utime(beside)
        before = os.stat(beside).st_ctime_ns
        while os.stat(beside).st_ctime_ns == before:
            time.sleep(0.001)
            os.utime(beside)

    def hold(self, letter: str) -> None:
        """Take a ref, as a reader does, and keep it."""
        self._refs.append(VERSIONS[f"{letter}1"].hold(self.client))

    def release(self) -> None:
        """Close all refs."""
        while self._refs:
            self._refs.pop().close()
