"""Hooks in the package: each step is a point, and is stamped with the time of the world."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import fsdm.store.flock
import fsdm.store.marker_removal
import fsdm.store.markers
import fsdm.store.refs
from fsdm.model.layout import Layout
from fsdm.model.state import Marker
from fsdm.store.filesystem import FileSystem
from tests.support.world.clocks import Clocks
from tests.support.world.points import Points

MARKER_MODULES = (fsdm.store.markers, fsdm.store.marker_removal)


@dataclass
class QueuedWorkers:
    """Keeps what is submitted until the world runs it: see `fsdm.concurrency.workers.Workers`."""

    works: deque[Callable[[], None]]

    def submit(self, work: Callable[[], None]) -> None:
        self.works.append(work)

    def replenish(self) -> None:
        """Do nothing: no thread was refused."""

    def resize(self, size: int) -> None:
        """Do nothing: there are no threads."""

    def close(self, timeout_s: float) -> bool:
        return True


class HookedFileSystem(FileSystem):
    """Tells the world of each step. Nothing is fsynced: a process that dies loses nothing by that."""

    def __init__(self, points: Points, clocks: Clocks) -> None:
        self.step = points.reach
        self._clocks = clocks
        self._writes = False

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        self._clocks.stamp(target, changed=self._writes)

    def write(self, path: str, data: bytes, **how: Any) -> None:
        self._writes = True
        try:
            super().write(path, data, **how)
        finally:
            self._writes = False

    def fsync_dir(self, path: str) -> None:
        self.step("fsync_dir", path)
        assert os.path.isdir(path)

    def fsync_file(self, fd: int, path: str) -> None:
        self.step("fsync_file", path)


@dataclass
class Hooks:
    """The hooks of one world; `came_back` is told of a want that stands again by itself."""

    layout: Layout
    points: Points
    clocks: Clocks
    came_back: Callable[[str], None]

    @contextmanager
    def hooked(self) -> Iterator[list[str]]:
        """Hook the package for the length of the block; the list is of the errors that are logged meanwhile."""
        with ExitStack() as stack:
            for where, name, hook in (*self._of_markers(), *self._of_refs()):
                stack.enter_context(mock.patch.object(where, name, hook))
            logged: list[str] = []
            handler = _Errors(logged)
            logging.getLogger("fsdm").addHandler(handler)
            stack.callback(logging.getLogger("fsdm").removeHandler, handler)
            yield logged

    def _of_markers(self) -> Iterator[tuple[Any, str, Any]]:
        read_regular, marker_of = fsdm.store.markers.read_regular, fsdm.store.markers.marker_of
        lock, take = fsdm.store.markers.intents_lock, fsdm.store.flock.Claim.take

        @contextmanager
        def intents_lock(layout: Layout, wait_s: float) -> Iterator[bool]:
            self.points.reach("lock", f"{layout.want}/{self.points.subject}")
            with lock(layout, wait_s) as got:
                before, self.points.locked = self.points.locked, True
                try:
                    yield got
                finally:
                    self.points.locked = before

        def stamped(found: os.stat_result, *, limit: int | None = None) -> Marker:
            ctime_ns, mtime_ns = self.clocks.times_of(found.st_ino)
            return replace(marker_of(found, limit=limit), ctime_ns=ctime_ns, mtime_ns=mtime_ns)

        def read(path: str, limit: int) -> Any:
            self.points.reach("read", path)
            found = read_regular(path, limit)
            self.clocks.reads(0 if found is None else found[0].st_ino)
            return found

        def claim(it: fsdm.store.flock.Claim) -> bool:
            self.points.reach("claim", it.path)
            return take(it)

        for module in MARKER_MODULES:
            yield module, "os", _HookedOs(self)
            yield module, "intents_lock", intents_lock
            yield module, "read_regular", read
        yield fsdm.store.marker_removal, "time", _HookedTime(self)
        yield fsdm.store.markers, "CLIENT_WAIT_S", 0.0
        yield fsdm.store.marker_removal, "RECONCILER_WAIT_S", 0.0
        yield fsdm.store.markers, "marker_of", stamped
        yield fsdm.store.flock.Claim, "take", claim

    def _of_refs(self) -> Iterator[tuple[Any, str, Any]]:
        refs = fsdm.store.refs
        open_fd, try_flock, exists = refs.open_fd, refs.try_flock, refs.exists
        opened: dict[int, str] = {}

        def hooked_open(path: str) -> int:
            self.points.reach("ref-open", path)
            fd = open_fd(path)
            opened[fd] = path
            return fd

        def hooked_lock(fd: int, flags: Any) -> bool:
            self.points.reach("ref-lock", opened[fd])
            return try_flock(fd, flags)

        def hooked_look(path: str, dir_fd: int | None = None) -> bool:
            self.points.reach("ref-look", path if dir_fd is None else f"{opened[dir_fd]}/{path}")
            return exists(path, dir_fd)

        yield refs, "open_fd", hooked_open
        yield refs, "try_flock", hooked_lock
        yield refs, "exists", hooked_look


class _HookedOs:
    """`os` as the marker modules see it: each call is a point, and stamps what it changes."""

    def __init__(self, hooks: Hooks) -> None:
        self._reach = hooks.points.reach
        self._clocks = hooks.clocks
        self._came_back = hooks.came_back
        self._paths: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        self._reach("open", path)
        is_new = not os.path.lexists(path)
        fd = os.open(path, flags, mode)
        self._paths[fd] = path
        if is_new:
            self._clocks.stamp(path, changed=True)
        return fd

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        os.close(fd)

    def lstat(self, path: str) -> os.stat_result:
        self._reach("lstat", path)
        return os.lstat(path)

    def utime(self, fd: int, ns: tuple[int, int] | None = None) -> None:
        self._reach("utime", self._paths[fd])
        os.utime(fd)
        self._clocks.stamp(fd, changed=True)
        if ns is not None:
            self._clocks.copies_mtime(fd)

    def rename(self, source: str, target: str) -> None:
        self._reach("rename", source)
        os.rename(source, target)
        self._clocks.stamp(target)

    def link(self, source: str, target: str, *, follow_symlinks: bool) -> None:
        os.link(source, target, follow_symlinks=follow_symlinks)
        self._clocks.stamp(target)
        if not os.path.basename(source).startswith(fsdm.store.marker_removal.ASIDE):
            self._came_back(target)

    def unlink(self, path: str) -> None:
        self._reach("unlink", path)
        os.unlink(path)


class _HookedTime:
    """`time` as `fsdm.store.marker_removal` sees it: the clock of ctimes is the world's tick."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def clock_gettime_ns(self, clock: int) -> int:
        assert clock == fsdm.store.marker_removal.CLOCK_REALTIME_COARSE
        return self._hooks.clocks.tick

    def sleep(self, seconds: float) -> None:
        self._hooks.points.reach("sleep", f"{self._hooks.layout.want}/{self._hooks.points.subject}")
        self._hooks.clocks.tick += 1


class _Errors(logging.Handler):
    """An error in the log is a defect: what the disk or the network do is not logged as one."""

    def __init__(self, logged: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._logged = logged

    def emit(self, record: logging.LogRecord) -> None:
        self._logged.append(f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}")
