"""The standing of chunks in runs: a hit counts while what its keys were read of is here, or comes when it is asked for.

Invariant: a chunk that was evicted and is registered as before stays in the runs; one of another READY does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsdm.store.filesystem import exists
from fsdm.store.index_file import identity_of

if TYPE_CHECKING:
    from fsdm.model.index_format import IndexedChunk
    from fsdm.model.layout import Layout, Place


def stands(layout: Layout, chunk: IndexedChunk) -> bool:
    """Tell whether a chunk is here, with the READY of its keys, or registered and not here. May raise OSError."""
    identity = identity_of(layout.path(chunk.place))
    return is_registered(layout, chunk.place) if identity is None else identity == chunk.identity


def is_registered(layout: Layout, place: Place) -> bool:
    """Tell whether a registration stands that would bring a chunk to this place. May raise OSError."""
    if not exists(layout.known_marker(place.chunk_id)):  # so it is with most, and costs little
        return False
    from fsdm.store.markers import known_chunk  # a merge seldom needs it, and begins the sooner

    known = known_chunk(layout, place.chunk_id)
    return known is not None and known.place == place
