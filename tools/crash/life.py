"""A life of a data directory: what is asked for, what the source does, who reconciles; told in one thread.

It is lived the same way each time, so that it can be cut off at each call. What was asked goes into a `Journal`,
from which a judge knows what must come of it. The lives themselves stand in `lives`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from unittest import mock

import fsdm.transfer.resume_record
from fsdm.client import Client
from fsdm.concurrency.workers import InlineWorkers
from fsdm.model.layout import Layout
from fsdm.reconcile.reconciler import Reconciler
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem, write_all
from fsdm.store.leader_lock import ReconcilerLock
from tools.crash.source import SPOILT, VERSIONS, Source, small_bounds

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from fsdm.store.refs import ChunkRef
    from tools.crash.tap import Call

PASSES: Final = 60  # so many are more than enough to converge
PASS_S: Final = 0.01
LATER_S: Final = 7200.0  # after a crash: so that whatever waits, waits no more


class DiedError(BaseException):
    """The reconciler of a life is gone, between two of its calls."""


@dataclass
class Intent:
    """What was asked for a chunk: a version of it, or None where it is to go.

    `at`, and `ended`: so many calls had been made when somebody began to ask, and when that was done (None: never).
    """

    letter: str
    result: str | None
    at: int = 0
    ended: int | None = None


@dataclass
class Journal:
    """What was asked, in order; `calls` is how many the tap has seen by now."""

    intents: list[Intent] = field(default_factory=list)
    calls: int = 0
    _open: list[Intent] = field(default_factory=list)

    def begin(self, letter: str, result: str | None) -> None:
        """Somebody begins to ask."""
        self.intents.append(Intent(letter, result, self.calls))
        self._open.append(self.intents[-1])

    def end(self) -> None:
        """The one that began last has asked."""
        self._open.pop().ended = self.calls

    def of(self, letter: str) -> list[Intent]:
        """What was asked for one chunk."""
        return [intent for intent in self.intents if intent.letter == letter]


@dataclass
class Cut:
    """What happens instead of (or before) the first call of this kind to a path with this in it."""

    kind: str
    path: str
    deed: Callable[[], None]


class Life:
    """One data directory and those who work on it. A context manager.

    `durable`: whether anything is fsynced; `boot`: what tells this run of the machine from others; `began`: so many
    seconds from now.
    """

    def __init__(
        self,
        root: str,
        *,
        journal: Journal | None = None,
        durable: bool = True,
        boot: str = "first",
        began: float = 0.0,
    ) -> None:
        self.layout = Layout(root)
        self.journal = journal or Journal()
        self.source = Source()
        self.clock = time.time() + began
        self.written_back: Callable[[], None] = lambda: None
        self.reconciler: Reconciler | None = None
        self._lock: ReconcilerLock | None = None
        self._durable = durable
        self._bounds = small_bounds()
        self._booted = mock.patch.object(fsdm.transfer.resume_record, "boot_id", return_value=boot)
        self._client: Client | None = None
        self._refs: list[ChunkRef] = []
        self._cut: Cut | None = None
        self._dead = False

    def __enter__(self) -> Self:
        self._bounds.__enter__()
        self._booted.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.drop()
        self.let_go()
        if self._client is not None:
            self._client.close()
        self._booted.__exit__(None, None, None)
        self._bounds.__exit__(None, None, None)

    # ------------------------------------------------------------------------------------------------- the reconciler

    def start(self) -> None:
        """A process starts, and reconciles."""
        fs = FileSystem(durable=self._durable)
        make_layout(self.layout, fs)
        self._lock = ReconcilerLock(self.layout)
        workers = InlineWorkers()
        self.reconciler = Reconciler(
            self.layout,
            fetcher=self.source,
            fs=fs,
            workers=workers,
            clock=lambda: self.clock,
            jitter=lambda: 1.0,
        )
        self.reconciler.open()

    def drop(self) -> None:
        """The process is gone, and its locks with it."""
        if self.reconciler is not None:
            self.reconciler.stop(0.0)
            self.reconciler = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def run(self, loop: int = PASSES) -> bool:
        """Pass after pass, until there is nothing to be done now; whether that came to be."""
        assert self.reconciler is not None
        for _ in range(loop):
            self.clock += PASS_S
            self.reconciler.loop.wakeup.notify(None)
            if not self.reconciler.loop.step(0.0):
                return True
        return False

    def wait(self, seconds: float) -> None:
        """Time passes; meanwhile the kernel writes back what it has."""
        self.clock += seconds
        self.written_back()

    def dies_at(self, kind: str, path: str) -> None:
        """It runs, and is gone before this call; another process takes over."""

        def die() -> None:
            self._dead = True

        self._cut = Cut(kind, path, die)
        try:
            if self.reconciler is None:
                self.start()
            self.run()
        except DiedError:
            self.drop()
            self._dead = False
        else:
            raise AssertionError(f"there was no {kind} of {path}")

    def meanwhile(self, kind: str, path: str, deed: Callable[[], None]) -> None:
        """Somebody does something just before this call."""
        self._cut = Cut(kind, path, deed)
        self.run()
        assert self._cut is None, f"there was no {kind} of {path}"

    def before(self, call: Call) -> None:
        """For the tap: a call is about to be made."""
        cut = self._cut
        if cut is not None and cut.kind == call.kind and cut.path in f"{call.path} {call.target}":
            self._cut = None
            cut.deed()
        if self._dead:
            raise DiedError

    # --------------------------------------------------------------------------------------------- those who ask

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client(self.layout.root)
        return self._client

    def want(self, name: str) -> None:
        """A careful client wants a chunk."""
        self.journal.begin(name[0], name)
        self.client.download_chunk(VERSIONS[name].chunk)
        self.journal.end()

    def delete(self, letter: str) -> None:
        """A careful client wants a chunk to go."""
        self.journal.begin(letter, None)
        self.client.delete_chunk(VERSIONS[f"{letter}1"].chunk.id)
        self.journal.end()

    def move_want(self, name: str) -> None:
        """A shell wants a chunk: it writes a file beside, and renames it."""
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
        """A shell wants a chunk to go."""
        self._next_tick()
        self.journal.begin(letter, None)
        path = self.layout.delete_marker(VERSIONS[f"{letter}1"].chunk.id)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
        self.journal.end()
        self._next_tick()

    def spoil(self) -> None:
        """Bytes of a chunk that is here change by themselves."""
        path = f"{self.layout.path(SPOILT.place)}/data/blocks"
        fd = os.open(path, os.O_RDWR)
        try:
            flipped = bytes(byte ^ 255 for byte in os.pread(fd, 2, 0))
            os.pwrite(fd, flipped, 0)
            os.fsync(fd)
        finally:
            os.close(fd)

    def verify(self) -> None:
        """Somebody wants that chunk's bytes to be looked at."""
        self.client.verify_chunk(SPOILT.id)

    def withdraw(self, letter: str) -> None:
        """Somebody removes the want of a chunk that is not available yet."""
        self.journal.begin(letter, None)
        os.unlink(self.layout.want_marker(VERSIONS[f"{letter}1"].chunk.id))
        self.journal.end()

    def _next_tick(self) -> None:
        """Wait (milliseconds) until the clock that ctimes are taken from has gone on: who is careless relies on it."""
        beside = os.path.dirname(os.path.dirname(self.layout.root))  # nobody looks there
        os.utime(beside)
        before = os.stat(beside).st_ctime_ns
        while os.stat(beside).st_ctime_ns == before:
            os.utime(beside)

    def hold(self, letter: str) -> None:
        """A reader takes a ref, and keeps it."""
        chunk = VERSIONS[f"{letter}1"].chunk
        ref = self.client.find_chunk(chunk.dataset_id, chunk.block_range.start)
        assert ref is not None
        self._refs.append(ref)

    def let_go(self) -> None:
        """The readers let go of all that they hold."""
        while self._refs:
            self._refs.pop().close()
