"""The difference of an assignment and a data directory: the wants and deletes that close it.

A chunk that is here with the same files, or is wanted so already, is left alone. Only `place` changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fsdm.model.errors import DataDirectoryError, InvalidInputError, StaleMarkerError
from fsdm.model.layout import READY, WANT_MAX_BYTES
from fsdm.reconcile.delete_brake import place_deletes
from fsdm.store.catalog import Catalog
from fsdm.store.filesystem import exists
from fsdm.store.json_files import read_manifest
from fsdm.store.markers import look_at, marker_ids, place_want, read_want

if TYPE_CHECKING:
    from fsdm.lists.assignment import Assignment
    from fsdm.model.documents import DataChunk, Manifest
    from fsdm.model.layout import Layout


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


class Comparison:
    """A data directory as it stands now, to be compared with what is asked for."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._paths: dict[str, list[str]] = {}
        for place in Catalog(layout).listing():
            path = layout.path(place)
            if exists(f"{path}/{READY}"):
                self._paths.setdefault(place.chunk_id, []).append(path)
        self._wanted = _ids(layout.want)
        self._deleted = _ids(layout.delete)

    def with_assignment(self, assignment: Assignment) -> Difference:
        """Find what makes the directory equal to the assignment."""
        found = Difference(here=len(self._paths.keys() - self._deleted))
        for chunk in assignment:
            self._add(found, chunk)
        for chunk_id in sorted({*self._paths, *self._wanted}):
            if chunk_id not in assignment:
                self._remove(found, chunk_id)
        return found

    def with_deletes(self, ids: list[str]) -> Difference:
        """Find what the deletes of these ids would do."""
        found = Difference(here=len(self._paths.keys() - self._deleted))
        for chunk_id in dict.fromkeys(ids):
            self._remove(found, chunk_id)
        return found

    def knows(self, chunk_id: str) -> bool:
        """Tell whether this id is here, wanted or deleted."""
        return chunk_id in self._paths or chunk_id in self._wanted or chunk_id in self._deleted

    def _add(self, found: Difference, chunk: DataChunk) -> None:
        manifests = self._manifests(chunk.id)
        is_here = any(manifest.satisfies(chunk, sha256_may_follow=True) for manifest in manifests)
        is_sure = any(manifest.satisfies(chunk) for manifest in manifests)
        if chunk.id not in self._deleted and (self._is_wanted_so(chunk) if chunk.id in self._wanted else is_sure):
            found.unchanged += 1
            return
        found.wanted.append(chunk.id)
        if is_here:
            return
        found.replaced += bool(manifests) and chunk.id not in self._deleted
        found.fetch_bytes += sum(file.size or 0 for file in chunk.files.values())
        found.undeclared += sum(file.size is None for file in chunk.files.values())

    def _remove(self, found: Difference, chunk_id: str) -> None:
        if chunk_id in self._deleted and chunk_id not in self._wanted:
            found.unchanged += 1
            return
        found.deleted.append(chunk_id)
        found.going += chunk_id in self._paths and chunk_id not in self._deleted
        found.freed_bytes += sum(manifest.size_bytes for manifest in self._manifests(chunk_id))

    def _manifests(self, chunk_id: str) -> list[Manifest]:
        found = map(read_manifest, self._paths.get(chunk_id, ()))
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


def place(layout: Layout, difference: Difference, assignment: Assignment, *, meant: bool) -> None:
    """Place the markers of a difference, the wants first: to keep data is the safer half.

    `meant`: no brake is to hold the deletes back, however many they are.
    """
    for chunk_id in difference.wanted:
        place_want(layout, assignment.chunk(chunk_id))
    place_deletes(layout, difference.deleted, meant=meant)
