"""Deleting a chunk only where nobody holds it (PROTOCOL.md, "Asking").

Invariant: the delete comes to stand while exclusive flocks are on all directories of the chunk in `chunks/`: so no ref
is held at that moment, and whoever takes one after it sees the delete.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from fsdm.model.errors import ChunkInUseError
from fsdm.store.flock import EXCLUSIVE, LockDescriptor, open_fd, try_flock
from fsdm.store.holders import look_for_holders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fsdm.model.layout import Layout, Place


@contextmanager
def unheld(layout: Layout, chunk_id: str, places: Iterable[Place]) -> Iterator[None]:
    """Keep refs from the directories of a chunk, for a block that places its delete.

    Raises:
        ChunkInUseError: some process holds one of them.
    """
    with ExitStack() as stack:
        for place in places:
            lock = LockDescriptor()
            stack.callback(lock.close)
            try:
                lock.fd = fd = open_fd(layout.path(place))
            except (FileNotFoundError, NotADirectoryError):  # it has just gone, or never was one
                continue
            if not try_flock(fd, EXCLUSIVE):
                raise _in_use(layout, chunk_id, place)
        yield


def _in_use(layout: Layout, chunk_id: str, place: Place) -> ChunkInUseError:
    try:
        found = [holder for one in look_for_holders(layout, [place]).values() for holder in one.found]
    except OSError:  # no proc(5) here
        found = []
    by = ", ".join(f"pid {holder.pid} `{holder.command}`" for holder in found) or "a process that cannot be seen here"
    said = f"chunk {chunk_id} is held by {by}; it is not deleted"
    return ChunkInUseError(said, chunk_id=chunk_id, hint=f"fsdm holders {chunk_id}")
