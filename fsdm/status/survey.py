"""Surveys of a data directory, read from the files again and again, at the cost of changes.

A document is read once, and again where its file has changed; of many, a look reads what `READ_S` allows, and the rest
is not known until then. Nothing is changed, and nothing is waited for. Belongs to one thread.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from fsdm.model.layout import READY
from fsdm.model.state import may_repeat, name_by
from fsdm.status.chunk_status import (
    Expected,
    Failing,
    read_expected,
    read_failing,
    read_size,
    read_surroundings,
    stamp_of,
)
from fsdm.status.progress import Retiring, Running, Survey
from fsdm.status.registered import Registered
from fsdm.store.catalog import Catalog
from fsdm.store.disk_usage import downloaded_bytes
from fsdm.store.filesystem import exists
from fsdm.store.holders import Holders, look_for_holders
from fsdm.store.json_files import declared_bytes, read_document
from fsdm.store.leader_lock import LockHolder
from fsdm.store.markers import marker_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from fsdm.model.layout import Layout
    from fsdm.model.state import State
    from fsdm.status.chunk_status import Stamp

READ_S: Final = 0.05  # of each look, for each kind of documents that were not read before
HOLDERS_S: Final = 2.0  # between two looks for holders; or, where one costs more, …
HOLDERS_SHARE: Final = 20  # … so many times its own duration
HELD_MAX: Final = 100  # the oldest retiring chunks whose holders are looked for


@dataclass(frozen=True, slots=True)
class Listing:
    """The ids in `want/`, `acquire/`, `delete/`, `partial/`, `failed/`, and which may not be listed."""

    want: set[str]
    acquire: set[str]
    delete: set[str]
    partial: set[str]
    failed: set[str]
    unlisted: tuple[str, ...]

    @classmethod
    def read(cls, layout: Layout) -> Listing:
        unlisted: list[str] = []

        def ids(directory: str) -> set[str]:
            try:
                return marker_ids(directory)
            except OSError as e:
                if not isinstance(e, FileNotFoundError):  # as long as it is not there, it holds nothing
                    unlisted.append(os.path.basename(directory))
                return set()

        directories = (layout.want, layout.acquire, layout.delete, layout.partial, layout.failed)
        want, acquire, delete, partial, failed = map(ids, directories)
        return cls(want, acquire, delete, partial, failed, tuple(unlisted))


class Surveyor:
    """Looks at one data directory, again and again."""

    def __init__(self, layout: Layout, *, read_s: float = READ_S) -> None:
        self._layout = layout
        self._read_s = read_s
        self._catalog = Catalog(layout, own=True)  # refreshed by each look alone
        self._sizes: dict[str, int] = {}  # of what is in chunks/, has READY and was counted
        self._uncounted: dict[str, bool] = {}  # the others; whether READY was looked for, in vain
        self._here_bytes = 0
        self._totals: dict[str, int | None] = {}  # what wants declare, of those that were read
        self._failures: dict[str, tuple[Stamp | None, Failing, Stamp | None]] = {}  # of which file and marker
        self._partials: dict[str, int | None] = {}  # what had come of each when it was looked at last, if ever
        self._came_bytes = 0
        self._looked = False
        self._changed: set[str] = set()
        self._registered = Registered(layout, self._catalog)
        self._holders: dict[str, Holders] = {}
        self._holders_due = 0.0  # monotonic

    def look(self) -> Survey:
        """Survey the data directory as it is now.

        Raises:
            OSError: the data directory itself has gone, or `chunks/` may not be listed.
        """
        around, now = read_surroundings(self._layout), time.time()
        listed = Listing.read(self._layout)
        self._changed = self._catalog.refresh()
        self._see(self._changed)
        for chunk_id in self._while_time(list(self._uncounted)):
            self._count(chunk_id)
        self._read_failures(listed.failed)
        self._read_totals(listed)
        paused = around.paused is not None
        unready = self._unready(listed)
        may_run = set() if paused else listed.failed & listed.want & listed.partial
        self._registered.look(self._sizes.keys() | self._uncounted.keys(), self._changed, listed.want)
        named = self._names(listed, unready, {one for one in may_run if self._may_run(one, now)})
        if paused:
            named["wanted"] |= named.pop("downloading", set())
        running = self._measure(named["downloading"], listed.partial)
        again = (named["available"] & listed.want) - listed.failed  # its want is still to be compared with it
        queued = named["wanted"] | again
        left, unknown = self._left(running, queued, listed.partial)
        over = (named["available"] - listed.want) | named["downloading"] | named["wanted"]  # what failed before
        failing = self._failing(listed.failed - over - named["waiting"])
        asked = listed.want | listed.delete | listed.acquire
        self._looked = True
        return Survey(
            at=now,
            reconciler=around.reconciler and (around.reconciler_trouble or str(LockHolder.parse(around.reconciler))),
            free_bytes=around.disk.free_bytes,
            read_only=around.disk.read_only,
            paused=paused,
            braked=around.braked is not None,
            here=len(self._sizes) + len(self._uncounted) - len(named["retiring"]) - len(unready),
            here_bytes=self._here_bytes,
            uncounted=len(self._uncounted),
            unready=len(unready),
            wanted=len(queued),
            deleting=len(named["deleting"]),
            running=tuple(running),
            retiring=tuple(self._retiring(named["retiring"])),
            failing=failing,
            waiting=self._failing(named["waiting"]),
            came_bytes=self._came_bytes,
            left_bytes=left,
            unknown=unknown,
            unlisted=listed.unlisted,
            known=self._registered.count,
            cached=len(self._registered.cached - listed.delete - unready),
            unasked=sum(one.given_up and one.id not in asked for one in failing),
            reconciler_trouble=around.reconciler_trouble,
        )

    @property
    def catalog(self) -> Catalog:
        """The chunk directories, as of the last look; it is refreshed by looks alone."""
        return self._catalog

    @property
    def changed(self) -> AbstractSet[str]:
        """The chunks whose directories came or went between the last look and the one before."""
        return self._changed

    @property
    def is_counting(self) -> bool:
        """Return whether some READY is still to be read for the first time."""
        return not all(self._uncounted.values())

    def size_of(self, chunk_id: str) -> int | None:
        """Return the bytes that READY says a chunk has; None where it was not read yet, or says none."""
        return self._sizes.get(chunk_id)

    def is_unready(self, chunk_id: str) -> bool:
        """Return whether READY was looked for in a chunk's directory, in vain."""
        return self._uncounted.get(chunk_id, False)

    def _names(self, listed: Listing, unready: set[str], tried: set[str]) -> defaultdict[State, set[str]]:
        """Name how each pending chunk stands; for those `tried` again the failure does not count."""
        named: defaultdict[State, set[str]] = defaultdict(set)
        for one in listed.want | listed.acquire | listed.delete | listed.partial | listed.failed:
            known = self._failures.get(one)
            name = name_by(
                want=one in listed.want or one in listed.acquire,
                delete=one in listed.delete,
                partial=one in listed.partial,
                ready=(one in self._sizes or one in self._uncounted) and one not in unready,
                unready=one in unready,
                failed=one in listed.failed and one not in tried,
                failure_kind=None if known is None else known[1].kind,
                given_up=known is not None and known[1].given_up,
            )
            if name is not None:
                named[name].add(one)
        return named

    def _unready(self, listed: Listing) -> set[str]:
        """Find the chunks out of service: READY is looked for where it may be missing."""
        in_vain = {one for one, in_vain in self._uncounted.items() if in_vain}
        asked = {one for one in listed.want | listed.failed if one in self._sizes or one in self._uncounted}
        return {one for one in (asked | in_vain) - listed.delete if not self._is_ready(one)}

    def _is_ready(self, chunk_id: str) -> bool:
        return any(exists(f"{self._layout.path(place)}/{READY}") for place in self._catalog.places(chunk_id))

    def _may_run(self, chunk_id: str, now: float) -> bool:
        known = self._failures.get(chunk_id)
        if known is None:
            return True
        _, failing, marker = known
        if marker is not None and marker != stamp_of(self._layout.want_marker(chunk_id)):
            return True  # touched since: it was tried anew at once
        if failing.kind == "disk":
            return True  # what the disk has refused has no partial, unless it is tried again
        return failing.kind == "transfer" and failing.next_attempt_at is not None and failing.next_attempt_at <= now

    def _failing(self, ids: set[str]) -> tuple[Failing, ...]:
        return tuple(self._failures[one][1] for one in ids if one in self._failures)

    def _while_time(self, ids: Iterable[str]) -> Iterator[str]:
        """Take ids for as long as one kind of documents may be read."""
        until = time.monotonic() + self._read_s
        return takewhile(lambda _: time.monotonic() <= until, ids)

    def _see(self, changed: set[str]) -> None:
        """Take in which chunks have come to `chunks/`, or have left it."""
        for chunk_id in changed:
            self._here_bytes -= self._sizes.pop(chunk_id, 0)
            if self._catalog.places(chunk_id):
                self._uncounted[chunk_id] = False
                if self._looked and self._count(chunk_id):  # it has come since the last look, at least its rest
                    before = self._partials.get(chunk_id, 0)
                    self._came_bytes += 0 if before is None else max(self._sizes[chunk_id] - before, 0)
            else:
                self._uncounted.pop(chunk_id, None)

    def _count(self, chunk_id: str) -> bool:
        for place in self._catalog.places(chunk_id):
            size = read_size(self._layout, place)
            if size is not None:
                del self._uncounted[chunk_id]
                self._sizes[chunk_id] = size
                self._here_bytes += size
                return True
        self._uncounted[chunk_id] = True
        return False

    def _measure(self, fetched: set[str], partials: set[str]) -> list[Running]:
        measured = {one: self._partials.get(one) for one in partials}
        running = []
        for chunk_id in fetched:
            size = downloaded_bytes(self._layout.partial_of(chunk_id))
            if size is None:
                continue  # published, or discarded, since it was listed
            before, measured[chunk_id] = measured[chunk_id], size
            if self._looked and (before is not None or chunk_id not in self._partials):
                self._came_bytes += max(size - (before or 0), 0)
            expected = self._expected(chunk_id)
            running.append(Running(chunk_id, size, expected.total_bytes, max(expected.least_bytes, size)))
        self._partials = measured
        return running

    def _expected(self, chunk_id: str) -> Expected:
        total = self._totals.get(chunk_id)
        known = None if total is None else Expected(total, total)
        return known or read_expected(self._layout, chunk_id, self._files_of(chunk_id))

    def _read_totals(self, listed: Listing) -> None:
        begun = listed.partial - self._partials.keys()  # their wants may have been written anew since they were read
        for chunk_id in (self._totals.keys() & begun) | (self._totals.keys() - listed.want):
            del self._totals[chunk_id]
        for chunk_id in self._while_time(listed.want - self._totals.keys()):
            self._totals[chunk_id] = declared_bytes(self._files_of(chunk_id))

    def _files_of(self, chunk_id: str) -> object:
        want, known = self._layout.want_marker(chunk_id), self._layout.known_marker(chunk_id)
        return (read_document(want) or read_document(known)).get("files")

    def _left(self, running: Iterable[Running], queued: set[str], partials: set[str]) -> tuple[int, int]:
        """Sum the bytes that are still to come, at least, and count the chunks whose whole size is not known."""
        each = [(one.total_bytes, max(one.total_bytes or 0, one.least_bytes) - one.size_bytes) for one in running]
        for one in queued - partials:
            total = self._totals.get(one)
            each.append((total, total or 0))
        for one in queued & partials:  # its download is paused, or about to go on
            expected, size = self._expected(one), downloaded_bytes(self._layout.partial_of(one)) or 0
            each.append((expected.total_bytes, expected.least_bytes - size))
        return sum(max(left, 0) for _, left in each), sum(total is None for total, _ in each)

    def _read_failures(self, failed: set[str]) -> None:
        stamps = {one: stamp for one in failed if (stamp := stamp_of(self._layout.failed_of(one))) is not None}
        self._failures = {
            one: self._failures.get(one) or (None, Failing(one, "", ""), None)  # not read yet
            for one in stamps
        }
        for one in self._while_time([one for one, stamp in stamps.items() if self._failures[one][0] != stamp]):
            stamp = None if may_repeat(stamps[one][1], time.time()) else stamps[one]
            self._failures[one] = stamp, *read_failing(self._layout, one)

    def _retiring(self, ids: set[str]) -> list[Retiring]:
        since = {one: (stamp_of(self._layout.delete_marker(one)) or (0, 0, 0))[1] / 1e9 for one in ids}
        oldest = sorted(ids, key=lambda one: (since[one], one))
        self._look_for_holders(oldest[:HELD_MAX])
        return [Retiring(one, since[one], self._sizes.get(one), self._holders.get(one)) for one in oldest]

    def _look_for_holders(self, ids: list[str]) -> None:
        began = time.monotonic()
        if not ids or began < self._holders_due:
            return
        self._holders = {}
        with suppress(OSError):  # no proc(5) here
            looked = look_for_holders(self._layout, [place for one in ids for place in self._catalog.places(one)])
            self._holders = {place.chunk_id: holders for place, holders in looked.items()}
        took = time.monotonic() - began
        self._holders_due = began + max(HOLDERS_S, took * HOLDERS_SHARE)
