"""The registrations of a data directory, and which chunks that are here may be evicted, as of the last look.

`known/` is listed again only when something has come there or gone, and of the chunks only those are looked at again
that may have changed. Belongs to one thread.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from fsdm.model.layout import is_id
from fsdm.model.state import granule_ns
from fsdm.store.eviction import victim_at
from fsdm.store.filesystem import exists

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from fsdm.model.layout import Layout
    from fsdm.store.catalog import Catalog

NO_MTIME: Final = -1
TURN_S: Final = 0.01  # of each look


class Registered:
    """The registrations; `count` of it in all, `cached` of what is here."""

    def __init__(self, layout: Layout, catalog: Catalog) -> None:
        self._layout = layout
        self._catalog = catalog
        self._mtime_ns = NO_MTIME  # of a listing that may be trusted
        self._here: set[str] = set()
        self._wanted: set[str] = set()
        self._turn: list[str] = []  # still to be looked at in turn: a want may have come and gone between two looks
        self.count = 0
        self.cached: set[str] = set()

    def look(self, here: AbstractSet[str], changed: Iterable[str], wanted: set[str]) -> None:
        """Take in what may have changed: chunks that came or went, and those that are or were just `wanted`."""
        changed = {*changed}
        again = changed | wanted | self._wanted
        self._wanted = wanted
        if self._list(here):
            again |= self._here - self.cached  # registered once more, they may go from then on
        else:
            self._here -= changed - here
            self._here |= {one for one in changed & here if exists(self._layout.known_marker(one))}
        self.cached &= self._here
        for chunk_id in again & self._here:
            self._take_in(chunk_id)
        until = time.monotonic() + TURN_S
        self._turn = self._turn or [*self._here]
        while self._turn and time.monotonic() < until:
            self._take_in(self._turn.pop())

    def _take_in(self, chunk_id: str) -> None:
        if chunk_id in self._here and chunk_id not in self._wanted and self._may_go(chunk_id):
            self.cached.add(chunk_id)
        else:
            self.cached.discard(chunk_id)

    def _list(self, here: AbstractSet[str]) -> bool:
        """List the registrations, where they have changed, and those of chunks that are here."""
        try:
            mtime_ns, before_ns = os.stat(self._layout.known).st_mtime_ns, time.time_ns()
            is_new = mtime_ns != self._mtime_ns
            names = {name for name in os.listdir(self._layout.known) if is_id(name)} if is_new else set()
        except OSError:  # not there, or not to be listed: nothing is known
            mtime_ns, before_ns, names, is_new = NO_MTIME, 0, set(), True
        if is_new:
            self.count = len(names)
            self._here = names & here
            self._mtime_ns = mtime_ns if before_ns - mtime_ns > granule_ns(mtime_ns) else NO_MTIME
        return is_new

    def _may_go(self, chunk_id: str) -> bool:
        return any(victim_at(self._layout, place) is not None for place in self._catalog.places(chunk_id))
