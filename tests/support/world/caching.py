"""Deeds about chunks that come when they are asked for: registrations, acquires, evictions.

What each allows is told to `expected`. Whether a chunk that is here may go is read off the disk by the letter of the
protocol: a registration of the same version, which is later than the last want that was carried out.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from fsdm.client import Client
from fsdm.store.eviction import ask, to_be_collected
from tests.support.world.clocks import Clocks
from tests.support.world.deeds import Deed
from tests.support.world.disk import Disk
from tests.support.world.expected import Expected
from tests.support.world.points import Points
from tests.support.world.readers import Readers
from tools.support.versions import Version


@dataclass
class Caching:
    """All that clients and shells do to `known/`, `acquire/` and `evict/`."""

    _disk: Disk
    _clocks: Clocks
    _points: Points
    _expected: Expected
    _readers: Readers
    _client: Client

    def register(self, deed: Deed) -> None:
        """Register a version: as a client, or by `mv`; what is here stays, a want that was not carried out goes."""
        i, version = deed.chunk, self._disk.versions[deed.chunk][deed.version]
        path, was_asked = self._disk.known(i), self._disk.has_want(i) or self._disk.is_deleted(i)
        here, model = self._disk.version_here(i), self._expected.models[i]
        if deed.how == "client":
            with self._points.in_midst(self._points.busy or "client", self._disk.ids[i]):
                self._client.register(version.chunk)
        else:
            moved = f"{os.path.dirname(path)}/.mv"
            Path(moved).write_bytes(version.chunk.to_json())
            self._clocks.stamp(moved, changed=True)
            os.rename(moved, path)
            self._clocks.stamp(path)
        if self._disk.is_deleted(i) or self._points.busy is not None:
            self._expected.registered.pop(i, None)  # the delete may yet be the later one
        else:
            self._expected.registered[i] = version.chunk.to_json()
        if was_asked or self._is_unsettled(i):
            model.allow(None, here, model.placed, *self._acquired(i))
        else:
            model.allow(*model.outcomes)

    def rm_known(self, deed: Deed) -> None:
        """`rm known/ID`: what is here stays; what was asked for by that may come, or not."""
        self._expected.registered.pop(deed.chunk, None)
        if os.path.lexists(self._disk.known(deed.chunk)):
            os.unlink(self._disk.known(deed.chunk))
            if self._is_unsettled(deed.chunk):
                model = self._expected.models[deed.chunk]
                model.allow(None, *model.outcomes)

    def acquire(self, deed: Deed) -> None:
        """`touch acquire/ID`: what is registered comes, unless a want or a delete stands."""
        i, path = deed.chunk, self._disk.layout.acquire_marker(self._disk.ids[deed.chunk])
        unsettled, here = self._is_unsettled(i), self._disk.version_here(i)
        Path(path).touch()
        self._clocks.stamp(path, changed=True)
        model, known = self._expected.models[i], self._disk.known_version(i)
        if self._disk.has_want(i) or self._disk.is_deleted(i) or (known is None and here is None):
            if self._disk.is_deleted(i) or self._points.busy is not None:
                model.allow(known, *model.outcomes)
        elif unsettled or self._disk.has_leftovers(i):
            model.allow(None, here, known, *model.outcomes)
        else:
            model.is_to_be(here or known)

    def evict(self, deed: Deed) -> None:
        """`touch evict/ID`: what may go goes, and nothing else does."""
        path = self._disk.layout.evict_marker(self._disk.ids[deed.chunk])
        self._to_go(deed.chunk)
        Path(path).touch()
        self._clocks.stamp(path, changed=True)

    def gc(self, deed: Deed) -> None:
        """Ask for all to be evicted that might be; the reconciler judges each."""
        layout = self._disk.layout
        chosen = to_be_collected(layout, self._client.available_places(), 0, 0.0)
        for victim, _ in chosen:
            self._to_go(self._disk.ids.index(victim.place.chunk_id))
        ask(layout, chosen)

    def _to_go(self, i: int) -> None:
        model = self._expected.models[i]
        if not self._disk.may_be_evicted(i):
            if self._points.busy is not None:  # what it is by the time that it is judged, nobody knows
                model.allow(None, *model.outcomes)
            return
        is_held = any(held.version in self._disk.versions[i] for held in self._readers.held)
        if is_held or self._is_unsettled(i):
            model.allow(None, *model.outcomes)
        else:
            model.arrived = None
            model.is_to_be(None)

    def _is_unsettled(self, i: int) -> bool:
        """Whether a request stands, or the reconciler is at work: then what comes of this depends on who is faster."""
        layout, chunk_id = self._disk.layout, self._disk.ids[i]
        stands = map(os.path.lexists, (layout.acquire_marker(chunk_id), layout.evict_marker(chunk_id)))
        return self._points.busy is not None or any(stands)

    def _acquired(self, i: int) -> set[Version | None]:
        stands = os.path.lexists(self._disk.layout.acquire_marker(self._disk.ids[i]))
        return {self._disk.known_version(i)} if stands else set()
