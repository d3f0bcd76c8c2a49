"""`DataManager`: a client, and in the process that wins `LOCK` the reconciler beside it."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from fsdm.client import Client
from fsdm.concurrency.log import Log
from fsdm.model.errors import (
    DataDirectoryError,
    FsdmError,
    InvalidInputError,
    NoDataDirectoryError,
    ReconcilerRunsError,
)
from fsdm.model.indexes import Index, checked_indexes
from fsdm.model.limits import Limits
from fsdm.model.sources import Source
from fsdm.reconcile.counters import Counters
from fsdm.reconcile.observer import Observer
from fsdm.reconcile.reconciler import Reconciler
from fsdm.store.catalog import Catalog
from fsdm.store.data_dir import Root, make_directories, open_data_dir
from fsdm.store.filesystem import FileSystem
from fsdm.store.leader_lock import BEAT_S, ReconcilerLock
from fsdm.transfer.http.source_settings import Sources
from fsdm.transfer.own_fetcher import looked_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsdm.model.documents import DataChunk
    from fsdm.model.events import Event
    from fsdm.model.layout import Layout
    from fsdm.transfer.own_fetcher import Fetcher
    from fsdm.transfer.requests_engine import Sessions

logger = Log("fsdm")

STANDBY_S = 0.2  # how often a client that is ready to take over asks for LOCK


class DataManager(Client):
    """Keeps the wanted chunks in a data directory.

    It makes the directory where it is missing, restores what is complete, and reconciles in the background if no other
    process does; else it is a client of the one that does, and takes over when that one ends. Where its reconciler ends
    of itself (the directory has gone, or a defect), it lets LOCK go, and `error` says why. `reconcile=False` makes
    it a client only, of a directory that exists. `jobs` chunks are downloaded at once; `limits` (which say
    that as well) are a budget, a reserve of free disk, and durability. `sources` have headers, credentials and bounds
    for the URLs that begin with a prefix. `indexes` are kept of each chunk. `on_event` is called for what happens to
    chunks, in a thread of its own, for one event after the other; no reconciler waits for it (see `Event`). A context
    manager.

    Files come by libcurl, or by a `session` of requests where the sources need one (Kerberos, OAuth, signed requests, a
    client certificate, an adapter). A Session is used by all transfers' threads, several at once. A function that makes
    one is called for as many as are at work at once: each of its sessions is used by one thread at a time. A `fetcher`
    brings all files in place of both, by URLs of whatever scheme: see `Fetcher`.

    Raises:
        InvalidInputError: what a source names cannot be used, or there is a `fetcher`, which would not use it, or
            which is none; `session` is none, or does not go with `fetcher` or `limits`.
        NoDataDirectoryError, UnknownFormatError, UnsafeFileSystemError: the directory cannot be used.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        reconcile: bool = True,
        jobs: int = 8,
        on_event: Callable[[Event], None] | None = None,
        fetcher: Fetcher | None = None,
        session: Sessions | None = None,
        limits: Limits | None = None,
        sources: Iterable[Source] = (),
        indexes: Iterable[Index] = (),
        allow_unknown_fs: bool = False,
    ) -> None:
        self.counters = Counters()
        self._fetcher = None if fetcher is None else looked_at(fetcher)
        self._session = session
        self._limits = self._checked(limits or Limits(jobs=jobs))
        self._sources = Sources(self._used(sources), os.fspath(data_dir))
        self._indexes = checked_indexes(indexes)
        self._reconciler: Reconciler | None = None
        self._lock: ReconcilerLock | None = None
        self._standby: threading.Thread | None = None
        self._error: BaseException | None = None
        if reconcile:
            layout = open_data_dir(data_dir, durable=self._limits.durable, allow_unknown_fs=allow_unknown_fs)
            self._root = Root(layout)
        super().__init__(data_dir)
        self._observer = Observer(on_event if reconcile else None, self.counters)
        if reconcile:
            try:
                with self._root.kept():
                    self._take_over()
                standby = threading.Thread(target=self._stand_by, name="fsdm-standby", daemon=True)
                standby.start()
                self._standby = standby
            except BaseException:
                self.close()
                raise

    def _used(self, sources: Iterable[Source]) -> list[Source]:
        used = list(sources)
        if not all(isinstance(source, Source) for source in used):
            raise InvalidInputError("must be several of Source", field="sources", hint="as [Source(match=…)]")
        if used and self._fetcher is not None:
            what = "a fetcher of one's own does not ask for them"
            raise InvalidInputError(what, field="sources", hint="leave out the fetcher, or the sources")
        return used

    @property
    def reconciling(self) -> bool:
        """Tell whether this process is the one that reconciles."""
        return self._reconciler is not None

    @property
    def reconciler(self) -> Reconciler | None:
        """The reconciler of this process, if it is the one."""
        return self._reconciler

    @property
    def limits(self) -> Limits:
        """The limits that hold, or would if this process reconciled."""
        return self._limits

    @property
    def is_closed(self) -> bool:
        """Tell whether `close` was called."""
        return self._closed.is_set()

    @property
    def error(self) -> BaseException | None:
        """Return the error that has ended the reconciler of this process, if any: it is a client from then on."""
        return self._error

    def __repr__(self) -> str:
        role = "closed" if self.is_closed else "reconciles" if self.reconciling else "a client"
        return f"<{type(self).__name__} {self._layout.root}, {role}>"

    def download_chunk(self, chunk: DataChunk) -> None:
        """See `Client.download_chunk`."""
        super().download_chunk(chunk)
        reconciler = self._reconciler
        if reconciler is not None:
            reconciler.loop.wakeup.notify(chunk.id)

    def change(
        self, limits: Limits, sources: Iterable[Source] | None = None, indexes: Iterable[Index] | None = None
    ) -> None:
        """Keep to these limits from now on; what cannot be changed at run time is logged.

        None keeps the sources, or the indexes.

        Raises:
            InvalidInputError: they are no Limits, or what a source names cannot be used, or an index is none; then all
                stays as it was.
        """
        self._check()
        if not isinstance(limits, Limits):
            hint = "make some: Limits(bytes_per_s=…, jobs=…)"
            raise InvalidInputError(f"must be Limits, not {type(limits).__name__}", field="limits", hint=hint)
        limits = self._checked(limits)
        kept = self._indexes if indexes is None else checked_indexes(indexes)
        if sources is not None:
            self._sources.change(self._used(sources))
        self._limits, self._indexes = limits, kept
        reconciler = self._reconciler
        if reconciler is not None:
            reconciler.loop.change(limits)
            reconciler.indexing.change(kept, limits)

    def close(self) -> None:
        """Stop reconciling (transfers are cut, nothing is lost) and release every ref."""
        super().close()
        if os.getpid() != self._pid:
            return
        if self._standby is not None:
            self._standby.join()
            self._standby = None
        self._step_down()
        self._observer.close()

    def _checked(self, limits: Limits) -> Limits:
        """Return the limits with the transport that a session is."""
        session = self._session
        if session is None:
            return limits
        import requests

        if self._fetcher is not None:
            raise InvalidInputError("must not be given beside a fetcher, which has its own way", field="session")
        if not callable(session) and not isinstance(session, requests.Session):
            hint = "give a requests.Session, or a function that makes one"
            raise InvalidInputError(f"must be a session, not {type(session).__name__}", field="session", hint=hint)
        return Limits(**dict(limits) | {"transport": "requests"})

    def _take_over(self) -> bool:
        self._root.check()  # LOCK is made where it is missing
        try:
            lock = ReconcilerLock(self._layout)
        except ReconcilerRunsError:
            return False
        limits, indexes, reconciler = self._limits, self._indexes, None
        try:
            self._root.check()
            make_directories(self._layout, FileSystem(durable=limits.durable))  # some may have been removed
            reconciler = Reconciler(
                self._layout,
                root=self._root,
                limits=limits,
                fetcher=self._fetcher,
                sources=self._sources,
                session=self._session,
                on_event=self._observer.tell,
                counters=self.counters,
                indexes=indexes,
            )
            reconciler.open()
            reconciler.start()
            self._lock, self._reconciler, self._catalog = lock, reconciler, reconciler.catalog
        except BaseException:
            self._lock = self._reconciler = None
            _end(reconciler, lock)
            raise
        if self._limits is not limits:  # they were changed meanwhile
            reconciler.loop.change(self._limits)
            reconciler.indexing.change(self._indexes, self._limits)
        return True

    def _step_down(self) -> None:
        reconciler, self._reconciler = self._reconciler, None
        lock, self._lock = self._lock, None
        self._catalog = Catalog(self._layout)
        if lock is not None:
            _end(reconciler, lock)

    def _stand_by(self) -> None:
        try:
            self._watch_lock()
        except BaseException as e:  # also SystemExit, which some code of others may raise in a thread of ours
            self._error = e
            trace = None if isinstance(e, FsdmError) else e
            logger.log(logging.ERROR, "the reconciler has ended: %s", repr(e) if trace else e, exc_info=trace)
            self._step_down()

    def _watch_lock(self) -> None:
        """Take over where LOCK is free; step down where it is no longer ours; raise what has ended the reconciler."""
        said = ""
        while not self._closed.wait(STANDBY_S):
            reconciler, lock = self._reconciler, self._lock
            if reconciler is not None and reconciler.error is not None:
                raise reconciler.error
            try:
                if lock is None:
                    self._take_over()
                elif not lock.is_ours():  # LOCK was removed by hand: another process may have taken a new one
                    self._step_down()
                elif reconciler is not None and reconciler.heartbeat.late_s < BEAT_S:
                    lock.beat()
                said = ""
            except NoDataDirectoryError:
                raise
            except (OSError, RuntimeError, DataDirectoryError) as e:  # also: no descriptors or threads, for now
                if str(e) != said:  # once, and not with every try
                    what = "cannot take over %s yet: %s" if lock is None else "cannot look at LOCK of %s: %s"
                    logger.warning(what, self._layout.root, e)
                said = str(e)


def _end(reconciler: Reconciler | None, lock: ReconcilerLock) -> None:
    """Stop a reconciler, and release LOCK once its last worker has ended."""
    if reconciler is None or reconciler.stop():
        lock.close()
    else:  # a slow disk keeps a worker in the middle of a step; nothing else may write before that has ended
        threading.Thread(target=_close_when_ended, args=(reconciler, lock), daemon=True).start()


def _close_when_ended(reconciler: Reconciler, lock: ReconcilerLock) -> None:
    reconciler.stop(None)
    lock.close()


def run_once(
    data_dir: str,
    stop: threading.Event,
    limits: Limits,
    on_event: Callable[[Event], None],
    *,
    sources: Iterable[Source] = (),
    indexes: Iterable[Index] = (),
    wait: bool,
    allow_unknown_fs: bool,
) -> dict[str, str]:
    """Converge, in this thread; return why the rest does not, by id or path. An index that cannot be made is logged.

    Raises:
        InvalidInputError: what a source names cannot be used.
        ReconcilerRunsError: another process reconciles, and `wait` is False.
        DataDirectoryError: the directory cannot be used.
    """
    table = Sources(sources, data_dir)
    layout = open_data_dir(data_dir, durable=limits.durable, allow_unknown_fs=allow_unknown_fs)
    root = Root(layout)
    lock = _lock(layout, stop, wait=wait)
    if lock is None:
        return {layout.root: "stopped before another process released it"}
    kept = checked_indexes(indexes)
    with closing(Observer(on_event, counters := Counters())) as observer:
        reconciler = Reconciler(
            layout, root=root, limits=limits, sources=table, on_event=observer.tell, counters=counters, indexes=kept
        )
        try:
            with root.kept():
                reconciler.open()
                reconciler.loop.manifest_check.check_all()
                while not stop.is_set() and not reconciler.loop.is_done():
                    reconciler.loop.step(min(reconciler.loop.wait_s(), STANDBY_S))
                    lock.beat()
                reconciler.indexing.settle(stop)
                troubles = reconciler.loop.troubles()
                return {layout.root: "stopped"} | troubles if stop.is_set() else troubles
        finally:
            _end(reconciler, lock)


def _lock(layout: Layout, stop: threading.Event, *, wait: bool) -> ReconcilerLock | None:
    while True:
        try:
            return ReconcilerLock(layout)
        except ReconcilerRunsError:
            if not wait:
                raise
        if stop.wait(STANDBY_S):
            return None
