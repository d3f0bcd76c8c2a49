"""Why does a chunk stand as it does? What is known of it is gathered here, from the files and proc(5) alone; `reasons`
makes the sentences. Nothing is changed, and no reconciler needs to run.

What a want that waits for room, or for its turn, is compared with costs a look at the others' markers: once a question.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from fsdm.model.errors import InvalidInputError, StaleMarkerError
from fsdm.model.layout import is_id
from fsdm.status.chunk_status import read_chunk_status, read_disk_status, read_note
from fsdm.status.explain_text import Explanation, Facts, Others, explain
from fsdm.store.catalog import Catalog
from fsdm.store.holders import Holders, look_for_holders
from fsdm.store.json_files import read_failure
from fsdm.store.leader_lock import who_reconciles
from fsdm.store.markers import read_want
from fsdm.store.scan import look

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsdm.model.layout import Layout, Place
    from fsdm.model.state import ChunkState


def explain_chunks(layout: Layout, ids: Iterable[str]) -> list[Explanation]:
    """The answers for each of these ids."""
    catalog = Catalog(layout)
    catalog.refresh()
    return [explain(gather(layout, catalog, chunk_id, time.time())) for chunk_id in ids]


def gather(layout: Layout, catalog: Catalog, chunk_id: str, now: float) -> Facts:
    """What is known of one chunk."""
    state = look(layout, catalog, chunk_id)
    status, failure = read_chunk_status(layout, state), read_failure(layout, state)
    name = status.state if status is not None else None
    fault, hint = _want_fault(layout, state)
    disk = read_disk_status(layout)
    waits_for_room = failure is not None and failure.kind == "room"
    return Facts(
        now=now,
        root=layout.root,
        state=state,
        name=name,
        dataset_id=status.dataset_id if status else None,
        block_range=status.block_range if status else None,
        size_bytes=status.size_bytes if status else 0,
        total_bytes=status.total_bytes if status else None,
        failure=failure,
        want_fault=fault,
        want_hint=hint,
        holders=_holders(layout, state.ready + state.unready),
        reconciler=who_reconciles(layout),
        free_bytes=disk.free_bytes,
        read_only=disk.read_only,
        paused=read_note(layout.pause),
        braked=read_note(layout.brake),
        others=_others(layout, catalog, state, retiring=waits_for_room) if state.want else Others(),
    )


def _want_fault(layout: Layout, state: ChunkState) -> tuple[str, str]:
    """Why a want that is a file cannot be taken, and what to do; nothing where it can, or where we may not look."""
    if state.want is None or state.want.fault or not os.access(layout.want_marker(state.id), os.R_OK):
        return "", ""
    try:
        read_want(layout, state.id, state.want)
    except InvalidInputError as e:
        return str(e), e.hint
    except (StaleMarkerError, OSError):
        pass  # it changes just now
    return "", ""


def _holders(layout: Layout, places: tuple[Place, ...]) -> Holders | None:
    """Who holds the directories of one chunk; None where it has none."""
    looked = _look_for_holders(layout, places)
    if not looked:
        return None
    found = {holder.pid: holder for one in looked for holder in one.found}
    unseen = dict.fromkeys(sentence for one in looked for sentence in one.unseen)
    return Holders(tuple(found.values()), tuple(unseen))


def _look_for_holders(layout: Layout, places: Iterable[Place]) -> list[Holders]:
    try:
        return list(look_for_holders(layout, places).values())
    except OSError as e:
        return [Holders((), (f"who holds a chunk cannot be seen here: {e}",))]


def _others(layout: Layout, catalog: Catalog, state: ChunkState, *, retiring: bool) -> Others:
    """What else goes on; who retires only where that is asked for."""
    assert state.want is not None
    wanted = _ids(layout.want)
    older = sum(_ctime_ns(layout.want_marker(other)) < state.want.ctime_ns for other in wanted - {state.id})
    running = len((_ids(layout.partial) & wanted) - _ids(layout.failed) - {state.id})
    if not retiring:
        return Others(running=running, older_wants=max(older - running, 0))
    places = [place for other in _ids(layout.delete) - {state.id} for place in catalog.places(other)]
    sizes = [read_chunk_status(layout, look(layout, catalog, place.chunk_id)) for place in places]
    holders = {holder.pid: holder for one in _look_for_holders(layout, places) for holder in one.found}
    return Others(
        retiring=len(places),
        retiring_bytes=sum(size.size_bytes for size in sizes if size is not None),
        retiring_held_by=tuple(holders.values()),
        running=running,
        older_wants=max(older - running, 0),
    )


def _ids(directory: str) -> set[str]:
    try:
        return {name for name in os.listdir(directory) if is_id(name)}
    except OSError:
        return set()


def _ctime_ns(path: str) -> int:
    try:
        return os.lstat(path).st_ctime_ns
    except OSError:  # it has just gone
        return 1 << 63
