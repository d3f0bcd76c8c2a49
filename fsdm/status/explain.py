"""Facts that explain how a chunk stands, from the files and proc(5) alone."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from fsdm.model.errors import InvalidInputError, StaleMarkerError
from fsdm.status.chunk_status import index_failures_of, read_chunk_status, read_info, read_surroundings
from fsdm.status.explain_text import Explanation, Facts, Others, explain
from fsdm.status.survey import Listing
from fsdm.store.catalog import Catalog
from fsdm.store.holders import Holders, look_for_holders
from fsdm.store.json_files import read_failure
from fsdm.store.markers import read_want
from fsdm.store.scan import look
from fsdm.store.verdict import verified_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fsdm.model.layout import Layout, Place
    from fsdm.model.state import ChunkState, Marker


def explain_chunks(
    layout: Layout,
    ids: Iterable[str],
    names: Mapping[str, str] = MappingProxyType({}),
    *,
    but_pid: int | None = None,
) -> list[Explanation]:
    """Explain how each of these chunks stands; `names` are those of datasets by id.

    `but_pid`: this process is no holder, for it ends at once, as `fsdm explain` inside of `fsdm hold` does.
    """
    catalog = Catalog(layout)
    catalog.update()
    return [
        explain(replace(gather(layout, catalog, one, time.time(), but_pid=but_pid), dataset_names=names)) for one in ids
    ]


def gather(layout: Layout, catalog: Catalog, chunk_id: str, now: float, *, but_pid: int | None = None) -> Facts:
    state = look(layout, catalog, chunk_id)
    failure = read_failure(layout, state)
    waits_for_room = failure is not None and failure.kind == "room"
    return Facts(
        now=now,
        root=layout.root,
        state=state,
        status=read_info(layout, state),
        around=read_surroundings(layout),
        failure=failure,
        want_fault=_want_fault(layout, state),
        verified_at=verified_at(layout, state.ready[0]) if state.ready else None,
        holders=_look_for_holders(layout, state.ready + state.unready, but_pid),
        index_failures=tuple(index_failures_of(layout, state.ready)),
        others=_others(layout, catalog, chunk_id, state.want, retiring=waits_for_room) if state.want else Others(),
    )


def _want_fault(layout: Layout, state: ChunkState) -> InvalidInputError | None:
    """Return why a want that can be read cannot be taken; None where it can."""
    if state.want is None or state.want.fault or not os.access(layout.want_marker(state.id), os.R_OK):
        return None
    try:
        read_want(layout, state.id, state.want)
    except InvalidInputError as e:
        return e
    except (StaleMarkerError, OSError):
        pass  # it changes just now
    return None


def _look_for_holders(layout: Layout, places: Iterable[Place], but_pid: int | None = None) -> Holders | None:
    """Look for the holders of any of these directories; None where there are no directories."""
    try:
        looked = list(look_for_holders(layout, places).values())
    except OSError as e:
        return Holders((), (f"holders of a chunk cannot be seen here: {e}",))
    if not looked:
        return None
    found = {holder.pid: holder for one in looked for holder in one.found if holder.pid != but_pid}
    unseen = dict.fromkeys(sentence for one in looked for sentence in one.unseen)
    return Holders(tuple(found.values()), tuple(unseen))


def _others(layout: Layout, catalog: Catalog, chunk_id: str, want: Marker, *, retiring: bool) -> Others:
    """Look what else goes on; at the chunks that retire only where that is asked for."""
    listed = Listing.read(layout)
    older = sum(_ctime_ns(layout.want_marker(other)) < want.ctime_ns for other in listed.want - {chunk_id})
    running = len((listed.want & listed.partial) - listed.failed - {chunk_id})
    others = Others(running=running, older_wants=max(older - running, 0))
    if not retiring:
        return others
    places = [place for other in listed.delete - {chunk_id} for place in catalog.places(other)]
    chunks = [read_chunk_status(layout, look(layout, catalog, place.chunk_id)) for place in places]
    holders = _look_for_holders(layout, places) or Holders()
    return replace(
        others,
        retiring=len(places),
        retiring_bytes=sum(chunk.size_bytes for chunk in chunks if chunk is not None),
        retiring_held_by=holders.found,
    )


def _ctime_ns(path: str) -> int:
    try:
        return os.lstat(path).st_ctime_ns
    except OSError:  # it has just gone
        return 1 << 63
