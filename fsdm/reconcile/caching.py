"""Noting the use of what may be evicted, and judging whether it may go now (PROTOCOL.md, "Evicting").

Invariant: what goes by an eviction comes again when it is asked for: a registration names the same files, nothing wants
it, and nobody holds it or asks for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fsdm.model.events import Event
from fsdm.model.layout import CACHED, READY, WANT
from fsdm.model.units import readable
from fsdm.reconcile.actions import ClearAcquire, ClearVerify, Done
from fsdm.store.acquiring import asked_by, chunk_to_come_again, is_pinned
from fsdm.store.eviction import chunk_bytes, victim_at
from fsdm.store.filesystem import exists
from fsdm.store.json_files import read_manifest
from fsdm.store.markers import look_at

if TYPE_CHECKING:
    from fsdm.model.layout import Layout, Place
    from fsdm.model.state import Marker
    from fsdm.reconcile.actions import ClearEvict, Evict
    from fsdm.store.filesystem import FileSystem


def request_of(layout: Layout, action: ClearVerify | ClearAcquire | ClearEvict | Evict) -> tuple[str, Marker]:
    """Return the path of the request that an action answers, and the marker that was judged."""
    match action:
        case ClearVerify(chunk_id, marker):
            return layout.verify_marker(chunk_id), marker
        case ClearAcquire(chunk_id, marker):
            return layout.acquire_marker(chunk_id), marker
    return layout.evict_marker(action.id), action.evict


def use(layout: Layout, fs: FileSystem, place: Place) -> Done:
    """Note the use of a chunk that may be evicted. May raise OSError."""
    path = layout.path(place)
    if exists(f"{path}/{READY}") and not is_pinned(layout, place):
        fs.touch(f"{path}/{CACHED}")
    return Done()


def evicted(layout: Layout, place: Place) -> Event:
    """Make the event of an eviction, of what is still here: its bytes, and how long ago it was used last."""
    victim, size = victim_at(layout, place), chunk_bytes(layout, place)
    idle_s = None if victim is None else max(time.time() - victim.used_at, 0.0)
    return Event("evicted", place.chunk_id, readable(size), place.dataset_id, size, idle_s)


def may_go(layout: Layout, fs: FileSystem, action: Evict) -> bool:
    """Tell, under the claim, whether a chunk is to be evicted; then its WANT is that of what was never wanted.

    So a crash after READY went brings no want back.
    """
    place, path = action.place, layout.path(action.place)
    if not exists(f"{path}/{READY}") or not action.evict.same_as(look_at(layout.evict_marker(place.chunk_id))):
        return False
    if exists(layout.want_marker(place.chunk_id)) or exists(layout.delete_marker(place.chunk_id)):
        return False
    if asked_by(layout.acquire_marker(place.chunk_id)):
        return False
    known, manifest = chunk_to_come_again(layout, place), read_manifest(path)
    if known is None or manifest is None or not manifest.satisfies(known, sha256_may_follow=True):
        return False
    fs.set_mtime(f"{path}/{WANT}", 0)
    return True
