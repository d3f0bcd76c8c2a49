"""The difference of an assignment and a data directory: the wants and deletes that close it.

A chunk that is here with the same files, or is wanted so already, is left alone. Only `place` changes anything.
Invariant: what is here is believed to be what a line wants only where READY says so, or said so when that line was
compared before, and is older than that.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fsdm.model.errors import DataDirectoryError, InvalidInputError, StaleMarkerError
from fsdm.model.layout import READY, WANT_MAX_BYTES
from fsdm.reconcile.delete_brake import Going, place_deletes
from fsdm.store.catalog import Catalog
from fsdm.store.json_files import declared_bytes, read_document, read_manifest
from fsdm.store.markers import look_at, marker_ids, place_delete, place_want_text, read_want

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container

    from fsdm.lists.assignment import Assignment
    from fsdm.model.documents import DataChunk, Manifest
    from fsdm.model.layout import Layout, Place
    from fsdm.model.plain_wants import PlainWant


@dataclass(slots=True)
class Difference:
    """The ids that get a marker (`wanted`, `deleted`), and what that does to the chunks.

    `here` chunks are available now; of those `going` are deleted, and `replaced` are wanted with other files.
    `fetch_bytes` is the sum of the declared sizes that are to be fetched; `undeclared` files declare none.
    """

    wanted: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    unchanged: int = 0
    here: int = 0
    going: int = 0
    replaced: int = 0
    fetch_bytes: int = 0
    undeclared: int = 0
    freed_bytes: int = 0
    replaced_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Before:
    """An earlier comparison with the same lines: when it began, and when its markers had been placed (ctimes in ns).

    `unproven`: the ids of which it had found a READY, and none that says what their lines want.
    """

    began_ns: int
    placed_ns: int
    unproven: Container[str]


class Comparison:
    """A data directory as it stands now, to be compared with what is asked for."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._ready: dict[str, list[tuple[Place, int]]] = {}  # by id: where READY is, and its ctime in ns
        for place in Catalog(layout).listing():
            try:
                changed_ns = os.stat(f"{layout.path(place)}/{READY}", follow_symlinks=False).st_ctime_ns
            except OSError:
                continue
            self._ready.setdefault(place.chunk_id, []).append((place, changed_ns))
        self._wanted = _ids(layout.want)
        self._deleted = _ids(layout.delete)
        self.found = Difference(here=len(self._ready.keys() - self._deleted))
        self.unproven: list[str] = []

    def take(self, chunk: DataChunk) -> None:
        """Compare a chunk of a list."""
        found, manifests = self.found, self._manifests(chunk.id)
        is_here = any(manifest.satisfies(chunk, sha256_may_follow=True) for manifest in manifests)
        is_sure = any(manifest.satisfies(chunk) for manifest in manifests)
        if manifests and not is_sure:
            self.unproven.append(chunk.id)
        if chunk.id not in self._deleted and (self._is_wanted_so(chunk) if chunk.id in self._wanted else is_sure):
            found.unchanged += 1
            return
        found.wanted.append(chunk.id)
        if is_here:
            return
        if chunk.id not in self._deleted:
            found.replaced += bool(manifests)
            found.replaced_bytes += sum(manifest.size_bytes for manifest in manifests)
        found.fetch_bytes += sum(file.size or 0 for file in chunk.files.values())
        found.undeclared += sum(file.size is None for file in chunk.files.values())

    def takes_plain(self, want: PlainWant) -> bool:
        """Compare a chunk of a list by its line alone; False where there is something to compare it with."""
        if self.knows(want.id):
            return False
        self.found.wanted.append(want.id)
        self.found.fetch_bytes += want.size_bytes
        return True

    def takes_known(self, place: Place, before: Before) -> bool:
        """Compare a chunk whose line was compared before; False where that does not tell how it stands now."""
        chunk_id = place.chunk_id
        if chunk_id in self._deleted:
            return False
        if chunk_id in self._wanted:
            want = look_at(self._layout.want_marker(chunk_id))
            is_as_it_was = want is not None and want.ctime_ns < before.placed_ns
            if is_as_it_was and chunk_id in self._ready:
                self.unproven.append(chunk_id)
        else:
            found = self._ready.get(chunk_id, ())
            is_as_it_was = (
                len(found) == 1
                and found[0][0] == place
                and found[0][1] < before.began_ns
                and chunk_id not in before.unproven
            )
        self.found.unchanged += is_as_it_was
        return is_as_it_was

    def close(self, listed: Assignment) -> Difference:
        """Find what makes the directory equal to the list, of which all chunks were taken."""
        for chunk_id in sorted({*self._ready, *self._wanted}):
            if chunk_id not in listed:
                self._remove(chunk_id)
        return self.found

    def with_deletes(self, ids: Collection[str]) -> Difference:
        """Find what the deletes of these ids would do."""
        for chunk_id in dict.fromkeys(ids):
            self._remove(chunk_id)
        return self.found

    @property
    def going(self) -> Going:
        """The loss by the difference: chunks that are deleted or replaced."""
        found = self.found
        size_bytes = found.freed_bytes + found.replaced_bytes
        return Going(found.going + found.replaced, found.here, size_bytes, self._here_bytes)

    def _here_bytes(self) -> int:
        here = (places for chunk_id, places in self._ready.items() if chunk_id not in self._deleted)
        paths = (self._layout.path(place) for places in here for place, _ in places)
        return sum(declared_bytes(read_document(f"{path}/{READY}").get("files")) or 0 for path in paths)

    def knows(self, chunk_id: str) -> bool:
        """Tell whether this id is here, wanted or deleted."""
        return chunk_id in self._ready or chunk_id in self._wanted or chunk_id in self._deleted

    def _remove(self, chunk_id: str) -> None:
        found = self.found
        if chunk_id in self._deleted and chunk_id not in self._wanted:
            found.unchanged += 1
            return
        found.deleted.append(chunk_id)
        found.going += chunk_id in self._ready and chunk_id not in self._deleted
        found.freed_bytes += sum(manifest.size_bytes for manifest in self._manifests(chunk_id))

    def _manifests(self, chunk_id: str) -> list[Manifest]:
        found = (read_manifest(self._layout.path(place)) for place, _ in self._ready.get(chunk_id, ()))
        return [manifest for manifest in found if manifest is not None]

    def _is_wanted_so(self, chunk: DataChunk) -> bool:
        want = look_at(self._layout.want_marker(chunk.id), limit=WANT_MAX_BYTES)
        try:
            return want is not None and want.fault is None and read_want(self._layout, chunk.id, want) == chunk
        except (InvalidInputError, StaleMarkerError, OSError):  # a marker that cannot be read is replaced
            return False


def _ids(directory: str) -> set[str]:
    try:
        return marker_ids(directory)
    except OSError as e:
        hint = "start the reconciler there first: `fsdm run -d DIR`"
        raise DataDirectoryError(f"{directory} cannot be listed: {e.strerror}", hint=hint) from e


def place(
    layout: Layout,
    difference: Difference,
    assignment: Assignment,
    *,
    meant: bool,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Place the markers of a difference, the wants first: to keep data is the safer half.

    `meant`: no brake is to hold the deletes back, however many they are. `check` is called before each, and may raise:
    to place them once more is no harm.
    """

    def remove(chunk_id: str) -> None:
        check()
        place_delete(layout, chunk_id)

    wanted = difference.wanted
    for chunk_id, text in zip(wanted, assignment.documents(wanted), strict=True):
        check()
        place_want_text(layout, chunk_id, text)
    place_deletes(layout, difference.deleted, meant=meant, place=remove)
