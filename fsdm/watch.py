"""watchdog → "look again".

An event only rings: with the id that it names, or with None for "look at everything". Nothing is decided from it, and
none is relied on: the reconciler scans by itself as well. What watchdog's observer does not deliver is taken from its
inotify thread directly: the close of a directory (a ref has gone), an overflow of the kernel's queue, a watched
directory that was removed or replaced. Where inotify is not to be had, it says so once, and the scans carry on alone.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyFD, Mask

from fsdm.layout import is_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.observers.inotify_c import InotifyEvent, WatchDescriptor

    from fsdm.layout import Layout, Place

logger = logging.getLogger(__name__)

_SELF: Final = (
    InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_DONT_FOLLOW
)
_ENTRIES: Final = InotifyConstants.IN_CREATE | InotifyConstants.IN_MOVE | InotifyConstants.IN_DELETE
MARKERS_MASK: Final = Mask(_SELF | _ENTRIES | InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_ATTRIB)
ROOT_MASK: Final = Mask(_SELF | _ENTRIES)
RELEASE_MASK: Final = Mask(InotifyConstants.IN_CLOSE_NOWRITE | InotifyConstants.IN_ONLYDIR)


class Watch:
    """The kernel's events of `want/`, `delete/`, and of directories that refs hold."""

    def __init__(self, layout: Layout, ring: Callable[[str | None], None]) -> None:
        self._layout = layout
        self._ring = ring
        self._armed: dict[str, tuple[int, int]] = {}  # directory → (device, inode) that is watched
        self._held: dict[Place, tuple[WatchDescriptor, _Callback]] = {}
        self._inotify: InotifyFD | None = None

    def start(self) -> None:
        """Begin; where inotify is not to be had, log why and do nothing from then on."""
        try:
            self._inotify = InotifyFD()
        except OSError as e:
            logger.warning("no inotify (%s): changes are found by scanning, which takes up to a second or so", e)
            return
        self._inotify.start()
        self.arm()

    def stop(self) -> None:
        if self._inotify is not None:
            self._inotify.stop()
            self._inotify.join()
            self._inotify = None

    def arm(self) -> None:
        """Watch the directories that are not watched yet: at the start, and after one was removed or replaced."""
        if self._inotify is None:
            return
        for path in (self._layout.root, self._layout.want, self._layout.delete):
            try:
                found = os.stat(path)
                if self._armed.get(path) == (found.st_dev, found.st_ino):
                    continue
                callback = self._callback(path)
                self._inotify.add_callback(os.fsencode(path), callback.mask, callback, callback.id)
                self._armed[path] = (found.st_dev, found.st_ino)
            except OSError as e:
                if self._armed.pop(path, None) is not None or not isinstance(e, FileNotFoundError):
                    logger.warning("%s is not watched: %s; it is scanned instead", path, e)

    def hold(self, place: Place) -> bool:
        """Ring with the chunk's id whenever a descriptor of its directory is closed. True where this is new."""
        if self._inotify is None or place in self._held:
            return False
        ring = partial(self._ring, place.chunk_id)
        callback = _Callback(RELEASE_MASK, lambda _event: ring(), ring, partial(self._ring, None))
        try:
            path = os.fsencode(self._layout.path(place))
            self._held[place] = (self._inotify.add_callback(path, callback.mask, callback, callback.id), callback)
        except OSError as e:  # no watches left, or it has just gone: the timer remains
            logger.debug("%s is not watched: %s", place, e)
            return False
        return True

    def release(self, place: Place) -> None:
        """The directory is no longer of interest."""
        held = self._held.pop(place, None)
        if held is not None and self._inotify is not None:
            self._inotify.remove_callbacks([(held[0], held[1].id)])

    def _callback(self, path: str) -> _Callback:
        is_root = path == self._layout.root
        return _Callback(
            mask=ROOT_MASK if is_root else MARKERS_MASK,
            seen=self._in_root if is_root else partial(self._in_markers, path),
            lost=partial(self._lost, path),
            overflow=partial(self._ring, None),
        )

    def _in_markers(self, path: str, event: InotifyEvent) -> None:
        name = os.fsdecode(event.name)
        if is_id(name):
            self._ring(name)
        elif not name:  # the directory itself was moved or removed
            self._lost(path)

    def _in_root(self, event: InotifyEvent) -> None:
        if event.name in {b"want", b"delete", b""}:
            self._ring(None)

    def _lost(self, path: str) -> None:
        self._armed.pop(path, None)
        self._ring(None)


@dataclass(frozen=True, eq=False)
class _Callback:
    """watchdog's WatchCallback. It runs in watchdog's thread, where an exception would end all watching."""

    mask: Mask
    seen: Callable[[InotifyEvent], None]
    lost: Callable[[], None]
    overflow: Callable[[], None]

    @property
    def id(self) -> CallbackId:
        return CallbackId(id(self))

    def on_event(self, event: InotifyEvent) -> None:
        self.seen(event)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:  # noqa: ARG002 watchdog's signature
        self.lost()

    def on_queue_overflow(self) -> None:
        self.overflow()
