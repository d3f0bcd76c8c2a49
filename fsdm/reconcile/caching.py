"""The effects of `acquire/ID` on what is here (PROTOCOL.md, "Acquiring").

Invariant: a use is noted only beside a chunk that may be evicted; so CACHED says that it may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsdm.model.layout import CACHED, READY
from fsdm.reconcile.actions import Done
from fsdm.store.acquiring import is_pinned
from fsdm.store.filesystem import exists

if TYPE_CHECKING:
    from fsdm.model.layout import Layout
    from fsdm.reconcile.actions import Use
    from fsdm.store.filesystem import FileSystem


def use(layout: Layout, fs: FileSystem, action: Use) -> Done:
    """Note the use of a chunk. May raise OSError."""
    path = layout.path(action.place)
    if exists(f"{path}/{READY}") and not is_pinned(layout, action.place):
        fs.touch(f"{path}/{CACHED}")
    return Done()
