"""Noting the use of what may be evicted, and judging whether it may go now (PROTOCOL.md, "Evicting").

Invariant: what goes by an eviction comes again when it is asked for: a registration names the same files, nothing wants
it, and nobody holds it or asks for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fsdm.model.errors import InvalidInputError
from fsdm.model.events import Event
from fsdm.model.layout import CACHED, MANIFEST_MAX_BYTES, READY, WANT, WANT_MAX_BYTES
from fsdm.model.units import readable
from fsdm.reconcile.actions import ClearAcquire, ClearVerify, Done
from fsdm.store.acquiring import asked_by, is_pinned
from fsdm.store.filesystem import exists, read_regular
from fsdm.store.markers import look_at, text_registered_since

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


def may_go(layout: Layout, fs: FileSystem, action: Evict, gone: list[Event]) -> bool:
    """Tell, under the claim, whether a chunk is to be evicted; then its WANT is that of what was never wanted.

    So a crash after READY went brings no want back. The event of it is added to `gone`. May raise OSError.
    """
    place, path, chunk_id = action.place, layout.path(action.place), action.id
    if not action.evict.same_as(look_at(layout.evict_marker(chunk_id))):
        return False
    if exists(layout.want_marker(chunk_id)) or exists(layout.delete_marker(chunk_id)):
        return False
    if asked_by(layout.acquire_marker(chunk_id)):
        return False
    wanted, ready = read_regular(f"{path}/{WANT}", WANT_MAX_BYTES), read_regular(f"{path}/{READY}", MANIFEST_MAX_BYTES)
    if wanted is None or ready is None:
        return False
    known = text_registered_since(layout, chunk_id, wanted[0].st_mtime_ns)
    size = None if known is None else _bytes_to_come_again(chunk_id, known[1], wanted[1], ready[1])
    if known is None or size is None:
        return False
    used = look_at(f"{path}/{CACHED}")
    used_ns = known[0].registered_ns if used is None else used.mtime_ns
    idle_s = max(time.time() - used_ns / 1e9, 0.0)
    gone.append(Event("evicted", chunk_id, readable(size), place.dataset_id, size, idle_s))
    fs.set_mtime(f"{path}/{WANT}", 0)
    return True


def _bytes_to_come_again(chunk_id: str, known: bytes, wanted: bytes, ready: bytes) -> int | None:
    """Return the bytes of a chunk that its registration would bring back; None where it would not, or is unreadable.

    What the chunk came of needs no comparison: READY was compared with it.
    """
    from fsdm.model.documents import DataChunk, Manifest

    try:
        manifest = Manifest.parse(ready)
        if known == wanted or manifest.satisfies(DataChunk.parse_want(known, chunk_id), sha256_may_follow=True):
            return manifest.size_bytes
    except InvalidInputError:
        pass
    return None
