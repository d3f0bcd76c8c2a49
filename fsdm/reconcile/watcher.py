"""Watching for changes by inotify(7), through watchdog.

An event only notifies: with the id that it names, or with None for "look at everything". watchdog's inotify thread is
used directly, for its observer does not deliver all: the close of a directory (a ref has gone), an overflow of the
kernel's queue, a watched directory that was removed or replaced.
Invariant: a directory that is watched has one watch, and what is no longer at its path has none.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyFD, Mask

from fsdm.concurrency.log import Log
from fsdm.model.layout import PAUSE, RELEASE, is_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.observers.inotify_c import InotifyEvent, WatchDescriptor

    from fsdm.model.layout import Layout, Place

logger = Log(__name__)

_SELF: Final = (
    InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_DONT_FOLLOW
)
_ENTRIES: Final = InotifyConstants.IN_CREATE | InotifyConstants.IN_MOVE | InotifyConstants.IN_DELETE
MARKERS_MASK: Final = Mask(_SELF | _ENTRIES | InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_ATTRIB)
ROOT_MASK: Final = Mask(_SELF | _ENTRIES)
NO_DESCRIPTOR: Final = -1
NO_WATCH: Final = -1
REST_S: Final = 0.002  # after a burst: more events come, and each read wakes a thread
BURST_EVENTS: Final = 8  # one marker that is placed and converges makes fewer in a read
_ALL: Final = ""
WATCHED: Final = ("want", "delete", "verify", "acquire", "evict")
RELEASE_MASK: Final = Mask(InotifyConstants.IN_CLOSE_NOWRITE | InotifyConstants.IN_ONLYDIR)


class Inotify(InotifyFD):
    """watchdog's inotify, that leaves no descriptor open where it cannot begin, and reads a burst of events at once."""

    def __init__(self) -> None:
        self._inotify_fd = NO_DESCRIPTOR
        self._come = 0  # events of the last read
        try:
            super().__init__()
        except OSError:  # there was one for inotify, and none for the pipe that ends it
            if self._inotify_fd != NO_DESCRIPTOR:
                os.close(self._inotify_fd)
            raise

    def start(self) -> None:
        try:
            super().start()
        except RuntimeError:  # can't start new thread
            self._close_resources()
            raise

    def handle_event(self, event: InotifyEvent) -> None:
        super().handle_event(event)
        self._come += 1

    def read_events(self, **how: Any) -> list[InotifyEvent]:
        if self._come >= BURST_EVENTS:
            time.sleep(REST_S)
        self._come = 0
        return super().read_events(**how)


class Watcher:
    """The watches of one data directory: of markers, and of directories that refs hold."""

    def __init__(self, layout: Layout, notify: Callable[[str | None], None]) -> None:
        self._layout = layout
        self._notify = notify
        self._armed: dict[str, _Armed] = {}
        self._held: dict[Place, tuple[WatchDescriptor, _Callback]] = {}
        self._inotify: Inotify | None = None
        self._is_on = False
        self._told: set[str] = set()  # what is known not to be had: a directory, or _ALL

    def start(self) -> None:
        """Begin to watch; where inotify is not to be had, `arm` asks again."""
        self._is_on = True
        self.arm()

    def stop(self) -> None:
        self._is_on = False
        self._end()

    def arm(self) -> None:
        """Watch the directories that are not watched yet, or were removed or replaced."""
        if not self._is_on or not self._begin():
            return
        for path in (self._layout.root, *(getattr(self._layout, name) for name in WATCHED)):
            try:
                self._arm(path)
            except OSError as e:
                if self._armed.pop(path, None) is not None or not isinstance(e, FileNotFoundError):
                    self._tell(path, f"{path} is not watched: {e}; it is scanned instead")
            else:
                self._untell(path, f"{path} is watched again")

    def _begin(self) -> bool:
        """Begin inotify where it has not; tell whether it works."""
        if self._inotify is not None and self._inotify.is_alive():
            return True
        self._end()  # its thread has died
        try:
            inotify = Inotify()
            inotify.start()
        except (OSError, RuntimeError) as e:  # no instances or descriptors left, or no threads
            self._tell(_ALL, f"no inotify ({e}): changes are found by scanning, which takes up to a second or so")
            return False
        self._untell(_ALL, "there is inotify again")
        self._inotify = inotify
        return True

    def _end(self) -> None:
        inotify, self._inotify = self._inotify, None
        if inotify is not None:
            inotify.stop()
            inotify.join()
        self._armed.clear()
        self._held.clear()

    def _arm(self, path: str) -> None:
        found, armed = os.stat(path), self._armed.get(path)
        if armed is not None and armed.identity == (found.st_dev, found.st_ino):
            return
        is_root = path == self._layout.root
        callback = _Callback(
            mask=ROOT_MASK if is_root else MARKERS_MASK,
            on_event=self._in_root if is_root else partial(self._in_markers, path),
            on_watch_deleted=lambda _wd: self._lost(path),
            on_queue_overflow=partial(self._notify, None),
        )
        self._armed[path] = _Armed((found.st_dev, found.st_ino), self._add(path, callback), callback)
        if armed is not None and self._inotify is not None:  # it was replaced, or mounted over, unnoticed
            self._inotify.remove_callbacks([(armed.wd, armed.callback.id)])

    def _add(self, path: str, callback: _Callback) -> WatchDescriptor:
        assert self._inotify is not None
        wd = self._inotify.add_callback(os.fsencode(path), callback.mask, callback, callback.id)
        if wd == NO_WATCH:  # watchdog does not tell of EACCES
            self._inotify.remove_callbacks([(wd, callback.id)])
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return wd

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning(text)

    def _untell(self, what: str, text: str) -> None:
        if what in self._told:
            self._told.discard(what)
            logger.info(text)

    def hold(self, place: Place) -> bool:
        """Notify the id when a descriptor of its directory is closed; tell whether that is new."""
        if self._inotify is None or place in self._held:
            return False
        notify = partial(self._notify, place.chunk_id)
        callback = _Callback(RELEASE_MASK, lambda _event: notify(), lambda _wd: notify(), partial(self._notify, None))
        try:
            self._held[place] = (self._add(self._layout.path(place), callback), callback)
        except OSError as e:  # no watches left, or it has just gone: the timer remains
            logger.debug("%s is not watched: %s", place, e)
            return False
        return True

    def release(self, place: Place) -> None:
        held = self._held.pop(place, None)
        if held is not None and self._inotify is not None:
            self._inotify.remove_callbacks([(held[0], held[1].id)])

    def _in_markers(self, path: str, event: InotifyEvent) -> None:
        name = os.fsdecode(event.name)
        if is_id(name):
            self._notify(name)
        elif name == RELEASE:
            self._notify(None)
        elif not name:  # the directory itself was moved or removed
            self._lost(path)

    def _in_root(self, event: InotifyEvent) -> None:
        if event.name in {*map(str.encode, WATCHED), PAUSE.encode(), b""}:
            self._notify(None)

    def _lost(self, path: str) -> None:
        self._armed.pop(path, None)
        self._notify(None)


@dataclass(frozen=True, slots=True)
class _Armed:
    """A directory that is watched, and as which (device, inode)."""

    identity: tuple[int, int]
    wd: WatchDescriptor
    callback: _Callback


@dataclass(frozen=True, eq=False)
class _Callback:
    """watchdog's WatchCallback. It runs in watchdog's thread, which an exception would end."""

    mask: Mask
    on_event: Callable[[InotifyEvent], None]
    on_watch_deleted: Callable[[WatchDescriptor], None]
    on_queue_overflow: Callable[[], None]

    @property
    def id(self) -> CallbackId:
        return CallbackId(id(self))
