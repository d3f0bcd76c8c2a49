"""Surveys: how a data directory stands, again and again, read from the files alone, at a cost that grows with what is
pending, not with what is here.

Each look lists names. A document (a want's sizes, a failure, READY of a chunk that has come) is read once, and again
where its file has changed; what there are many of is read by and by, as much at a look as `READ_S` allows, and is not
known until then. Only of what is being fetched the bytes are looked at each time (`extents`).

Nothing is changed, and nothing is waited for. Belongs to one thread.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from fsdm.model.layout import PARTS, READY, is_id
from fsdm.status.chunk_status import read_disk_status
from fsdm.status.progress import Failing, Retiring, Running, Survey
from fsdm.store.catalog import Catalog
from fsdm.store.disk_usage import came_in
from fsdm.store.filesystem import exists
from fsdm.store.holders import Holders, look_for_holders
from fsdm.store.json_files import declared_bytes, read_document
from fsdm.store.leader_lock import who_reconciles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsdm.model.layout import Layout, Place

READ_S: Final = 0.05  # of each look, for each kind of documents that were not read before
HOLDERS_S: Final = 2.0  # who holds what is looked for so often; or, where that costs more, …
HOLDERS_SHARE: Final = 20  # … after so many times its own duration
HELD_MAX: Final = 100  # of so many retiring chunks, the oldest

_Stamp = tuple[int, int, int]


class Surveyor:
    """Looks at one data directory, again and again."""

    def __init__(self, layout: Layout, *, clock: Callable[[], float] = time.time, read_s: float = READ_S) -> None:
        self._layout = layout
        self._clock = clock
        self._read_s = read_s
        self._catalog = Catalog(layout, own=True)  # refreshed by each look alone
        self._standing: set[str] = set()  # in chunks/
        self._sizes: dict[str, int] = {}  # of those of them that have READY and were counted
        self._uncounted: dict[str, bool] = {}  # the others; whether READY was looked for, in vain
        self._here_bytes = 0
        self._totals: dict[str, int | None] = {}  # what wants declare, of those that were read
        self._failures: dict[str, tuple[_Stamp, Failing, _Stamp | None]] = {}  # of which file, and of which marker
        self._partials: dict[str, int | None] = {}  # what had come of each when it was looked at last, if ever
        self._came_bytes = 0
        self._looked = False
        self._holders: dict[str, Holders] = {}
        self._holders_due = 0.0  # monotonic

    def look(self) -> Survey:
        """How it stands now.

        Raises:
            OSError: the data directory itself has gone, or `chunks/` may not be listed.
        """
        layout, now = self._layout, self._clock()
        disk, owner = read_disk_status(layout), who_reconciles(layout)
        unlisted: list[str] = []
        directories = (layout.want, layout.delete, layout.partial, layout.failed)
        wanted, deleted, partials, failed = (_ids(directory, unlisted) for directory in directories)
        self._see(self._catalog.refresh())
        self._count()
        self._read_failures(failed)
        self._read_totals(wanted, partials)
        paused = exists(layout.pause)
        begun = set() if paused else {one for one in (wanted & partials) - deleted if self._may_run(one, now)}
        running = self._measure(begun, partials)
        suspect = (self._standing & (wanted | failed)) | {one for one, in_vain in self._uncounted.items() if in_vain}
        unready = {one for one in suspect - deleted if not self._is_ready(one)}
        settled = self._standing - unready - wanted - deleted  # available: what failed/ID says of it is left over
        stuck = [self._failures[one][1] for one in failed - begun - settled if one in self._failures]
        queued = wanted - begun - deleted - failed
        left, unknown = self._left(running, queued)
        retiring = deleted & self._standing
        self._looked = True
        return Survey(
            at=now,
            reconciler=None if owner is None else str(owner),
            free_bytes=disk.free_bytes,
            read_only=disk.read_only,
            paused=paused,
            braked=exists(layout.brake),
            here=len(self._standing) - len(retiring) - len(unready),
            here_bytes=self._here_bytes,
            uncounted=len(self._uncounted),
            unready=len(unready),
            wanted=len(queued),
            deleting=len(deleted - retiring) + len(partials - wanted - deleted),
            running=tuple(running),
            retiring=tuple(self._retiring(retiring)),
            failing=tuple(one for one in stuck if one.kind != "room"),
            waiting=tuple(one for one in stuck if one.kind == "room"),
            came_bytes=self._came_bytes,
            left_bytes=left,
            unknown=unknown,
            unlisted=tuple(unlisted),
        )

    def _until(self) -> float:
        """Until when one kind of documents may be read from now on: each has its time, whatever the others take."""
        return time.monotonic() + self._read_s

    # --------------------------------------------------------------------------------------------------- what is here

    def _see(self, changed: set[str]) -> None:
        """These have come to `chunks/`, or have left it."""
        for chunk_id in changed:
            self._here_bytes -= self._sizes.pop(chunk_id, 0)
            if self._catalog.places(chunk_id):
                self._standing.add(chunk_id)
                self._uncounted[chunk_id] = False
                if self._looked and self._count_one(chunk_id):
                    self._came_bytes += self._not_counted_yet(chunk_id)
            else:
                self._standing.discard(chunk_id)
                self._uncounted.pop(chunk_id, None)

    def _count(self) -> None:
        until = self._until()
        for chunk_id in list(self._uncounted):
            if time.monotonic() > until:
                break
            self._count_one(chunk_id)

    def _count_one(self, chunk_id: str) -> bool:
        for place in self._catalog.places(chunk_id):
            size = declared_bytes(read_document(f"{self._layout.path(place)}/{READY}").get("files"))
            if size is not None:
                del self._uncounted[chunk_id]
                self._sizes[chunk_id] = size
                self._here_bytes += size
                return True
        self._uncounted[chunk_id] = True
        return False

    def _not_counted_yet(self, chunk_id: str) -> int:
        """What has come of a chunk that is here now, since it was looked at last."""
        size = self._sizes[chunk_id]
        before = self._partials.get(chunk_id, 0)
        return 0 if before is None else max(size - before, 0)

    def _is_ready(self, chunk_id: str) -> bool:
        return any(exists(f"{self._layout.path(place)}/{READY}") for place in self._catalog.places(chunk_id))

    # ----------------------------------------------------------------------------------------------- what is on its way

    def _may_run(self, chunk_id: str, now: float) -> bool:
        """Whether a partial is probably being fetched: it is not known to wait."""
        known = self._failures.get(chunk_id)
        if known is None:
            return True
        _, failing, marker = known
        if marker is not None and marker != _stamp(self._layout.want_marker(chunk_id)):
            return True  # touched since: it was tried anew at once
        if failing.kind == "disk":
            return True  # what the disk has refused has no partial, unless it is tried again
        return failing.kind == "transfer" and failing.next_attempt_at is not None and failing.next_attempt_at <= now

    def _measure(self, begun: set[str], partials: set[str]) -> list[Running]:
        measured: dict[str, int | None] = {}
        running = []
        for chunk_id in partials:
            measured[chunk_id] = before = self._partials.get(chunk_id)
            if chunk_id not in begun:
                continue
            size = came_in(self._layout.partial_of(chunk_id))
            if size is None:
                continue  # published, or discarded, since it was listed
            measured[chunk_id] = size
            if self._looked and (before is not None or chunk_id not in self._partials):
                self._came_bytes += max(size - (before or 0), 0)
            running.append(Running(chunk_id, size, self._total_of(chunk_id)))
        self._partials = measured
        return running

    def _total_of(self, chunk_id: str) -> int | None:
        """What a chunk that is fetched will be: as its want declares, or else as the servers have said."""
        total = self._totals.get(chunk_id)
        if total is not None:
            return total
        files = read_document(self._layout.want_marker(chunk_id)).get("files")
        parts = read_document(f"{self._layout.partial_of(chunk_id)}/{PARTS}").get("files")
        if not isinstance(files, dict) or not isinstance(parts, dict):
            return None
        sizes = [_size(source, parts.get(name)) for name, source in files.items()]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def _read_totals(self, wanted: set[str], partials: set[str]) -> None:
        until = self._until()
        for chunk_id in self._totals.keys() - wanted:
            del self._totals[chunk_id]
        for chunk_id in partials - self._partials.keys():
            self._totals.pop(chunk_id, None)  # the want may have been written anew since it was read
        for chunk_id in wanted - self._totals.keys():
            if time.monotonic() > until:
                break
            files = read_document(self._layout.want_marker(chunk_id)).get("files")
            self._totals[chunk_id] = declared_bytes(files)

    def _left(self, running: Iterable[Running], queued: Iterable[str]) -> tuple[int, int]:
        """The bytes that are still to come, and of how many chunks nobody knows."""
        left = unknown = 0
        for one in running:
            if one.total_bytes is None:
                unknown += 1
            else:
                left += max(one.total_bytes - one.size_bytes, 0)
        for chunk_id in queued:
            total = self._totals.get(chunk_id)
            if total is None:
                unknown += 1
            else:
                left += max(total - (self._partials.get(chunk_id) or 0), 0)
        return left, unknown

    # ------------------------------------------------------------------------------------------------- what does not go

    def _read_failures(self, failed: set[str]) -> None:
        until = self._until()
        for chunk_id in self._failures.keys() - failed:
            del self._failures[chunk_id]
        for chunk_id in failed:
            path = self._layout.failed_of(chunk_id)
            stamp, known = _stamp(path), self._failures.get(chunk_id)
            if stamp is None or (known is not None and known[0] == stamp):
                continue
            if time.monotonic() <= until:
                self._failures[chunk_id] = stamp, *_failing(chunk_id, read_document(path))
            elif known is None:
                self._failures[chunk_id] = (0, 0, 0), Failing(chunk_id, "", ""), None

    def _retiring(self, ids: set[str]) -> list[Retiring]:
        since = {one: (_stamp(self._layout.delete_marker(one)) or (0, 0, 0))[1] / 1e9 for one in ids}
        oldest = sorted(ids, key=lambda one: (since[one], one))
        self._look_for_holders(oldest[:HELD_MAX])
        return [Retiring(one, since[one], self._sizes.get(one), self._holders.get(one)) for one in oldest]

    def _look_for_holders(self, ids: list[str]) -> None:
        began = time.monotonic()
        if not ids or began < self._holders_due:
            return
        places: list[Place] = [place for one in ids for place in self._catalog.places(one)]
        try:
            looked = look_for_holders(self._layout, places)
        except OSError:  # no proc(5) here
            looked = {}
        self._holders = {place.chunk_id: holders for place, holders in looked.items()}
        took = time.monotonic() - began
        self._holders_due = began + max(HOLDERS_S, took * HOLDERS_SHARE)


def _ids(directory: str, unlisted: list[str]) -> set[str]:
    try:
        return {name for name in os.listdir(directory) if is_id(name)}
    except FileNotFoundError:  # as long as it is not there, it holds nothing
        return set()
    except OSError:
        unlisted.append(os.path.basename(directory))
        return set()


def _stamp(path: str) -> _Stamp | None:
    """What tells a file from a newer one of the same name."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _failing(chunk_id: str, says: dict[str, Any]) -> tuple[Failing, _Stamp | None]:
    attempts, at, marker = says.get("attempts"), says.get("next_attempt_at"), says.get("marker")
    stamp = None
    if isinstance(marker, dict):
        ino, mtime_ns, size = (marker.get(key) for key in ("ino", "mtime_ns", "size"))
        stamp = (ino, mtime_ns, size) if isinstance(ino, int) and isinstance(mtime_ns, int) else None
    failing = Failing(
        chunk_id,
        str(says.get("kind", "")),
        str(says.get("error", "")),
        attempts if isinstance(attempts, int) else 0,
        at if isinstance(at, int | float) else None,
    )
    return failing, stamp  # type: ignore[return-value]  # a size that is no number is no marker's


def _size(source: object, part: object) -> int | None:
    for document, key in ((source, "size"), (part, "total")):
        if isinstance(document, dict) and isinstance(size := document.get(key), int):
            return size
    return None
