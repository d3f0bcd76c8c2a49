"""The scan: disk → ChunkState and Snapshot. It costs what is pending, not what is there.

It opens no file, and raises for no single bad entry: that is an `Oddity` or a marker's `fault`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fsdm.model.errors import DataDirectoryError
from fsdm.model.layout import READY, WANT, WANT_MAX_BYTES, Layout, is_hidden, is_id
from fsdm.model.state import ChunkState, Marker, Oddity, Partial, Snapshot
from fsdm.store.acquiring import asked_by
from fsdm.store.data_dir import check_format, unreadable
from fsdm.store.filesystem import exists, is_directory
from fsdm.store.markers import look_at, marker_ids

if TYPE_CHECKING:
    from fsdm.store.catalog import Catalog


def look(layout: Layout, catalog: Catalog, chunk_id: str) -> ChunkState:
    """Look at the state of one id now; its places are those of the catalog's last refresh."""
    # the want first: a delete that was not there together with it is known to be the later one
    want = _marker(layout.want_marker(chunk_id), limit=WANT_MAX_BYTES)
    delete = _marker(layout.delete_marker(chunk_id))
    acquire = _marker(layout.acquire_marker(chunk_id))
    failed = exists(layout.failed_of(chunk_id))
    asks = failed or not want is delete is acquire is None
    verify = _marker(layout.verify_marker(chunk_id))
    places = catalog.places(chunk_id)
    ready = [place for place in places if exists(f"{layout.path(place)}/{READY}") and not catalog.is_stray(place)]
    unready = [place for place in places if place not in ready]
    return ChunkState(
        id=chunk_id,
        want=want,
        delete=delete,
        verify=verify,
        known=_marker(layout.known_marker(chunk_id), limit=WANT_MAX_BYTES) if asks else None,
        acquire=acquire,
        asked="" if acquire is None or acquire.fault else asked_by(layout.acquire_marker(chunk_id)),
        evict=_marker(layout.evict_marker(chunk_id)),
        partial=_partial(layout.partial_of(chunk_id)),
        ready=tuple(ready),
        unready=tuple(unready),
        quarantined=tuple(place for place in unready if _is_quarantined(layout.path(place))),
        failed=failed,
    )


def _is_quarantined(path: str) -> bool:
    return exists(f"{path}/{WANT}") and is_directory(path)


def _marker(path: str, *, limit: int | None = None) -> Marker | None:
    try:
        return look_at(path, limit=limit)
    except OSError as e:  # nothing can be done about it, and the other markers do not wait for it
        return Marker(0, 0, 0, 0, f"cannot be looked at: {e.strerror}")


def _partial(path: str) -> Partial:
    if not exists(path):
        return Partial.NONE
    return Partial.READY if is_directory(path) and exists(f"{path}/{READY}") else Partial.BEGUN


def scan(layout: Layout, catalog: Catalog) -> Snapshot:
    """List the pending ids by their names alone."""
    ids: set[str] = set()
    oddities: list[Oddity] = []
    markers = (layout.want, layout.delete, layout.verify, layout.acquire, layout.evict)
    for directory in (*markers, layout.partial, layout.failed):
        for name in _names(directory, oddities):
            if is_id(name):
                ids.add(name)
            elif not is_hidden(name):
                oddities.append(Oddity(f"{directory}/{name}", "its name is not a chunk id (64 lower-case hex digits)"))
    oddities += (Oddity(path, "fsdm puts nothing of this name or kind there") for path in catalog.strange())
    return Snapshot(frozenset(ids), tuple(oddities))


def _names(directory: str, oddities: list[Oddity]) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError as e:
        oddities.append(Oddity(directory, f"it cannot be listed: {e.strerror}"))
        return []


def placed_ids(layout: Layout, directory: str) -> set[str]:
    """List the ids that stand in a directory of markers.

    Raises:
        DataDirectoryError: the data directory has gone, or this user may not look there.
    """
    try:
        return marker_ids(directory)
    except FileNotFoundError:
        check_format(layout)  # raises where the whole data directory has gone
        return set()
    except PermissionError as e:
        hint = 'see "Threats" in `fsdm protocol`'
        raise DataDirectoryError(f"{directory} may not be listed by this user", hint=hint) from e
    except OSError as e:
        raise unreadable(layout, e) from e
