"""The status of chunks, read from the files alone: any process can tell it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fsdm.model.layout import PARTS, READY, is_id
from fsdm.model.state import Oddity, Standing, State, name_of
from fsdm.store.disk_usage import downloaded_bytes
from fsdm.store.eviction import victim_at
from fsdm.store.filesystem import exists, read_space
from fsdm.store.followed import Followed, read_followed
from fsdm.store.index_failures import read_index_failures
from fsdm.store.json_files import declared_bytes, read_document
from fsdm.store.leader_lock import find_reconciler

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from fsdm.model.layout import Layout, Place
    from fsdm.model.state import ChunkState
    from fsdm.store.index_failures import IndexFailure

NO_INTENT: Final = frozenset({"want", "marker"})  # kinds of a failure that last as long as their marker stands so
Stamp = tuple[int, int, int]  # inode, mtime in ns, size: tells a file from a newer one of the same name


@dataclass(frozen=True, slots=True)
class ChunkStatus:
    """The status of one chunk.

    `state`: *wanted* (not begun), *downloading*, *available*, *retiring* (deleted, and kept by refs until the last one
    goes), *deleting* (its marker is about to go), *failed* (`error` says why), *waiting* (for room: `error` says for
    how much), *unready* (a directory without READY: out of service). `size_bytes` is what is on disk of it;
    `total_bytes` what it will be, where that is known, and `least_bytes` as much of that as is known, or has come: the
    want may leave a size out, and an answer its length. `verifying`: its bytes are to be compared with READY, and have
    not been yet. `index_errors`: the indexes of it that cannot be made, each with its error. `known`: it is registered;
    `cached`: it is here, and may be evicted; `given_up`: it has failed, and is not tried again before it is asked for
    anew. One that is registered, and nothing else, is in state *known*: only who asks for that very one is told.
    """

    id: str
    state: Standing
    dataset_id: str | None = None
    block_range: range | None = None
    size_bytes: int = 0
    total_bytes: int | None = None
    error: str | None = None
    hint: str | None = None
    attempts: int = 0
    next_attempt_at: float | None = None
    verifying: bool = False
    index_errors: tuple[str, ...] = ()
    least_bytes: int = 0
    known: bool = False
    cached: bool = False
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Expected:
    """The bytes that a chunk will have: in all, and at least, as far as its want and its servers' answers say."""

    total_bytes: int | None
    least_bytes: int


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """The file system of the data directory. While it is full or read-only, downloads pause."""

    free_bytes: int
    read_only: bool


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a data directory.

    `reconciler` is what the holder of LOCK says of itself, None where there is none; `reconciler_trouble` a sentence
    where that one is stopped, or stuck. `paused` is what PAUSE says while downloads are paused, `braked` what BRAKE
    says while deletes are held back; else None. `followed`: the list that is followed, where one is. `counts` are
    numbers of chunks: *known* (registered, here or not), *fetching*, *available*, of these *held* by refs, as far as
    proc(5) shows them here, and *cached* (they may be evicted), *failing* (they are tried again), *given_up* (they are
    not).
    """

    chunks: dict[str, ChunkStatus]
    oddities: tuple[Oddity, ...]
    reconciler: str | None
    disk: DiskStatus
    paused: dict[str, Any] | None = None
    braked: dict[str, Any] | None = None
    reconciler_trouble: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    followed: Followed | None = None

    def count(self, state: State) -> int:
        """Count the chunks in this state."""
        return sum(chunk.state == state for chunk in self.chunks.values())


@dataclass(frozen=True, slots=True)
class Failing:
    """An intent that does not converge, as far as `failed/ID` says; of kind *room* it waits.

    `transient`: it may pass by itself. `given_up`: it is not tried again by itself.
    """

    id: str
    kind: str
    error: str
    attempts: int = 0
    next_attempt_at: float | None = None
    hint: str = ""
    transient: bool = True
    given_up: bool = False


def count_known(layout: Layout) -> int:
    """Count the registrations: a million of them take about half a second."""
    try:
        return sum(map(is_id, os.listdir(layout.known)))
    except FileNotFoundError:  # of before there were any
        return 0


def read_info(layout: Layout, state: ChunkState) -> ChunkStatus | None:
    """Read how a chunk stands, also one that is only registered; None where nothing is known of it."""
    found = read_chunk_status(layout, state)
    return found if found is not None or not exists(layout.known_marker(state.id)) else read_known(layout, state.id)


def known_chunks(layout: Layout, besides: Container[str]) -> Iterator[ChunkStatus]:
    """Read all registrations but these; it costs about 30 µs for each."""
    with suppress(FileNotFoundError):  # of before there were any
        for chunk_id in filter(is_id, os.listdir(layout.known)):
            if chunk_id not in besides and exists(layout.known_marker(chunk_id)):
                yield read_known(layout, chunk_id)


def read_known(layout: Layout, chunk_id: str) -> ChunkStatus:
    """Read what a registration says, of a chunk of which there is nothing else."""
    document = read_document(layout.known_marker(chunk_id))
    total = declared_bytes(document.get("files"))
    return ChunkStatus(chunk_id, "known", *_position((), document), total_bytes=total, known=True)


def read_chunk_status(layout: Layout, state: ChunkState) -> ChunkStatus | None:
    """Read the status of a chunk that was just looked at; None where nothing of it is there."""
    failing, of = read_failing(layout, state.id) if state.failed else (Failing(state.id, "", ""), None)
    given_up = failing.given_up and not _is_asked_anew(state, failing, of)
    name = name_of(state, failing.kind, given_up=given_up)
    if name is None:
        return None
    want = read_document(layout.want_marker(state.id)) if state.want and not state.want.fault else {}
    want = want or (read_document(layout.known_marker(state.id)) if state.asked or state.failed else {})
    known = exists(layout.known_marker(state.id))
    places = state.ready + state.unready
    dataset_id, block_range = _position(places, want)
    if places:
        size = read_size(layout, places[0]) if state.ready else None
        expected = Expected(size, size or 0)
    else:
        size, expected = (
            downloaded_bytes(layout.partial_of(state.id)),
            read_expected(layout, state.id, want.get("files")),
        )
    return ChunkStatus(
        id=state.id,
        state=name,
        dataset_id=dataset_id,
        block_range=block_range,
        size_bytes=size or 0,
        total_bytes=expected.total_bytes,
        error=failing.error or None,
        hint=failing.hint or None,
        attempts=failing.attempts,
        next_attempt_at=failing.next_attempt_at,
        verifying=state.verify is not None and state.verify.fault is None,
        index_errors=index_errors(layout, state.ready),
        least_bytes=max(expected.least_bytes, size or 0),
        known=known,
        cached=known and name == "available" and not state.want and victim_at(layout, state.ready[0]) is not None,
        given_up=name == "failed" and given_up,
    )


def _is_asked_anew(state: ChunkState, failing: Failing, of: Stamp | None) -> bool:
    """Return whether what was given up is asked for by another marker by now, or by one that was touched."""
    asker = state.want or (state.acquire if state.asked else None)
    if asker is None or of is None:
        return False
    first = 1 if failing.kind == "damaged" else 0  # its want has come back as a copy
    return asker.identity[first:] != of[first:]


def read_standing(layout: Layout, state: ChunkState) -> str:
    """Say how a chunk stands, and why, in a few words."""
    chunk = read_chunk_status(layout, state)
    if chunk is None:
        return "it has just changed"
    return f"{chunk.state}, {chunk.error}" if chunk.error else chunk.state


def index_failures_of(layout: Layout, places: Iterable[Place]) -> list[IndexFailure]:
    """Read why indexes of an available chunk could not be made."""
    return [failure for place in places for failure in read_index_failures(layout.path(place))]


def index_errors(layout: Layout, places: Iterable[Place]) -> tuple[str, ...]:
    """Read the same, each in a sentence."""
    return tuple(f"{failure.name}: {failure.error}" for failure in index_failures_of(layout, places))


def read_surroundings(layout: Layout) -> Status:
    """Read what concerns all chunks: the reconciler, the disk, PAUSE and BRAKE."""
    space, holder = read_space(layout.root), find_reconciler(layout)
    paused, braked = (read_document(path) if exists(path) else None for path in (layout.pause, layout.brake))
    # no beat can be written on a disk that is read-only
    trouble = None if holder is None or space.read_only else holder.trouble(time.time())
    reconciler, disk = None if holder is None else holder.says, DiskStatus(space.free_bytes, space.read_only)
    return Status({}, (), reconciler, disk, paused, braked, trouble, followed=read_followed(layout))


def read_size(layout: Layout, place: Place) -> int | None:
    """Read from READY how many bytes the chunk there has; None where READY does not say."""
    return declared_bytes(read_document(f"{layout.path(place)}/{READY}").get("files"))


def read_expected(layout: Layout, chunk_id: str, files: object) -> Expected:
    """Tell how large a chunk will be, as its want's `files` and its servers' answers (in PARTS) say."""
    total = declared_bytes(files)
    if total is not None or not isinstance(files, dict):
        return Expected(total, total or 0)
    parts = read_document(f"{layout.partial_of(chunk_id)}/{PARTS}").get("files")
    answered = parts if isinstance(parts, dict) else {}
    sizes = [_int_of(source, "size", _int_of(answered.get(name), "total")) for name, source in files.items()]
    known = [size for size in sizes if size is not None]
    return Expected(sum(known) if len(known) == len(sizes) else None, sum(known))


def read_failing(layout: Layout, chunk_id: str) -> tuple[Failing, Stamp | None]:
    """Read `failed/ID`, whatever it says: the failure, and the stamp of its marker."""
    says = read_document(layout.failed_of(chunk_id))
    kind, error, hint, at = (says.get(key) for key in ("kind", "error", "hint", "next_attempt_at"))
    failing = Failing(
        chunk_id,
        kind if isinstance(kind, str) else "",
        error if isinstance(error, str) else "",
        _int_of(says, "attempts") or 0,
        at if isinstance(at, int | float) else None,
        hint if isinstance(hint, str) else "",
        says.get("transient") is not False and kind not in NO_INTENT,
        says.get("given_up") is True,
    )
    ino, mtime_ns, size = (_int_of(says.get("marker"), key) for key in ("ino", "mtime_ns", "size"))
    return failing, None if ino is None or mtime_ns is None or size is None else (ino, mtime_ns, size)


def stamp_of(path: str) -> Stamp | None:
    """Stamp a file; None where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _position(places: Iterable[Place], want: dict[str, Any]) -> tuple[str | None, range | None]:
    for place in places:
        return place.dataset_id, place.block_range
    match want:
        case {"dataset_id": str(dataset), "block_range": {"start": int(start), "end": int(end)}} if is_id(dataset):
            return dataset, range(start, end)
    return None, None


def _int_of(document: object, key: str, default: int | None = None) -> int | None:
    value = document.get(key) if isinstance(document, dict) else None
    return value if isinstance(value, int) else default
