"""Choosing what is evicted: the chunks that may go, the least recently used first.

Invariant: nothing is chosen that is wanted, asked for, or not registered, as far as a look tells; whether it goes is
judged again under a claim (`reconcile.caching`).
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fsdm.model.errors import InvalidInputError
from fsdm.model.layout import CACHED, READY, WANT
from fsdm.store.disk_usage import bytes_in
from fsdm.store.filesystem import exists
from fsdm.store.json_files import declared_bytes, read_document
from fsdm.store.markers import marker_ids, place_evict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsdm.model.layout import Layout, Place

Outcome = Literal["evicted", "held", "wanted", "in use", "kept"]


@dataclass(frozen=True, slots=True)
class Victim:
    """A chunk that may be evicted, and when it was used last (seconds since the epoch)."""

    place: Place
    used_at: float


@dataclass(frozen=True, slots=True)
class Collected:
    """The outcome of a chunk that was to be evicted, and its bytes.

    *held*: a ref is on it; *wanted*; *in use*: somebody has asked for it since; *kept*: its registration names other
    files, cannot be read, or has gone.
    """

    id: str
    outcome: Outcome
    size_bytes: int


def victims(layout: Layout, places: Iterable[Place]) -> list[Victim]:
    """List the chunks that may be evicted, the least recently used first. It costs three stats a chunk."""
    asked = set[str]().union(*map(marker_ids, (layout.want, layout.delete, layout.acquire)))
    free = (place for place in places if place.chunk_id not in asked)
    found = [victim for place in free if (victim := victim_at(layout, place)) is not None]
    return sorted(found, key=lambda victim: (victim.used_at, victim.place))


def victim_at(layout: Layout, place: Place) -> Victim | None:
    """Return the chunk that is here as one that may be evicted; None where it was wanted last, or is not registered."""
    path, chunk_id = layout.path(place), place.chunk_id
    try:
        known, wanted_ns = os.lstat(layout.known_marker(chunk_id)), os.lstat(f"{path}/{WANT}").st_mtime_ns
    except OSError:
        return None
    registered_ns = min(known.st_ctime_ns, known.st_mtime_ns)
    if registered_ns <= wanted_ns:
        return None
    try:
        return Victim(place, os.lstat(f"{path}/{CACHED}").st_mtime)
    except OSError:
        return Victim(place, registered_ns / 1e9)


def chunk_bytes(layout: Layout, place: Place) -> int:
    """Tell how many bytes a chunk has: as READY says, else as its files do."""
    size = declared_bytes(read_document(f"{layout.path(place)}/{READY}").get("files"))
    return bytes_in(layout.path(place))[0] if size is None else size


def choose(layout: Layout, places: Iterable[Place], free_bytes: float, before: float) -> list[tuple[Victim, int]]:
    """Choose victims of as many bytes, all last used before that time; with their sizes."""
    chosen = []
    for victim in victims(layout, places):
        if free_bytes <= 0 or victim.used_at > before:
            break
        size = chunk_bytes(layout, victim.place)
        free_bytes -= size
        chosen.append((victim, size))
    return chosen


def to_be_collected(layout: Layout, places: list[Place], to_bytes: int, idle_s: float) -> list[tuple[Victim, int]]:
    """Choose what is to go so that at most so many bytes stay here, of what was not used for so long.

    Raises:
        InvalidInputError: one of these is below zero.
    """
    for field, value in (("to_bytes", to_bytes), ("idle_s", idle_s)):
        if not value >= 0:
            raise InvalidInputError("must not be below zero", field=field)
    here_bytes = sum(chunk_bytes(layout, place) for place in places) if to_bytes else math.inf
    return choose(layout, places, here_bytes - to_bytes, time.time() - idle_s)


def errored(layout: Layout) -> list[tuple[str, int]]:
    """List the chunks that have failed and are not being fetched, with the bytes that have come of them."""
    found = []
    for chunk_id in sorted(marker_ids(layout.failed)):
        kind = read_document(layout.failed_of(chunk_id)).get("kind")
        if kind in {"transfer", "damaged"}:
            found.append((chunk_id, bytes_in(layout.partial_of(chunk_id))[0]))
    return found


class Asked:
    """Evictions that were asked for, and what comes of them; those of `failed` ones as well."""

    def __init__(
        self, layout: Layout, chosen: list[tuple[Victim, int]], failed: Sequence[tuple[str, int]] = ()
    ) -> None:
        self._layout = layout
        self._chosen = chosen
        self._failed = failed
        ids = [*(victim.place.chunk_id for victim, _ in chosen), *(chunk_id for chunk_id, _ in failed)]
        self._left = set(ids)

    def is_done(self) -> bool:
        """Tell whether all have been judged."""
        if self._left:
            self._left &= set(os.listdir(self._layout.evict))
        return not self._left

    def outcomes(self) -> list[Collected]:
        """List what has become of each."""
        chunks = [Collected(one.place.chunk_id, _outcome(self._layout, one), size) for one, size in self._chosen]
        return chunks + [Collected(one, _outcome_of_failed(self._layout, one), size) for one, size in self._failed]


def ask(layout: Layout, chosen: list[tuple[Victim, int]], failed: Sequence[tuple[str, int]] = ()) -> Asked:
    """Ask for these to be evicted."""
    asked = Asked(layout, chosen, failed)
    for chunk_id in (*(victim.place.chunk_id for victim, _ in chosen), *(one for one, _ in failed)):
        place_evict(layout, chunk_id)
    return asked


def _outcome_of_failed(layout: Layout, chunk_id: str) -> Outcome:
    return "in use" if exists(layout.partial_of(chunk_id)) else "evicted"


def _outcome(layout: Layout, victim: Victim) -> Outcome:
    path, chunk_id = layout.path(victim.place), victim.place.chunk_id
    if not exists(f"{path}/{READY}"):
        return "evicted"
    if exists(layout.acquire_marker(chunk_id)):
        return "in use"
    if exists(layout.want_marker(chunk_id)):
        return "wanted"
    again = victim_at(layout, victim.place)
    if again is not None:
        return "held" if again.used_at > victim.used_at else "kept"
    return "wanted" if exists(layout.known_marker(chunk_id)) else "kept"
