"""How things stand, read from the files alone: so any process can tell, whether a reconciler runs or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsdm.model.layout import READY, Layout, Place, is_id
from fsdm.model.state import ChunkState, Oddity, State, name_of
from fsdm.store.catalog import Catalog
from fsdm.store.disk_usage import bytes_in
from fsdm.store.filesystem import exists, read_space
from fsdm.store.json_files import declared_bytes, read_document
from fsdm.store.leader_lock import who_reconciles
from fsdm.store.scan import look, scan

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class ChunkStatus:
    """How one chunk stands.

    `state`: *wanted* (not begun), *downloading*, *available*, *retiring* (deleted, and kept by refs until the last one
    goes), *deleting* (its marker is about to go), *failed* (`error` says why), *waiting* (for room: `error` says for
    how much), *unready* (a directory without READY: out of service). `size_bytes` is what is on disk of it;
    `total_bytes` what it will be, where that is known. `verifying`: somebody has asked for its bytes to be compared
    with READY, and they have not been yet.
    """

    id: str
    state: State
    dataset_id: str | None = None
    block_range: range | None = None
    size_bytes: int = 0
    total_bytes: int | None = None
    error: str | None = None
    hint: str | None = None
    attempts: int = 0
    next_attempt_at: float | None = None
    verifying: bool = False


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """How the file system stands that the data directory is on: where nothing is free, or all is read-only, downloads
    pause, and `failed/ID` may not be there to say so."""

    free_bytes: int
    read_only: bool


@dataclass(frozen=True, slots=True)
class Status:
    """How a data directory stands. `reconciler` is what the holder of LOCK says of itself, None where there is none.

    `paused` is what PAUSE says while downloads are paused, `braked` what BRAKE says while deletes are held back; each
    is None where nothing of it is so.
    """

    chunks: dict[str, ChunkStatus]
    oddities: tuple[Oddity, ...]
    reconciler: str | None
    disk: DiskStatus
    paused: dict[str, Any] | None = None
    braked: dict[str, Any] | None = None

    def count(self, state: State) -> int:
        """How many chunks are in this state."""
        return sum(chunk.state == state for chunk in self.chunks.values())


def read_status(layout: Layout) -> Status:
    """Look at everything: the cost grows with the number of chunks, about 50 µs each."""
    catalog = Catalog(layout)
    catalog.refresh()
    snapshot = scan(layout, catalog)
    ids = dict.fromkeys([place.chunk_id for place in catalog.all_places()] + sorted(snapshot.ids))
    chunks, oddities = {}, list(snapshot.oddities)
    for chunk_id in ids:
        state = look(layout, catalog, chunk_id)
        if state.verify is not None and state.verify.fault is not None:
            oddities.append(Oddity(layout.verify_marker(chunk_id), f"it {state.verify.fault}"))
        status = read_chunk_status(layout, state)
        if status is not None:
            chunks[chunk_id] = status
    owner = who_reconciles(layout)
    return Status(
        chunks,
        tuple(oddities),
        None if owner is None else owner.says,
        read_disk_status(layout),
        read_note(layout.pause),
        read_note(layout.brake),
    )


def read_chunk_status(layout: Layout, state: ChunkState) -> ChunkStatus | None:
    """How one chunk stands that was just looked at; None where nothing of it is there."""
    failure = read_document(layout.failed_of(state.id)) if state.failed else {}
    name = name_of(state, failure.get("kind"))
    if name is None:
        return None  # it went while we looked
    want = read_document(layout.want_marker(state.id)) if state.want and not state.want.fault else {}
    places = state.ready + state.unready
    dataset_id, block_range = _where(places, want)
    if places:
        manifest = read_document(f"{layout.path(places[0])}/{READY}") if state.ready else {}
        size = total = declared_bytes(manifest.get("files"))
    else:
        size, total = bytes_in(layout.partial_of(state.id))[0], declared_bytes(want.get("files"))
    return ChunkStatus(
        id=state.id,
        state=name,
        dataset_id=dataset_id,
        block_range=block_range,
        size_bytes=size or 0,
        total_bytes=total,
        error=_text(failure.get("error")),
        hint=_text(failure.get("hint")),
        attempts=failure["attempts"] if isinstance(failure.get("attempts"), int) else 0,
        next_attempt_at=failure.get("next_attempt_at"),
        verifying=state.verify is not None and state.verify.fault is None,
    )


def read_disk_status(layout: Layout) -> DiskStatus:
    """How the file system stands, by a look of our own."""
    space = read_space(layout.root)
    return DiskStatus(space.free_bytes, space.read_only)


def _where(places: Iterable[Place], want: dict[str, Any]) -> tuple[str | None, range | None]:
    for place in places:
        return place.dataset_id, place.block_range
    match want:
        case {"dataset_id": str(dataset_id), "block_range": {"start": int(start), "end": int(end)}} if is_id(
            dataset_id
        ):
            return dataset_id, range(start, end)
    return None, None


def read_note(path: str) -> dict[str, Any] | None:
    """What a file beside the layout's directories says, be it nothing; None where there is none."""
    return read_document(path) if exists(path) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
